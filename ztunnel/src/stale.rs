//! What may still be let in when the control plane has been away for longer than it may: pairs that were let in
//! before. Policy is asked first and alone says no to them; this only says no to those it never said yes to.
//!
//! How long that is goes by two clocks (see [`crate::heard`]): one that steps back lets nobody in.
//! Remembers since this process started, a bounded number, those used last. It closes no connection that is open.

use std::collections::HashSet;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ambit_state::Open;
use ambit_types::{Identity, Reason, Str};

use crate::telemetry::StaleFor;

/// Pairs that are remembered, of callers with an identity and of callers without each: who has none must not push out
/// who has one.
const PAIRS_MAX: usize = 32_768;

/// A pair that was never let in while the control plane was heard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the control plane has been away for {away} s, at most {max} s are allowed, and {caller} was not let in at port \
     {port} of {workload} before that"
)]
pub struct NeverSeen {
    away: u64,
    max: u64,
    caller: String,
    workload: Str,
    port: u16,
}

impl NeverSeen {
    /// The code that stands for it.
    pub fn reason(&self) -> Reason {
        Reason::StateTooOld
    }
}

/// The pairs that were let in at this node.
#[derive(Debug, Default)]
pub struct Pairs {
    bound: Option<Bound>,
}

#[derive(Debug)]
struct Bound {
    /// Seconds.
    max: u64,
    away: Arc<dyn StaleFor>,
    proven: Mutex<Recent<(Callee, Proven)>>,
    plain: Mutex<Recent<(Callee, IpAddr)>>,
}

/// Who is called: the workload, not one of its pods, because another one of them is no other callee.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Callee {
    identity: Identity,
    workload: Str,
    port: u16,
}

/// Who calls, and on whose behalf where its word counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Proven {
    peer: Identity,
    client: Option<Identity>,
}

impl Pairs {
    /// Remembers pairs and refuses others once the control plane has been away for longer than `max_stale`; without
    /// that bound nothing is remembered and nothing refused.
    pub fn new(max_stale: Option<Duration>, away: Arc<dyn StaleFor>) -> Self {
        let bound = |max: Duration| Bound {
            max: max.as_secs(),
            away,
            proven: Mutex::new(Recent::new(PAIRS_MAX)),
            plain: Mutex::new(Recent::new(PAIRS_MAX)),
        };
        Self { bound: max_stale.map(bound) }
    }

    /// Notes a connection to `workload` that policy lets in.
    ///
    /// # Errors
    /// [`NeverSeen`] if the control plane has been away for too long to let this pair in for the first time.
    pub fn admit(&self, open: &Open, workload: &Str) -> Result<(), NeverSeen> {
        let Some(bound) = &self.bound else { return Ok(()) };
        let port = open.destination.port();
        let away = bound.away.stale_for().unwrap_or(0);
        let may_be_new = away <= bound.max;
        let callee = Callee { identity: open.own.clone(), workload: workload.clone(), port };
        let seen = match &open.peer {
            Some(peer) => {
                let client = open.client.clone().filter(|_| open.believed);
                seen(&bound.proven, (callee, Proven { peer: peer.clone(), client }), may_be_new)
            }
            None => seen(&bound.plain, (callee, open.source), may_be_new),
        };
        if seen || may_be_new {
            return Ok(());
        }
        let caller = open.peer.as_ref().map_or_else(|| open.source.to_string(), ToString::to_string);
        Err(NeverSeen { away, max: bound.max, caller, workload: workload.clone(), port })
    }
}

/// Whether a pair was let in before; notes it if it `may_be_new`.
fn seen<T: Hash + Eq>(memory: &Mutex<Recent<T>>, pair: T, may_be_new: bool) -> bool {
    let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
    let seen = memory.contains(&pair);
    if seen || may_be_new {
        memory.note(pair);
    }
    seen
}

/// The values noted last, in two halves: when the younger one is full, the older one is forgotten whole. So at least
/// the last half of the bound is kept, and nothing has to be put in order.
#[derive(Debug)]
struct Recent<T> {
    younger: HashSet<T>,
    older: HashSet<T>,
    half: usize,
}

impl<T: Hash + Eq> Recent<T> {
    fn new(max: usize) -> Self {
        Self { younger: HashSet::new(), older: HashSet::new(), half: (max / 2).max(1) }
    }

    fn contains(&self, value: &T) -> bool {
        self.younger.contains(value) || self.older.contains(value)
    }

    fn note(&mut self, value: T) {
        if self.younger.contains(&value) {
            return;
        }
        if self.younger.len() >= self.half {
            self.older = std::mem::take(&mut self.younger);
        }
        self.younger.insert(value);
    }
}

#[cfg(test)]
mod tests;
