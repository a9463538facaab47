//! A provider as written, compiled: every value parsed, every mistake named with its field.
//!
//! Nothing is dropped: a provider with a mistake is refused whole.

use std::collections::BTreeMap;
use std::time::Duration;

use ambit_types::Str;
use ambit_types::identity::is_label;

use super::written::{self, Body};
use super::{
    Address, Check, HeaderName, HttpCheck, Invalid, Problem, Provider, STATUS_ON_ERROR_DEFAULT, StringMatch,
    TIMEOUT_DEFAULT,
};
use crate::http::text::text_match;
use crate::normalize::header::{self, is_internal};

/// Shortest and longest time that may be waited.
pub const TIMEOUT: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(10));

/// Most names in one list of headers.
pub const HEADERS_MAX: usize = 64;

/// Headers that frame, route or describe the check itself.
const RESERVED: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Compiles a provider.
///
/// # Errors
/// Every [`Invalid`] field. Source: Istio's `MeshConfig.ExtensionProvider` and its validation.
pub fn compile(written: &written::Provider) -> Result<Provider, Vec<Invalid>> {
    let mut reader = Reader::default();
    if !is_label(&written.name) {
        let problem = if written.name.is_empty() { Problem::Missing } else { Problem::Name };
        reader.bad("name", problem);
    }
    let made = match (&written.envoy_ext_authz_http, &written.envoy_ext_authz_grpc) {
        (Some(http), None) => {
            reader.under = "envoyExtAuthzHttp";
            let common = Common::of_http(http);
            let check = Check::Http(reader.http(http));
            Some((common, check))
        }
        (None, Some(grpc)) => {
            reader.under = "envoyExtAuthzGrpc";
            Some((Common::of_grpc(grpc), Check::Grpc))
        }
        (Some(_), Some(_)) | (None, None) => {
            reader.bad("", Problem::OneWay);
            None
        }
    };
    let made = made.map(|(common, check)| reader.provider(&written.name, &common, check));
    match made {
        Some(provider) if reader.invalid.is_empty() => Ok(provider),
        Some(_) | None => Err(reader.invalid),
    }
}

/// What both ways of asking have in common.
struct Common<'a> {
    service: &'a str,
    port: u32,
    timeout: Option<&'a str>,
    fail_open: bool,
    status_on_error: &'a str,
    body: Option<&'a Body>,
}

impl<'a> Common<'a> {
    fn of_http(http: &'a written::Http) -> Self {
        Self {
            service: &http.service,
            port: http.port,
            timeout: http.timeout.as_deref(),
            fail_open: http.fail_open,
            status_on_error: &http.status_on_error,
            body: http.include_request_body_in_check.as_ref(),
        }
    }

    fn of_grpc(grpc: &'a written::Grpc) -> Self {
        Self {
            service: &grpc.service,
            port: grpc.port,
            timeout: grpc.timeout.as_deref(),
            fail_open: grpc.fail_open,
            status_on_error: &grpc.status_on_error,
            body: grpc.include_request_body_in_check.as_ref(),
        }
    }
}

#[derive(Default)]
struct Reader {
    under: &'static str,
    invalid: Vec<Invalid>,
}

impl Reader {
    fn bad(&mut self, field: &str, problem: Problem) {
        let dot = if self.under.is_empty() || field.is_empty() { "" } else { "." };
        let at = format!("{}{dot}{field}", self.under);
        let at = if at.is_empty() { "provider".to_owned() } else { at };
        self.invalid.push(Invalid { at, problem });
    }

    fn provider(&mut self, name: &str, common: &Common<'_>, check: Check) -> Provider {
        if common.body.is_some() {
            self.bad("includeRequestBodyInCheck", Problem::Body);
        }
        Provider {
            name: name.into(),
            service: self.service(common.service),
            port: self.port(common.port),
            timeout: self.timeout(common.timeout),
            fail_open: common.fail_open,
            status_on_error: self.status(common.status_on_error),
            check,
        }
    }

    fn service(&mut self, text: &str) -> Address {
        let (namespace, hostname) = match text.split_once('/') {
            Some((namespace, hostname)) => (Some(namespace), hostname),
            None => (None, text),
        };
        if text.is_empty() {
            self.bad("service", Problem::Missing);
        } else if !namespace.is_none_or(is_label) || !is_host(hostname) {
            self.bad("service", Problem::Service);
        }
        Address { namespace: namespace.map(Str::from), hostname: hostname.to_ascii_lowercase().into() }
    }

    fn port(&mut self, number: u32) -> u16 {
        match u16::try_from(number) {
            Ok(port) if port > 0 => port,
            Ok(_) | Err(_) => {
                self.bad("port", Problem::Port);
                0
            }
        }
    }

