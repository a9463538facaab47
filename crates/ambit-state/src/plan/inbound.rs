//! Whom an inbound connection may be for: the target of a CONNECT, or what to do with plaintext.
//!
//! Whether the peer *may* connect is policy, asked afterwards with the target found here. Nothing a peer says of
//! itself in headers is believed.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ambit_types::workload::NetworkMode;
use ambit_types::{NetworkAddress, Reason, Service, TunnelProtocol, Workload, canonical};

use super::gateway::refers_to;
use super::{Refusal, is_proxy_port};
use crate::pick::target_port;
use crate::snapshot::Snapshot;

#[cfg(test)]
mod tests;

/// Source addresses that a host-side rule of other node agents gives to probes.
pub const PROBE_SOURCES: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 7, 127)),
    IpAddr::V6(std::net::Ipv6Addr::new(0xfd16, 0x9254, 0x7127, 0x1337, 0xffff, 0xffff, 0xffff, 0xffff)),
];

/// The authority of a CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority<'a> {
    /// `ip:port`.
    Address(SocketAddr),
    /// `host:port`.
    Host {
        /// The host name.
        host: &'a str,
        /// The port.
        port: u16,
    },
}

/// What is known of a CONNECT that arrived on 15008.
#[derive(Debug, Clone, Copy)]
pub struct HboneFacts<'a> {
    /// Workload of the pod whose listener accepted; none if discovery has not told of it.
    pub own: Option<&'a Arc<Workload>>,
    /// What the peer asks for.
    pub authority: Authority<'a>,
    /// Address of the pod that the peer dialled.
    pub local: SocketAddr,
    /// Address of the peer.
    pub peer: SocketAddr,
    /// Service that the peer says the application asked for: a hint for records only.
    pub forwarded_host: Option<&'a str>,
}

/// Where an accepted CONNECT goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HboneTarget {
    /// Address and final port of the application, which policy is asked about.
    pub address: SocketAddr,
    /// Service that was meant, for records.
    pub service: Option<Arc<Service>>,
    /// Workload at the peer's address, for records; never for policy.
    pub source: Option<Arc<Workload>>,
    /// Whether the application is to see the peer's address; not when the pod calls itself.
    pub spoof: bool,
}

/// A CONNECT refused before policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HboneRefusal {
    /// HTTP status of the answer: 400 or 503.
    pub status: u16,
    /// Why.
    pub refusal: Refusal,
}

fn refuse<T>(status: u16, reason: Reason, detail: String) -> Result<T, HboneRefusal> {
    Err(HboneRefusal { status, refusal: Refusal::new(reason, detail) })
}

/// Finds the target of a CONNECT, or refuses it.
///
/// # Errors
/// [`HboneRefusal`] with the status to answer: the workload is not known, the authority is not this pod's, the port
/// is one of ours, or the workload takes a protocol that we do not speak.
pub fn plan_inbound_hbone(snapshot: &Snapshot, facts: &HboneFacts<'_>) -> Result<HboneTarget, HboneRefusal> {
    let local = canonical(facts.local);
    let peer = canonical(facts.peer);
    let Some(own) = facts.own else {
        let detail = format!("the workload at {} is not known yet", local.ip());
        return refuse(503, Reason::WorkloadUnknown, detail);
    };
    let (port, named) = match facts.authority {
        Authority::Address(address) => (authorized_port(snapshot, own, canonical(address), local)?, None),
        Authority::Host { host, port } => {
            let (port, service) = backed_port(snapshot, own, host, port)?;
            (port, Some(service))
        }
    };
    if is_proxy_port(port) {
        let detail = format!("port {port} of {} is the proxy's own", local.ip());
        return refuse(503, Reason::ProxyPortTarget, detail);
    }
    if own.application_tunnel.is_some_and(|tunnel| tunnel.proxy_protocol) {
        // Its first bytes are taken for who the peer is; a peer must not write them.
        let detail = format!("workload {} takes the PROXY protocol, which is not spoken here", own.uid);
        return refuse(503, Reason::TunnelProtocol, detail);
    }
    let port = own.application_tunnel.and_then(|tunnel| tunnel.port).unwrap_or(port);
    let service = named.or_else(|| meant_service(snapshot, own, facts.forwarded_host, port));
    Ok(HboneTarget {
        address: SocketAddr::new(local.ip(), port),
        service,
        source: snapshot.workload_at(&own.network, peer.ip()).cloned(),
        spoof: peer.ip() != local.ip(),
    })
}

/// The port of an address authority, if the pod may be asked for that address.
fn authorized_port(
    snapshot: &Snapshot,
    own: &Workload,
    asked: SocketAddr,
    local: SocketAddr,
) -> Result<u16, HboneRefusal> {
    let terminates = own.application_tunnel.is_some();
    if asked.ip() == local.ip() || terminates || serves_as_waypoint(snapshot, own, asked.ip()) {
        return Ok(asked.port());
    }
    let detail = format!("{asked} was asked of the pod at {}", local.ip());
    refuse(400, Reason::AuthorityNotOwned, detail)
}

/// Whether what owns the address names this workload as its waypoint.
fn serves_as_waypoint(snapshot: &Snapshot, own: &Workload, ip: IpAddr) -> bool {
    let at = NetworkAddress::new(own.network.clone(), ip);
    if let Some(workload) = snapshot.workloads.by_address(&at) {
        return workload.waypoint.as_ref().is_some_and(|w| refers_to(snapshot, w, own));
    }
    snapshot.services.by_address(&at, &own.namespace).is_some_and(|entry| {
        let weighted = entry.service.weighted_waypoints.iter().map(|w| &w.destination);
        weighted.chain(&entry.service.waypoint).any(|w| refers_to(snapshot, w, own))
    })
}

