//! Why an endpoint gave no response, and what that says about trying again.

use ambit_net::tunnel::client::TunnelError;
use ambit_route::limit::Overflow;
use ambit_route::retry::Outcome;
use ambit_types::Reason;

/// Why there is no response. Shared by all who waited for the same connection.
#[derive(Debug, Clone)]
pub(crate) struct SendError {
    /// How the attempt ended.
    pub(crate) outcome: Outcome,
    /// The destination has as many connections as it may.
    pub(crate) overflow: Option<Overflow>,
    /// Whether a byte of the request may have been sent.
    pub(crate) is_sent: bool,
    /// There was a response, but none that may be passed on: a bad gateway, not an unavailable service.
    pub(crate) is_invalid: bool,
    /// Nothing is out of order at the endpoint: its proxy said no, or there is nothing to show to it. It is not asked
    /// again, and nobody else is to miss it for that.
    pub(crate) is_refusal: bool,
    /// The code for the record.
    pub(crate) reason: Reason,
    /// In words, for the record.
    pub(crate) text: String,
}

impl SendError {
    /// The destination has as many connections, or its connections as many streams, as they may.
    pub(super) fn overflow(overflow: Overflow) -> Self {
        let text = "the destination has as many connections as it may";
        Self { overflow: Some(overflow), ..Self::before(Reason::NoHealthyEndpoint, text.to_owned()) }
    }

    /// The endpoint was silent while a connection was being opened.
    pub(super) fn silent(phase: &'static str) -> Self {
        Self::before(Reason::PeerSilent, format!("the endpoint was silent: {phase}"))
    }

    /// The endpoint closed a connection before it could be used.
    pub(super) fn closed() -> Self {
        let text = "the endpoint closed the connection before its settings";
        Self::before(Reason::PeerSilent, text.to_owned())
    }

    /// A response that may not be passed on.
    pub(super) fn invalid(text: &'static str) -> Self {
        Self {
            outcome: Outcome::Reset,
            is_sent: true,
            is_invalid: true,
            ..Self::before(Reason::ConnectRefused, text.to_owned())
        }
    }

    pub(super) fn of_tunnel(error: &TunnelError) -> Self {
        // What every endpoint would say, or nobody was asked. What one node or pod lacks is a failure of that one.
        let is_refusal = matches!(
            error,
            TunnelError::Certificate(_)
                | TunnelError::Request(_)
                | TunnelError::Refused {
                    reason: Reason::DenyRuleMatched
                        | Reason::PolicyDenied
                        | Reason::PolicyUnevaluable
                        | Reason::PolicyChanged
                        | Reason::PlaintextRefused,
                    ..
                }
        );
        Self { is_refusal, ..Self::before(error.reason(), error.to_string()) }
    }

    pub(super) fn of(error: &hyper::Error, is_sent: bool) -> Self {
        let cause = h2_cause(error);
        let refused = cause.is_some_and(|cause| {
            let unseen = cause.is_go_away() && cause.is_remote();
            unseen || cause.reason() == Some(h2::Reason::REFUSED_STREAM)
        });
        let malformed = cause
            .is_some_and(|cause| cause.is_library() && cause.reason() == Some(h2::Reason::PROTOCOL_ERROR));
        Self {
            outcome: if refused { Outcome::RefusedStream } else { Outcome::Reset },
            is_sent,
            is_invalid: error.is_parse() || malformed || is_excessive(error),
            ..Self::before(Reason::ConnectRefused, error.to_string())
        }
    }

    /// There was no connection to send on.
    fn before(reason: Reason, text: String) -> Self {
        Self {
            outcome: Outcome::ConnectFailure,
            overflow: None,
            is_sent: false,
            is_invalid: false,
            is_refusal: false,
            reason,
            text,
        }
    }
}

/// Whether the connection was ended because the endpoint sent informational responses without end.
fn is_excessive(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    cause.is_some_and(|cause| cause.kind() == std::io::ErrorKind::QuotaExceeded)
}

fn h2_cause(error: &hyper::Error) -> Option<&h2::Error> {
    let mut cause = std::error::Error::source(error);
    while let Some(found) = cause {
        if let Some(h2) = found.downcast_ref() {
            return Some(h2);
        }
        cause = found.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use ambit_net::tunnel::client::TunnelError;
    use ambit_types::Reason;
    use http::StatusCode;

    use super::SendError;

    #[test]
    fn what_policy_refuses_is_no_outage() {
        let peer = SocketAddr::from(([10, 0, 0, 1], 15008));
        let refused = |reason| TunnelError::Refused { peer, status: StatusCode::UNAUTHORIZED, reason };
        for (error, want) in [
            (refused(Reason::PolicyDenied), true),
            (refused(Reason::DenyRuleMatched), true),
            (TunnelError::Request("no header".to_owned()), true),
            (refused(Reason::ConnectRefused), false),
            // What one node or pod lacks, another may have.
            (refused(Reason::PodQuota), false),
            (refused(Reason::StateTooOld), false),
            (refused(Reason::PolicyUnresolved), false),
            (refused(Reason::FdExhausted), false),
            (refused(Reason::Draining), false),
            (TunnelError::Timeout { peer }, false),
            (TunnelError::Closed { peer }, false),
        ] {
            assert_eq!(SendError::of_tunnel(&error).is_refusal, want, "row {error}");
        }
    }
}
