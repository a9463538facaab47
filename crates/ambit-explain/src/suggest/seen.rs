//! What flow records say of who used which port of which workload.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ambit_types::{Identity, Uid};

use super::{Caller, Member, Seen};
use crate::Flow;

/// Connections to members, of those records that `wanted` takes.
///
/// Only what the destination's own node wrote counts, once a connection: there it is decided by the rules that are
/// suggested. Probes of the node need no rule. Of who was refused without an identity nothing is taken: no rule of ours
/// could let it in where plaintext is refused.
pub fn seen(
    namespace: &str,
    flows: &[Flow],
    members: &[Member],
    wanted: impl Fn(&Flow) -> bool,
) -> Vec<Seen> {
    let by_name: BTreeMap<&str, &Uid> = members.iter().map(|m| (&*m.name, &m.uid)).collect();
    let mut counts: BTreeMap<(Uid, Caller, u16), u64> = BTreeMap::new();
    for flow in flows.iter().filter(|flow| is_of_destination(flow) && wanted(flow)) {
        let is_here = flow.dst.namespace.as_deref() == Some(namespace);
        let member = flow.dst.workload.as_deref().filter(|_| is_here).and_then(|name| by_name.get(name));
        let (Some(uid), Some(caller), Some(port)) = (member, caller(flow), port(flow)) else { continue };
        let count = counts.entry(((*uid).clone(), caller, port)).or_default();
        *count = count.saturating_add(flow.connections);
    }
    let one = |((destination, caller, port), connections)| Seen { destination, caller, port, connections };
    counts.into_iter().map(one).collect()
}

/// Whether the node of the workload that was called wrote it.
fn is_of_destination(flow: &Flow) -> bool {
    flow.direction.as_deref() == Some("inbound")
        && ["hbone", "local", "plaintext"].contains(&flow.path.as_str())
}

fn caller(flow: &Flow) -> Option<Caller> {
    let identity = |text: &Option<String>| text.as_deref().and_then(|text| Identity::parse(text).ok());
    let proven = identity(&flow.client).or_else(|| identity(&flow.src.identity));
    match proven {
        Some(identity) => Some(Caller::Identity(identity)),
        None if flow.is_allowed() => address(flow.src.addr.as_deref()?).map(Caller::Address),
        None => None,
    }
}

fn address(text: &str) -> Option<IpAddr> {
    let socket = text.parse::<SocketAddr>().map(|socket| socket.ip());
    socket.or_else(|_| text.parse()).ok().map(|ip| ip.to_canonical())
}

/// The port of the application.
fn port(flow: &Flow) -> Option<u16> {
    let asked = flow.hbone_addr.as_deref().or(flow.dst.addr.as_deref())?;
    asked.rsplit_once(':')?.1.parse().ok()
}
