//! Which backend of a rule a request goes to, and what the client is told when there is none.
//!
//! Choosing an endpoint of that backend is `balance`'s.

use ambit_types::Reason;

use crate::draw::scale;
use crate::filter::Filters;
use crate::model::{BackendFault, Target};

#[cfg(test)]
mod tests;

/// The backends of a rule with their weights.
#[derive(Debug, Default)]
pub struct Backends {
    shares: Box<[Share]>,
}

/// A backend with its part of the weights.
#[derive(Debug)]
struct Share {
    backend: Backend,
    /// The sum of its weight and of those before it.
    until: u64,
}

/// One backend.
#[derive(Debug)]
pub struct Backend {
    /// Where to.
    pub target: Target,
    /// Applied after the rule's.
    pub filters: Filters,
    /// Whether its filters are in order; the share of a backend whose filters are not answers 500.
    pub(crate) is_broken: bool,
}

/// Why a request gets no answer from a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Failure {
    /// Routes are attached, and none wants the request.
    RouteNotFound,
    /// The rule that wants it could not be compiled.
    RuleInvalid,
    /// The rule has neither backends nor an answer of its own.
    NoBackends,
    /// The backend drawn by weight does not exist or may not be used.
    BackendInvalid(BackendFault),
    /// Every backend has weight 0.
    NoWeight,
    /// The backend has no endpoint that is ready.
    NoEndpoint,
    /// No connection to an endpoint, or it ended before a response.
    Unreachable,
    /// The time for the request, or for its last attempt, is over.
    Timeout,
    /// The destination has as many connections, waiting requests or requests as it may.
    Overflow,
    /// A limit on the rate of requests.
    RateLimited,
    /// A fault put in on purpose.
    Injected(u16),
}

impl Backends {
    /// Makes the list of backends and weights.
    pub(crate) fn new(entries: Vec<(Backend, u32)>) -> Self {
        let mut until = 0;
        let shares = entries.into_iter().map(|(backend, weight)| {
            until += u64::from(weight);
            Share { backend, until }
        });
        Self { shares: shares.collect() }
    }

    /// The backend for a draw that is uniform over all of `u64`: each by its share of the weights, up to 2⁻⁴⁰.
    ///
    /// # Errors
    /// [`Failure::NoBackends`], [`Failure::NoWeight`], or what is wrong with the one drawn: the others' shares are
    /// not theirs to take over (Gateway API, BackendRef).
    pub fn pick(&self, draw: u64) -> Result<&Backend, Failure> {
        let total = self.shares.last().ok_or(Failure::NoBackends)?.until;
        if total == 0 {
            return Err(Failure::NoWeight);
        }
        let point = scale(draw, total);
        let backend = &self.shares[self.shares.partition_point(|share| share.until <= point)].backend;
        backend.usable().map(|()| backend)
    }

    /// The backend of this target whatever its weight: a session outlives a change of weights (GEP-1619).
    pub fn of(&self, target: &Target) -> Option<&Backend> {
        self.iter().find(|backend| backend.target == *target && backend.usable().is_ok())
    }

    /// All of them, in the order of the rule.
    pub fn iter(&self) -> impl Iterator<Item = &Backend> {
        self.shares.iter().map(|share| &share.backend)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.shares.is_empty()
    }
}

impl Backend {
    fn usable(&self) -> Result<(), Failure> {
        match &self.target {
            Target::Invalid { fault, .. } => Err(Failure::BackendInvalid(*fault)),
            Target::Service { .. } if self.is_broken => Err(Failure::RuleInvalid),
            Target::Service { .. } => Ok(()),
        }
    }
}

/// gRPC status codes by name.
pub mod grpc {
    /// The call was cancelled.
    pub const CANCELLED: u32 = 1;
    /// Unknown error.
    pub const UNKNOWN: u32 = 2;
    /// The deadline passed.
    pub const DEADLINE_EXCEEDED: u32 = 4;
    /// Something is used up, such as a rate.
    pub const RESOURCE_EXHAUSTED: u32 = 8;
    /// No such method here.
    pub const UNIMPLEMENTED: u32 = 12;
    /// Cannot be served now.
    pub const UNAVAILABLE: u32 = 14;
}

impl Failure {
    /// The HTTP status. A gRPC caller gets 200 and [`Failure::grpc_status`] in its place.
    pub fn status(self) -> u16 {
        match self {
            Self::RouteNotFound => 404,
            Self::RuleInvalid | Self::NoBackends | Self::BackendInvalid(_) | Self::NoWeight => 500,
            Self::NoEndpoint | Self::Unreachable | Self::Overflow => 503,
            Self::Timeout => 504,
            Self::RateLimited => 429,
            Self::Injected(status) => status,
        }
    }

    /// The gRPC status (Gateway API, GRPCRouteRule.backendRefs; gRPC's mapping of HTTP status codes for faults).
    pub fn grpc_status(self) -> u32 {
        match self {
            Self::RouteNotFound => grpc::UNIMPLEMENTED,
            Self::RuleInvalid
            | Self::NoBackends
            | Self::BackendInvalid(_)
            | Self::NoWeight
            | Self::NoEndpoint
            | Self::Unreachable
            | Self::Overflow => grpc::UNAVAILABLE,
            Self::Timeout => grpc::DEADLINE_EXCEEDED,
            Self::RateLimited => grpc::RESOURCE_EXHAUSTED,
            Self::Injected(status) => of_http(status),
        }
    }

    /// The reason code for the record, where there is one.
    pub fn reason(self) -> Option<Reason> {
        match self {
            Self::RouteNotFound => Some(Reason::RouteNotFound),
            Self::NoBackends | Self::BackendInvalid(_) | Self::NoWeight => Some(Reason::BackendRefused),
            Self::RuleInvalid => Some(Reason::ConfigRejected),
            Self::NoEndpoint => Some(Reason::NoHealthyEndpoint),
            Self::Unreachable => Some(Reason::ConnectRefused),
            Self::Timeout => Some(Reason::UpstreamTimeout),
            Self::Overflow | Self::RateLimited | Self::Injected(_) => None,
        }
    }
}

/// What a status code means to a gRPC client that finds no gRPC status (gRPC, `http-grpc-status-mapping.md`).
pub fn of_http(status: u16) -> u32 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => grpc::UNIMPLEMENTED,
        429 | 502 | 503 | 504 => grpc::UNAVAILABLE,
        _ => grpc::UNKNOWN,
    }
}
