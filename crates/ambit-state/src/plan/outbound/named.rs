//! Where a workload that has a name instead of an address is, once the name was resolved.
//!
//! What DNS answers is the word of whoever owns the name. An address that leads back into the pod, to its link or to a
//! port of the proxy is not connected to: the proxy's own connections are not captured, so nothing else would stop it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ambit_types::Reason;
use ambit_types::service::IpFamily;

use super::{OutboundFacts, refuse_own_ports, refuse_proxy_ports};
use crate::Refusal;
use crate::pick::scale;
use crate::plan::outbound::{ByName, Hop};
use crate::snapshot::Snapshot;

#[cfg(test)]
mod tests;

/// Chooses among the addresses that the name of a workload has: those the service allows, of the family the
/// application asked for if there are any, one of them by the draw.
///
/// # Errors
/// [`Reason::DnsUpstreamFailed`] if none of them may be connected to, [`Reason::ProxyPortTarget`] if the chosen one
/// is a port of a proxy.
pub fn plan_named(
    snapshot: &Snapshot,
    facts: &OutboundFacts<'_>,
    by: &ByName,
    addresses: &[IpAddr],
) -> Result<Hop, Refusal> {
    let (asked, allowed) = (IpFamily::of(facts.destination.ip()), by.allowed());
    let usable: Vec<IpAddr> = addresses
        .iter()
        .map(IpAddr::to_canonical)
        .filter(|ip| allowed.allow(IpFamily::of(*ip)) && unusable(*ip).is_none())
        .collect();
    let preferred: Vec<IpAddr> = usable.iter().copied().filter(|ip| IpFamily::of(*ip) == asked).collect();
    let among = if preferred.is_empty() { usable } else { preferred };
    // The upper half of the draw has chosen the endpoint.
    let place = scale(facts.draw.rotate_left(32), u64::try_from(among.len()).unwrap_or(u64::MAX));
    let chosen = usize::try_from(place).ok().and_then(|place| among.get(place));
    let ip = *chosen.ok_or_else(|| Refusal::new(Reason::DnsUpstreamFailed, nothing(by, addresses)))?;
    let address = SocketAddr::new(ip, by.port);
    refuse_own_ports(address, facts.source_address)?;
    if let Some(source) = facts.source {
        refuse_proxy_ports(snapshot, source, address)?;
    }
    Ok(Hop { workload: by.workload.clone(), address, service: by.service.clone(), candidates: by.candidates })
}

/// Why an address is not connected to; none if it may be.
fn unusable(ip: IpAddr) -> Option<&'static str> {
    let (is_this_network, is_link_local, is_broadcast) = match ip {
        IpAddr::V4(v4) => (v4.octets()[0] == 0, v4.is_link_local(), v4 == Ipv4Addr::BROADCAST),
        IpAddr::V6(v6) => (v6.is_unspecified(), v6.is_unicast_link_local(), false),
    };
    if ip.is_loopback() {
        Some("loopback")
    } else if is_link_local {
        Some("link-local")
    } else if is_this_network || is_broadcast || ip.is_multicast() {
        Some("no address of one host")
    } else {
        None
    }
}

/// What is wrong with all of the addresses, with the first as example.
fn nothing(by: &ByName, addresses: &[IpAddr]) -> String {
    let host = &by.host;
    match addresses.first() {
        None => format!("{host} has no address"),
        Some(first) => {
            let ip = first.to_canonical();
            let why = unusable(ip).unwrap_or("not of a family that the service uses");
            format!("{host} resolves to {ip}, which is {why}, and to nothing that may be connected to")
        }
    }
}