/// The target port of a host authority, which must be a service that this pod backs.
fn backed_port(
    snapshot: &Snapshot,
    own: &Workload,
    host: &str,
    port: u16,
) -> Result<(u16, Arc<Service>), HboneRefusal> {
    let Some(entry) = snapshot.service_by_host(host, &own.namespace) else {
        return refuse(503, Reason::UnknownDestination, format!("no service {host:?} is visible here"));
    };
    let key = entry.service().key();
    if !own.services.contains_key(&key) {
        let detail = format!("workload {} does not back service {key}", own.uid);
        return refuse(400, Reason::AuthorityNotOwned, detail);
    }
    match target_port(entry.service(), &key, own, port, false) {
        Some(target) => Ok((target, entry.service().clone())),
        None => refuse(503, Reason::NoHealthyEndpoint, format!("service {key} has no port {port} here")),
    }
}

/// The service of this workload that the peer names, or else the first whose target is the port.
fn meant_service(
    snapshot: &Snapshot,
    own: &Workload,
    forwarded_host: Option<&str>,
    port: u16,
) -> Option<Arc<Service>> {
    let backed = || own.services.keys().filter_map(|key| snapshot.service(key).map(|entry| (key, entry)));
    let named = forwarded_host.and_then(|host| backed().find(|(key, _)| *key.hostname == *host));
    let by_port = || {
        backed().find(|(key, entry)| {
            let ports = &entry.service().ports;
            ports.iter().any(|p| target_port(entry.service(), key, own, p.service_port, false) == Some(port))
        })
    };
    named.or_else(by_port).map(|(_, entry)| entry.service().clone())
}

/// What to do with plaintext from the address of a workload that speaks HBONE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MeshedPlaintext {
    /// Leave it to policy, and tell of it.
    ///
    /// The default: while a pod is enrolled or leaves, while its peers have not yet learnt that this one speaks
    /// HBONE, and when an address was given to a new pod a moment ago, honest plaintext looks like this. It proves
    /// no identity either way, so STRICT and every rule that asks for one refuse it.
    #[default]
    Record,
    /// Refuse it (AMB2303). For meshes where enrolment is settled.
    Refuse,
}

/// What is known of a connection captured as plaintext on 15006.
#[derive(Debug, Clone, Copy)]
pub struct PlainFacts<'a> {
    /// Workload of the pod whose listener accepted; none if discovery has not told of it.
    pub own: Option<&'a Arc<Workload>>,
    /// Address of the peer.
    pub source: SocketAddr,
    /// Address the peer dialled.
    pub destination: SocketAddr,
    /// Whether the program knows the source to be an address of its node, beside those that discovery names.
    pub from_node: bool,
    /// What to do with plaintext from a workload that speaks HBONE.
    pub meshed_plaintext: MeshedPlaintext,
}

/// What to do with a plaintext connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlainPlan {
    /// A probe of the node: let it in without policy, recorded as AMB2304.
    Probe,
    /// Ask policy, with no identity.
    Authorize {
        /// Workload at the peer's address, for records; never for policy.
        source: Option<Arc<Workload>>,
        /// Whether that workload speaks HBONE, so that plaintext from it is odd.
        meshed: bool,
    },
    /// Close it.
    Refuse(Refusal),
}

/// Decides what to do with a plaintext connection.
pub fn plan_inbound_plain(snapshot: &Snapshot, facts: &PlainFacts<'_>) -> PlainPlan {
    let source = canonical(facts.source);
    let destination = canonical(facts.destination);
    if is_proxy_port(destination.port()) {
        let detail = format!("{destination} is a port of the proxy");
        return PlainPlan::Refuse(Refusal::new(Reason::ProxyPortTarget, detail));
    }
    let Some(own) = facts.own else {
        let detail = format!("the workload at {} is not known yet", destination.ip());
        return PlainPlan::Refuse(Refusal::new(Reason::WorkloadUnknown, detail));
    };
    if !is_own_address(own, destination.ip()) {
        let detail = format!("{destination} is no address of workload {}", own.uid);
        return PlainPlan::Refuse(Refusal::new(Reason::AuthorityNotOwned, detail));
    }
    let peer = snapshot.workload_at(&own.network, source.ip());
    // What the node says of its addresses may be a moment old; one that discovery gives to a pod is that pod's.
    let from_node = facts.from_node && peer.is_none_or(|w| w.network_mode == NetworkMode::HostNetwork);
    if is_probe(own, source.ip(), destination.port(), from_node) {
        return PlainPlan::Probe;
    }
    let meshed = peer.is_some_and(|w| w.tunnel == TunnelProtocol::Hbone);
    match (meshed, facts.meshed_plaintext) {
        (true, MeshedPlaintext::Refuse) => {
            let name = peer.map_or("", |w| w.uid.as_str());
            let detail = format!("plaintext from {source}, an address of {name}, which speaks HBONE");
            PlainPlan::Refuse(Refusal::new(Reason::MeshedSourcePlaintext, detail))
        }
        (true, MeshedPlaintext::Record) | (false, _) => {
            PlainPlan::Authorize { source: peer.cloned(), meshed }
        }
    }
}

/// Whether the pod may be dialled there: a packet for anybody else was routed here to be relayed on.
fn is_own_address(own: &Workload, ip: IpAddr) -> bool {
    own.addresses.is_empty() || own.addresses.contains(&ip) || ip.is_loopback()
}

/// Whether plaintext is a probe: from an address of the pod's node to a port that its probes declare.
pub(crate) fn is_probe(own: &Workload, source: IpAddr, port: u16, from_node: bool) -> bool {
    let node = from_node || own.node_addresses().contains(&source) || PROBE_SOURCES.contains(&source);
    node && own.probe_ports().contains(&port)
}
