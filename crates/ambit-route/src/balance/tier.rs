//! Endpoints that are equally near, with what is needed to choose one of them quickly.

use crate::draw::{Draws, mix, scale};

use super::hash::weighted_score;

/// How often chance is tried before the whole list is looked at.
const TRIES: usize = 8;

/// Endpoints of one tier.
#[derive(Debug, Default)]
pub(super) struct Tier {
    /// Places in the balancer's list.
    members: Vec<usize>,
    /// Running sums of their weights.
    sums: Vec<u64>,
    /// Hashes of their names.
    hashes: Vec<u64>,
}

impl Tier {
    /// Adds an endpoint; one of weight 0 is left out.
    pub(super) fn push(&mut self, endpoint: usize, weight: u32, name_hash: u64) {
        if weight > 0 {
            self.sums.push(self.total() + u64::from(weight));
            self.members.push(endpoint);
            self.hashes.push(name_hash);
        }
    }

    /// Whether nobody is in it.
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    fn total(&self) -> u64 {
        self.sums.last().copied().unwrap_or(0)
    }

    fn weight(&self, at: usize) -> u64 {
        self.sums[at] - at.checked_sub(1).map_or(0, |before| self.sums[before])
    }

    /// By weight and chance among those that are admitted. `admits` is asked with a draw of its own; one that refuses
    /// only by that draw may still be taken when nobody else is.
    pub(super) fn draw(&self, draws: &mut Draws, admits: impl Fn(usize, u64) -> bool) -> Option<usize> {
        for _ in 0..TRIES.min(self.members.len().saturating_mul(2)) {
            let (point, chance) = (draws.next()?, draws.next()?);
            let at = self.sums.partition_point(|sum| *sum <= scale(point, self.total()));
            let member = *self.members.get(at)?;
            if admits(member, chance) {
                return Some(member);
            }
        }
        self.draw_by_walking(draws.next()?, |member| admits(member, 0))
    }

    /// As [`Tier::draw`], over the whole list: few of it may be used.
    fn draw_by_walking(&self, draw: u64, admits: impl Fn(usize) -> bool) -> Option<usize> {
        let admitted = || (0..self.members.len()).filter(|at| admits(self.members[*at]));
        let total: u64 = admitted().map(|at| self.weight(at)).sum();
        let mut left = scale(draw, total);
        for at in admitted() {
            if left < self.weight(at) {
                return Some(self.members[at]);
            }
            left -= self.weight(at);
        }
        None
    }

    /// In turn by weight: consecutive turns fall evenly over the weights (multiples of the golden ratio), so that
    /// also a heavy endpoint's turns are spread. Whoever may not be used is passed over.
    pub(super) fn turn(&self, turn: u64, admits: impl Fn(usize) -> bool) -> Option<usize> {
        let point = scale(turn.wrapping_mul(0x9e37_79b9_7f4a_7c15), self.total());
        let start = self.sums.partition_point(|sum| *sum <= point);
        let (before, after) = self.members.split_at(start.min(self.members.len()));
        after.iter().chain(before).copied().find(|member| admits(*member))
    }

    /// The endpoint that fits a key best (rendezvous hashing): when one leaves only its own keys move, each to a
    /// different place.
    pub(super) fn highest(&self, hash: u64, admits: impl Fn(usize) -> bool) -> Option<usize> {
        let admitted = (0..self.members.len()).filter(|at| admits(self.members[*at]));
        let score = |at: usize| weighted_score(mix(hash ^ self.hashes[at]), self.weight(at));
        let best = admitted.map(|at| (score(at), at)).max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
        best.map(|(_, at)| self.members[at])
    }
}
