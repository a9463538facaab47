//! What a waypoint serves is reached through it only.
//!
//! Otherwise whoever dials a pod's own address, or another service in front of the same pod, would be past every rule
//! that the waypoint enforces. The destination refuses what came past it; the source goes to it in the first place.

use std::sync::Arc;

use ambit_types::service::Port;
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
/// The ports that a service with a waypoint leads to are bound to the waypoints of such services, whatever name or
/// address was dialled; all others where the workload names a waypoint itself. A waypoint that is bound and not there
/// lets nobody in, and a service that is named and not there may have one. Only Ambit's own control plane asks for
/// this: with another one, a pod's own address is a way around the waypoints of services that users know.
pub(crate) fn passage(snapshot: &Snapshot, own: &Workload, peer: Option<&Identity>, port: u16) -> Passage {
    if own.settings.is_none() {
        return Passage::Free;
    }
    let proven = |reference: &GatewayAddress| peer.is_some_and(|peer| proves(snapshot, reference, own, peer));
    let mut services = leading(snapshot, own, port).peekable();
    if services.peek().is_some() {
        // The workload's own waypoint knows none of their rules, unless it is theirs as well.
        let passed = services.any(|(entry, _)| waypoints(entry).any(proven));
        return if passed { Passage::Waypoint } else { Passage::Bypassed };
    }
    let named = named_by(snapshot, own);
    if named.is_some_and(|reference| !proven(reference)) {
        return Passage::Bypassed;
    }
    if own.services.keys().any(|key| snapshot.service(key).is_none()) {
        Passage::Untold
    } else if named.is_some() {
        Passage::Waypoint
    } else {
        Passage::Free
    }
}

/// Which waypoint a connection to a port of a workload has to be sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Through<'s> {
    /// None.
    Nothing,
    /// This one serves the workload and all services that lead there, as far as they name any.
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
    let named = named_by(snapshot, workload);
    let services: Vec<&'s ServiceEntry> = leading(snapshot, workload, port).map(|(entry, _)| entry).collect();
    let serves_all = |one: &&'s GatewayAddress| {
        named.is_none_or(|named| named == *one)
            && services.iter().all(|entry| waypoints(entry).any(|known| known == *one))
    };
    // A share that the service gives to a canary stays with it where that knows all the rules.
    let of_first = services
        .first()
        .copied()
        .into_iter()
        .flat_map(|first| waypoint_of(first.service(), draw).into_iter().chain(waypoints(first)));
    if let Some(one) = named.into_iter().chain(of_first).find(serves_all) {
        return Through::Waypoint(one);
    }
    let of_services = services.iter().copied().flat_map(waypoints);
    let mut all: Vec<_> = named.into_iter().chain(of_services).collect();
    if all.is_empty() {
        return Through::Nothing;
    }
    all.sort_unstable();
    all.dedup();
    Through::Contested(all)
}

impl Snapshot {
    /// The services with a waypoint that lead to where a connection to a port of a workload ends, once with each of
    /// their ports that does. Their rules hold for whoever addresses the workload itself.
    ///
    /// None of workloads that another control plane told of, nor of instances of those waypoints. Services that are not
    /// known are left out.
    pub fn bound_services<'s>(
        &'s self,
        workload: &'s Workload,
        port: u16,
    ) -> impl Iterator<Item = (&'s ServiceEntry, &'s Port)> {
        leading(self, workload, end_of(workload, port))
    }
}

/// The port where a connection to a port of a workload ends: an application tunnel has one for all.
pub(crate) fn end_of(workload: &Workload, port: u16) -> u16 {
    workload.application_tunnel.and_then(|tunnel| tunnel.port).unwrap_or(port)
}

/// The waypoint that a workload names itself; none for its own instances, which are no destination of it.
fn named_by<'s>(snapshot: &Snapshot, own: &'s Workload) -> Option<&'s GatewayAddress> {
    own.waypoint.as_ref().filter(|reference| !refers_to(snapshot, reference, own))
}

/// The services with a waypoint that lead to a port of a workload, which is no instance of it, with their ports.
fn leading<'s>(
    snapshot: &'s Snapshot,
    own: &'s Workload,
    port: u16,
) -> impl Iterator<Item = (&'s ServiceEntry, &'s Port)> {
    // An application tunnel ends there, whichever of the ports was asked for.
    let is_end = own.application_tunnel.and_then(|tunnel| tunnel.port) == Some(port);
    let services = own.services.keys().filter(|_| own.settings.is_some());
    let known = services.filter_map(|key| Some((key, &**snapshot.service(key)?)));
    let leading = known.flat_map(move |(key, entry)| {
        let ports = entry.service().ports.iter();
        let leads = move |declared: &&Port| {
            let target = target_port(entry.service(), key, own, declared.service_port, false);
            target.is_some_and(|target| is_end || target == port)
        };
        ports.filter(leads).map(move |declared| (entry, declared))
    });
    leading.filter(move |(entry, _)| {
        let mut named = waypoints(entry).peekable();
        named.peek().is_some() && !named.any(|reference| refers_to(snapshot, reference, own))
    })
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
