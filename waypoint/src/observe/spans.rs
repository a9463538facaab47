//! A request as spans: one of the waypoint's own, and below it one for each attempt to have it answered. Pure.
//!
//! Names of attributes are OpenTelemetry's for HTTP (semantic conventions 1.27 and later); Istio's and Envoy's names
//! stand beside them, because dashboards ask for those.

use std::net::SocketAddr;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ambit_types::Workload;

use super::Record;
use super::exchange::Try;
use super::otlp::{Code, KeyValue, Kind, Span, Status};
use super::trace;

#[cfg(test)]
mod tests;

/// The context's parent may be another process, and whether it is, is said (`trace.proto`, SpanFlags).
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// Methods that are told apart; others are `_OTHER`.
static METHODS: [&str; 9] = ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];

/// What a span is about besides its record.
#[derive(Debug, Clone, Copy)]
pub(super) struct About<'a> {
    /// The request's span.
    pub(super) span: trace::Span,
    /// This waypoint.
    pub(super) own: &'a Workload,
    /// When the request began, by the clock of attempts.
    pub(super) begun: Instant,
    /// Attempts, in order.
    pub(super) tries: &'a [Try],
}

/// The spans of a request that is over.
pub(super) fn of(record: &Record<'_>, about: &About<'_>) -> impl Iterator<Item = Span> {
    let attempts = about.tries.iter().map(|one| client(record, about, one));
    std::iter::once(server(record, about)).chain(attempts.collect::<Vec<_>>())
}

