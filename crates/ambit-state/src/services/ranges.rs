//! Address ranges of services: found by prefix length, never by walking all of them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ambit_types::{NetworkAddress, NetworkCidr, ServiceKey};
use ipnet::IpNet;
use rpds::HashTrieMapSync;

use super::{add_key, drop_key};

/// Services by range. A look-up costs one probe for each prefix length in use.
#[derive(Debug, Clone, Default)]
pub(super) struct Ranges {
    by_range: HashTrieMapSync<NetworkCidr, Arc<[ServiceKey]>>,
    /// How many (range, service) pairs have a length: one map for IPv4, one for IPv6.
    lengths: [BTreeMap<u8, usize>; 2],
}

impl Ranges {
    pub(super) fn insert(&mut self, range: &NetworkCidr, key: &ServiceKey) {
        let range = cleared(range);
        if self.holds(&range, key) {
            return;
        }
        *self.lengths_of(&range.range).entry(range.range.prefix_len()).or_default() += 1;
        add_key(&mut self.by_range, range, key);
    }

    pub(super) fn remove(&mut self, range: &NetworkCidr, key: &ServiceKey) {
        let range = cleared(range);
        if !self.holds(&range, key) {
            return;
        }
        drop_key(&mut self.by_range, &range, key);
        let length = range.range.prefix_len();
        let lengths = self.lengths_of(&range.range);
        if let Some(count) = lengths.get_mut(&length) {
            *count -= 1;
            if *count == 0 {
                lengths.remove(&length);
            }
        }
    }

    /// Prefix length and service of every range with the address, longest first.
    pub(super) fn containing(&self, address: &NetworkAddress) -> impl Iterator<Item = (u8, &ServiceKey)> {
        let lengths = &self.lengths[usize::from(address.ip.is_ipv6())];
        lengths.keys().rev().flat_map(move |length| {
            let range = IpNet::new(address.ip, *length).ok();
            let at = range.map(|r| NetworkCidr { network: address.network.clone(), range: r.trunc() });
            let keys = at.and_then(|at| self.by_range.get(&at)).map_or(&[][..], |k| k);
            keys.iter().map(move |key| (*length, key))
        })
    }

    fn holds(&self, range: &NetworkCidr, key: &ServiceKey) -> bool {
        self.by_range.get(range).is_some_and(|keys| keys.contains(key))
    }

    fn lengths_of(&mut self, range: &IpNet) -> &mut BTreeMap<u8, usize> {
        &mut self.lengths[usize::from(matches!(range.addr(), IpAddr::V6(_)))]
    }
}

fn cleared(range: &NetworkCidr) -> NetworkCidr {
    NetworkCidr { network: range.network.clone(), range: range.range.trunc() }
}
