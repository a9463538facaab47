//! A rule ready for use: what a lookup leads to.

use std::fmt;
use std::sync::Arc;

use ambit_types::Str;

use crate::backend::Backends;
use crate::filter::Filters;
use crate::model::{Fault, Persistence, RateLimit, Retry, RouteKey, Timeouts};

/// Which rule this is, for records, metrics and sessions.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId {
    /// Its route.
    pub route: RouteKey,
    /// Its place in the route, counted from 0.
    pub rule: usize,
    /// Its name, if it has one.
    pub name: Option<Str>,
}

impl fmt::Display for RuleId {
    /// `NAMESPACE/ROUTE rule 2`, or with a name `NAMESPACE/ROUTE rule checkout`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{} rule {name}", self.route),
            None => write!(f, "{} rule {}", self.route, self.rule),
        }
    }
}

/// A compiled rule. A waypoint may hold tens of thousands: what few rules have lies outside of it.
#[derive(Debug)]
pub struct Rule {
    /// Which rule this is.
    pub id: RuleId,
    /// Whether it was compiled as written. One that was not answers 500 to what it would have taken: to skip it could
    /// hand requests to a rule that was not meant for them.
    pub is_valid: bool,
    /// What it changes or answers.
    pub filters: Filters,
    /// Where it sends.
    pub backends: Backends,
    /// How long things may take; zero has become none.
    pub timeouts: Timeouts,
    /// When to try again; rules that say nothing share one.
    pub retry: Arc<Retry>,
    /// How a client stays with an endpoint.
    pub persistence: Option<Box<Persistence>>,
    /// Limits on the rate of requests.
    pub rate_limits: Box<[RateLimit]>,
    /// Faults put in on purpose.
    pub fault: Option<Box<Fault>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Backend;

    /// What most rules do not have must not make all of them large.
    #[test]
    fn a_rule_is_small_since_there_are_many() {
        assert!(size_of::<Rule>() <= 256, "{}", size_of::<Rule>());
        assert!(size_of::<Backend>() <= 96, "{}", size_of::<Backend>());
    }
}
