//! Addresses with the network they belong to.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::Network;

/// An address in a network: the same IP may be in use in several networks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetworkAddress {
    /// Network of the address; empty is the default one.
    pub network: Network,
    /// The address, never IPv4-mapped.
    pub ip: IpAddr,
}

impl NetworkAddress {
    /// Makes an address, unwrapping `::ffff:a.b.c.d`.
    pub fn new(network: Network, ip: IpAddr) -> Self {
        Self { network, ip: ip.to_canonical() }
    }
}

impl fmt::Display for NetworkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.ip)
    }
}

/// A range of addresses in a network.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetworkCidr {
    /// Network of the range; empty is the default one.
    pub network: Network,
    /// The range, host bits cleared.
    pub range: IpNet,
}

impl fmt::Display for NetworkCidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.range)
    }
}

/// A socket address as people write it: `::ffff:10.0.0.1` becomes `10.0.0.1`, flow and scope are dropped.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
