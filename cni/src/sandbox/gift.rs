//! Namespaces that the container runtime hands over when it makes a pod's sandbox, before any process is in it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use ambit_net::linux::netns::{NetNs, NetNsId};
use ambit_runtime::clock;
use tokio::sync::watch;

use super::{Found, SandboxError, Sandboxes};

/// One of them.
#[derive(Debug)]
pub(super) struct Gift {
    netns: Arc<NetNs>,
    addresses: BTreeSet<IpAddr>,
    /// The sandbox's container, which the runtime names again when it takes the sandbox down.
    container: String,
    since: Instant,
}

impl Sandboxes {
    /// Takes the namespace of a pod's new sandbox; it replaces an earlier one.
    ///
    /// # Errors
    /// [`SandboxError::Nodes`] if it is the node's own.
    pub fn give(
        &self,
        uid: &str,
        netns: NetNs,
        addresses: BTreeSet<IpAddr>,
        container: &str,
    ) -> Result<NetNsId, SandboxError> {
        let id = netns.id();
        if self.nodes.contains(&id) {
            return Err(SandboxError::Nodes { path: given_path(id) });
        }
        let gift = Gift {
            netns: Arc::new(netns),
            addresses,
            container: container.to_owned(),
            since: clock::monotonic(),
        };
        self.gifts.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.to_owned(), gift);
        self.note_given();
        Ok(id)
    }

    /// The runtime has taken the sandbox with that container down.
    pub fn take_back(&self, uid: &str, container: &str) {
        if self.drop_gift(uid, |gift| gift.container == container) {
            self.note_given();
        }
    }

    /// Forgets the namespace that was given for a pod that is gone.
    pub fn forget(&self, uid: &str) {
        self.drop_gift(uid, |_| true);
        self.release(uid);
    }

    /// The namespace that was given for a pod and the addresses that the runtime named with it.
    pub fn given(&self, uid: &str) -> Option<(NetNsId, BTreeSet<IpAddr>)> {
        let gifts = self.gifts.lock().unwrap_or_else(PoisonError::into_inner);
        gifts.get(uid).map(|gift| (gift.netns.id(), gift.addresses.clone()))
    }

    /// Changes when a namespace is given or taken back.
    pub fn gifts(&self) -> watch::Receiver<u64> {
        self.given.subscribe()
    }

    pub(super) fn gift(&self, uid: &str) -> Result<Option<(Found, Duration)>, SandboxError> {
        let gifts = self.gifts.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(gift) = gifts.get(uid) else { return Ok(None) };
        let netns = gift.netns.try_clone().map_err(SandboxError::Kept)?;
        let age = clock::monotonic().duration_since(gift.since);
        Ok(Some(((given_path(netns.id()), netns), age)))
    }

    pub(super) fn drop_gift(&self, uid: &str, if_so: impl FnOnce(&Gift) -> bool) -> bool {
        let mut gifts = self.gifts.lock().unwrap_or_else(PoisonError::into_inner);
        let drop = gifts.get(uid).is_some_and(if_so);
        if drop {
            gifts.remove(uid);
        }
        drop
    }

    fn note_given(&self) {
        self.given.send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// What a given namespace is called in messages.
fn given_path(id: NetNsId) -> PathBuf {
    PathBuf::from(format!("net:[{}]", id.inode))
}
