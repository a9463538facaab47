//! Ready or not, part by part: a probe that fails names the part that is missing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

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
    /// No parts: ready.
    pub fn new() -> Self {
        Self { parts: Arc::default(), changed: watch::Sender::new(true) }
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

    /// Waits until every part is ready.
    pub async fn ready(&self) {
        let mut changes = self.changed.subscribe();
        // The sender lives in self, so waiting cannot fail while we are here.
        let _ = changes.wait_for(|ready| *ready).await;
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
        // Told under the lock: of two parts that are set at once, the later one's word counts.
        self.of.changed.send_replace(parts.values().all(|state| state.ready));
    }
}
