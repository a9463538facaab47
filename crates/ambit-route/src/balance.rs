//! Which endpoint of a backend gets a request: near ones first, then by load, turn, chance or key.
//!
//! Built once for a set of endpoints and the place of this waypoint. A choice is a few draws; only hashing, and a
//! list with next to no endpoint that may be used, looks at all of them. What load is, who is ejected and what has
//! been tried is said by the caller.

mod hash;
mod rank;
mod tier;

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use ambit_types::service::LoadBalancing;
use ambit_types::{Locality, Network, Str, Uid};

use crate::draw::Draws;
use crate::model::{Balance, SlowStart};
pub use hash::{hash_of, hash_of_connection};
use tier::Tier;

/// Where something runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// Its network.
    pub network: Network,
    /// Its cluster.
    pub cluster: Str,
    /// Region, zone and subzone.
    pub locality: Locality,
    /// Its node.
    pub node: Str,
}

/// An endpoint that may be sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The workload.
    pub uid: Uid,
    /// Its share; one of weight 0 gets nothing while others have weight.
    pub weight: u32,
    /// Where it runs.
    pub place: Place,
    /// Since when it has been ready; none if that was before anybody watched, so that it is not spared.
    pub ready_since: Option<Instant>,
}

/// How an endpoint stands for the request at hand, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Standing {
    /// Nothing against it.
    Ready,
    /// Ejected for its failures: used when there is no other, because an answer may be better than none.
    Ejected,
    /// Tried for this request before: used again only when everything else is.
    Tried,
}

/// What the caller knows of endpoints, by their place in the list.
pub trait View {
    /// Anything that grows with work: requests under way, or those times the latency of late.
    fn load(&self, endpoint: usize) -> u64;
    /// How it stands.
    fn standing(&self, endpoint: usize) -> Standing;
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// How to choose.
    pub balance: &'a Balance,
    /// The request's key, see [`hash_of`]; without one consistent hashing is least request.
    pub hash: Option<u64>,
    /// How many requests this destination has had; turns are told by it.
    pub turn: u64,
    /// Uniform over all of `u64`.
    pub draw: u64,
    /// The time.
    pub now: Instant,
}

/// Endpoints of a destination, ready to choose from.
#[derive(Debug, Default)]
pub struct Balancer {
    endpoints: Vec<Endpoint>,
    tiers: Vec<Tier>,
    slow_start: Option<SlowStart>,
}

impl Balancer {
    /// Orders the endpoints by nearness to `here`, as `spread` prefers it.
    pub fn new(
        endpoints: Vec<Endpoint>,
        spread: &LoadBalancing,
        slow_start: Option<SlowStart>,
        here: &Place,
    ) -> Self {
        let tiers = rank::tiers(&endpoints, spread, here);
        Self { endpoints, tiers, slow_start }
    }

    /// The endpoints, in the order given.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Chooses an endpoint; none if there is none at all.
    ///
    /// Of those that stand best the nearest are taken; of these the request's key, turn or draws decide.
    pub fn pick(&self, ask: &Ask<'_>, view: &impl View) -> Option<usize> {
        [Standing::Ready, Standing::Ejected, Standing::Tried].into_iter().find_map(|worst| {
            self.tiers.iter().find_map(|tier| {
                let choice = Choice { balancer: self, tier, view, worst, now: ask.now };
                choice.pick(ask)
            })
        })
    }

    /// The share of its weight that an endpoint gets now, in thousandths.
    fn share_permille(&self, endpoint: usize, now: Instant) -> u32 {
        let since = self.endpoints.get(endpoint).and_then(|endpoint| endpoint.ready_since);
        self.slow_start.zip(since).map_or(1000, |(slow_start, since)| {
            share_permille(&slow_start, now.saturating_duration_since(since))
        })
    }
}

/// The share after an age, in thousandths: from the least share straight up to the whole.
fn share_permille(slow_start: &SlowStart, age: Duration) -> u32 {
    let least = slow_start.least_percent.clamp(1, 100) * 10;
    if age >= slow_start.window {
        return 1000;
    }
    let grown = u128::from(1000 - least) * age.as_nanos() / slow_start.window.as_nanos();
    least + u32::try_from(grown).expect("less than 1000, because the age is less than the window")
}

/// One choice among the endpoints of a tier that stand well enough.
struct Choice<'a, V> {
    balancer: &'a Balancer,
    tier: &'a Tier,
    view: &'a V,
    worst: Standing,
    now: Instant,
}

impl<V: View> Choice<'_, V> {
    fn pick(&self, ask: &Ask<'_>) -> Option<usize> {
        match (ask.balance, ask.hash) {
            (Balance::LeastRequest, _) | (Balance::ConsistentHash(_), None) => self.less_loaded(ask.draw),
            (Balance::Random, _) => {
                self.tier.draw(&mut Draws::from(ask.draw), |at, draw| self.admits(at, draw))
            }
            (Balance::RoundRobin, _) => self.tier.turn(ask.turn, |at| self.stands(at)),
            (Balance::ConsistentHash(_), Some(hash)) => self.tier.highest(hash, |at| self.stands(at)),
        }
    }

    fn stands(&self, endpoint: usize) -> bool {
        self.view.standing(endpoint) <= self.worst
    }

    /// Whether it stands well and, if it is new, this draw falls into its share.
    fn admits(&self, endpoint: usize, draw: u64) -> bool {
        let share = u64::from(self.balancer.share_permille(endpoint, self.now));
        self.stands(endpoint) && crate::draw::scale(draw, 1000) < share
    }

    /// Two by weight, and of these the one with less load for its weight ("power of two choices").
    fn less_loaded(&self, draw: u64) -> Option<usize> {
        let mut draws = Draws::from(draw);
        let first = self.tier.draw(&mut draws, |at, draw| self.admits(at, draw))?;
        let other = self.tier.draw(&mut draws, |at, draw| at != first && self.admits(at, draw));
        let Some(second) = other else { return Some(first) };
        let (one, two) = (self.load_and_weight(first), self.load_and_weight(second));
        Some(if two.0 * one.1 < one.0 * two.1 { second } else { first })
    }

    /// Load with the request at hand, and the weight to bear it.
    fn load_and_weight(&self, endpoint: usize) -> (u128, u128) {
        let weight = self.balancer.endpoints.get(endpoint).map_or(0, |endpoint| endpoint.weight);
        let weight = u128::from(weight) * u128::from(self.balancer.share_permille(endpoint, self.now));
        (u128::from(self.view.load(endpoint)) + 1, weight)
    }
}
