//! The record of one request: gathered on its way, written once at its end.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use ambit_policy::http::Decision;
use ambit_policy::{DryRun, Verdict};
use ambit_route::Selected;
use ambit_route::retry::Stop;
use ambit_runtime::clock;
use ambit_types::{PolicyKey, Reason, Workload};
use http::header::{HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Request, Response, Version};

use super::Record;
use super::record::{cut, denying};
use super::trace::{Span, Trail};
use crate::random;
use crate::request::body::{Messages, Replay};
use crate::terminate::Call;
use crate::upstream::{Destination, Endpoint};

/// Attempts of one request that have spans.
const TRIES_MAX: usize = 32;

static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// One attempt to have a request answered.
#[derive(Debug)]
pub(crate) struct Try {
    /// Its span.
    pub(crate) span: u64,
    /// When it began.
    pub(crate) begun: Instant,
    /// When another one took its place; none of the last.
    pub(crate) given_up: Option<Instant>,
    /// Where it went.
    pub(crate) address: SocketAddr,
    /// Whose address that is.
    pub(crate) workload: Arc<Workload>,
}

/// What is gathered on a request's way.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) begun: Instant,
    pub(super) started: SystemTime,
    method: Method,
    path: String,
    authority: String,
    version: Version,
    forwarded_for: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    request_id: Option<HeaderValue>,
    pub(crate) is_grpc: bool,
    trace: Option<Span>,
    trail: Option<Trail>,
    pub(super) tries: Vec<Try>,
    pub(crate) flag: &'static str,
    pub(crate) reason: Option<Reason>,
    detail: &'static str,
    error: Option<String>,
    policy: Option<PolicyKey>,
    rule: Option<usize>,
    dry_run: Vec<String>,
    /// Policies that would have refused it.
    pub(super) shadow: Vec<PolicyKey>,
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
    messages_received: u64,
    messages_sent: Messages,
}

impl Exchange {
    /// A request has arrived.
    pub(crate) fn new<B>(asked: &Request<B>) -> Self {
        let host = || asked.headers().get(http::header::HOST).and_then(|value| value.to_str().ok());
        let authority = asked.uri().authority().map(|authority| authority.as_str()).or_else(host);
        Self {
            begun: clock::monotonic(),
            started: clock::wall(),
            method: asked.method().clone(),
            path: cut(asked.uri().path()).into_owned(),
            authority: cut(authority.unwrap_or_default()).into_owned(),
            version: asked.version(),
            forwarded_for: asked.headers().get(&FORWARDED_FOR).cloned(),
            user_agent: asked.headers().get(USER_AGENT).cloned(),
            request_id: asked.headers().get("x-request-id").cloned(),
            is_grpc: false,
            trace: None,
            trail: None,
            tries: Vec::new(),
            flag: "-",
            reason: None,
            detail: "via_upstream",
            error: None,
            policy: None,
            rule: None,
            dry_run: Vec::new(),
            shadow: Vec::new(),
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
            messages_received: 0,
            messages_sent: Messages::default(),
        }
    }

    /// It belongs to a trace; `trail` only if its spans are recorded.
    pub(crate) fn traced(&mut self, span: Span, trail: Option<Trail>) {
        self.trace = Some(span);
        self.trail = trail;
    }

    /// It is sent to an endpoint, perhaps once more.
    pub(crate) fn attempted(&mut self, endpoint: &Arc<Endpoint>) {
        let Some(trail) = &self.trail else { return };
        let begun = clock::monotonic();
        if let Some(last) = self.tries.last_mut() {
            last.given_up = Some(begun);
        }
        if self.tries.len() < TRIES_MAX {
            let span = random::number().max(1);
            trail.attempt(span);
            let (address, workload) = (endpoint.address, endpoint.workload.clone());
            self.tries.push(Try { span, begun, given_up: None, address, workload });
        }
    }

    /// Policies have decided.
    pub(crate) fn decided(&mut self, decision: &Decision) {
        self.policy.clone_from(&decision.policy);
        self.rule = decision.rule;
        self.audit = decision.audit.iter().map(|mark| mark.policy.clone()).collect();
        let told = |one: &DryRun| {
            let verdict = match one.verdict {
                Verdict::Allow => "allow",
                Verdict::Deny => "deny",
            };
            one.policy.as_ref().map_or_else(|| verdict.to_owned(), |key| format!("{verdict} by {key}"))
        };
        self.dry_run = decision.dry_run.iter().map(told).collect();
        let refusing = decision.dry_run.iter().filter(|one| matches!(one.verdict, Verdict::Deny));
        self.shadow = refusing.filter_map(|one| one.policy.clone()).collect();
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
        // It may hold words of the client's, or of an endpoint's.
        self.error = refusal.error.as_deref().map(|error| cut(error).into_owned());
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

    /// Bytes of the response's body go to the client.
    pub(crate) fn sent(&mut self, data: &[u8]) {
        self.bytes_sent += u64::try_from(data.len()).unwrap_or(u64::MAX);
        if self.is_grpc {
            self.messages_sent.pass(data);
        }
    }

    /// Takes what is known at the end only.
    pub(super) fn settle(&mut self) {
        if let Some(body) = &self.body {
            self.bytes_received = body.bytes();
            self.messages_received = body.messages();
        }
    }

    /// The record as it stands now.
    pub(super) fn record<'a>(&'a self, call: &'a Call) -> Record<'a> {
        let now = clock::monotonic();
        Record {
            method: Some(self.method.as_str()),
            path: &self.path,
            authority: &self.authority,
            protocol: protocol(self.version, self.is_grpc),
            version: Some(version(self.version)),
            code: self.status,
            grpc_status: self.grpc_status,
            flag: self.flag,
            detail: self.detail,
            reason: self.reason,
            policy: self.policy.as_ref().filter(|_| self.reason.and_then(denying).is_some()),
            decided_by: self.policy.as_ref(),
            rule: self.rule,
            audit: &self.audit,
            dry_run: &self.dry_run,
            route: self.route.as_deref(),
            source: call.source.as_deref(),
            source_identity: &call.peer.identity,
            source_address: call.peer.address,
            target: call.target.address(),
            service: call.target.service(),
            backend: self.destination.as_ref().and_then(|destination| destination.service()),
            destination: self.endpoint.as_ref().map(|endpoint| &*endpoint.workload),
            destination_address: self.endpoint.as_ref().map(|endpoint| endpoint.address),
            is_encrypted: self.endpoint.as_ref().is_some_and(|endpoint| endpoint.expected.is_some()),
            attempts: self.attempts,
            stopped: self.stopped,
            bytes_received: self.bytes_received,
            bytes_sent: self.bytes_sent,
            messages: self.is_grpc.then(|| (self.messages_received, self.messages_sent.count())),
            started: self.started,
            duration: now.saturating_duration_since(self.begun),
            until_answer: self.answered.map(|at| at.saturating_duration_since(self.begun)),
            forwarded_for: self.forwarded_for.as_ref().map(text),
            user_agent: self.user_agent.as_ref().map(text),
            request_id: self.request_id.as_ref().map(text),
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

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

/// A client's words, also if they are no UTF-8.
fn text(value: &HeaderValue) -> Cow<'_, str> {
    match String::from_utf8_lossy(value.as_bytes()) {
        Cow::Borrowed(text) => cut(text),
        Cow::Owned(text) => Cow::Owned(cut(&text).into_owned()),
    }
}
