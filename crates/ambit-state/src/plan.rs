//! What is to be done with one connection: where it goes, whom it may be for, or why it is refused.

use std::fmt;

use ambit_types::{PolicyKey, Reason};

pub(crate) mod bound;
mod gateway;
pub mod inbound;
pub mod outbound;

/// Ports of our own listeners in every captured pod: outbound, inbound plaintext, HBONE.
pub const PROXY_PORTS: [u16; 3] = [15001, 15006, 15008];

/// Port of HBONE.
pub const HBONE_PORT: u16 = 15008;

/// A connection refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The code.
    pub reason: Reason,
    /// What was asked for and is in the way, for the record of the connection.
    pub detail: String,
    /// The policy that refuses, if one does.
    pub policy: Option<PolicyKey>,
}

impl Refusal {
    /// Refuses.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), policy: None }
    }

    /// Names the policy that refuses.
    #[must_use]
    pub fn by(self, policy: PolicyKey) -> Self {
        Self { policy: Some(policy), ..self }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.detail)
    }
}

/// Whether a port is one of our listeners'.
pub(crate) fn is_proxy_port(port: u16) -> bool {
    PROXY_PORTS.contains(&port)
}
