//! The order among matches that are found in the same place.
//!
//! Gateway API, HTTPRouteRule.matches and GRPCRouteRule.matches; hostnames do not count in a mesh. Two slots are
//! ours, because the API leaves them open: a pattern comes after everything exact and before everything shorter,
//! the longest first; and what stands in for a condition that could not be read comes after what could.

use std::cmp::Reverse;

use crate::model::RouteKey;

/// Smaller wins.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    /// Whether it covers more than its author wrote, because a condition could not be read.
    pub(crate) is_stand_in: bool,
    /// What makes it more specific, the weightiest first.
    pub(crate) specificity: Reverse<[u32; 4]>,
    /// Creation of its route: the older one wins.
    pub(crate) created: u64,
    /// Name of its route.
    pub(crate) route: RouteKey,
    /// Place of its rule in the route, and of the match in the rule.
    pub(crate) position: (usize, usize),
}

/// How specific an optional condition on a text is: exact before pattern before none, then by length.
pub(crate) fn text_specificity(is_exact: bool, length: usize) -> u32 {
    const EXACT: u32 = 1 << 20;
    let length = u32::try_from(length).unwrap_or(EXACT - 2).min(EXACT - 2) + 1;
    if is_exact { EXACT + length } else { length }
}
