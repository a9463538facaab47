//! Answers that the waypoint gives itself: refusals, failures, redirects and the like.
//!
//! A refusal tells the client its reason code, and nothing about the policy or the mesh behind it. gRPC callers are
//! told in gRPC's words, in a response without messages.

use ambit_route::backend::of_http;
use ambit_route::filter::Preflight;
use ambit_route::{Answer, Failure};
use ambit_types::Reason;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use http::{HeaderMap, Response, StatusCode};

use super::body::Outgoing;

static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
static GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
static REASON: HeaderName = HeaderName::from_static("x-ambit-reason");

/// Why a request gets no answer of an endpoint.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// HTTP status.
    pub(crate) status: u16,
    /// gRPC status, if it is another than the HTTP status stands for.
    pub(crate) grpc: Option<u32>,
    /// The code told.
    pub(crate) reason: Option<Reason>,
    /// What stands in the record as `response_code_details`.
    pub(crate) detail: &'static str,
    /// What stands in the record as `response_flags`.
    pub(crate) flag: &'static str,
    /// Failure in words, for the record only.
    pub(crate) error: Option<String>,
    /// What somebody else wants the client to see.
    pub(crate) told: Option<Box<Told>>,
}

/// What an authorizer, or a standard, has the client told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Headers of the answer.
    pub(crate) headers: HeaderMap,
    /// Its body, in place of the code.
    pub(crate) body: Option<Bytes>,
}

impl Refusal {
    /// A refusal of the request as such.
    pub(crate) fn new(status: u16, reason: Option<Reason>, detail: &'static str) -> Self {
        let flag = if status < 500 { "-" } else { "UH" };
        Self { status, grpc: None, reason, detail, flag, error: None, told: None }
    }

    /// What routing or an endpoint failed at.
    pub(crate) fn failure(failure: Failure) -> Self {
        let (detail, flag) = match failure {
            Failure::RouteNotFound => ("route_not_found", "NR"),
            Failure::RuleInvalid => ("route_invalid", "NC"),
            Failure::NoBackends | Failure::NoWeight | Failure::BackendInvalid(_) => ("backend_invalid", "NC"),
            Failure::NoEndpoint => ("no_healthy_upstream", "UH"),
            Failure::Unreachable => ("upstream_connection_failure", "UF"),
            Failure::Timeout => ("upstream_response_timeout", "UT"),
            Failure::Overflow => ("overflow", "UO"),
            Failure::RateLimited => ("request_rate_limited", "RL"),
            Failure::Injected(_) => ("fault_filter_abort", "FI"),
        };
        Self {
            grpc: Some(failure.grpc_status()),
            flag,
            ..Self::new(failure.status(), failure.reason(), detail)
        }
    }

    /// The same with a failure in words.
    pub(crate) fn because(mut self, error: impl Into<String>) -> Self {
        self.error = Some(error.into());
        self
    }

    /// The answer to the client.
    pub(crate) fn response(&self, is_grpc: bool) -> Response<Outgoing> {
        let text = self.reason.map_or_else(|| self.detail.to_owned(), |reason| reason.to_string());
        let mut response = if is_grpc {
            grpc(self.grpc.unwrap_or_else(|| of_http(self.status)), &text)
        } else {
            let told = self.told.as_ref().and_then(|told| told.body.clone());
            let body = told.unwrap_or_else(|| Bytes::from(format!("{text}\n")));
            plain(self.status, body)
        };
        if let Some(reason) = self.reason {
            response.headers_mut().insert(&REASON, HeaderValue::from_static(reason.code()));
        }
        if let Some(told) = &self.told {
            response.headers_mut().extend(told.headers.clone());
        }
        response
    }
}

/// A response without messages.
fn grpc(status: u32, message: &str) -> Response<Outgoing> {
    let mut response = Response::new(Outgoing::own(Bytes::new()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(&GRPC_STATUS, HeaderValue::from(status));
    if let Ok(message) = HeaderValue::from_str(message) {
        headers.insert(&GRPC_MESSAGE, message);
    }
    response
}

fn plain(status: u16, body: Bytes) -> Response<Outgoing> {
    let has_body = !body.is_empty();
    let mut response = Response::new(Outgoing::own(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if has_body {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    }
    response
}

/// What a rule answers itself; failures are the caller's, which has to record them.
pub(crate) fn own(answer: Answer<'_>) -> Result<Response<Outgoing>, Refusal> {
    let status = answer.status(false);
    match answer {
        Answer::Failure(failure) => Err(Refusal::failure(failure)),
        Answer::Respond(respond) => Ok(plain(status, Bytes::copy_from_slice(respond.body.as_bytes()))),
        Answer::Redirect { location, .. } => {
            let mut response = plain(status, Bytes::new());
            let location = HeaderValue::from_str(&location)
                .map_err(|_| Refusal::new(400, Some(Reason::RequestAmbiguous), "location_invalid"))?;
            response.headers_mut().insert(LOCATION, location);
            Ok(response)
        }
        Answer::Preflight(preflight) => {
            let mut response = plain(status, Bytes::new());
            if let Preflight::Granted(lines) = preflight {
                for (name, value) in lines {
                    if let Ok(value) = HeaderValue::from_str(&value) {
                        response.headers_mut().insert(HeaderName::from_static(name), value);
                    }
                }
            }
            Ok(response)
        }
    }
}
