//! What a server counted: requests by path, the most at once, connections, and failures that a path still owes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

/// Most different paths, and most different keys, that are counted apart.
const ENTRIES_MAX: usize = 10_000;

#[derive(Debug, Default)]
struct Counts {
    requests: u64,
    connections: u64,
    open: u64,
    open_max: u64,
    by_path: BTreeMap<String, u64>,
    by_key: BTreeMap<String, u64>,
}

/// Shared counts of one server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally(Arc<Mutex<Counts>>);

/// A request that is being answered; ended when dropped.
#[derive(Debug)]
pub(crate) struct Open(Tally);

impl Tally {
    fn with<T>(&self, act: impl FnOnce(&mut Counts) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn connected(&self) {
        self.with(|counts| counts.connections += 1);
    }

    /// Counts a request to a path.
    pub(crate) fn begin(&self, path: &str) -> Open {
        self.with(|counts| {
            counts.requests += 1;
            counts.open += 1;
            counts.open_max = counts.open_max.max(counts.open);
            increment(&mut counts.by_path, path);
        });
        Open(self.clone())
    }

    /// How often a key was seen before now.
    pub(crate) fn seen(&self, key: &str) -> u64 {
        self.with(|counts| increment(&mut counts.by_key, key))
    }

    /// All counts.
    pub(crate) fn told(&self) -> Value {
        self.with(|counts| {
            json!({
                "requests": counts.requests,
                "connections": counts.connections,
                "open": counts.open,
                "open_max": counts.open_max,
                "paths": counts.by_path,
                "keys": counts.by_key,
            })
        })
    }

    /// Begins again; what is under way stays counted as open.
    pub(crate) fn reset(&self) {
        self.with(|counts| {
            let open = counts.open;
            *counts = Counts { open, open_max: open, ..Counts::default() };
        });
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.with(|counts| counts.open -= 1);
    }
}

/// Adds one; what it was before. Beyond the bound all share one entry.
fn increment(map: &mut BTreeMap<String, u64>, name: &str) -> u64 {
    let name = if map.len() < ENTRIES_MAX || map.contains_key(name) { name } else { "others" };
    let count = map.entry(name.to_owned()).or_default();
    *count += 1;
    *count - 1
}
