//! Answers that the waypoint gives itself: refusals, failures, redirects and the like.
//!
//! A refusal tells the client its reason code, and nothing about the policy or the mesh behind it. gRPC callers are
//! told in gRPC's words, in a response without messages.

use ambit_route::backend::of_http;
use ambit_route::filter::Preflight;
use ambit_route::{Answer, Failure};
use ambit_types::Reason;
use bytes::Bytes;
use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, GetAll, HeaderName, HeaderValue, LOCATION,
};
use http::{HeaderMap, Response, StatusCode};
use hyper::body::Body as _;

use super::body::Outgoing;
use super::sanitize;

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

    /// The refusal of what is not bound to this waypoint, or not any more.
    pub(crate) fn not_served() -> Self {
        Self::new(421, Some(Reason::WaypointNotServing), "not_served_here")
    }

    /// The refusal of a target that has no one reading.
    pub(super) fn unreadable(refusal: &ambit_policy::normalize::Refusal) -> Self {
        Self::new(refusal.status(), Some(refusal.reason()), refusal.name()).because(refusal.to_string())
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
        for (name, values) in self.told.iter().flat_map(|told| grouped(&told.headers)) {
            if sanitize::may_be_told(name) && !(is_grpc && is_of_grpc(name)) {
                // Theirs take the place of ours, however many there are.
                response.headers_mut().remove(name);
                for value in values {
                    response.headers_mut().append(name.clone(), value.clone());
                }
            }
        }
        response
    }
}

fn grouped(headers: &HeaderMap) -> impl Iterator<Item = (&HeaderName, GetAll<'_, HeaderValue>)> {
    headers.keys().map(|name| (name, headers.get_all(name)))
}

/// Whether a header is part of how gRPC tells of a failure.
fn is_of_grpc(name: &HeaderName) -> bool {
    [&CONTENT_TYPE, &CONTENT_ENCODING, &GRPC_STATUS, &GRPC_MESSAGE].contains(&name)
}

/// A response made here, without its body where there must be none: to HEAD, and with a status that has none. hyper
/// sees to that in HTTP/1.1 only.
pub(crate) fn without_body(mut response: Response<Outgoing>, is_head: bool) -> Response<Outgoing> {
    let is_bare = matches!(
        response.status(),
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
    );
    if !is_head && !is_bare {
        return response;
    }
    let bytes = response.body().size_hint().exact().filter(|bytes| *bytes > 0);
    let headers = response.headers_mut();
    if is_bare {
        headers.remove(CONTENT_TYPE);
        headers.remove(CONTENT_LENGTH);
    } else if let Some(bytes) = bytes {
        // What GET would have got.
        headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes));
    }
    *response.body_mut() = Outgoing::own(Bytes::new());
    response
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

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(lines: &[(&'static str, &'static str)]) -> Refusal {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let told = Some(Box::new(Told { headers, body: None }));
        Refusal { told, ..Refusal::new(403, Some(Reason::ExtAuthzDenied), "ext_authz_denied") }
    }

    #[test]
    fn what_others_have_the_client_told_neither_frames_nor_replaces_the_code() {
        let told = refusal(&[
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("content-type", "text/html"),
            ("content-length", "1"),
            ("transfer-encoding", "chunked"),
            ("connection", "close"),
            ("upgrade", "h2c"),
            ("x-ambit-reason", "AMB0000"),
            ("grpc-status", "0"),
        ]);
        let response = told.response(false);
        let headers = response.headers();
        assert_eq!(headers.get_all("set-cookie").iter().collect::<Vec<_>>(), ["a=1", "b=2"]);
        assert_eq!(headers.get_all(CONTENT_TYPE).iter().collect::<Vec<_>>(), ["text/html"]);
        assert_eq!(headers[&REASON], Reason::ExtAuthzDenied.code());
        for name in ["content-length", "transfer-encoding", "connection", "upgrade"] {
            assert!(!headers.contains_key(name), "{name}");
        }
        let response = told.response(true);
        let headers = response.headers();
        assert_eq!(
            (&headers["grpc-status"], &headers[CONTENT_TYPE]),
            (&"7".parse().unwrap(), &"application/grpc".parse().unwrap())
        );
    }

    #[test]
    fn there_is_no_body_where_there_must_be_none() {
        for (status, is_head, bytes, length) in [
            (200, false, 2, None),
            (200, true, 0, Some("2")),
            (204, false, 0, None),
            (205, false, 0, None),
            (304, true, 0, None),
        ] {
            let response = without_body(plain(status, Bytes::from_static(b"ok")), is_head);
            assert_eq!(response.body().size_hint().exact(), Some(bytes), "{status} {is_head}");
            assert_eq!(response.body().is_end_stream(), bytes == 0, "{status} {is_head}");
            let told = response.headers().get(CONTENT_LENGTH).map(|value| value.to_str().unwrap());
            assert_eq!(told, length, "{status} {is_head}");
        }
    }
}
