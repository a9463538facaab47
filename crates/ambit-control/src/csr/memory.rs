//! What is remembered between requests: how often a caller asked, and which keys it had certified. Bounded.
//!
//! A caller is a service account on a node, so that a waypoint's pod uses up nothing of what its node's proxy may ask
//! for every other pod there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use ambit_types::Str;

use super::{Caller, Rules};

/// Digest (SHA-256) of a public key.
pub type Fingerprint = [u8; 32];

/// Callers remembered; the one that asked longest ago goes first.
const CALLERS_MAX: usize = 10_000;

/// Requests so far.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    callers: BTreeMap<Who, CallerMemory>,
    keys: BTreeSet<Fingerprint>,
}

/// A service account on a node: node, namespace, name.
type Who = (Str, Str, Str);

#[derive(Debug, Clone, Default)]
struct CallerMemory {
    /// Thousandths of requests it has used of its burst.
    used_milli: u64,
    asked_at: Duration,
    keys: VecDeque<Fingerprint>,
}

fn who(caller: &Caller) -> Who {
    (caller.node.clone(), caller.namespace.clone(), caller.service_account.clone())
}

impl Memory {
    /// Whether the caller may ask once more; counts it if so.
    pub(super) fn admit(&mut self, rules: &Rules, now: Duration, caller: &Caller) -> bool {
        let who = who(caller);
        if !self.callers.contains_key(&who) {
            self.make_room();
        }
        let memory = self.callers.entry(who).or_default();
        // A clock that went back gives nothing back.
        let elapsed = u64::try_from(now.saturating_sub(memory.asked_at).as_millis()).unwrap_or(u64::MAX);
        memory.used_milli =
            memory.used_milli.saturating_sub(elapsed.saturating_mul(u64::from(rules.per_second)));
        memory.asked_at = memory.asked_at.max(now);
        let full = memory.used_milli + 1000 > u64::from(rules.burst) * 1000;
        if !full {
            memory.used_milli += 1000;
        }
        !full
    }

    /// Remembers a key; false if anybody had it certified before.
    pub(super) fn remember(&mut self, rules: &Rules, caller: &Caller, key: Fingerprint) -> bool {
        if !self.keys.insert(key) {
            return false;
        }
        let memory = self.callers.entry(who(caller)).or_default();
        memory.keys.push_back(key);
        if memory.keys.len() > rules.keys_remembered
            && let Some(oldest) = memory.keys.pop_front()
        {
            self.keys.remove(&oldest);
        }
        true
    }

    fn make_room(&mut self) {
        if self.callers.len() < CALLERS_MAX {
            return;
        }
        let idle = self.callers.iter().min_by_key(|(_, memory)| memory.asked_at).map(|(who, _)| who.clone());
        if let Some(memory) = idle.and_then(|who| self.callers.remove(&who)) {
            for key in memory.keys {
                self.keys.remove(&key);
            }
        }
    }
}
