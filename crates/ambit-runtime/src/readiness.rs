//! Ready or not, part by part: a probe that fails names the part that is missing.
//!
//! Whoever asks before a program has named its parts must not hear that nothing is missing. So none is ready before
//! [`Readiness::complete`]: until then a part named `start` is missing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// The part that is missing until the program has named its parts.
const START: &str = "start";

/// The parts of a program and whether each is ready.
#[derive(Debug, Clone)]
pub struct Readiness {
    parts: Arc<Mutex<BTreeMap<&'static str, State>>>,
    changed: watch::Sender<bool>,
}

/// How a part is.
#[derive(Debug, Clone, Default)]
struct State {
    ready: bool,
    remark: Option<String>,
}

/// Marks one part as ready or not.
#[derive(Debug, Clone)]
pub struct Part {
    name: &'static str,
    of: Readiness,
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Readiness {
    /// No parts are named yet: not ready, whatever is set meanwhile, before [`complete`](Self::complete).
    pub fn new() -> Self {
        let parts = BTreeMap::from([(START, State::default())]);
        Self { parts: Arc::new(Mutex::new(parts)), changed: watch::Sender::new(false) }
    }

    /// All parts that must be ready are named: from now on they alone tell. Parts that come later count as well.
    pub fn complete(&self) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.remove(START);
        self.tell(&parts);
    }

    /// Adds a part that is not ready yet.
    pub fn part(&self, name: &'static str) -> Part {
        let part = Part { name, of: self.clone() };
        part.set(false);
        part
    }

    /// Names of the parts that are not ready, in order; empty means ready.
    pub fn pending(&self) -> Vec<&'static str> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.iter().filter(|(_, state)| !state.ready).map(|(name, _)| *name).collect()
    }

    /// Every part and its state, in order.
    pub fn parts(&self) -> BTreeMap<&'static str, bool> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.iter().map(|(name, state)| (*name, state.ready)).collect()
    }

    /// What is worth knowing of parts that are ready, as `PART: REMARK`, in order.
    pub fn remarks(&self) -> Vec<String> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let remarks = parts.iter().filter(|(_, state)| state.ready);
        remarks.filter_map(|(name, state)| Some(format!("{name}: {}", state.remark.as_ref()?))).collect()
    }

    /// Waits until all parts are named and every one is ready.
    pub async fn ready(&self) {
        let mut changes = self.changed.subscribe();
        // The sender lives in self, so waiting cannot fail while we are here.
        let _ = changes.wait_for(|ready| *ready).await;
    }

    /// Called under the lock: of two parts that are set at once, the later one's word counts.
    fn tell(&self, parts: &BTreeMap<&'static str, State>) {
        self.changed.send_replace(parts.values().all(|state| state.ready));
    }
}

impl Part {
    /// Sets the state of this part; a remark it had is over.
    pub fn set(&self, ready: bool) {
        self.put(State { ready, remark: None });
    }

    /// Marks this part as ready, with something that is worth knowing.
    pub fn ready_with(&self, remark: impl Into<String>) {
        self.put(State { ready: true, remark: Some(remark.into()) });
    }

    fn put(&self, state: State) {
        let mut parts = self.of.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.insert(self.name, state);
        self.of.tell(&parts);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use futures_util::FutureExt as _;

    use super::Readiness;

    #[test]
    fn nothing_is_ready_before_all_parts_are_named() {
        let readiness = Readiness::new();
        let is_ready = || readiness.ready().now_or_never().is_some();
        assert_eq!(readiness.pending(), ["start"], "without a part");
        assert!(!is_ready(), "without a part");

        let first = readiness.part("first");
        first.set(true);
        assert_eq!(readiness.pending(), ["start"], "who is asked now has not named the second");
        assert!(!is_ready(), "the only part is ready, and others are to come");

        let second = readiness.part("second");
        readiness.complete();
        assert_eq!(readiness.pending(), ["second"]);
        assert!(!is_ready());
        second.set(true);
        assert!(readiness.pending().is_empty() && is_ready());
        assert_eq!(readiness.parts(), BTreeMap::from([("first", true), ("second", true)]));

        readiness.part("later");
        assert_eq!(readiness.pending(), ["later"], "one that comes later counts as well");
        assert!(!is_ready());
    }

    #[test]
    fn being_complete_is_told_to_those_who_wait() {
        let readiness = Readiness::new();
        readiness.part("only").set(true);
        let mut waiting = std::pin::pin!(readiness.ready());
        assert!(waiting.as_mut().now_or_never().is_none());
        readiness.complete();
        assert!(waiting.as_mut().now_or_never().is_some());
    }
}
