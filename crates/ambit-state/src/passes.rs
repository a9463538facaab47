//! Passes for a while (break-glass): which are in force, and when each one ends, by the clocks of whoever enforces them.
//!
//! A pass ends when the wall clock says so, or when as much monotonic time has gone by as was left of it at its receipt,
//! or a day after that: whatever is first. What has ended stays so until the control plane sends a pass with another
//! end, or removes it and sends it again. On doubt it has ended: without an end, or after an edit that cannot be read.
//! Such an edit may be a denial, so it counts as a policy that could not be read and refuses.
//!
//! Reads no clock: a [`Moment`] is an argument.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ambit_policy::model::Policy;
use ambit_types::PolicyKey;
use ambit_types::breakglass::LONGEST_SECONDS;

use crate::change::Change;

#[cfg(test)]
mod tests;

/// The longest that a pass is in force after its receipt, whatever it says.
pub const LONGEST: Duration = Duration::from_secs(LONGEST_SECONDS);

/// Now, by two clocks.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Wall time since 1970.
    pub wall: Duration,
    /// Time that nobody can set.
    pub monotonic: Instant,
}

/// The passes that have been sent. At most one a namespace, as they share a name.
#[derive(Debug, Default)]
pub struct Passes {
    held: BTreeMap<PolicyKey, Pass>,
}

#[derive(Debug)]
struct Pass {
    /// As sent, since 1970.
    until: Option<Duration>,
    /// When it ends at the latest.
    closes: Instant,
    is_closed: bool,
}

impl Pass {
    /// A pass that is received now; closed if it has no end, or that is past.
    fn received(until: Option<Duration>, now: Moment) -> Self {
        let left = until.map_or(Duration::ZERO, |until| until.saturating_sub(now.wall)).min(LONGEST);
        Self { until, closes: now.monotonic + left, is_closed: left.is_zero() }
    }

    /// Closes it if its time is over; whether that is news.
    fn settle(&mut self, now: Moment) -> bool {
        let is_over = self.closes <= now.monotonic || self.until.is_none_or(|until| until <= now.wall);
        let is_news = is_over && !self.is_closed;
        self.is_closed |= is_over;
        is_news
    }
}

impl Passes {
    /// Notes the passes in a batch that is about to be applied, and adds to it the end of those that are not in force.
    pub fn take(&mut self, mut changes: Vec<Change>, now: Moment) -> Vec<Change> {
        // As they are applied: removals first.
        for change in &changes {
            if let Change::RemovePolicy(name) = change
                && let Ok(key) = PolicyKey::parse(name)
            {
                self.held.remove(&key);
            }
        }
        let ended: Vec<Change> = changes.iter().filter_map(|change| self.ended_by(change, now)).collect();
        changes.extend(ended);
        changes
    }

    /// The end of the pass that a change is about, if it is not in force after it.
    fn ended_by(&mut self, change: &Change, now: Moment) -> Option<Change> {
        let (key, is_closed) = match change {
            Change::Policy(policy) if policy.is_pass() => (&policy.key, self.receive(policy, now)),
            Change::Policy(policy) => {
                self.held.remove(&policy.key);
                return None;
            }
            Change::PolicyRejected { key, .. } => {
                let pass = self.held.get_mut(key)?;
                pass.is_closed = true;
                (key, true)
            }
            Change::Workload(_)
            | Change::Service(_)
            | Change::PolicyEnded(_)
            | Change::RemoveAddress(_)
            | Change::RemovePolicy(_) => return None,
        };
        is_closed.then(|| Change::PolicyEnded(key.clone()))
    }

    /// Whether the pass is closed. Sent once more as it was, it goes on as it was.
    fn receive(&mut self, policy: &Policy, now: Moment) -> bool {
        let until = policy.until.map(Duration::from_secs);
        let known = self.held.get_mut(&policy.key).filter(|pass| pass.until == until);
        if let Some(pass) = known {
            pass.settle(now);
            return pass.is_closed;
        }
        let pass = Pass::received(until, now);
        let is_closed = pass.is_closed;
        self.held.insert(policy.key.clone(), pass);
        is_closed
    }

    /// The ends of passes whose time is over, each once.
    pub fn due(&mut self, now: Moment) -> Vec<Change> {
        let over = self.held.iter_mut().filter_map(|(key, pass)| pass.settle(now).then(|| key.clone()));
        over.map(Change::PolicyEnded).collect()
    }

    /// When the first pass that is open ends at the latest; the wall clock may end it before.
    pub fn next_end(&self) -> Option<Instant> {
        self.held.values().filter(|pass| !pass.is_closed).map(|pass| pass.closes).min()
    }
}
