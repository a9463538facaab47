//! Which of a node's pod addresses is free. Both families of a pod share the host number.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::address::{Families, NodeIndex, PROXY_HOST};

/// The first host number of a node's range that a pod may have; 1 is the gateway.
const FIRST: u8 = 2;
/// The last one; behind it are the node's proxy and the broadcast address of the IPv4 range.
const LAST: u8 = PROXY_HOST - 1;

/// The addresses in use.
#[derive(Debug, Default)]
pub(super) struct Pool {
    used: BTreeSet<IpAddr>,
}

impl Pool {
    pub(super) fn new(used: impl Iterator<Item = IpAddr>) -> Self {
        Self { used: used.collect() }
    }

    pub(super) fn take(&mut self, addresses: &[IpAddr]) {
        self.used.extend(addresses);
    }

    /// Draws the lowest free address of each family, so that what was freed is used again at once.
    pub(super) fn draw(&mut self, node: NodeIndex, families: Families) -> Result<Vec<IpAddr>, String> {
        let ranges = node.pod_cidrs(families);
        let mut candidates =
            (FIRST..=LAST).map(|host| ranges.iter().map(|r| host_of(*r, host)).collect::<Vec<_>>());
        let free = candidates.find(|pair| pair.iter().all(|a| !self.used.contains(a)));
        let drawn = free.ok_or_else(|| {
            let most = LAST - FIRST + 1;
            format!("node {} has no free pod address: it already has {most} pods", node.number())
        })?;
        self.take(&drawn);
        Ok(drawn)
    }
}

/// The address with that host number; an IPv6 address shows the number as it is read: 12 is `::12`.
fn host_of(range: IpNet, host: u8) -> IpAddr {
    match range {
        IpNet::V4(net) => {
            let [a, b, c, _] = net.addr().octets();
            IpAddr::from([a, b, c, host])
        }
        IpNet::V6(net) => {
            let mut segments = net.addr().segments();
            let host = u16::from(host);
            segments[7] = (host / 100) << 8 | (host / 10 % 10) << 4 | (host % 10);
            IpAddr::from(segments)
        }
    }
}
