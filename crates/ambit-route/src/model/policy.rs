//! What the Gateway API has no words for: limits, faults, and how endpoints of a destination are treated.
//!
//! A small policy kind of ours says it, attached by `targetRefs` to a route or a service; here it has already been
//! resolved to the rule or the destination.

use std::time::Duration;

use ambit_types::{ServiceKey, Str};

use super::Fraction;

/// A limit on the rate of requests that a rule serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// Its name, for records and metrics.
    pub name: Str,
    /// What requests are told apart by; none counts all of them together.
    pub keys: Vec<LimitKey>,
    /// Who counts.
    pub scope: LimitScope,
}

/// Who counts requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitScope {
    /// This waypoint, by a token bucket for each key.
    Local {
        /// Requests admitted in each interval, in the long run. Not 0.
        requests: u32,
        /// The interval. Not 0.
        interval: Duration,
        /// Requests admitted at once after a pause; 0 stands for `requests`.
        burst: u32,
    },
    /// A rate limit service (`envoy.service.ratelimit.v3`), asked with these descriptors.
    Global {
        /// The service.
        service: ServiceKey,
        /// Its port.
        port: u16,
        /// Its domain.
        domain: Str,
        /// How long it may take. Default 100 ms.
        timeout: Duration,
        /// Whether requests pass when it does not answer. Default false.
        fail_open: bool,
    },
}

/// What requests are told apart by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LimitKey {
    /// The caller's identity.
    Caller,
    /// The namespace of the caller's identity.
    CallerNamespace,
    /// The caller's address.
    CallerAddress,
    /// The method.
    Method,
    /// The path without its query.
    Path,
    /// A header's value.
    Header(Str),
    /// A text of the author's own, for a rate limit service.
    Fixed {
        /// Its key.
        key: Str,
        /// Its value.
        value: Str,
    },
}

/// Faults put in on purpose. Delay and abort are drawn each for itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fault {
    /// A pause before the request goes on.
    pub delay: Option<Delay>,
    /// An answer in its place, and of how many requests.
    pub abort: Option<(Abort, Fraction)>,
}

/// A pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delay {
    /// How long.
    pub pause: Duration,
    /// Of how many requests.
    pub fraction: Fraction,
}

/// How a request is cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Abort {
    /// This status.
    Http(u16),
    /// This gRPC status.
    Grpc(u32),
}

/// A policy for a service as a destination, whichever route leads there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The service.
    pub service: ServiceKey,
    /// The policy.
    pub policy: DestinationPolicy,
}

/// How a destination's endpoints are treated.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DestinationPolicy {
    /// How one of them is chosen.
    pub balance: Balance,
    /// How new ones are spared.
    pub slow_start: Option<SlowStart>,
    /// How failing ones are left out; none never does.
    pub outlier: Option<Outlier>,
    /// How much is sent to all of them at a time.
    pub connections: Connections,
    /// How much of what is sent may be repetition.
    pub retry_budget: RetryBudget,
    /// How clients stay with an endpoint, where the rule does not say it.
    pub persistence: Option<super::Persistence>,
}

impl DestinationPolicy {
    /// With the names of headers as headers are looked for.
    pub(crate) fn in_lower_case(mut self) -> Self {
        if let Balance::ConsistentHash(keys) = &mut self.balance {
            for key in keys {
                if let HashKey::Header(name) = key {
                    *name = name.to_ascii_lowercase().into();
                }
            }
        }
        self.persistence = self.persistence.map(super::Persistence::in_lower_case);
        self
    }
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Balance {
    /// The less loaded of two drawn by weight.
    #[default]
    LeastRequest,
    /// Each in turn, by weight.
    RoundRobin,
    /// By weight and chance.
    Random,
    /// The same for the same key, as long as it is there: the first of these that the request has. A request with
    /// none of them goes to the less loaded of two.
    ConsistentHash(Vec<HashKey>),
}

/// What a request is hashed by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HashKey {
    /// A header's value.
    Header(Str),
    /// A cookie's value.
    Cookie(Str),
    /// A query parameter's first value.
    Query(Str),
    /// The caller's address.
    SourceAddress,
}

/// How an endpoint is spared after it became ready: its share grows from the least to the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlowStart {
    /// Until it has its whole share.
    pub window: Duration,
    /// The share it begins with, in percent, 1 to 100. Default 10.
    pub least_percent: u32,
}

/// When a failing endpoint is left out for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlier {
    /// Failures in a row: status from 500, resets, time-outs, connections that failed. 0 does not count. Default 5.
    pub consecutive_errors: u32,
    /// The same, of status 502, 503, 504 and failures without a status only. 0 does not count. Default 0.
    pub consecutive_gateway_errors: u32,
    /// Endpoints whose rate of success is so many hundredths of a standard deviation under the mean; 0 does not
    /// compare. Default 0; 190 is usual.
    pub success_deviation_percent: u32,
    /// Requests in an interval below which an endpoint's rate says nothing. Default 100.
    pub success_requests_min: u32,
    /// Endpoints with such a rate below which there is no mean. Default 5.
    pub success_endpoints_min: u32,
    /// How often rates are compared. Default 10 s.
    pub interval: Duration,
    /// For how long an endpoint is first left out; each time in a row doubles it. Default 30 s.
    pub ejection: Duration,
    /// Where doubling ends. Default 300 s.
    pub ejection_max: Duration,
    /// Most endpoints left out at a time, in percent, rounded down. Default 50.
    pub ejected_percent_max: u32,
}

impl Default for Outlier {
    fn default() -> Self {
        Self {
            consecutive_errors: 5,
            consecutive_gateway_errors: 0,
            success_deviation_percent: 0,
            success_requests_min: 100,
            success_endpoints_min: 5,
            interval: Duration::from_secs(10),
            ejection: Duration::from_secs(30),
            ejection_max: Duration::from_secs(300),
            ejected_percent_max: 50,
        }
    }
}

/// How much is sent to a destination at a time; 0 stands for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Connections {
    /// Connections to all its endpoints.
    pub connections_max: u32,
    /// Requests that wait for a connection.
    pub pending_max: u32,
    /// Requests under way.
    pub requests_max: u32,
    /// Requests that one connection carries in its life.
    pub requests_per_connection_max: u32,
}

/// How much of what is sent to a destination may be repetition (GEP-3388).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryBudget {
    /// Repetitions of a hundred requests, 0 to 100. Default 20.
    pub percent: u32,
    /// Over how long both are counted, 1 s to 1 h. Default 10 s.
    pub interval: Duration,
    /// Repetitions admitted in any case in each `min_interval`. Default 10.
    pub min_retries: u32,
    /// Default 1 s.
    pub min_interval: Duration,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self {
            percent: 20,
            interval: Duration::from_secs(10),
            min_retries: 10,
            min_interval: Duration::from_secs(1),
        }
    }
}
