//! Services by key, host name, virtual address and range, with their endpoints.

use std::sync::Arc;

use ambit_types::service::Visibility;
use ambit_types::{NetworkAddress, Service, ServiceKey, Str, Workload};
use rpds::HashTrieMapSync;

use crate::pick::{PickCache, target_port};

mod ranges;
#[cfg(test)]
mod tests;

use ranges::Ranges;

/// A service with the endpoints it has in one snapshot.
#[derive(Debug)]
pub struct ServiceEntry {
    pub(crate) service: Arc<Service>,
    pub(crate) endpoints: Arc<[Arc<Workload>]>,
    pub(crate) picks: PickCache,
}

impl ServiceEntry {
    pub(crate) fn new(service: Arc<Service>, endpoints: Arc<[Arc<Workload>]>) -> Self {
        Self { service, endpoints, picks: PickCache::default() }
    }

    /// The service.
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// Every workload that backs it, ready or not, ascending by uid.
    pub fn endpoints(&self) -> &[Arc<Workload>] {
        &self.endpoints
    }

    /// The port of the application behind a port of the service, at one of its endpoints; none if it has none there.
    pub fn target_port(&self, endpoint: &Workload, port: u16) -> Option<u16> {
        target_port(&self.service, &self.service.key(), endpoint, port, false)
    }

    fn sees(&self, client: &str) -> bool {
        match self.service.visibility {
            Visibility::Public => true,
            Visibility::Namespace => *self.service.namespace == *client,
        }
    }
}

/// The service store. Cloning shares everything.
///
/// The address indexes hold keys, one slot for each namespace *and* host name, so that services that share an
/// address never overwrite each other, and endpoint updates do not touch them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Services {
    by_key: HashTrieMapSync<ServiceKey, Arc<ServiceEntry>>,
    by_vip: HashTrieMapSync<NetworkAddress, Arc<[ServiceKey]>>,
    by_host: HashTrieMapSync<Str, Arc<[ServiceKey]>>,
    ranges: Ranges,
}

impl Services {
    pub(crate) fn by_key(&self, key: &ServiceKey) -> Option<&Arc<ServiceEntry>> {
        self.by_key.get(key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<ServiceEntry>> {
        self.by_key.values()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.size()
    }

    /// The service that an address means to a client of a namespace: of several visible ones that of its own
    /// namespace, then the canonical one, then the first by key; failing all, the best range.
    pub(crate) fn by_address(&self, address: &NetworkAddress, client: &str) -> Option<&Arc<ServiceEntry>> {
        self.by_vip(address, client).or_else(|| {
            let rank = |(range, key)| -> Option<_> {
                let entry = self.visible(key, client)?;
                let length: u8 = range;
                let own = *entry.service.namespace == *client;
                Some(((own, length, entry.service.canonical), entry))
            };
            first_max(self.ranges.containing(address).filter_map(rank))
        })
    }

    /// As [`Services::by_address`], without ranges.
    pub(crate) fn by_vip(&self, address: &NetworkAddress, client: &str) -> Option<&Arc<ServiceEntry>> {
        self.best(self.by_vip.get(address)?, client)
    }

    /// The service a host name means to a client of a namespace, chosen as for an address.
    pub(crate) fn by_host(&self, host: &str, client: &str) -> Option<&Arc<ServiceEntry>> {
        self.best(self.by_host.get(host)?, client)
    }

    fn best(&self, keys: &[ServiceKey], client: &str) -> Option<&Arc<ServiceEntry>> {
        first_max(keys.iter().filter_map(|key| {
            let entry = self.visible(key, client)?;
            Some(((*entry.service.namespace == *client, entry.service.canonical), entry))
        }))
    }

    fn visible(&self, key: &ServiceKey, client: &str) -> Option<&Arc<ServiceEntry>> {
        self.by_key.get(key).filter(|entry| entry.sees(client))
    }

    /// Stores a definition, with no endpoints until [`Services::set_endpoints`]; false if the same was held.
    pub(crate) fn insert(&mut self, service: Arc<Service>) -> bool {
        let key = service.key();
        if self.by_key.get(&key).is_some_and(|held| held.service == service) {
            return false;
        }
        self.remove(&key);
        for vip in &service.vips {
            add_key(&mut self.by_vip, vip.clone(), &key);
        }
        for range in &service.cidr_vips {
            self.ranges.insert(range, &key);
        }
        add_key(&mut self.by_host, service.hostname.clone(), &key);
        self.by_key.insert_mut(key, Arc::new(ServiceEntry::new(service, Arc::from([]))));
        true
    }

    pub(crate) fn set_endpoints(&mut self, key: &ServiceKey, endpoints: Arc<[Arc<Workload>]>) {
        if let Some(entry) = self.by_key.get(key) {
            let entry = ServiceEntry::new(entry.service.clone(), endpoints);
            self.by_key.insert_mut(key.clone(), Arc::new(entry));
        }
    }

    /// Forgets a service; false if there was none.
    pub(crate) fn remove(&mut self, key: &ServiceKey) -> bool {
        let Some(entry) = self.by_key.get(key).cloned() else { return false };
        for vip in &entry.service.vips {
            drop_key(&mut self.by_vip, vip, key);
        }
        for range in &entry.service.cidr_vips {
            self.ranges.remove(range, key);
        }
        drop_key(&mut self.by_host, &entry.service.hostname, key);
        self.by_key.remove_mut(key)
    }
}

/// The first of the greatest, where the order of the input is the order of keys.
fn first_max<R: Ord, T>(ranked: impl Iterator<Item = (R, T)>) -> Option<T> {
    let mut best: Option<(R, T)> = None;
    for (rank, item) in ranked {
        if best.as_ref().is_none_or(|(top, _)| rank > *top) {
            best = Some((rank, item));
        }
    }
    best.map(|(_, item)| item)
}

type Keys<K> = HashTrieMapSync<K, Arc<[ServiceKey]>>;

fn add_key<K: std::hash::Hash + Eq>(index: &mut Keys<K>, at: K, key: &ServiceKey) {
    let mut keys = index.get(&at).map(|k| k.to_vec()).unwrap_or_default();
    if let Err(place) = keys.binary_search(key) {
        keys.insert(place, key.clone());
        index.insert_mut(at, keys.into());
    }
}

fn drop_key<K: std::hash::Hash + Eq + Clone>(index: &mut Keys<K>, at: &K, key: &ServiceKey) {
    let Some(keys) = index.get(at) else { return };
    let rest: Vec<ServiceKey> = keys.iter().filter(|k| *k != key).cloned().collect();
    if rest.is_empty() {
        index.remove_mut(at);
    } else {
        index.insert_mut(at.clone(), rest.into());
    }
}
