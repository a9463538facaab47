//! What is wanted of each object, what was written of it, and when to try again. Pure: time is an argument.
//!
//! Level-triggered: whoever holds one says what is wanted now, as often as he likes, and gets what has to be done. One
//! object that fails waits longer each time, and never holds up another; the turn goes round, so that one that changes
//! all the time does not either.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::{Duration, Instant};

/// First wait after a failure; doubles with every further one.
const WAIT_MIN: Duration = Duration::from_millis(500);
/// Longest wait after failures.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// Work by object. Holds an entry for everything that is wanted, and for what has to be taken back.
#[derive(Debug)]
pub(super) struct Ledger<K, V> {
    entries: BTreeMap<K, Entry<V>>,
    /// What differs and waits for nothing.
    due: BTreeSet<K>,
    /// What failed, by the time of the next attempt.
    later: BTreeSet<(Instant, K)>,
    /// The last that was handed out.
    last: Option<K>,
}

#[derive(Debug)]
struct Entry<V> {
    wanted: Option<V>,
    /// Nothing if it is not known what is there.
    written: Option<Option<V>>,
    failures: u32,
    retry: Option<Instant>,
}

impl<K, V> Default for Ledger<K, V> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), due: BTreeSet::new(), later: BTreeSet::new(), last: None }
    }
}

impl<K: Ord + Clone, V: PartialEq + Clone> Ledger<K, V> {
    /// Says everything that is wanted; what is not named is not wanted any more.
    pub(super) fn want(&mut self, wanted: BTreeMap<K, V>) {
        let gone: Vec<K> = self.entries.keys().filter(|key| !wanted.contains_key(*key)).cloned().collect();
        for key in gone {
            self.want_one(key, None);
        }
        for (key, value) in wanted {
            self.want_one(key, Some(value));
        }
    }

    fn want_one(&mut self, key: K, wanted: Option<V>) {
        let entry = self.entries.entry(key.clone()).or_insert_with(Entry::unknown);
        if entry.wanted != wanted {
            // What failed may work now that it is something else.
            entry.wanted = wanted;
            entry.failures = 0;
            if let Some(at) = entry.retry.take() {
                self.later.remove(&(at, key.clone()));
            }
        }
        self.settle(key);
    }

    /// Says that an object is there whose state is not known, wanted or not.
    pub(super) fn doubt(&mut self, key: K) {
        let entry = self.entries.entry(key.clone()).or_insert_with(Entry::unknown);
        entry.written = None;
        self.settle(key);
    }

    /// Says what is there now: it was written, or found.
    pub(super) fn done(&mut self, key: &K, written: Option<V>) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.written = Some(written);
        entry.failures = 0;
        if let Some(at) = entry.retry.take() {
            self.later.remove(&(at, key.clone()));
        }
        self.settle(key.clone());
    }

    /// Says that an attempt failed; returns how many in a row did. `is_hopeless` waits longest at once.
    pub(super) fn failed(&mut self, key: &K, now: Instant, is_hopeless: bool) -> u32 {
        let Some(entry) = self.entries.get_mut(key) else { return 0 };
        entry.failures = entry.failures.saturating_add(1);
        // What is there is not known any more: the answer may have been lost, not the request.
        entry.written = None;
        let doubled = WAIT_MIN.saturating_mul(1 << (entry.failures - 1).min(16));
        let at = now + if is_hopeless { WAIT_MAX } else { doubled.min(WAIT_MAX) };
        if let Some(before) = entry.retry.replace(at) {
            self.later.remove(&(before, key.clone()));
        }
        self.due.remove(key);
        self.later.insert((at, key.clone()));
        entry.failures
    }

    /// Up to `max` objects whose turn it is, with what is wanted of them; nothing wanted means that it has to go.
    pub(super) fn due(&mut self, now: Instant, max: usize) -> Vec<(K, Option<V>)> {
        while let Some((at, key)) = self.later.first().cloned().filter(|(at, _)| *at <= now) {
            self.later.remove(&(at, key.clone()));
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.retry = None;
            }
            self.settle(key);
        }
        let after = self.last.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.due.range((after, Bound::Unbounded));
        let round = self.due.iter().take_while(|key| self.last.as_ref().is_some_and(|last| *key <= last));
        let turn: Vec<K> = rest.chain(round).take(max).cloned().collect();
        self.last = turn.last().cloned();
        let wanted = |key: &K| self.entries.get(key).and_then(|entry| entry.wanted.clone());
        turn.into_iter().map(|key| (key.clone(), wanted(&key))).collect()
    }

    /// When the next object has its turn that waits for one; nothing if none does.
    pub(super) fn next(&self) -> Option<Instant> {
        self.later.first().map(|(at, _)| *at)
    }

    /// Objects that are wanted.
    pub(super) fn wanted(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().filter_map(|(key, entry)| Some((key, entry.wanted.as_ref()?)))
    }

    /// What is wanted of an object.
    pub(super) fn wanted_of(&self, key: &K) -> Option<&V> {
        self.entries.get(key)?.wanted.as_ref()
    }

    /// Puts an object where it belongs: due, waiting, or forgotten.
    fn settle(&mut self, key: K) {
        let Some(entry) = self.entries.get(&key) else { return };
        let is_done = entry.written.as_ref() == Some(&entry.wanted);
        if is_done {
            self.due.remove(&key);
            if entry.wanted.is_none() {
                self.entries.remove(&key);
            }
        } else if entry.retry.is_none() {
            self.due.insert(key);
        }
    }
}

impl<V> Entry<V> {
    fn unknown() -> Self {
        Self { wanted: None, written: None, failures: 0, retry: None }
    }
}

#[cfg(test)]
mod tests;
