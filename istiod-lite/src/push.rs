//! Serving configuration to nodes and waypoints: what is published, who has it, and one task for each stream.
//!
//! What a stream gets and in which order is decided by the state machine in ambit-xds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ambit_control::Delta;
use ambit_xds::codec::Address;
use ambit_xds::node::WaypointKey;
use ambit_xds::server::{Delta as Changes, Rejection, Resources};
use serde::Serialize;
use tokio::sync::watch;
use tonic::Status;
use tracing::{info, warn};

pub mod service;
mod stream;
#[cfg(test)]
mod tests;
pub mod waypoint;

/// Streams one subject may have at once: its proxy, the one that replaces it, and room for those not yet noticed dead.
const STREAMS_PER_SUBJECT_MAX: usize = 8;

/// Refusals of one answer that are written to the log one by one; of more, only how many there are.
const REFUSALS_LOGGED_MAX: usize = 16;

/// What is published, and what the clients have of it.
#[derive(Debug)]
pub struct Publisher {
    latest: watch::Sender<Arc<Resources>>,
    clients: Mutex<BTreeMap<Subject, Client>>,
}

/// Whose a stream is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    /// The proxy of a node.
    Node(String),
    /// A replica of a waypoint, and the node it is on.
    Waypoint { gateway: WaypointKey, pod: String, node: String },
    /// Someone at this address who has not said yet which waypoint it is of.
    Unnamed(IpAddr),
}

impl Subject {
    fn waypoint(&self) -> Option<&WaypointKey> {
        match self {
            Self::Waypoint { gateway, .. } => Some(gateway),
            Self::Node(_) | Self::Unnamed(_) => None,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node {node}"),
            Self::Waypoint { gateway, pod, node } => write!(f, "waypoint {gateway} in pod {pod} on {node}"),
            Self::Unnamed(source) => write!(f, "a waypoint at {source}"),
        }
    }
}

#[derive(Debug, Default)]
struct Client {
    streams: BTreeMap<u64, Progress>,
    /// Of the stream that was open last.
    last: Progress,
    opened: u64,
}

/// How far a stream is.
#[derive(Debug, Clone, Default)]
struct Progress {
    acked_revision: u64,
    /// Shared, so that nobody who reads it holds up the others for long.
    rejected: Arc<Vec<Rejection>>,
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

/// How far a replica of a waypoint is, for `/sync`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WaypointSync {
    /// Its Gateway, as `NAMESPACE/NAME`.
    pub gateway: String,
    /// Its pod.
    pub pod: String,
    /// Whether it has a stream open.
    pub connected: bool,
    /// It has answered every change that concerns it up to this revision; 0 if none.
    pub acked_revision: u64,
    /// What it refused and has not accepted since.
    pub rejected: Vec<Rejected>,
}

/// A record that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rejected {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The words of who refused it.
    pub reason: String,
}

impl Default for Publisher {
    fn default() -> Self {
        Self { latest: watch::Sender::new(Arc::default()), clients: Mutex::default() }
    }
}

impl Publisher {
    /// Publishes what differs as of a revision, for nodes and waypoints at once.
    pub fn publish(&self, revision: u64, mut delta: Delta) {
        let waypoints = std::mem::take(&mut delta.waypoints);
        let gone = std::mem::take(&mut delta.removed_waypoints);
        let mut next = Resources::clone(&self.latest.borrow());
        let mut is_new = next.apply(revision, changes(delta));
        for (name, difference) in &waypoints {
            let key = waypoint::key(name);
            if waypoint::is_withdrawn(&next, &key) {
                // It is there again, and what differs counts from nothing.
                is_new |= next.forget_waypoint(revision, &key);
            }
            is_new |= next.apply_waypoint(revision, &key, waypoint::changes(difference));
        }
        for name in &gone {
            // Its proxies run on for a while, and without its policies they would let everything pass.
            let key = waypoint::key(name);
            is_new |= next.apply_waypoint(revision, &key, waypoint::withdrawal(&key));
        }
        if is_new {
            metrics::counter!("ambit_config_changes_total").increment(1);
        }
        metrics::gauge!("ambit_config_revision").set(gauge(next.revision()));
        self.latest.send_replace(Arc::new(next));
    }

