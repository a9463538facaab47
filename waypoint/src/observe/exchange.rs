//! The record of one request: gathered on its way, written once at its end.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ambit_hbone::ConnId;
use ambit_policy::http::Decision;
use ambit_route::Selected;
use ambit_route::retry::Stop;
use ambit_runtime::clock;
use ambit_types::{Identity, PolicyKey, Reason, ServiceKey, Workload};
use http::header::{HeaderMap, HeaderValue, USER_AGENT};
use http::{Method, Request, Response, Version};

use super::Sink;
use super::trace::Span;
use crate::request::body::Replay;
use crate::terminate::Call;
use crate::upstream::{Destination, Endpoint};

/// Longest text of a client's that a record holds, in bytes.
const TEXT_BYTES_MAX: usize = 2048;

/// What is gathered on a request's way.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) begun: Instant,
    method: Method,
    path: String,
    authority: String,
    version: Version,
    user_agent: Option<HeaderValue>,
    request_id: Option<HeaderValue>,
    pub(crate) is_grpc: bool,
    pub(crate) trace: Option<Span>,
    pub(crate) flag: &'static str,
    pub(crate) reason: Option<Reason>,
    detail: &'static str,
    error: Option<String>,
    policy: Option<PolicyKey>,
    dry_run: Vec<String>,
    audit: Vec<PolicyKey>,
    route: Option<String>,
    pub(crate) destination: Option<Arc<Destination>>,
    pub(crate) endpoint: Option<Arc<Endpoint>>,
    pub(crate) attempts: u32,
    pub(crate) stopped: Option<Stop>,
    status: u16,
    grpc_status: Option<u32>,
    answered: Option<Instant>,
    /// The request's body, if it has one: how long it was is known at the end only.
    pub(crate) body: Option<Arc<Replay>>,
    pub(crate) bytes_received: u64,
    pub(crate) bytes_sent: u64,
}

impl Exchange {
    /// A request has arrived.
    pub(crate) fn new<B>(asked: &Request<B>) -> Self {
        let host = || asked.headers().get(http::header::HOST).and_then(|value| value.to_str().ok());
        let authority = asked.uri().authority().map(|authority| authority.as_str()).or_else(host);
        Self {
            begun: clock::monotonic(),
            method: asked.method().clone(),
            path: cut(asked.uri().path()).into_owned(),
            authority: cut(authority.unwrap_or_default()).into_owned(),
            version: asked.version(),
            user_agent: asked.headers().get(USER_AGENT).cloned(),
            request_id: asked.headers().get("x-request-id").cloned(),
            is_grpc: false,
            trace: None,
            flag: "-",
            reason: None,
            detail: "via_upstream",
            error: None,
            policy: None,
            dry_run: Vec::new(),
            audit: Vec::new(),
            route: None,
            destination: None,
            endpoint: None,
            attempts: 0,
            stopped: None,
            status: 0,
            grpc_status: None,
            answered: None,
            body: None,
            bytes_received: 0,
            bytes_sent: 0,
        }
    }

    /// Policies have decided.
    pub(crate) fn decided(&mut self, decision: &Decision) {
        self.policy = decision.policy.clone();
        self.audit = decision.audit.iter().map(|mark| mark.policy.clone()).collect();
        let told = |one: &ambit_policy::DryRun| {
            let verdict = match one.verdict {
                ambit_policy::Verdict::Allow => "allow",
                ambit_policy::Verdict::Deny => "deny",
            };
            one.policy.as_ref().map_or_else(|| verdict.to_owned(), |key| format!("{verdict} by {key}"))
        };
        self.dry_run = decision.dry_run.iter().map(told).collect();
    }

    /// A rule was found, or not.
    pub(crate) fn routed(&mut self, selected: &Selected<'_>) {
        self.route = match selected {
            Selected::Rule(rule, _) => Some(rule.id.to_string()),
            Selected::Service | Selected::NoMatch(_) => None,
        };
    }

    /// The waypoint answers itself.
    pub(crate) fn refused(&mut self, refusal: &crate::request::Refused) {
        self.flag = refusal.flag;
        self.reason = refusal.reason;
        self.detail = refusal.detail;
        self.error.clone_from(&refusal.error);
    }

    /// The head of the response goes to the client.
    pub(crate) fn answered<B>(&mut self, response: &Response<B>) {
        self.status = response.status().as_u16();
        self.answered = Some(clock::monotonic());
        self.grpc_told(response.headers());
    }

