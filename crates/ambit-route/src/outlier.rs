//! Which endpoints of a destination are left out for a while because they fail.
//!
//! An endpoint is ejected for failures in a row, or because its rate of success is far below the others'. It comes
//! back by itself, later each time it is ejected again; and never are more left out than the ceiling allows,
//! because a mesh that sends to nobody is worse than one that sends to somebody who fails.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ambit_types::Uid;

use crate::model::Outlier;

#[cfg(test)]
mod tests;

/// Longest time that is reckoned with, so that no sum with it can overflow.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// How an attempt at an endpoint went, as far as the endpoint is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Health {
    /// An answer, whatever it says to the caller.
    Success,
    /// An answer with status 500, 501, 505 or above.
    ServerError,
    /// Status 502, 503 or 504; or no answer: reset, time-out, no connection.
    GatewayError,
}

impl Health {
    /// Of a status.
    pub fn of_status(status: u16) -> Self {
        match status {
            502..=504 => Self::GatewayError,
            500..=599 => Self::ServerError,
            _ => Self::Success,
        }
    }
}

/// Why an endpoint is ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// So many failures in a row.
    Consecutive,
    /// So many gateway errors in a row.
    ConsecutiveGateway,
    /// Success far below the others'.
    SuccessRate,
}

/// An endpoint that is left out from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ejection {
    /// The endpoint.
    pub endpoint: Uid,
    /// Why.
    pub cause: Cause,
    /// Until when.
    pub until: Instant,
}

/// What is known of the endpoints of one destination.
#[derive(Debug, Clone)]
pub struct Tracker {
    policy: Outlier,
    endpoints: BTreeMap<Uid, State>,
    compare_at: Instant,
}

#[derive(Debug, Clone, Default)]
struct State {
    errors_in_a_row: u32,
    gateway_errors_in_a_row: u32,
    /// Of this interval.
    requests: u32,
    successes: u32,
    ejected_until: Option<Instant>,
    /// Ejections that still lengthen the next one.
    ejections: u32,
}

impl Tracker {
    /// Watches nobody yet. Times beyond a day count as a day.
    pub fn new(mut policy: Outlier, now: Instant) -> Self {
        for time in [&mut policy.interval, &mut policy.ejection, &mut policy.ejection_max] {
            *time = (*time).min(LONGEST);
        }
        Self { policy, endpoints: BTreeMap::new(), compare_at: now + policy.interval }
    }

    /// Says which endpoints there are. Those that are gone are forgotten; those that stay keep their history.
    pub fn retain<'a>(&mut self, present: impl Iterator<Item = &'a Uid>) {
        let mut before = std::mem::take(&mut self.endpoints);
        self.endpoints = present.map(|uid| (uid.clone(), before.remove(uid).unwrap_or_default())).collect();
    }

    /// Takes note of an attempt. Endpoints that are not there any more are ignored.
    pub fn observe(&mut self, endpoint: &Uid, health: Health, now: Instant) -> Option<Ejection> {
        let state = self.endpoints.get_mut(endpoint)?;
        state.count(health);
        let reached = |count: u32, limit: u32| limit > 0 && count >= limit;
        let cause = if reached(state.gateway_errors_in_a_row, self.policy.consecutive_gateway_errors) {
            Cause::ConsecutiveGateway
        } else if reached(state.errors_in_a_row, self.policy.consecutive_errors) {
            Cause::Consecutive
        } else {
            return None;
        };
        self.eject(endpoint, cause, now)
    }

    /// Compares rates of success, if an interval has passed. To be called about as often.
    pub fn compare(&mut self, now: Instant) -> Vec<Ejection> {
        if now < self.compare_at {
            return Vec::new();
        }
        self.compare_at = now + self.policy.interval;
        let slow = self.far_below();
        for state in self.endpoints.values_mut() {
            (state.requests, state.successes) = (0, 0);
            if !state.is_ejected(now) {
                state.ejections = state.ejections.saturating_sub(1);
            }
        }
        slow.into_iter().filter_map(|endpoint| self.eject(&endpoint, Cause::SuccessRate, now)).collect()
    }

    /// Whether an endpoint is left out.
    pub fn is_ejected(&self, endpoint: &Uid, now: Instant) -> bool {
        self.endpoints.get(endpoint).is_some_and(|state| state.is_ejected(now))
    }

    /// How many are left out.
    pub fn ejected(&self, now: Instant) -> usize {
        self.endpoints.values().filter(|state| state.is_ejected(now)).count()
    }

    fn eject(&mut self, endpoint: &Uid, cause: Cause, now: Instant) -> Option<Ejection> {
        let most =
            self.endpoints.len() * usize::try_from(self.policy.ejected_percent_max.min(100)).ok()? / 100;
        let is_full = self.ejected(now) >= most;
        let policy = self.policy;
        let state = self.endpoints.get_mut(endpoint)?;
        if is_full || state.is_ejected(now) {
            return None;
        }
        let until = now + length(&policy, state.ejections);
        state.ejections = state.ejections.saturating_add(1);
        state.ejected_until = Some(until);
        (state.errors_in_a_row, state.gateway_errors_in_a_row) = (0, 0);
        Some(Ejection { endpoint: endpoint.clone(), cause, until })
    }

    /// Endpoints whose success is further below the mean than is put up with.
    fn far_below(&self) -> Vec<Uid> {
        let policy = &self.policy;
        let telling = |state: &&State| state.requests >= policy.success_requests_min.max(1);
        let rates: Vec<f64> = self.endpoints.values().filter(telling).map(State::success).collect();
        let enough = usize::try_from(policy.success_endpoints_min.max(1)).is_ok_and(|min| rates.len() >= min);
        if policy.success_deviation_percent == 0 || !enough {
            return Vec::new();
        }
        let count = rates.len() as f64;
        let mean = rates.iter().sum::<f64>() / count;
        let variance = rates.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / count;
        let least = mean - variance.sqrt() * f64::from(policy.success_deviation_percent) / 100.0;
        let below = self.endpoints.iter().filter(|(_, state)| telling(state) && state.success() < least);
        below.map(|(uid, _)| uid.clone()).collect()
    }
}

impl State {
    fn count(&mut self, health: Health) {
        self.requests = self.requests.saturating_add(1);
        let (error, gateway) = match health {
            Health::Success => (false, false),
            Health::ServerError => (true, false),
            Health::GatewayError => (true, true),
        };
        self.successes += u32::from(!error);
        self.errors_in_a_row = if error { self.errors_in_a_row.saturating_add(1) } else { 0 };
        self.gateway_errors_in_a_row =
            if gateway { self.gateway_errors_in_a_row.saturating_add(1) } else { 0 };
    }

    fn success(&self) -> f64 {
        f64::from(self.successes) / f64::from(self.requests.max(1))
    }

    fn is_ejected(&self, now: Instant) -> bool {
        self.ejected_until.is_some_and(|until| now < until)
    }
}

/// How long an ejection lasts after so many before it: twice as long each time, up to the most.
fn length(policy: &Outlier, before: u32) -> Duration {
    let most = policy.ejection_max.max(policy.ejection);
    policy.ejection.saturating_mul(1 << before.min(31)).min(most)
}
