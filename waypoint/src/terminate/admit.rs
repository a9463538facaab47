//! Whom a CONNECT asks for: the decision of [`ambit_state::waypoint`], with the status of the answer.

use ambit_hbone::Authority;
use ambit_state::waypoint::{self, NotServed};
use ambit_types::Reason;
use http::StatusCode;

pub use ambit_state::waypoint::Target;

use crate::State;

/// Why a CONNECT is not served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The answer's status.
    pub status: StatusCode,
    /// The answer's code.
    pub reason: Reason,
    /// In words, for who debugs.
    pub what: &'static str,
}

impl Refused {
    /// A refusal with the status that peers know for its reason.
    pub fn new(reason: Reason, what: &'static str) -> Self {
        Self { status: ambit_hbone::response::status_of(reason), reason, what }
    }

    /// The same, where it is not the client's rights that are missing but what it asks for.
    fn not_served(NotServed { reason, what }: NotServed) -> Self {
        let status = [
            (Reason::ProxyPortTarget, StatusCode::BAD_REQUEST),
            (Reason::UnknownDestination, StatusCode::NOT_FOUND),
            (Reason::WaypointNotServing, StatusCode::NOT_FOUND),
        ];
        match status.iter().find(|(of, _)| *of == reason) {
            Some((_, status)) => Self { status: *status, reason, what },
            None => Self::new(reason, what),
        }
    }
}

/// Finds whom an authority means to a client of a namespace.
///
/// # Errors
/// [`Refused`] for proxies' own ports, this waypoint's own addresses, unknown names, and everything that is not
/// bound to this waypoint.
pub fn admit(state: &State, authority: &Authority, client: &str) -> Result<Target, Refused> {
    let authority = match authority {
        Authority::Address(address) => ambit_state::Authority::Address(*address),
        Authority::Host { host, port } => ambit_state::Authority::Host { host, port: *port },
    };
    waypoint::admit(state, &authority, client).map_err(Refused::not_served)
}