    fn timeout(&mut self, text: Option<&str>) -> Duration {
        let Some(text) = text else { return TIMEOUT_DEFAULT };
        duration(text).filter(|time| (TIMEOUT.0..=TIMEOUT.1).contains(time)).unwrap_or_else(|| {
            self.bad("timeout", Problem::Timeout);
            TIMEOUT_DEFAULT
        })
    }

    fn status(&mut self, text: &str) -> u16 {
        if text.is_empty() {
            return STATUS_ON_ERROR_DEFAULT;
        }
        let digits = text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
        let status = text.parse().ok().filter(|status| digits && (400..600).contains(status));
        status.unwrap_or_else(|| {
            self.bad("statusOnError", Problem::Status);
            STATUS_ON_ERROR_DEFAULT
        })
    }

    fn http(&mut self, http: &written::Http) -> HttpCheck {
        let prefix = &http.path_prefix;
        if !prefix.is_empty() && !is_path(prefix) {
            self.bad("pathPrefix", Problem::Path);
        }
        let mut sent = self.names("includeHeadersInCheck", &http.include_headers_in_check);
        sent.extend(self.names("includeRequestHeadersInCheck", &http.include_request_headers_in_check));
        if sent.len() > HEADERS_MAX {
            let problem = Problem::TooMany { count: sent.len(), max: HEADERS_MAX };
            self.bad("includeRequestHeadersInCheck", problem);
        }
        HttpCheck {
            path_prefix: prefix.trim_end_matches('/').into(),
            request_headers: sent,
            additional_headers: self.additional(&http.include_additional_headers_in_check),
            upstream_on_allow: self.names("headersToUpstreamOnAllow", &http.headers_to_upstream_on_allow),
            downstream_on_allow: self
                .names("headersToDownstreamOnAllow", &http.headers_to_downstream_on_allow),
            downstream_on_deny: self.names("headersToDownstreamOnDeny", &http.headers_to_downstream_on_deny),
        }
    }

    fn names(&mut self, field: &str, list: &[String]) -> Vec<StringMatch> {
        if list.len() > HEADERS_MAX {
            self.bad(field, Problem::TooMany { count: list.len(), max: HEADERS_MAX });
        }
        let mut names = Vec::new();
        for (index, text) in list.iter().take(HEADERS_MAX).enumerate() {
            match name(text) {
                Some(name) => names.push(name),
                None => self.bad(&format!("{field}[{index}]"), Problem::HeaderName),
            }
        }
        names
    }

    fn additional(&mut self, map: &BTreeMap<String, String>) -> BTreeMap<HeaderName, Str> {
        const FIELD: &str = "includeAdditionalHeadersInCheck";
        if map.len() > HEADERS_MAX {
            self.bad(FIELD, Problem::TooMany { count: map.len(), max: HEADERS_MAX });
        }
        let mut headers = BTreeMap::new();
        for (name, value) in map.iter().take(HEADERS_MAX) {
            let at = format!("{FIELD}[{name}]");
            let Some(name) = HeaderName::parse(name) else {
                self.bad(&at, Problem::HeaderName);
                continue;
            };
            // Written by the operator in ASCII; anything else would be sent as bytes nobody expects.
            let sends = value.is_ascii() && header::check(name.as_str().as_bytes(), value.as_bytes()).is_ok();
            if RESERVED.contains(&name.as_str()) || is_internal(name.as_str()) {
                self.bad(&at, Problem::Reserved);
            } else if !sends {
                self.bad(&at, Problem::HeaderValue);
            } else {
                headers.insert(name, value.as_str().into());
            }
        }
        headers
    }
}

/// A name of a header, or one with a star at an end.
fn name(text: &str) -> Option<StringMatch> {
    let read = text_match(text);
    let bare: &str = match &read {
        StringMatch::Exact(bare) | StringMatch::Prefix(bare) | StringMatch::Suffix(bare) => bare,
        StringMatch::Presence => return None,
    };
    (HeaderName::parse(bare).is_some() && !bare.contains('*')).then(|| text_match(&text.to_ascii_lowercase()))
}

fn is_host(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    !text.is_empty() && text.len() <= 253 && text.split('.').all(is_label)
}

fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#' | b'\\'))
}

/// Numbers with units, such as `1m30s` or `0.5s`.
fn duration(text: &str) -> Option<Duration> {
    let mut seconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit = &rest[digits..];
        let length = unit.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(unit.len());
        let factor = match &unit[..length] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            _ => return None,
        };
        seconds += number * factor;
        rest = &unit[length..];
    }
    Duration::try_from_secs_f64(seconds).ok()
}
