//! The newest snapshot: one writer publishes, everybody reads without a lock.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ambit_state::{Applied, PodRef, Snapshot};
use ambit_types::{Uid, Workload};
use arc_swap::ArcSwap;
use tokio::sync::watch;

/// Longest wait for discovery to tell of a pod of this node.
const WORKLOAD_WAIT: Duration = Duration::from_secs(5);

/// The world as this node knows it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Mesh {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    snapshot: ArcSwap<Snapshot>,
    version: watch::Sender<u64>,
    affected: Mutex<BTreeSet<Uid>>,
}

impl Mesh {
    /// A mesh that starts with `snapshot`.
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        let inner = Inner {
            snapshot: ArcSwap::new(snapshot),
            version: watch::Sender::new(0),
            affected: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The world now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.inner.snapshot.load_full()
    }

    /// Makes a new world the one everybody sees, and notes whose live connections have to be decided again.
    pub fn publish(&self, applied: Applied) {
        self.inner.snapshot.store(applied.snapshot);
        self.inner.affected.lock().unwrap_or_else(PoisonError::into_inner).extend(applied.affected);
        self.inner.version.send_modify(|v| *v += 1);
    }

    /// Told at every new world.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.version.subscribe()
    }

    /// Workloads of this node that changed since this was last asked.
    pub fn take_affected(&self) -> BTreeSet<Uid> {
        std::mem::take(&mut *self.inner.affected.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The workload of a pod of this node, waiting a little for discovery to tell of it.
    ///
    /// Waiters look again only when the world changed, and there is one wait a connection (G43).
    pub async fn own_workload(&self, pod: &PodRef, address: Option<IpAddr>) -> Option<Arc<Workload>> {
        let find = || self.snapshot().own_workload(pod, address).cloned();
        if let Some(found) = find() {
            return Some(found);
        }
        let mut changes = self.changes();
        let wait = async {
            loop {
                if let Some(found) = find() {
                    return found;
                }
                // The sender lives in self.
                let _ = changes.changed().await;
            }
        };
        tokio::time::timeout(WORKLOAD_WAIT, wait).await.ok()
    }
}
