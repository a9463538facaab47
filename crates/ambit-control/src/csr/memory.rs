//! What is remembered between requests: how often a node asked, and which keys it had certified. Bounded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use ambit_types::Str;

use super::Rules;

/// Digest (SHA-256) of a public key.
pub type Fingerprint = [u8; 32];

/// Keys remembered a node; the oldest go first.
const KEYS_PER_NODE_MAX: usize = 4096;
/// Nodes remembered; the one that asked longest ago goes first.
const NODES_MAX: usize = 10_000;

/// Requests so far.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    nodes: BTreeMap<Str, NodeMemory>,
    keys: BTreeSet<Fingerprint>,
}

#[derive(Debug, Clone, Default)]
struct NodeMemory {
    /// Thousandths of requests the node has used of its burst.
    used_milli: u64,
    asked_at: Duration,
    keys: VecDeque<Fingerprint>,
}

impl Memory {
    /// Whether the node may ask once more; counts it if so.
    pub(super) fn admit(&mut self, rules: &Rules, now: Duration, node: &Str) -> bool {
        if !self.nodes.contains_key(node) {
            self.make_room();
        }
        let memory = self.nodes.entry(node.clone()).or_default();
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

    /// Remembers a key; false if any node had it certified before.
    pub(super) fn remember(&mut self, node: &Str, key: Fingerprint) -> bool {
        if !self.keys.insert(key) {
            return false;
        }
        let memory = self.nodes.entry(node.clone()).or_default();
        memory.keys.push_back(key);
        if memory.keys.len() > KEYS_PER_NODE_MAX
            && let Some(oldest) = memory.keys.pop_front()
        {
            self.keys.remove(&oldest);
        }
        true
    }

    fn make_room(&mut self) {
        if self.nodes.len() < NODES_MAX {
            return;
        }
        let idle = self.nodes.iter().min_by_key(|(_, memory)| memory.asked_at).map(|(name, _)| name.clone());
        if let Some(memory) = idle.and_then(|name| self.nodes.remove(&name)) {
            for key in memory.keys {
                self.keys.remove(&key);
            }
        }
    }
}
