//! Which address everything in a lab has: a fixed plan, the same in every lab.
//!
//! Values only. Which pod gets which of its node's addresses is decided by the scheduler.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// The most nodes a lab can have; their number is one byte of every address on them.
pub const NODES_MAX: usize = 250;

/// The number of a node's proxy among the node's pods, over an API server; no other pod gets it.
pub const PROXY_HOST: u8 = 254;

/// The port of the control plane on the fabric.
pub const ISTIOD_PORT: u16 = 15012;

/// The port of the control plane's admission webhook on the fabric.
pub const WEBHOOK_PORT: u16 = 15017;

/// The port of the control plane's console on the fabric, over an API server.
pub const CONSOLE_PORT: u16 = 15019;

/// The address families a lab uses. Default both; `--set ip_families=ipv4|ipv6|dual`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Families {
    /// IPv4 only.
    Ipv4,
    /// IPv6 only.
    Ipv6,
    /// Both, IPv4 first.
    #[default]
    Dual,
}

impl Families {
    /// Whether IPv4 is in use.
    pub fn v4(self) -> bool {
        matches!(self, Self::Ipv4 | Self::Dual)
    }

    /// Whether IPv6 is in use.
    pub fn v6(self) -> bool {
        matches!(self, Self::Ipv6 | Self::Dual)
    }

    /// Whether an address belongs to a family in use.
    pub fn has(self, address: IpAddr) -> bool {
        if address.is_ipv4() { self.v4() } else { self.v6() }
    }

    /// Of a pair, what is in use, IPv4 first.
    fn pick<T>(self, v4: T, v6: T) -> Vec<T> {
        match self {
            Self::Ipv4 => vec![v4],
            Self::Ipv6 => vec![v6],
            Self::Dual => vec![v4, v6],
        }
    }
}

impl FromStr for Families {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "ipv4" => Ok(Self::Ipv4),
            "ipv6" => Ok(Self::Ipv6),
            "dual" => Ok(Self::Dual),
            other => Err(format!("ip_families={other} is not one of ipv4, ipv6, dual")),
        }
    }
}

impl fmt::Display for Families {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Dual => "dual",
        })
    }
}

/// The number of a node in its lab: 1 to [`NODES_MAX`], in the order the nodes were declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeIndex(u8);

impl NodeIndex {
    /// The `position`th node, counted from 0; nothing if there is no room for so many.
    pub fn nth(position: usize) -> Option<Self> {
        (position < NODES_MAX).then(|| Self(u8::try_from(position + 1).expect("NODES_MAX fits a byte")))
    }

    /// The number, from 1.
    pub fn number(self) -> u8 {
        self.0
    }

    /// Pod ranges of the node: 10.244.N.0/24 and fd00:10:244:N::/64.
    pub fn pod_cidrs(self, families: Families) -> Vec<IpNet> {
        let v4 = Ipv4Net::new_assert(Ipv4Addr::new(10, 244, self.0, 0), 24);
        let v6 = Ipv6Net::new_assert(pod_v6(self.0, 0), 64);
        families.pick(IpNet::V4(v4), IpNet::V6(v6))
    }

    /// The addresses of the pod with that number on the node: 10.244.N.HOST and fd00:10:244:N::HOST.
    ///
    /// Numbers start at 2; 1 is the gateway. Both are written in the address as the same decimal number.
    pub fn pod_addresses(self, host: u8, families: Families) -> Vec<IpAddr> {
        let v6 = pod_v6(self.0, decimal_as_hex(host));
        families.pick(Ipv4Addr::new(10, 244, self.0, host).into(), v6.into())
    }

    /// The addresses of the node's proxy where it is a pod: 10.244.N.254 and fd00:10:244:N::254. The node's objects do not
    /// say that they are the node's.
    pub fn proxy(self, families: Families) -> Vec<IpAddr> {
        self.pod_addresses(PROXY_HOST, families)
    }

    /// What pods of the node use as gateway, and what the node's own probes come from: the first of each range.
    pub fn gateways(self, families: Families) -> Vec<IpAddr> {
        families.pick(Ipv4Addr::new(10, 244, self.0, 1).into(), pod_v6(self.0, 1).into())
    }

    /// The node's own addresses on the fabric: 172.30.0.N and fd00:172:30::N.
    pub fn fabric(self, families: Families) -> Vec<IpAddr> {
        families.pick(Ipv4Addr::new(172, 30, 0, self.0).into(), fabric_v6(self.0).into())
    }

    /// Every address of the node as pods can see it.
    pub fn all(self, families: Families) -> Vec<IpAddr> {
        let mut all = self.fabric(families);
        all.extend(self.gateways(families));
        all
    }
}

/// Addresses of the bridge, where the control plane listens: 172.30.0.254 and fd00:172:30::254.
pub fn bridge(families: Families) -> Vec<IpAddr> {
    families.pick(Ipv4Addr::new(172, 30, 0, 254).into(), fabric_v6(254).into())
}

/// Addresses of a replica of the control plane, counted down from [`bridge`], which is the first one's.
pub fn control_planes(families: Families, replica: u16) -> Vec<IpAddr> {
    let host = 254u8.saturating_sub(u8::try_from(replica).unwrap_or(u8::MAX));
    families.pick(Ipv4Addr::new(172, 30, 0, host).into(), fabric_v6(host).into())
}

/// Prefix length of a fabric address.
pub fn fabric_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 24 } else { 64 }
}

/// Service ranges: 10.96.0.0/16 and fd00:10:96::/112.
pub fn service_cidrs(families: Families) -> Vec<IpNet> {
    let v4 = Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16);
    let v6 = Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0), 112);
    families.pick(IpNet::V4(v4), IpNet::V6(v6))
}

/// Where every pod's resolver points: 10.96.0.10 and fd00:10:96::a.
pub fn dns(families: Families) -> Vec<IpAddr> {
    families
        .pick(Ipv4Addr::new(10, 96, 0, 10).into(), Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 10).into())
}

/// Prefix length of a single host.
pub fn host_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn pod_v6(node: u8, host: u16) -> Ipv6Addr {
    // The node's number is written in the address as it is read: node 12 is fd00:10:244:12::.
    Ipv6Addr::new(0xfd00, 0x10, 0x244, decimal_as_hex(node), 0, 0, 0, host)
}

fn fabric_v6(host: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x172, 0x30, 0, 0, 0, 0, decimal_as_hex(host))
}

fn decimal_as_hex(number: u8) -> u16 {
    let number = u16::from(number);
    ((number / 100) << 8) | ((number / 10 % 10) << 4) | (number % 10)
}

#[cfg(test)]
mod tests;
