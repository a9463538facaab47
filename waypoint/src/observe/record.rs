//! What is told of one request, or of one connection that was passed through; and its line in the log.
//!
//! A client's words are cut and escaped before they get here (CVE-2024-45808 is what happens otherwise).

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use ambit_hbone::ConnId;
use ambit_route::retry::Stop;
use ambit_types::{Identity, PolicyKey, Reason, ServiceKey, Workload};

use super::Sink;
use super::trace::Span;

#[cfg(test)]
mod tests;

/// Longest text of a client's that a record holds, in bytes.
const TEXT_BYTES_MAX: usize = 2048;

/// One request, or one connection that was passed through.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    /// Method; none of a connection.
    pub method: Option<&'a str>,
    /// Path as it came, without its query, cut and escaped.
    pub path: &'a str,
    /// Host as it came.
    pub authority: &'a str,
    /// `http`, `http2`, `grpc` or `tcp`.
    pub protocol: &'static str,
    /// Version as its first line has it, such as `HTTP/1.1`; none of a connection.
    pub version: Option<&'static str>,
    /// Status; 0 if the client left before.
    pub code: u16,
    /// gRPC status, if one was told.
    pub grpc_status: Option<u32>,
    /// `response_flags`, as Envoy spells them.
    pub flag: &'static str,
    /// `response_code_details`.
    pub detail: &'static str,
    /// Why it was refused or failed.
    pub reason: Option<Reason>,
    /// The policy that refused it.
    pub policy: Option<&'a PolicyKey>,
    /// The policy that decided, also if it allowed.
    pub decided_by: Option<&'a PolicyKey>,
    /// Its rule that agreed, counted from 0.
    pub rule: Option<usize>,
    /// AUDIT policies that matched.
    pub audit: &'a [PolicyKey],
    /// What dry-run policies would have done.
    pub dry_run: &'a [String],
    /// The rule that took it.
    pub route: Option<&'a str>,
    /// The caller's record, if its address and its identity agree.
    pub source: Option<&'a Workload>,
    /// The caller's proven identity.
    pub source_identity: &'a Identity,
    /// The caller's address.
    pub source_address: SocketAddr,
    /// The address that was called.
    pub target: SocketAddr,
    /// The service that was called.
    pub service: Option<&'a ServiceKey>,
    /// The service it was sent to.
    pub backend: Option<&'a ServiceKey>,
    /// The endpoint it was sent to last.
    pub destination: Option<&'a Workload>,
    /// Its address.
    pub destination_address: Option<SocketAddr>,
    /// Whether it went there through a tunnel.
    pub is_encrypted: bool,
    /// How often it was sent.
    pub attempts: u32,
    /// Why it was not sent again.
    pub stopped: Option<Stop>,
    /// Bytes of the request's body.
    pub bytes_received: u64,
    /// Bytes of the response's body.
    pub bytes_sent: u64,
    /// gRPC messages received and sent; none of anything else.
    pub messages: Option<(u64, u64)>,
    /// When it began.
    pub started: SystemTime,
    /// From its head to the last byte of the response.
    pub duration: Duration,
    /// From its head to the head of the response.
    pub until_answer: Option<Duration>,
    /// `X-Forwarded-For` as it came.
    pub forwarded_for: Option<Cow<'a, str>>,
    /// What the client says it is.
    pub user_agent: Option<Cow<'a, str>>,
    /// Id of the request.
    pub request_id: Option<Cow<'a, str>>,
    /// Its span.
    pub span: Option<Span>,
    /// Id of the connection, the same in the records of all proxies on the way.
    pub conn_id: ConnId,
    /// Failure in words.
    pub error: Option<&'a str>,
}

impl Record<'_> {
    /// Whether it was refused, or failed by more than its application's answer.
    pub fn is_refused(&self) -> bool {
        self.reason.is_some_and(Reason::is_refusal)
    }

    /// Which kind of policy denied it, and why; none if it was refused for anything else.
    pub fn denied_by(&self) -> Option<(&'static str, Reason)> {
        self.reason.and_then(|reason| Some((denying(reason)?, reason)))
    }
}

/// The kind of policy that gives a reason.
pub(super) fn denying(reason: Reason) -> Option<&'static str> {
    let kinds: [(&str, &[Reason]); 4] = [
        ("deny", &[Reason::HttpDenyRuleMatched, Reason::DenyRuleMatched, Reason::PolicyUnevaluable]),
        ("allow", &[Reason::HttpPolicyDenied, Reason::PolicyDenied, Reason::PolicyUnresolved]),
        ("custom", &[Reason::ExtAuthzDenied, Reason::ExtAuthzUnavailable]),
        ("token", &[Reason::TokenRejected, Reason::KeysUnavailable]),
    ];
    kinds.iter().find(|(_, reasons)| reasons.contains(&reason)).map(|(kind, _)| *kind)
}

