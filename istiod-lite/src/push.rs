//! Serving configuration to the nodes: what is published, who has it, and one task for each stream.
//!
//! What a stream gets and in which order is decided by the state machine in ambit-xds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use ambit_control::Delta;
use ambit_xds::codec::Address;
use ambit_xds::server::{Delta as Changes, Rejection, Resources};
use serde::Serialize;
use tokio::sync::watch;
use tracing::{info, warn};

pub mod service;
mod stream;

/// Streams one node may have at once: its proxy, the one that replaces it, and room for those not yet noticed dead.
const STREAMS_PER_NODE_MAX: usize = 8;

/// What is published, and what the nodes have of it.
#[derive(Debug)]
pub struct Publisher {
    latest: watch::Sender<Arc<Resources>>,
    nodes: Mutex<BTreeMap<String, Node>>,
}

#[derive(Debug, Default)]
struct Node {
    streams: BTreeMap<u64, Progress>,
    /// Of the stream that was open last.
    last: Progress,
    opened: u64,
}

/// How far a stream is.
#[derive(Debug, Clone, Default)]
struct Progress {
    acked_revision: u64,
    rejected: Vec<Rejection>,
}

/// How far a node is, for `/sync`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeSync {
    /// Its name.
    pub node: String,
    /// Whether it has a stream open.
    pub connected: bool,
    /// It has answered every change up to this revision; 0 if none.
    pub acked_revision: u64,
    /// What it refused and has not accepted since.
    pub rejected: Vec<Rejected>,
}

/// A record a node refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rejected {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The node's words.
    pub reason: String,
}

impl Default for Publisher {
    fn default() -> Self {
        Self { latest: watch::Sender::new(Arc::default()), nodes: Mutex::default() }
    }
}

impl Publisher {
    /// Publishes what differs as of a revision.
    pub fn publish(&self, revision: u64, delta: Delta) {
        let changes = changes(delta);
        let mut next = Resources::clone(&self.latest.borrow());
        if next.apply(revision, changes) {
            metrics::counter!("ambit_config_changes_total").increment(1);
        }
        metrics::gauge!("ambit_config_revision").set(gauge(next.revision()));
        self.latest.send_replace(Arc::new(next));
    }

    /// The newest there is, and word of newer ones.
    fn subscribe(&self) -> watch::Receiver<Arc<Resources>> {
        self.latest.subscribe()
    }

    /// Notes a stream of a node; nothing if it has too many.
    fn open(self: &Arc<Self>, node: &str) -> Option<Open> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = nodes.entry(node.to_owned()).or_default();
        if entry.streams.len() >= STREAMS_PER_NODE_MAX {
            return None;
        }
        entry.opened += 1;
        let number = entry.opened;
        entry.streams.insert(number, Progress::default());
        metrics::gauge!("ambit_xds_streams").increment(1.0);
        info!(node, number, "a node connected");
        Some(Open { publisher: self.clone(), node: node.to_owned(), number })
    }

    /// How far the nodes are: those named, and those that ever connected.
    pub fn sync<'a>(&self, named: impl Iterator<Item = &'a str>) -> Vec<NodeSync> {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut report: BTreeMap<String, NodeSync> =
            named.map(|node| (node.to_owned(), sync(node, &Node::default()))).collect();
        report.extend(nodes.iter().map(|(name, node)| (name.clone(), sync(name, node))));
        report.into_values().collect()
    }

    /// Forgets nodes that have no stream and do not exist any more.
    pub fn forget(&self, exists: impl Fn(&str) -> bool) {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.retain(|name, node| !node.streams.is_empty() || exists(name));
    }
}

fn sync(name: &str, node: &Node) -> NodeSync {
    // The newest stream counts: an older one belongs to a proxy that is leaving, or is dead and not yet noticed.
    let newest = node.streams.last_key_value().map_or(&node.last, |(_, progress)| progress);
    let rejected = newest.rejected.iter().map(|r| Rejected {
        kind: r.kind.to_string(),
        name: r.name.clone(),
        reason: r.reason.clone(),
    });
    NodeSync {
        node: name.to_owned(),
        connected: !node.streams.is_empty(),
        acked_revision: newest.acked_revision,
        rejected: rejected.collect(),
    }
}

/// An open stream; forgotten when dropped.
#[derive(Debug)]
struct Open {
    publisher: Arc<Publisher>,
    node: String,
    number: u64,
}

impl Open {
    /// Notes how far the stream is.
    fn report(&self, acked_revision: u64, rejected: Vec<Rejection>) {
        let mut nodes = self.publisher.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(progress) = nodes.get_mut(&self.node).and_then(|n| n.streams.get_mut(&self.number)) else {
            return;
        };
        for new in rejected.iter().filter(|r| !progress.rejected.contains(r)) {
            metrics::counter!("ambit_config_rejected_total", "kind" => new.kind.to_string()).increment(1);
            let (kind, name, reason) = (new.kind, &new.name, &new.reason);
            warn!(node = self.node, %kind, name, reason, "a node refused a record; it keeps what it had");
        }
        *progress = Progress { acked_revision, rejected };
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut nodes = self.publisher.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(node) = nodes.get_mut(&self.node)
            && let Some(progress) = node.streams.remove(&self.number)
        {
            node.last = progress;
        }
        metrics::gauge!("ambit_xds_streams").decrement(1.0);
        info!(node = self.node, number = self.number, "a node's stream ended");
    }
}

/// What the control plane publishes of records that differ.
pub fn changes(delta: Delta) -> Changes {
    let workloads = delta.workloads.into_values().map(Address::Workload);
    let services = delta.services.into_values().map(Address::Service);
    let gone_workloads = delta.removed_workloads.iter().map(|uid| uid.as_str().to_owned());
    let gone_services = delta.removed_services.iter().map(ToString::to_string);
    Changes {
        addresses: workloads.chain(services).collect(),
        removed_addresses: gone_workloads.chain(gone_services).collect(),
        policies: delta.policies.into_values().collect(),
        removed_policies: delta.removed_policies.iter().map(ToString::to_string).collect(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; revisions stay far below 2^52")]
fn gauge(number: u64) -> f64 {
    number as f64
}
