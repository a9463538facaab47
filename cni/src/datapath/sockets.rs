//! Which connections of a namespace the proxy carries, as the kernel's socket table shows it.
//!
//! When a pod leaves, its rules must stay as long as this is not zero: redirected connections are translated by them,
//! and connections that the proxy opened with a client's address find their way back by them. The socket table tells
//! it for any proxy and needs nothing of its protocol. It also tells whether a proxy is there at all.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ambit_net::linux::netns::NetNs;
use ambit_net::linux::tcp_table::{self, Line, State};

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

fn tables(netns: &NetNs) -> Result<[String; 2], DatapathError> {
    netns.run(|| tcp_table::read(u64::MAX))?.map_err(DatapathError::Sockets)
}

fn missing(tables: &[String]) -> Vec<u16> {
    let lines = tables.iter().flat_map(|table| table.lines()).filter_map(Line::parse);
    let listens: BTreeSet<u16> =
        lines.filter(|line| line.state == State::Listen).map(|line| line.local.port()).collect();
    [OUTBOUND_PORT, INBOUND_PORT, HBONE_PORT].into_iter().filter(|port| !listens.contains(port)).collect()
}

fn count(table: &str, own: &BTreeSet<IpAddr>) -> usize {
    table.lines().filter_map(Line::parse).filter(|line| is_carried(line, own)).count()
}

/// Whether it is a living connection on a proxy port, or one with a local address that is not the pod's.
fn is_carried(line: &Line, own: &BTreeSet<IpAddr>) -> bool {
    match line.state {
        State::Over | State::Listen => return false,
        State::Established | State::Changing => {}
    }
    let address = line.local.ip();
    let borrowed = !address.is_loopback() && !address.is_unspecified() && !own.contains(&address);
    [OUTBOUND_PORT, INBOUND_PORT, HBONE_PORT].contains(&line.local.port()) || borrowed
}
