//! Which connections of a namespace the proxy carries, as the kernel's socket table shows it.
//!
//! When a pod leaves, its rules must stay as long as this is not zero: redirected connections are translated by them,
//! and connections that the proxy opened with a client's address find their way back by them. The socket table tells
//! it for any proxy and needs nothing of its protocol. It also tells whether a proxy is there at all.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ambit_net::linux::netns::NetNs;

use super::DatapathError;
use crate::rules::{HBONE_PORT, INBOUND_PORT, OUTBOUND_PORT};

#[cfg(test)]
mod tests;

/// The state of a listener, as the table prints it.
const LISTEN: &str = "0A";

/// Counts the connections in the namespace that need our rules.
///
/// Reads the whole socket table: blocking, for a blocking thread.
///
/// # Errors
/// [`DatapathError::Namespace`] or [`DatapathError::Sockets`].
pub fn carried(netns: &NetNs, own: &BTreeSet<IpAddr>) -> Result<usize, DatapathError> {
    Ok(tables(netns)?.iter().map(|table| count(table, own)).sum())
}

/// The ports of a proxy at which nothing listens in the namespace.
///
/// Reads the whole socket table: blocking, for a blocking thread.
///
/// # Errors
/// [`DatapathError::Namespace`] or [`DatapathError::Sockets`].
pub fn unserved(netns: &NetNs) -> Result<Vec<u16>, DatapathError> {
    Ok(missing(&tables(netns)?))
}

fn missing(tables: &[String]) -> Vec<u16> {
    let lines = || tables.iter().flat_map(|table| table.lines().skip(1));
    let listens: BTreeSet<u16> = lines().filter_map(listening).collect();
    [OUTBOUND_PORT, INBOUND_PORT, HBONE_PORT].into_iter().filter(|port| !listens.contains(port)).collect()
}

/// The table of each family.
fn tables(netns: &NetNs) -> Result<[String; 2], DatapathError> {
    let tables = netns.run(|| -> io::Result<[String; 2]> {
        // A kernel without IPv6 has no second table.
        let v6 = match std::fs::read_to_string("/proc/thread-self/net/tcp6") {
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            other => other?,
        };
        Ok([std::fs::read_to_string("/proc/thread-self/net/tcp")?, v6])
    })?;
    tables.map_err(DatapathError::Sockets)
}

fn count(table: &str, own: &BTreeSet<IpAddr>) -> usize {
    table.lines().skip(1).filter(|line| is_carried(line, own).unwrap_or(false)).count()
}

/// Whether one line is a living connection on a proxy port, or one with a local address that is not the pod's.
fn is_carried(line: &str, own: &BTreeSet<IpAddr>) -> Option<bool> {
    const TIME_WAIT: &str = "06";
    const CLOSE: &str = "07";
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

/// The port of a line that is a listener.
fn listening(line: &str) -> Option<u16> {
    let mut fields = line.split_whitespace();
    let (_, local, _, state) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let (_, port) = local.split_once(':')?;
    if state == LISTEN { u16::from_str_radix(port, 16).ok() } else { None }
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
