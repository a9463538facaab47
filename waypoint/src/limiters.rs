//! Limits on the rate of requests that rules ask for: token buckets, kept over changes of the routes, and
//! ([`global`]) limits that a rate limit service counts.

pub(crate) mod global;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ambit_route::limit::{Admission, Caller, Limiter, Rate, key};
use ambit_route::{Headers, Request, Rule, RuleId, Table};
use ambit_runtime::{clock, tasks};
use ambit_types::Str;

/// Keys that one limit tells apart; those beyond share one bucket.
const KEYS_MAX: usize = 10_000;

/// Limits that are kept; beyond it all begin anew, with full buckets.
const LIMITS_MAX: usize = 4096;

/// How often buckets that are full again are looked for.
const SWEEP: Duration = Duration::from_secs(60);

/// Why a request is one too many.
#[derive(Debug)]
pub(crate) enum Excess {
    /// A bucket is empty for so long.
    Limited(Duration),
    /// A rate limit service says so.
    Over(Box<global::Over>),
    /// Who counts did not answer.
    Unavailable,
}

/// The buckets of all limits.
#[derive(Debug, Default)]
pub(crate) struct Limiters(Mutex<HashMap<(RuleId, Str), (Rate, Limiter)>>);

impl Limiters {
    /// No buckets yet, and none for long that say no more than new ones. To be called inside a runtime.
    pub(crate) fn swept() -> Arc<Self> {
        let limiters = Arc::new(Self::default());
        let weak = Arc::downgrade(&limiters);
        tasks::spawn("waypoint-limits-sweep", async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                let Some(limiters) = weak.upgrade() else { return };
                limiters.sweep(clock::monotonic());
            }
        });
        limiters
    }

    /// Forgets the limits that no rule has any more.
    pub(crate) fn retain(&self, table: &Table) {
        if self.lock().is_empty() {
            return;
        }
        let mut there: HashSet<(RuleId, Str)> = HashSet::new();
        for rule in table.rules() {
            there.extend(rule.rate_limits.iter().map(|limit| (rule.id.clone(), limit.name.clone())));
        }
        self.lock().retain(|limit, _| there.contains(limit));
    }

    fn sweep(&self, now: Instant) {
        self.lock().retain(|_, (_, limiter)| limiter.sweep(now));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(RuleId, Str), (Rate, Limiter)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request under every limit of its rule that is counted here.
    ///
    /// # Errors
    /// [`Excess::Limited`] for the first that is reached.
    pub(crate) fn admit<H: Headers + ?Sized>(
        &self,
        rule: &Rule,
        request: &Request<'_, H>,
        caller: &Caller<'_>,
        now: Instant,
    ) -> Result<(), Excess> {
        let mut text = Vec::new();
        for limit in &rule.rate_limits {
            let Some(rate) = Rate::of(&limit.scope) else { continue };
            key(&limit.keys, request, caller, &mut text);
            let mut all = self.lock();
            if all.len() >= LIMITS_MAX {
                all.clear();
            }
            let fresh = || (rate, Limiter::new(rate, KEYS_MAX, now));
            let held = all.entry((rule.id.clone(), limit.name.clone())).or_insert_with(fresh);
            if held.0 != rate {
                *held = fresh();
            }
            if let Admission::Limited { retry_after } = held.1.admit(&text, now) {
                return Err(Excess::Limited(retry_after));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
