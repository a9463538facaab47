//! External authorizers that CUSTOM policies name: where each is, how it is asked, and what of its answer counts.
//!
//! The way of a provider: [`written`] as in Istio's `extensionProviders`, [`compile()`]d into [`Provider`]. Asking
//! belongs to the waypoint. A provider with a mistake is none: whoever names it is refused.

use std::collections::BTreeMap;
use std::time::Duration;

use ambit_types::Str;

pub use super::text::HeaderName;
use super::text::agrees_in_any_case;
pub use crate::model::StringMatch;

mod compile;
mod problem;
#[cfg(test)]
mod tests;
pub mod written;

pub use compile::{HEADERS_MAX, TIMEOUT, compile};
pub use problem::{Invalid, Problem};

/// How long an answer is waited for if nothing is said. Istio waits ten minutes, which nobody's caller does.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(1);

/// Status of the refusal when there is no answer, if nothing is said (Istio's default).
pub const STATUS_ON_ERROR_DEFAULT: u16 = 403;

/// An external authorizer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// What policies call it; a DNS label.
    pub name: Str,
    /// Where it is.
    pub service: Address,
    /// The port of that service.
    pub port: u16,
    /// Longest wait for the whole answer; 1 ms to 10 s, [`TIMEOUT_DEFAULT`] unless said.
    pub timeout: Duration,
    /// Whether a request passes when there is no answer.
    pub fail_open: bool,
    /// Status of the refusal when there is no answer; 400 to 599, [`STATUS_ON_ERROR_DEFAULT`] unless said.
    pub status_on_error: u16,
    /// How it is asked.
    pub check: Check,
}

/// A service by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Its namespace; nothing means the one that the waypoint's own namespace would reach.
    pub namespace: Option<Str>,
    /// Its host name.
    pub hostname: Str,
}

/// How an authorizer is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// `envoy.service.auth.v3.Authorization`.
    Grpc,
    /// A request like the one asked about; status 200 is yes.
    Http(HttpCheck),
}

/// What goes to an HTTP authorizer and what comes from it. Names agree in any case.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HttpCheck {
    /// Put before the request's path; empty, or a path.
    pub path_prefix: Str,
    /// Headers of the request that are sent, besides `authorization`.
    pub request_headers: Vec<StringMatch>,
    /// Headers that are sent with these values.
    pub additional_headers: BTreeMap<HeaderName, Str>,
    /// Headers of a yes that replace those of the request.
    pub upstream_on_allow: Vec<StringMatch>,
    /// Headers of a yes that are added to the response.
    pub downstream_on_allow: Vec<StringMatch>,
    /// Headers of a no that the client gets; all if there is none.
    pub downstream_on_deny: Vec<StringMatch>,
}

/// Whether a list of names has one that agrees with a header's.
pub fn is_listed(list: &[StringMatch], name: &str) -> bool {
    list.iter().any(|one| agrees_in_any_case(one, name.as_bytes()))
}