    /// Headers or trailers that may tell the status of a gRPC call.
    pub(crate) fn grpc_told(&mut self, headers: &HeaderMap) {
        let told = headers.get("grpc-status").and_then(|value| value.to_str().ok()?.parse().ok());
        self.grpc_status = told.or(self.grpc_status);
    }

    /// The record as it stands now.
    pub(super) fn record<'a>(&'a mut self, call: &'a Call) -> Record<'a> {
        if let Some(body) = &self.body {
            self.bytes_received = body.bytes();
        }
        let now = clock::monotonic();
        let text =
            |value: &'a Option<HeaderValue>| value.as_ref().and_then(|value| value.to_str().ok()).map(cut);
        Record {
            method: Some(self.method.as_str()),
            path: &self.path,
            authority: &self.authority,
            protocol: protocol(self.version, self.is_grpc),
            code: self.status,
            grpc_status: self.grpc_status,
            flag: self.flag,
            detail: self.detail,
            reason: self.reason,
            policy: self.policy.as_ref().filter(|_| self.reason.is_some()),
            decided_by: self.policy.as_ref(),
            audit: &self.audit,
            dry_run: &self.dry_run,
            route: self.route.as_deref(),
            source: call.source.as_deref(),
            source_identity: &call.peer.identity,
            source_address: call.peer.address,
            service: call.target.service(),
            backend: self.destination.as_ref().and_then(|destination| destination.service()),
            destination: self.endpoint.as_ref().map(|endpoint| &*endpoint.workload),
            destination_address: self.endpoint.as_ref().map(|endpoint| endpoint.address),
            is_encrypted: self.endpoint.as_ref().is_some_and(|endpoint| endpoint.expected.is_some()),
            attempts: self.attempts,
            stopped: self.stopped,
            bytes_received: self.bytes_received,
            bytes_sent: self.bytes_sent,
            duration: now.saturating_duration_since(self.begun),
            until_answer: self.answered.map(|at| at.saturating_duration_since(self.begun)),
            user_agent: text(&self.user_agent),
            request_id: text(&self.request_id),
            span: self.trace,
            conn_id: call.id,
            error: self.error.as_deref(),
        }
    }
}

fn protocol(version: Version, is_grpc: bool) -> &'static str {
    match (is_grpc, version) {
        (true, _) => "grpc",
        (false, Version::HTTP_2) => "http2",
        (false, _) => "http",
    }
}

/// A text without control characters, not too long.
fn cut(text: &str) -> Cow<'_, str> {
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
    /// From its head to the last byte of the response.
    pub duration: Duration,
    /// From its head to the head of the response.
    pub until_answer: Option<Duration>,
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

/// Writes records to the log.
#[derive(Debug)]
pub(super) struct Log;

impl Sink for Log {
    fn take(&self, r: &Record<'_>) {
        let shown = |value: Option<&dyn std::fmt::Display>| value.map(ToString::to_string);
        tracing::info!(
            target: "access",
            {method = r.method,
            path = r.path,
            protocol = r.protocol,
            response_code = r.code,
            grpc_status = r.grpc_status,
            response_flags = r.flag,
            response_code_details = r.detail,
            bytes_received = r.bytes_received,
            bytes_sent = r.bytes_sent,
            duration_ms = u64::try_from(r.duration.as_millis()).unwrap_or(u64::MAX),
            upstream_service_time_ms = r.until_answer.map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX)),
            user_agent = r.user_agent.as_deref(),
            request_id = r.request_id.as_deref(),
            authority = r.authority,
            upstream_host = shown(r.destination_address.as_ref().map(|a| a as _)),
            upstream_cluster = shown(r.backend.map(|b| b as _)),
            downstream_remote_address = %r.source_address,
            route_name = r.route,
            src.identity = %r.source_identity,
            src.workload = r.source.map(|w| &*w.name),
            dst.service = shown(r.service.map(|s| s as _)),
            dst.workload = r.destination.map(|w| &*w.name),
            attempts = r.attempts,
            code = r.reason.map(|reason| reason.code()),
            reason = r.reason.map(|reason| reason.name()),
            policy = shown(r.decided_by.map(|p| p as _)),
            trace_id = shown(r.span.as_ref().map(|s| &s.trace as _)),
            conn.id = %r.conn_id,
            error = r.error},
            "request"
        );
    }
}