fn nanos(at: SystemTime) -> u64 {
    u64::try_from(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

/// The rule that took it, else the port that was called: never what a client wrote.
fn name(record: &Record<'_>) -> String {
    let host =
        || record.service.map_or_else(|| record.target.ip().to_string(), |key| key.hostname.to_string());
    record.route.map_or_else(|| format!("{}:{}/*", host(), record.target.port()), str::to_owned)
}

fn blank(about: &About<'_>, span: u64, parent: u64, kind: Kind) -> Span {
    Span {
        trace_id: about.span.trace.bytes().to_vec(),
        span_id: span.to_be_bytes().to_vec(),
        parent_span_id: if parent == 0 { Vec::new() } else { parent.to_be_bytes().to_vec() },
        kind: kind.into(),
        flags: HAS_IS_REMOTE | u32::from(about.span.is_sampled),
        ..Span::default()
    }
}

fn error(message: impl Into<String>) -> Option<Status> {
    Some(Status { message: message.into(), code: Code::Error.into() })
}

fn server(record: &Record<'_>, about: &About<'_>) -> Span {
    let mut span = blank(about, about.span.span, about.span.parent, Kind::Server);
    if about.span.parent != 0 {
        span.flags |= IS_REMOTE;
    }
    span.name = name(record);
    span.start_time_unix_nano = nanos(record.started);
    span.end_time_unix_nano = nanos(record.started + record.duration);
    span.attributes = http(record);
    span.attributes.extend(ends(record, about.own));
    span.attributes.extend(decision(record));
    if record.code >= 500 {
        span.status = error(record.reason.map(|reason| reason.to_string()).unwrap_or_default());
        let kind = record.reason.map_or_else(|| record.code.to_string(), |reason| reason.code().to_owned());
        span.attributes.push(KeyValue::text("error.type", kind));
    }
    span
}

fn method(record: &Record<'_>) -> impl Iterator<Item = KeyValue> {
    let asked = record.method.unwrap_or_default();
    let known = METHODS.contains(&asked);
    let original = (!known).then(|| KeyValue::text("http.request.method_original", asked));
    std::iter::once(KeyValue::text("http.request.method", if known { asked } else { "_OTHER" }))
        .chain(original)
}

fn http(record: &Record<'_>) -> Vec<KeyValue> {
    let mut all: Vec<KeyValue> = method(record).collect();
    let host = record.service.map_or_else(|| record.target.ip().to_string(), |key| key.hostname.to_string());
    all.extend([
        KeyValue::text("url.scheme", "http"),
        KeyValue::text("url.path", record.path),
        KeyValue::text("server.address", host),
        KeyValue::number("server.port", record.target.port()),
        KeyValue::text("client.address", record.source_address.ip().to_string()),
        KeyValue::number("client.port", record.source_address.port()),
        KeyValue::text("network.protocol.name", "http"),
        KeyValue::text("network.protocol.version", version(record)),
        KeyValue::number("http.request.body.size", record.bytes_received),
        KeyValue::number("http.response.body.size", record.bytes_sent),
    ]);
    if record.code != 0 {
        all.push(KeyValue::number("http.response.status_code", record.code));
        all.push(KeyValue::number("http.status_code", record.code));
    }
    if record.protocol == "grpc" {
        all.push(KeyValue::text("rpc.system", "grpc"));
        all.extend(record.grpc_status.map(|status| KeyValue::number("rpc.grpc.status_code", status)));
    }
    all.extend(record.user_agent.as_deref().map(|agent| KeyValue::text("user_agent.original", agent)));
    all.extend(record.route.map(|route| KeyValue::text("http.route", route)));
    // Envoy's names.
    all.push(KeyValue::text("http.method", record.method.unwrap_or_default()));
    all.push(KeyValue::text("response_flags", record.flag));
    all.push(KeyValue::text("peer.address", record.source_address.ip().to_string()));
    all.extend(record.request_id.as_deref().map(|id| KeyValue::text("guid:x-request-id", id)));
    all.extend(record.backend.map(|backend| KeyValue::text("upstream_cluster", &*backend.hostname)));
    all
}

fn version(record: &Record<'_>) -> &'static str {
    record.version.and_then(|version| version.strip_prefix("HTTP/")).unwrap_or_default()
}

/// Who called whom by way of whom, in Istio's words.
fn ends(record: &Record<'_>, own: &Workload) -> Vec<KeyValue> {
    let mut all = vec![
        KeyValue::text("istio.canonical_service", &*own.canonical_name),
        KeyValue::text("istio.canonical_revision", revision(own)),
        KeyValue::text("istio.namespace", &*own.namespace),
        KeyValue::text("istio.cluster_id", &*own.cluster_id),
        KeyValue::text("source.principal", record.source_identity.to_string()),
    ];
    let sides = [("source", "downstream", record.source), ("destination", "upstream", record.destination)];
    for (side, stream, workload) in sides {
        let Some(workload) = workload else { continue };
        let mut push = |name: &str, value: &str| {
            if !value.is_empty() {
                all.push(KeyValue::text(&format!("istio.{name}"), value));
            }
        };
        push(&format!("{side}_workload"), &workload.workload_name);
        push(&format!("{side}_namespace"), &workload.namespace);
        push(&format!("{side}_cluster_id"), &workload.cluster_id);
        push(&format!("{side}_canonical_service"), &workload.canonical_name);
        push(&format!("{side}_canonical_revision"), revision(workload));
        push(&format!("{side}_app"), &workload.canonical_name);
        push(&format!("{side}_app_version"), revision(workload));
        push(&format!("{side}_instance_name"), &workload.name);
        push(&format!("{stream}.workload"), &workload.workload_name);
        push(&format!("{stream}.namespace"), &workload.namespace);
    }
    all
}

fn revision(workload: &Workload) -> &str {
    if workload.canonical_revision.is_empty() { "latest" } else { &workload.canonical_revision }
}

/// Why it went as it went.
fn decision(record: &Record<'_>) -> Vec<KeyValue> {
    let mut all = vec![KeyValue::text("ambit.conn.id", record.conn_id.to_string())];
    all.extend(record.reason.map(|reason| KeyValue::text("ambit.reason", reason.code())));
    all.extend(record.decided_by.map(|policy| KeyValue::text("ambit.policy", policy.to_string())));
    for told in record.dry_run {
        let (verdict, policy) = told.split_once(" by ").unwrap_or((told, ""));
        let kind = if verdict == "deny" { "deny" } else { "allow" };
        let prefix = format!("istio.authorization.dry_run.{kind}_policy");
        all.push(KeyValue::text(&format!("{prefix}.name"), policy));
        all.push(KeyValue::text(&format!("{prefix}.result"), verdict));
    }
    // Of several with one name the last would win; a collector is to see one.
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|attribute| seen.insert(attribute.key.clone()));
    all
}

fn address(name: &str, address: SocketAddr) -> [KeyValue; 2] {
    [
        KeyValue::text(&format!("{name}.address"), address.ip().to_string()),
        KeyValue::number(&format!("{name}.port"), address.port()),
    ]
}

/// One attempt. Of the last one it is known how it ended; one that was followed by another had failed.
fn client(record: &Record<'_>, about: &About<'_>, one: &Try) -> Span {
    let mut span = blank(about, one.span, about.span.span, Kind::Client);
    let end = record.started + record.duration;
    let at = |at: Instant| (record.started + at.saturating_duration_since(about.begun)).min(end);
    span.name = record.backend.map_or_else(|| name(record), |backend| backend.hostname.to_string());
    span.start_time_unix_nano = nanos(at(one.begun));
    span.end_time_unix_nano = nanos(one.given_up.map_or(end, at));
    span.attributes = method(record).collect();
    span.attributes.extend(address("server", one.address));
    span.attributes.extend(address("network.peer", one.address));
    span.attributes.push(KeyValue::text("istio.upstream.workload", &*one.workload.workload_name));
    span.attributes.push(KeyValue::text("istio.upstream.namespace", &*one.workload.namespace));
    let number = about.tries.iter().position(|other| other.span == one.span).unwrap_or_default();
    if number > 0 {
        span.attributes
            .push(KeyValue::number("http.request.resend_count", i64::try_from(number).unwrap_or(i64::MAX)));
    }
    if one.given_up.is_some() {
        span.status = error("sent again");
        span.attributes.push(KeyValue::text("error.type", "retry"));
    } else {
        if record.code != 0 && record.detail == "via_upstream" {
            span.attributes.push(KeyValue::number("http.response.status_code", record.code));
        }
        if record.code >= 400 {
            span.status = error(record.error.unwrap_or_default());
            span.attributes.push(KeyValue::text("error.type", record.code.to_string()));
        }
    }
    span
}