    /// The newest there is, and word of newer ones.
    fn subscribe(&self) -> watch::Receiver<Arc<Resources>> {
        self.latest.subscribe()
    }

    /// Notes a stream; a status if its subject has too many.
    fn open(self: &Arc<Self>, subject: Subject) -> Result<Open, Status> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = clients.entry(subject.clone()).or_default();
        if entry.streams.len() >= STREAMS_PER_SUBJECT_MAX {
            return Err(Status::resource_exhausted(format!("{subject} has too many streams open")));
        }
        entry.opened += 1;
        let number = entry.opened;
        entry.streams.insert(number, Progress::default());
        metrics::gauge!("ambit_xds_streams").increment(1.0);
        info!(client = %subject, number, "connected");
        Ok(Open { publisher: self.clone(), subject, number })
    }

    /// How far the nodes are: those named, and those that ever connected.
    pub fn sync<'a>(&self, named: impl Iterator<Item = &'a str>) -> Vec<NodeSync> {
        let mut known: BTreeMap<String, (bool, Progress)> =
            named.map(|node| (node.to_owned(), (false, Progress::default()))).collect();
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(clients.iter().filter_map(|(subject, client)| match subject {
            Subject::Node(name) => Some((name.clone(), client.standing())),
            Subject::Waypoint { .. } | Subject::Unnamed(_) => None,
        }));
        drop(clients);
        known.into_iter().map(|(node, (connected, newest))| sync(node, connected, &newest)).collect()
    }

    /// How far the replicas of waypoints that exist are: those that are connected, and those that were and whose pod
    /// is still there.
    pub fn sync_waypoints(&self, exists: impl Fn(&WaypointKey) -> bool) -> Vec<WaypointSync> {
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = clients.iter().filter_map(|(subject, client)| match subject {
            Subject::Waypoint { gateway, pod, .. } if exists(gateway) => {
                Some((gateway.clone(), pod.clone(), client.standing()))
            }
            Subject::Node(_) | Subject::Waypoint { .. } | Subject::Unnamed(_) => None,
        });
        let rows: Vec<_> = rows.collect();
        drop(clients);
        let row =
            |(gateway, pod, (connected, newest)): (WaypointKey, String, (bool, Progress))| WaypointSync {
                gateway: gateway.to_string(),
                pod,
                connected,
                acked_revision: newest.acked_revision,
                rejected: newest.rejected(),
            };
        rows.into_iter().map(row).collect()
    }

    /// Forgets who has no stream and does not exist any more: nodes by name, replicas by Gateway, pod and node. With the
    /// last stream of a waypoint that was withdrawn, what was published to it goes too.
    pub fn forget(
        &self,
        is_node: impl Fn(&str) -> bool,
        is_replica: impl Fn(&WaypointKey, &str, &str) -> bool,
    ) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.retain(|subject, client| {
            client.is_connected()
                || match subject {
                    Subject::Node(name) => is_node(name),
                    Subject::Waypoint { gateway, pod, node } => is_replica(gateway, pod, node),
                    Subject::Unnamed(_) => false,
                }
        });
        let in_use: BTreeSet<WaypointKey> = clients.keys().filter_map(Subject::waypoint).cloned().collect();
        // Whoever has not said yet may be of any waypoint.
        let is_known = clients.keys().all(|subject| !matches!(subject, Subject::Unnamed(_)));
        drop(clients);
        if is_known {
            self.forget_withdrawn(&in_use);
        }
    }

    fn forget_withdrawn(&self, in_use: &BTreeSet<WaypointKey>) {
        let latest = self.latest.borrow().clone();
        let idle = latest.waypoints().filter(|key| !in_use.contains(key));
        let idle: Vec<&WaypointKey> = idle.filter(|key| waypoint::is_withdrawn(&latest, key)).collect();
        if idle.is_empty() {
            return;
        }
        let mut next = Resources::clone(&latest);
        for key in idle {
            next.forget_waypoint(latest.revision(), key);
        }
        self.latest.send_replace(Arc::new(next));
    }
}

