//! What a waypoint serves is reached through it only.
//!
//! Otherwise whoever dials a pod's own address, or another service in front of the same pod, would be past every rule
//! that the waypoint enforces.

use std::sync::Arc;

use ambit_types::{Destination, GatewayAddress, Identity, Workload};

use super::gateway::refers_to;
use crate::pick::target_port;
use crate::snapshot::Snapshot;

#[cfg(test)]
mod tests;

/// Whether a connection to a port of a workload came past the waypoint that it has to come through.
///
/// All ports are bound where the workload names a waypoint itself; otherwise those that a service with a waypoint
/// leads to, whatever name or address was dialled. A waypoint that is bound and not there lets nobody in. Only Ambit's
/// own control plane asks for this: with another one, a pod's own address is a way around the waypoints of services
/// that users know.
pub(crate) fn is_bypassed(snapshot: &Snapshot, own: &Workload, peer: Option<&Identity>, port: u16) -> bool {
    if own.settings.is_none() {
        return false;
    }
    let mut bound = false;
    for reference in references(snapshot, own, port) {
        // An instance of the waypoint is no destination of it.
        if refers_to(snapshot, reference, own)
            || peer.is_some_and(|peer| proves(snapshot, reference, own, peer))
        {
            return false;
        }
        bound = true;
    }
    bound
}

/// The waypoints of a port.
fn references<'s>(
    snapshot: &'s Snapshot,
    own: &'s Workload,
    port: u16,
) -> impl Iterator<Item = &'s GatewayAddress> {
    let services = own.services.keys().filter_map(|key| Some((key, snapshot.service(key)?)));
    let bound = services.filter(|(_, entry)| {
        let service = entry.service();
        service.waypoint.is_some() || !service.weighted_waypoints.is_empty()
    });
    let leading = bound.filter(move |(key, entry)| {
        let ports = &entry.service().ports;
        ports.iter().any(|p| target_port(entry.service(), key, own, p.service_port, false) == Some(port))
    });
    let of_services = leading.flat_map(|(_, entry)| {
        let weighted = entry.service().weighted_waypoints.iter().map(|one| &one.destination);
        weighted.chain(&entry.service().waypoint)
    });
    own.waypoint.iter().chain(of_services)
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