/// A text without control characters, not too long.
pub(super) fn cut(text: &str) -> Cow<'_, str> {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let text = &text[..end];
    match text.chars().any(char::is_control) {
        true => Cow::Owned(text.escape_debug().to_string()),
        false => Cow::Borrowed(text),
    }
}

/// Writes records to the log.
#[derive(Debug)]
pub(super) struct Log;

impl Sink for Log {
    fn take(&self, record: &Record<'_>) {
        match record.method {
            Some(_) => request(record),
            None => connection(record),
        }
    }
}

fn shown(value: Option<&dyn std::fmt::Display>) -> Option<String> {
    value.map(ToString::to_string)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Several names as one text; none if there are none.
fn joined(all: impl Iterator<Item = String>) -> Option<String> {
    let text = all.collect::<Vec<_>>().join(", ");
    (!text.is_empty()).then_some(text)
}

/// Istio's keys in its order, then ours. What is not known is left out.
fn request(r: &Record<'_>) {
    let identity = r.destination.filter(|_| r.is_encrypted).map(Workload::identity);
    tracing::info!(
        target: "access",
        {start_time = %humantime::format_rfc3339_millis(r.started),
        route_name = r.route,
        method = r.method,
        path = r.path,
        protocol = r.version,
        response_code = r.code,
        response_flags = r.flag,
        response_code_details = r.detail,
        bytes_received = r.bytes_received,
        bytes_sent = r.bytes_sent,
        duration = millis(r.duration),
        upstream_service_time = r.until_answer.map(millis),
        x_forwarded_for = r.forwarded_for.as_deref(),
        user_agent = r.user_agent.as_deref(),
        request_id = r.request_id.as_deref(),
        authority = r.authority,
        upstream_host = shown(r.destination_address.as_ref().map(|a| a as _)),
        upstream_cluster = shown(r.backend.map(|b| b as _)),
        downstream_local_address = %r.target,
        downstream_remote_address = %r.source_address,
        upstream_transport_failure_reason = r.error.filter(|_| matches!(r.flag, "UF" | "UC")),
        grpc_status = r.grpc_status,
        src.workload = r.source.map(|w| &*w.name),
        src.namespace = r.source.map(|w| &*w.namespace),
        src.identity = %r.source_identity,
        dst.service = r.service.map(|s| &*s.hostname),
        dst.workload = r.destination.map(|w| &*w.name),
        dst.namespace = r.destination.map(|w| &*w.namespace),
        dst.identity = shown(identity.as_ref().map(|i| i as _)),
        attempts = r.attempts,
        code = r.reason.map(|reason| reason.code()),
        reason = r.reason.map(|reason| reason.name()),
        policy = shown(r.decided_by.map(|p| p as _)),
        audit = joined(r.audit.iter().map(ToString::to_string)),
        dry_run = joined(r.dry_run.iter().cloned()),
        trace_id = shown(r.span.as_ref().map(|s| &s.trace as _)),
        span_id = r.span.map(|s| format!("{:016x}", s.span)),
        duration_ms = millis(r.duration),
        conn.id = %r.conn_id,
        error = r.error},
        "request"
    );
}

/// The same of a connection, as far as it has it.
fn connection(r: &Record<'_>) {
    let identity = r.destination.filter(|_| r.is_encrypted).map(Workload::identity);
    tracing::info!(
        target: "access",
        {start_time = %humantime::format_rfc3339_millis(r.started),
        protocol = r.protocol,
        response_flags = r.flag,
        bytes_received = r.bytes_received,
        bytes_sent = r.bytes_sent,
        duration = millis(r.duration),
        upstream_host = shown(r.destination_address.as_ref().map(|a| a as _)),
        upstream_cluster = shown(r.backend.map(|b| b as _)),
        downstream_local_address = %r.target,
        downstream_remote_address = %r.source_address,
        src.workload = r.source.map(|w| &*w.name),
        src.namespace = r.source.map(|w| &*w.namespace),
        src.identity = %r.source_identity,
        dst.service = r.service.map(|s| &*s.hostname),
        dst.workload = r.destination.map(|w| &*w.name),
        dst.namespace = r.destination.map(|w| &*w.namespace),
        dst.identity = shown(identity.as_ref().map(|i| i as _)),
        code = r.reason.map(|reason| reason.code()),
        reason = r.reason.map(|reason| reason.name()),
        policy = shown(r.decided_by.map(|p| p as _)),
        duration_ms = millis(r.duration),
        conn.id = %r.conn_id,
        error = r.error},
        "connection"
    );
}
