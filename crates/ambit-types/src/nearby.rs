//! What the node agent tells the proxy of its node beside the hand-over of pods: the addresses that the node has.
//!
//! A kubelet's probes come from any of them, a bridge's or a tunnel's for instance, and an API server lists few. They
//! are written into a file beside the socket of the hand-over, in a folder that only the two programs enter; a node
//! agent or a proxy of somebody else neither writes nor misses it. Here is what may stand in it, and how.

use std::collections::BTreeSet;
use std::net::IpAddr;

#[cfg(test)]
mod tests;

/// Name of the file, in the folder of the hand-over's socket.
pub const NODE_ADDRESSES_FILE: &str = "node-addresses";
/// Most addresses that it holds; nodes have a few.
pub const NODE_ADDRESSES_MAX: usize = 128;
/// Its greatest length in bytes: so many addresses at their longest, one a line.
pub const NODE_ADDRESSES_BYTES_MAX: usize = NODE_ADDRESSES_MAX * 48;

/// What is wrong with such a file. Nothing of it counts then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NodeAddressesError {
    /// Too many bytes or lines.
    #[error("it is longer than {NODE_ADDRESSES_MAX} addresses")]
    TooLong,
    /// A line that is no address.
    #[error("line {line} is no IP address")]
    NoAddress {
        /// Which line, from 1.
        line: usize,
    },
    /// An address that tells no node from another.
    #[error("line {line} holds {address}, which can be any node's or nobody's")]
    NotOne {
        /// Which line, from 1.
        line: usize,
        /// The address.
        address: IpAddr,
    },
}

/// Whether a connection from this address of a node's interface can only come from that node: not loopback, not
/// link-local, and the address of one host.
pub fn is_of_one_node(address: IpAddr) -> bool {
    let general = !address.is_loopback() && !address.is_unspecified() && !address.is_multicast();
    general
        && match address {
            IpAddr::V4(v4) => !v4.is_link_local() && !v4.is_broadcast() && v4.octets()[0] != 0,
            // One that is IPv4 in disguise is told as IPv4.
            IpAddr::V6(v6) => !v6.is_unicast_link_local() && v6.to_ipv4_mapped().is_none(),
        }
}

/// The file's text: one address a line, in order.
pub fn write_node_addresses(addresses: &BTreeSet<IpAddr>) -> String {
    addresses.iter().map(|address| format!("{address}\n")).collect()
}

/// Reads the file's text.
///
/// # Errors
/// [`NodeAddressesError`]: whoever wrote it is not the node agent, so that none of it is believed.
pub fn read_node_addresses(text: &str) -> Result<BTreeSet<IpAddr>, NodeAddressesError> {
    if text.len() > NODE_ADDRESSES_BYTES_MAX || text.lines().nth(NODE_ADDRESSES_MAX).is_some() {
        return Err(NodeAddressesError::TooLong);
    }
    let mut addresses = BTreeSet::new();
    for (index, text) in text.lines().enumerate() {
        let line = index + 1;
        let address: IpAddr = text.parse().map_err(|_| NodeAddressesError::NoAddress { line })?;
        if !is_of_one_node(address) {
            return Err(NodeAddressesError::NotOne { line, address });
        }
        addresses.insert(address);
    }
    Ok(addresses)
}
