//! Workloads by uid, by address and by host name.

use std::cmp::Reverse;
use std::sync::Arc;

use ambit_types::workload::{Health, NetworkMode};
use ambit_types::{NetworkAddress, ServiceKey, TunnelProtocol, Uid, Workload};
use rpds::HashTrieMapSync;

/// The workload store. Cloning shares everything.
#[derive(Debug, Clone, Default)]
pub(crate) struct Workloads {
    by_uid: HashTrieMapSync<Uid, Arc<Workload>>,
    by_address: HashTrieMapSync<NetworkAddress, Arc<[Arc<Workload>]>>,
    by_host: HashTrieMapSync<ServiceKey, Arc<[Arc<Workload>]>>,
}

impl Workloads {
    pub(crate) fn by_uid(&self, uid: &Uid) -> Option<&Arc<Workload>> {
        self.by_uid.get(uid)
    }

    pub(crate) fn by_name(&self, uid: &str) -> Option<&Arc<Workload>> {
        self.by_uid.get(uid)
    }

    /// The workload that an address means: of several claimants a pod, of those a ready one, then one that speaks
    /// HBONE.
    pub(crate) fn by_address(&self, address: &NetworkAddress) -> Option<&Arc<Workload>> {
        self.by_address.get(address)?.first()
    }

    pub(crate) fn by_host(&self, host: &ServiceKey) -> Option<&Arc<Workload>> {
        self.by_host.get(host)?.first()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.by_uid.values()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_uid.size()
    }

    /// Puts a workload in place of the one with its uid, which is returned.
    pub(crate) fn insert(&mut self, workload: Arc<Workload>) -> Option<Arc<Workload>> {
        let old = self.remove(&workload.uid);
        for address in claims(&workload) {
            claim(&mut self.by_address, address, &workload);
        }
        if let Some(host) = host(&workload) {
            claim(&mut self.by_host, host, &workload);
        }
        self.by_uid.insert_mut(workload.uid.clone(), workload);
        old
    }

    pub(crate) fn remove(&mut self, uid: &Uid) -> Option<Arc<Workload>> {
        let old = self.by_uid.get(uid)?.clone();
        self.by_uid.remove_mut(uid);
        for address in claims(&old) {
            unclaim(&mut self.by_address, &address, uid);
        }
        if let Some(host) = host(&old) {
            unclaim(&mut self.by_host, &host, uid);
        }
        Some(old)
    }
}

/// Addresses by which a workload is found; none for one that shares its node's.
fn claims(workload: &Workload) -> Vec<NetworkAddress> {
    match workload.network_mode {
        NetworkMode::Standard => {
            workload.addresses.iter().map(|ip| NetworkAddress::new(workload.network.clone(), *ip)).collect()
        }
        NetworkMode::HostNetwork => Vec::new(),
    }
}

fn host(workload: &Workload) -> Option<ServiceKey> {
    (!workload.hostname.is_empty())
        .then(|| ServiceKey::new(workload.namespace.clone(), workload.hostname.clone()))
}

type Claimants<K> = HashTrieMapSync<K, Arc<[Arc<Workload>]>>;

fn claim<K: std::hash::Hash + Eq>(index: &mut Claimants<K>, key: K, workload: &Arc<Workload>) {
    let mut all: Vec<Arc<Workload>> = index.get(&key).map(|l| l.to_vec()).unwrap_or_default();
    all.push(workload.clone());
    all.sort_by(|a, b| rank(a).cmp(&rank(b)));
    index.insert_mut(key, all.into());
}

fn unclaim<K: std::hash::Hash + Eq + Clone>(index: &mut Claimants<K>, key: &K, uid: &Uid) {
    let Some(all) = index.get(key) else { return };
    let rest: Vec<Arc<Workload>> = all.iter().filter(|w| w.uid != *uid).cloned().collect();
    if rest.is_empty() {
        index.remove_mut(key);
    } else {
        index.insert_mut(key.clone(), rest.into());
    }
}

/// Pods first, of these the ready ones, then HBONE, then by uid so that arrival order does not matter.
///
/// A pod that ends may list its address for as long as it takes, while another has it by now. Of anything but a pod health
/// says nothing about whose the address is.
fn rank(workload: &Workload) -> (Reverse<bool>, Reverse<bool>, Reverse<bool>, &Uid) {
    let is_pod = workload.uid.is_pod();
    let is_ready_pod = is_pod && workload.health == Health::Healthy;
    let speaks_hbone = workload.tunnel == TunnelProtocol::Hbone;
    (Reverse(is_pod), Reverse(is_ready_pod), Reverse(speaks_hbone), &workload.uid)
}
