//! Limits on the rate of requests that rules ask for: token buckets, kept over changes of the routes.
//!
//! There is no client of a rate limit service yet: a global limit stands as if the service did not answer, which
//! refuses unless the limit says otherwise.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ambit_route::limit::{Admission, Caller, Limiter, Rate, key};
use ambit_route::model::LimitScope;
use ambit_route::{Headers, Request, Rule, RuleId};
use ambit_types::Str;

/// Keys that one limit tells apart.
const KEYS_MAX: usize = 10_000;

/// Limits that are kept; beyond it all begin anew, with full buckets.
const LIMITS_MAX: usize = 4096;

/// Why a request is one too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excess {
    /// A bucket is empty for so long.
    Limited(Duration),
    /// Who counts cannot be asked.
    Unavailable,
}

/// The buckets of all limits.
#[derive(Debug, Default)]
pub(crate) struct Limiters(Mutex<HashMap<(RuleId, Str), (Rate, Limiter)>>);

impl Limiters {
    /// Counts a request under every limit of its rule.
    pub(crate) fn admit<H: Headers + ?Sized>(
        &self,
        rule: &Rule,
        request: &Request<'_, H>,
        caller: &Caller<'_>,
        now: Instant,
    ) -> Result<(), Excess> {
        let mut text = Vec::new();
        for limit in &rule.rate_limits {
            let rate = match &limit.scope {
                LimitScope::Local { .. } => Rate::of(&limit.scope),
                LimitScope::Global { fail_open: true, .. } => None,
                LimitScope::Global { fail_open: false, .. } => return Err(Excess::Unavailable),
            };
            let Some(rate) = rate else { continue };
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
