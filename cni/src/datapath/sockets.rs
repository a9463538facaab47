//! Which connections of a namespace the proxy carries, as the kernel's socket table shows it.
//!
//! When a pod leaves, its rules must stay as long as this is not zero: redirected connections are translated by them,
//! and connections that the proxy opened with a client's address find their way back by them. The socket table tells
//! it for any proxy and needs nothing of its protocol.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ambit_net::linux::netns::NetNs;

use super::DatapathError;
use crate::rules::{HBONE_PORT, INBOUND_PORT, OUTBOUND_PORT};

#[cfg(test)]
mod tests;

/// Counts the connections in the namespace that need our rules.
///
/// Reads the whole socket table: blocking, for a blocking thread.
///
/// # Errors
/// [`DatapathError::Namespace`] or [`DatapathError::Sockets`].
pub fn carried(netns: &NetNs, own: &BTreeSet<IpAddr>) -> Result<usize, DatapathError> {
    let tables = netns.run(|| -> io::Result<[String; 2]> {
        // A kernel without IPv6 has no second table.
        let v6 = match std::fs::read_to_string("/proc/thread-self/net/tcp6") {
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            other => other?,
        };
        Ok([std::fs::read_to_string("/proc/thread-self/net/tcp")?, v6])
    })?;
    let tables = tables.map_err(DatapathError::Sockets)?;
    Ok(tables.iter().map(|table| count(table, own)).sum())
}

fn count(table: &str, own: &BTreeSet<IpAddr>) -> usize {
    table.lines().skip(1).filter(|line| is_carried(line, own).unwrap_or(false)).count()
}

/// Whether one line is a living connection on a proxy port, or one with a local address that is not the pod's.
fn is_carried(line: &str, own: &BTreeSet<IpAddr>) -> Option<bool> {
    const TIME_WAIT: &str = "06";
    const CLOSE: &str = "07";
    const LISTEN: &str = "0A";
    let mut fields = line.split_whitespace();
    let (_, local, _, state) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    if [TIME_WAIT, CLOSE, LISTEN].contains(&state) {
        return Some(false);
    }
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let address = parse_address(address)?;
    let borrowed = !address.is_loopback() && !address.is_unspecified() && !own.contains(&address);
    Some([OUTBOUND_PORT, INBOUND_PORT, HBONE_PORT].contains(&port) || borrowed)
}

/// The table prints addresses as 32-bit words in the machine's byte order.
fn parse_address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let word = u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    match hex.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let mut octets = [0; 16];
            for (i, chunk) in octets.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(i * 8)?);
            }
            Some(IpAddr::V6(Ipv6Addr::from(octets)).to_canonical())
        }
        _ => None,
    }
}
