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
        // Upstream proxies answer 401 for a policy's refusal and nothing else.
        StatusCode::UNAUTHORIZED => Reason::PolicyDenied,
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
    fn a_peers_code_is_passed_on_and_a_silent_401_is_a_policy() {
        assert_eq!(
            reason_of(&refused(StatusCode::UNAUTHORIZED, Reason::DenyRuleMatched)),
            Reason::DenyRuleMatched
        );
        let silent = |status: u16| Response::builder().status(status).body(()).unwrap();
        assert_eq!(reason_of(&silent(401)), Reason::PolicyDenied);
        assert_eq!(reason_of(&silent(503)), Reason::TunnelRejected);
    }
}
