//! Limits on the rate of requests that rules ask for: token buckets, kept over changes of the routes, and
//! ([`global`]) limits that a rate limit service counts.

pub(crate) mod global;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ambit_route::limit::{Admission, Caller, Limiter, Rate, key};
use ambit_route::{Headers, Request, Rule, RuleId};
use ambit_types::Str;

/// Keys that one limit tells apart; those beyond share one bucket.
const KEYS_MAX: usize = 10_000;

/// Limits that are kept; beyond it all begin anew, with full buckets.
const LIMITS_MAX: usize = 4096;

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
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
