//! Settings of traces under the names that OpenTelemetry gave them. Pure: the program's `config` says what is set.
//!
//! Nothing is exported unless an endpoint is set. An empty value is none, as the specification has it; a value that
//! means nothing is an error, not the default.

use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;

use super::trace::Sampler;

#[cfg(test)]
mod tests;

/// The names that are read.
pub static NAMES: [&str; 20] = [
    "OTEL_SDK_DISABLED",
    "OTEL_TRACES_EXPORTER",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
    "OTEL_SERVICE_NAME",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_COMPRESSION",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
];

/// Most spans that a queue may hold.
const QUEUE_MAX: usize = 1 << 20;

/// How spans travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC.
    Grpc,
    /// Protobuf over HTTP/1.1.
    Http,
}

/// Where spans go.
#[derive(Debug, Clone)]
pub struct Target {
    /// `http` or `https`, with the whole path for [`Protocol::Http`].
    pub url: Uri,
    /// How they travel.
    pub protocol: Protocol,
    /// Headers of each request; their values may be secrets and are marked so.
    pub headers: HeaderMap,
    /// Longest time for one batch, with what is tried again; 10 s.
    pub timeout: Duration,
    /// A file of PEM roots, which `https` needs.
    pub roots: Option<PathBuf>,
}

/// Settings of traces.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which traces that begin here are recorded; one of a hundred.
    pub sampler: Sampler,
    /// Where spans go; none if they go nowhere.
    pub target: Option<Target>,
    /// Name of the program in traces, if it is another than its own.
    pub service_name: Option<String>,
    /// What else is said of the program.
    pub attributes: Vec<(String, String)>,
    /// Spans that may wait; 2048. Those that find no place are dropped and counted.
    pub queue_max: usize,
    /// Longest time a span waits for others; 5 s.
    pub delay: Duration,
    /// Spans sent at once; 512.
    pub batch_max: usize,
}

/// A value that means nothing. The value itself is not shown: it may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} cannot be used: it has to be {wanted}")]
pub struct SettingsError {
    /// The variable.
    pub name: &'static str,
    /// What it has to be.
    pub wanted: &'static str,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sampler: Sampler::default(),
            target: None,
            service_name: None,
            attributes: Vec::new(),
            queue_max: 2048,
            delay: Duration::from_secs(5),
            batch_max: 512,
        }
    }
}

