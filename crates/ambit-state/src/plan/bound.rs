//! What a waypoint serves is reached through it only.
//!
//! Otherwise whoever dials a pod's own address, or another service in front of the same pod, would be past every rule
//! that the waypoint enforces. The destination refuses what came past it; the source goes to it in the first place.

use std::sync::Arc;

use ambit_types::{Destination, GatewayAddress, Identity, Workload};

use super::gateway::{refers_to, waypoint_of};
use crate::pick::target_port;
use crate::services::ServiceEntry;
use crate::snapshot::Snapshot;

#[cfg(test)]
mod tests;

/// How a connection to a port of a workload came, as far as waypoints go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passage {
    /// Nothing has to be passed.
    Free,
    /// From a waypoint of the port.
    Waypoint,
    /// Past the waypoint that it has to come through.
    Bypassed,
    /// A service in front of the workload is not known, so neither is what has to be passed.
    Untold,
}

/// How a connection came.
///
/// All ports are bound where the workload names a waypoint itself; otherwise those that a service with a waypoint
/// leads to, whatever name or address was dialled. A waypoint that is bound and not there lets nobody in, and a service
/// that is named and not there may have one. Only Ambit's own control plane asks for this: with another one, a pod's own
/// address is a way around the waypoints of services that users know.
pub(crate) fn passage(snapshot: &Snapshot, own: &Workload, peer: Option<&Identity>, port: u16) -> Passage {
    if own.settings.is_none() {
        return Passage::Free;
    }
    let mut bound = false;
    for reference in references(snapshot, own, port) {
        // An instance of the waypoint is no destination of it.
        if refers_to(snapshot, reference, own) {
            return Passage::Free;
        }
        if peer.is_some_and(|peer| proves(snapshot, reference, own, peer)) {
            return Passage::Waypoint;
        }
        bound = true;
    }
    let untold = || own.services.keys().any(|key| snapshot.service(key).is_none());
    if bound {
        Passage::Bypassed
    } else if untold() {
        Passage::Untold
    } else {
        Passage::Free
    }
}

/// Which waypoint a connection to a port of a workload has to be sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Through<'s> {
    /// None.
    Nothing,
    /// This one serves all services that lead there.
    Waypoint(&'s GatewayAddress),
    /// Each of these serves some of them and none serves all, so that none knows the rules of all.
    Contested(Vec<&'s GatewayAddress>),
}

/// The waypoint for a port of a workload that was addressed itself.
///
/// A service that is not known here is left to the destination, which knows it or refuses.
pub(crate) fn through<'s>(
    snapshot: &'s Snapshot,
    workload: &'s Workload,
    port: u16,
    draw: u64,
) -> Through<'s> {
    if workload.settings.is_none() {
        return Through::Nothing;
    }
    let bound: Vec<_> = leading(snapshot, workload, port).collect();
    let Some(first) = bound.first() else { return Through::Nothing };
    let mut all: Vec<_> = bound.iter().flat_map(|entry| waypoints(entry)).collect();
    if all.iter().any(|one| refers_to(snapshot, one, workload)) {
        return Through::Nothing;
    }
    let serves_all =
        |one: &&GatewayAddress| bound.iter().all(|entry| waypoints(entry).any(|named| named == *one));
    // A share that the service gives to a canary stays with it where that knows all the rules.
    let mut choice = waypoint_of(first.service(), draw).into_iter().chain(waypoints(first));
    match choice.find(serves_all) {
        Some(one) => Through::Waypoint(one),
        None => {
            all.sort_unstable();
            all.dedup();
            Through::Contested(all)
        }
    }
}

/// The waypoints of a port.
fn references<'s>(
    snapshot: &'s Snapshot,
    own: &'s Workload,
    port: u16,
) -> impl Iterator<Item = &'s GatewayAddress> {
    own.waypoint.iter().chain(leading(snapshot, own, port).flat_map(waypoints))
}

/// The services with a waypoint that lead to a port of a workload.
fn leading<'s>(
    snapshot: &'s Snapshot,
    own: &'s Workload,
    port: u16,
) -> impl Iterator<Item = &'s ServiceEntry> {
    let tunnelled = own.application_tunnel.and_then(|tunnel| tunnel.port);
    let services = own.services.keys().filter_map(|key| Some((key, &**snapshot.service(key)?)));
    let bound = services.filter(|(_, entry)| waypoints(entry).next().is_some());
    let leading = bound.filter(move |(key, entry)| {
        let leads = |target: u16| target == port || tunnelled == Some(port);
        let ports = &entry.service().ports;
        ports.iter().any(|p| target_port(entry.service(), key, own, p.service_port, false).is_some_and(leads))
    });
    leading.map(|(_, entry)| entry)
}

fn waypoints(entry: &ServiceEntry) -> impl Iterator<Item = &GatewayAddress> {
    let weighted = entry.service().weighted_waypoints.iter().map(|one| &one.destination);
    weighted.chain(&entry.service().waypoint)
}

/// Whether the identity is that of an instance of the waypoint.
fn proves(snapshot: &Snapshot, reference: &GatewayAddress, own: &Workload, peer: &Identity) -> bool {
    let is_peer = |workload: &Arc<Workload>| workload.identity() == *peer;
    let (service, workload) = match &reference.destination {
        Destination::Hostname(key) => (snapshot.service(key), snapshot.workloads.by_host(key)),
        Destination::Address(at) => {
            (snapshot.services.by_address(at, &own.namespace), snapshot.workloads.by_address(at))
        }
    };
    match service {
        Some(entry) => entry.endpoints().iter().any(is_peer),
        None => workload.is_some_and(is_peer),
    }
}