impl Client {
    fn is_connected(&self) -> bool {
        !self.streams.is_empty()
    }

    /// The newest stream counts: an older one belongs to a proxy that is leaving, or is dead and not yet noticed.
    fn newest(&self) -> &Progress {
        self.streams.last_key_value().map_or(&self.last, |(_, progress)| progress)
    }

    /// Whether it has a stream open, and how far the newest one is.
    fn standing(&self) -> (bool, Progress) {
        (self.is_connected(), self.newest().clone())
    }
}

impl Progress {
    fn rejected(&self) -> Vec<Rejected> {
        let rejected = self.rejected.iter().map(|r| Rejected {
            kind: r.kind.to_string(),
            name: r.name.clone(),
            reason: r.reason.clone(),
        });
        rejected.collect()
    }
}

fn sync(node: String, connected: bool, newest: &Progress) -> NodeSync {
    NodeSync { node, connected, acked_revision: newest.acked_revision, rejected: newest.rejected() }
}

/// What is refused now and was not before.
fn newly_refused<'a>(before: &[Rejection], now: &'a [Rejection]) -> Vec<&'a Rejection> {
    let before: BTreeSet<&Rejection> = before.iter().collect();
    now.iter().filter(|refused| !before.contains(refused)).collect()
}

/// An open stream; forgotten when dropped.
#[derive(Debug)]
struct Open {
    publisher: Arc<Publisher>,
    subject: Subject,
    number: u64,
}

impl Open {
    /// Notes how far the stream is.
    fn report(&self, acked_revision: u64, rejected: Vec<Rejection>) {
        // Compared and logged outside the lock, for which all streams wait. Nobody else changes this stream's progress.
        let Some(before) = self.with_progress(|progress| progress.clone()) else { return };
        let is_same = *before.rejected == rejected;
        if is_same && before.acked_revision == acked_revision {
            return;
        }
        let rejected = if is_same { before.rejected } else { self.note_refused(&before.rejected, rejected) };
        self.with_progress(|progress| *progress = Progress { acked_revision, rejected });
    }

    fn note_refused(&self, before: &[Rejection], rejected: Vec<Rejection>) -> Arc<Vec<Rejection>> {
        let new = newly_refused(before, &rejected);
        for (index, new) in new.iter().enumerate() {
            metrics::counter!("ambit_config_rejected_total", "kind" => new.kind.to_string()).increment(1);
            let (kind, name, reason) = (new.kind, &new.name, &new.reason);
            if index < REFUSALS_LOGGED_MAX {
                warn!(client = %self.subject, %kind, name, reason, "a record was refused; what was held before stays");
            }
        }
        if new.len() > REFUSALS_LOGGED_MAX {
            let more = new.len() - REFUSALS_LOGGED_MAX;
            warn!(client = %self.subject, more, "more records were refused in the same answer");
        }
        Arc::new(rejected)
    }

    /// Does something with the progress of the stream, if it is known still.
    fn with_progress<T>(&self, act: impl FnOnce(&mut Progress) -> T) -> Option<T> {
        let mut clients = self.publisher.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.get_mut(&self.subject)?.streams.get_mut(&self.number).map(act)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut clients = self.publisher.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let is_unnamed = matches!(self.subject, Subject::Unnamed(_));
        if let Some(client) = clients.get_mut(&self.subject)
            && let Some(progress) = client.streams.remove(&self.number)
        {
            client.last = progress;
            if is_unnamed && !client.is_connected() {
                // An address is nothing to be remembered.
                clients.remove(&self.subject);
            }
        }
        metrics::gauge!("ambit_xds_streams").decrement(1.0);
        info!(client = %self.subject, number = self.number, "a stream ended");
    }
}

/// What is published to nodes and waypoints alike of records that differ.
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