impl Settings {
    /// Settings of what is set, by name.
    ///
    /// # Errors
    /// [`SettingsError`] names the first variable that cannot be used.
    pub fn read(set: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let set =
            |name: &str| set(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let defaults = Self::default();
        let mut attributes = match set("OTEL_RESOURCE_ATTRIBUTES") {
            Some(text) => pairs(&text).ok_or(SettingsError {
                name: "OTEL_RESOURCE_ATTRIBUTES",
                wanted: "a list such as a=b,c=d",
            })?,
            None => Vec::new(),
        };
        let at = attributes.iter().position(|(key, _)| key == "service.name");
        let named = at.map(|at| attributes.remove(at).1);
        let queue_max = number(&set, "OTEL_BSP_MAX_QUEUE_SIZE", defaults.queue_max)?;
        let batch_max = number(&set, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", defaults.batch_max.min(queue_max))?;
        if queue_max > QUEUE_MAX || batch_max > queue_max {
            let wanted = "at most 1048576, and at least OTEL_BSP_MAX_EXPORT_BATCH_SIZE";
            return Err(SettingsError { name: "OTEL_BSP_MAX_QUEUE_SIZE", wanted });
        }
        Ok(Self {
            sampler: sampler(&set)?,
            target: if is_off(&set)? { None } else { target(&set)? },
            service_name: set("OTEL_SERVICE_NAME").or(named),
            attributes,
            queue_max,
            delay: millis(&set, "OTEL_BSP_SCHEDULE_DELAY")?.unwrap_or(defaults.delay),
            batch_max,
        })
    }
}

fn is_off(set: &impl Fn(&str) -> Option<String>) -> Result<bool, SettingsError> {
    let is_disabled = set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    match set("OTEL_TRACES_EXPORTER").as_deref() {
        None | Some("otlp") => Ok(is_disabled),
        Some("none") => Ok(true),
        Some(_) => Err(SettingsError { name: "OTEL_TRACES_EXPORTER", wanted: "otlp or none" }),
    }
}

fn sampler(set: &impl Fn(&str) -> Option<String>) -> Result<Sampler, SettingsError> {
    let (name, argument) = (set("OTEL_TRACES_SAMPLER"), set("OTEL_TRACES_SAMPLER_ARG"));
    let name = match (name, &argument) {
        (None, None) => return Ok(Sampler::default()),
        (None, Some(_)) => "parentbased_traceidratio".to_owned(),
        (Some(name), _) => name,
    };
    let wanted = "always_on, always_off or traceidratio, with or without parentbased_ before it, and the share in \
                  OTEL_TRACES_SAMPLER_ARG from 0 to 1";
    Sampler::named(&name, argument.as_deref()).ok_or(SettingsError { name: "OTEL_TRACES_SAMPLER", wanted })
}

/// What is set for traces, else for all signals, with the name it stands under.
fn either(
    set: &impl Fn(&str) -> Option<String>,
    of_traces: &'static str,
    of_all: &'static str,
) -> Option<(&'static str, String)> {
    let named = |name: &'static str| set(name).map(|value| (name, value));
    named(of_traces).or_else(|| named(of_all))
}

fn target(set: &impl Fn(&str) -> Option<String>) -> Result<Option<Target>, SettingsError> {
    let found = either(set, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT");
    let Some((name, endpoint)) = found else { return Ok(None) };
    let wanted = "a URL such as http://collector:4318; https needs OTEL_EXPORTER_OTLP_CERTIFICATE";
    let wrong = || SettingsError { name, wanted };
    let url: Uri = endpoint.parse().map_err(|_| wrong())?;
    let is_tls = match (url.scheme_str(), url.host()) {
        (Some("http"), Some(_)) => false,
        (Some("https"), Some(_)) => true,
        _ => return Err(wrong()),
    };
    if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(wrong());
    }
    let roots = either(set, "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE");
    let roots = roots.map(|(_, path)| PathBuf::from(path));
    if is_tls && roots.is_none() {
        return Err(wrong());
    }
    let protocol = protocol(set)?;
    // The address for all signals is where their paths begin.
    let is_base = name == "OTEL_EXPORTER_OTLP_ENDPOINT" && protocol == Protocol::Http;
    let url = if is_base { below(&url).ok_or_else(wrong)? } else { url };
    if let Some(compression) = set("OTEL_EXPORTER_OTLP_COMPRESSION")
        && compression != "none"
    {
        return Err(SettingsError { name: "OTEL_EXPORTER_OTLP_COMPRESSION", wanted: "none" });
    }
    let timeout = match millis(set, "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT")? {
        Some(timeout) => Some(timeout),
        None => millis(set, "OTEL_EXPORTER_OTLP_TIMEOUT")?,
    };
    let timeout = timeout.unwrap_or(Duration::from_secs(10));
    Ok(Some(Target { url, protocol, headers: headers(set)?, timeout, roots }))
}

fn protocol(set: &impl Fn(&str) -> Option<String>) -> Result<Protocol, SettingsError> {
    let found = either(set, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL");
    match found.as_ref().map(|(name, value)| (*name, value.as_str())) {
        None | Some((_, "http/protobuf")) => Ok(Protocol::Http),
        Some((_, "grpc")) => Ok(Protocol::Grpc),
        Some((name, _)) => Err(SettingsError { name, wanted: "grpc or http/protobuf" }),
    }
}

/// The path of traces below that of all signals.
fn below(url: &Uri) -> Option<Uri> {
    let path = format!("{}/v1/traces", url.path().trim_end_matches('/'));
    let mut parts = url.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
    Uri::from_parts(parts).ok()
}

fn headers(set: &impl Fn(&str) -> Option<String>) -> Result<HeaderMap, SettingsError> {
    let found = either(set, "OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS");
    let Some((name, text)) = found else { return Ok(HeaderMap::new()) };
    let wrong = || SettingsError { name, wanted: "a list of headers such as api-key=secret,tenant=a" };
    let mut all = HeaderMap::new();
    for (key, value) in pairs(&text).ok_or_else(wrong)? {
        let key = HeaderName::from_bytes(key.to_ascii_lowercase().as_bytes()).map_err(|_| wrong())?;
        let mut value = HeaderValue::from_str(&value).map_err(|_| wrong())?;
        value.set_sensitive(true);
        all.append(key, value);
    }
    Ok(all)
}

/// `KEY=VALUE,…`, values with percent escapes (W3C Baggage without properties).
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let members = text.split(',').map(str::trim).filter(|member| !member.is_empty());
    let pair = |member: &str| {
        let (key, value) = member.split_once('=')?;
        let key = unescaped(key.trim())?;
        (!key.is_empty()).then_some((key, unescaped(value.trim())?))
    };
    members.map(pair).collect()
}

fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|d| u8::try_from(d).ok());
        let (high, low) = (digit(rest.next())?, digit(rest.next())?);
        bytes.push(high << 4 | low);
    }
    String::from_utf8(bytes).ok()
}

fn number(
    set: &impl Fn(&str) -> Option<String>,
    name: &'static str,
    default: usize,
) -> Result<usize, SettingsError> {
    let Some(text) = set(name) else { return Ok(default) };
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or(SettingsError { name, wanted: "a number of at least 1" })
}

fn millis(
    set: &impl Fn(&str) -> Option<String>,
    name: &'static str,
) -> Result<Option<Duration>, SettingsError> {
    let Some(text) = set(name) else { return Ok(None) };
    let number = text.parse().ok().filter(|number| (1..=3_600_000).contains(number));
    number
        .map(|number| Some(Duration::from_millis(number)))
        .ok_or(SettingsError { name, wanted: "a number of milliseconds from 1 to 3600000" })
}
