//! Answers to a CONNECT, and what a client makes of them.

use ambit_types::Reason;
use http::{HeaderName, HeaderValue, Response, StatusCode};

static REASON: HeaderName = HeaderName::from_static("x-ambit-reason");
static BAGGAGE: HeaderName = HeaderName::from_static("baggage");

/// 200 with the destination workload's baggage.
pub fn accepted(baggage: Option<&str>) -> Response<()> {
    let mut response = Response::new(());
    if let Some(value) = baggage.and_then(|text| HeaderValue::from_str(text).ok()) {
        response.headers_mut().insert(&BAGGAGE, value);
    }
    response
}

/// A refusal: the status peers know, and the code so that the client's record can name it.
pub fn refused(status: StatusCode, reason: Reason) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    response.headers_mut().insert(&REASON, HeaderValue::from_static(reason.code()));
    response
}

/// Why a peer refused: its own code if it sent a known one, else what its status means.
pub fn reason_of<B>(response: &Response<B>) -> Reason {
    let named = response.headers().get(&REASON).and_then(|v| v.to_str().ok()).and_then(|t| t.parse().ok());
    named.unwrap_or_else(|| match response.status() {
        // Other proxies answer 401 for a policy's refusal and nothing else, 503 for what is no refusal (G33).
        StatusCode::UNAUTHORIZED => Reason::PolicyDenied,
        StatusCode::SERVICE_UNAVAILABLE => Reason::ConnectRefused,
        _ => Reason::TunnelRejected,
    })
}

/// The status that goes with a reason on the wire.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "every code that is neither policy nor authority is an outage"
)]
pub fn status_of(reason: Reason) -> StatusCode {
    match reason {
        Reason::AuthorityNotOwned => StatusCode::BAD_REQUEST,
        Reason::DenyRuleMatched
        | Reason::PolicyDenied
        | Reason::PolicyUnresolved
        | Reason::PolicyUnevaluable
        | Reason::PlaintextRefused
        | Reason::ForwardedIdentityRefused => StatusCode::UNAUTHORIZED,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

#[cfg(test)]
mod tests {
    use ambit_types::Reason;
    use http::{Response, StatusCode};

    use super::{reason_of, refused};

    #[test]
    fn a_peers_code_is_passed_on() {
        for reason in [Reason::DenyRuleMatched, Reason::Draining] {
            assert_eq!(reason_of(&refused(StatusCode::UNAUTHORIZED, reason)), reason);
        }
    }

    #[test]
    fn a_silent_status_means_what_other_proxies_mean_by_it() {
        // 401 is policy, 503 an application that was not reached.
        for (status, want, flag) in [
            (400, Reason::TunnelRejected, "DENY"),
            (401, Reason::PolicyDenied, "DENY"),
            (403, Reason::TunnelRejected, "DENY"),
            (503, Reason::ConnectRefused, "CONNECT"),
        ] {
            let silent = Response::builder().status(status).body(()).unwrap();
            assert_eq!(reason_of(&silent), want, "status {status}");
            assert_eq!(reason_of(&silent).flag(), flag, "status {status}");
        }
    }
}
