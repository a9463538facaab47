//! The newest snapshot: one writer publishes, everybody reads without a lock.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ambit_state::{Applied, PodRef, Refusal, Snapshot};
use ambit_types::{Network, NetworkAddress, Uid, Workload};
use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::lookups::Lookups;

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
    lookups: Lookups,
}

impl Mesh {
    /// A mesh that starts with `snapshot` and is told everything unasked.
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        Self::with_lookups(snapshot, Lookups::default())
    }

    /// A mesh that starts with `snapshot` and may have to be asked for more.
    pub fn with_lookups(snapshot: Arc<Snapshot>, lookups: Lookups) -> Self {
        let inner = Inner {
            snapshot: ArcSwap::new(snapshot),
            version: watch::Sender::new(0),
            affected: Mutex::default(),
            lookups,
        };
        Self { inner: Arc::new(inner) }
    }

    /// What the control plane has to be asked before a snapshot tells everything.
    pub fn lookups(&self) -> &Lookups {
        &self.inner.lookups
    }

    /// Waits until the snapshot tells what is at an address, as far as the control plane knows.
    ///
    /// # Errors
    /// AMB6001 if the control plane does not say.
    pub async fn settle(&self, network: &Network, ip: IpAddr) -> Result<(), Refusal> {
        // Nothing of the mesh is behind loopback.
        if ip.is_loopback() {
            return Ok(());
        }
        self.lookups().settle(NetworkAddress::new(network.clone(), ip).to_string()).await
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
