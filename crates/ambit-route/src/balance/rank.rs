//! How near endpoints are, as a service's preference compares it.

use std::collections::BTreeMap;

use ambit_types::service::{LoadBalancing, LoadBalancingMode, Scope};

use super::hash::name_hash;
use super::tier::Tier;
use super::{Endpoint, Place};

/// Endpoints by nearness, the nearest first.
pub(super) fn tiers(endpoints: &[Endpoint], spread: &LoadBalancing, here: &Place) -> Vec<Tier> {
    let mut by_rank: BTreeMap<usize, Tier> = BTreeMap::new();
    for (at, endpoint) in endpoints.iter().enumerate() {
        if let Some(rank) = rank(spread, here, &endpoint.place) {
            by_rank.entry(rank).or_default().push(at, endpoint.weight, name_hash(&endpoint.uid));
        }
    }
    by_rank.into_values().rev().filter(|tier| !tier.is_empty()).collect()
}

/// How well a place suits the preference; none if it may not be used.
fn rank(spread: &LoadBalancing, here: &Place, there: &Place) -> Option<usize> {
    match spread.mode {
        // A request has no address of its own to be passed on to: what the client asked for was the service.
        LoadBalancingMode::Any | LoadBalancingMode::Passthrough => Some(0),
        LoadBalancingMode::Strict => {
            spread.preference.iter().all(|scope| is_same(*scope, here, there)).then_some(0)
        }
        LoadBalancingMode::Failover => Some(failover_rank(&spread.preference, here, there)),
    }
}

/// Scopes that agree, counted until one does not. A network listed first weighs more than all others together, but
/// one that differs does not end the comparison.
fn failover_rank(preference: &[Scope], here: &Place, there: &Place) -> usize {
    let mut rank = 0;
    for (place, scope) in preference.iter().enumerate() {
        let is_leading_network = place == 0 && *scope == Scope::Network;
        if is_same(*scope, here, there) {
            rank += if is_leading_network { preference.len() } else { 1 };
        } else if !is_leading_network {
            break;
        }
    }
    rank
}

fn is_same(scope: Scope, a: &Place, b: &Place) -> bool {
    match scope {
        Scope::Region => a.locality.region == b.locality.region,
        Scope::Zone => a.locality.zone == b.locality.zone,
        Scope::Subzone => a.locality.subzone == b.locality.subzone,
        Scope::Node => a.node == b.node,
        Scope::Cluster => a.cluster == b.cluster,
        Scope::Network => a.network == b.network,
    }
}
