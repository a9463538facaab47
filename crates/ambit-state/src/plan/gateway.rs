//! Finding the waypoint or network gateway that a reference means. Whether one is needed is the plan's matter.

use std::sync::Arc;

use ambit_types::{Destination, GatewayAddress, Service, Str, Uid, Workload};

use crate::pick::{Ask, Picked, scale};
use crate::services::ServiceEntry;
use crate::snapshot::Snapshot;

/// A waypoint or gateway chosen for one connection.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) workload: Arc<Workload>,
    pub(super) port: u16,
    pub(super) service: Option<Arc<Service>>,
}

/// What the reference is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Waypoint,
    NetworkGateway,
}

/// One instance behind a reference; none if it names nothing known, or nothing usable.
pub(super) fn resolve(
    snapshot: &Snapshot,
    source: &Workload,
    reference: &GatewayAddress,
    role: Role,
    draw: u64,
) -> Option<Resolved> {
    let port = reference.hbone_mtls_port;
    let waypoint = role == Role::Waypoint;
    let ask = Ask { source, port, waypoint, tried: &[], draw };
    match &reference.destination {
        Destination::Hostname(key) => match snapshot.service(key) {
            Some(entry) => of_service(entry, &ask),
            None => snapshot.workloads.by_host(key).map(|w| of_workload(w, port)),
        },
        Destination::Address(at) => match snapshot.services.by_address(at, &source.namespace) {
            Some(entry) => of_service(entry, &ask),
            None => snapshot.workloads.by_address(at).map(|w| of_workload(w, port)),
        },
    }
}

fn of_service(entry: &ServiceEntry, ask: &Ask<'_>) -> Option<Resolved> {
    let Picked { workload, port, .. } = entry.pick(ask)?;
    Some(Resolved { workload: workload.clone(), port, service: Some(entry.service.clone()) })
}

fn of_workload(workload: &Arc<Workload>, port: u16) -> Resolved {
    Resolved { workload: workload.clone(), port, service: None }
}

/// The waypoint reference of a service for one connection: one of the weighted ones, if they have any weight.
pub(super) fn waypoint_of(service: &Service, draw: u64) -> Option<&GatewayAddress> {
    let weighted = &service.weighted_waypoints;
    let total = weighted.iter().map(|w| u64::from(w.weight)).sum();
    // The pick of an endpoint uses the high end of the draw too: turn it, so that the two do not go together.
    let mut left = scale(draw.reverse_bits(), total);
    for one in weighted {
        let weight = u64::from(one.weight);
        if left < weight {
            return Some(&one.destination);
        }
        left -= weight;
    }
    service.waypoint.as_ref()
}

/// Whether a waypoint reference means this workload: it backs the service, or owns the address.
pub(super) fn refers_to(snapshot: &Snapshot, reference: &GatewayAddress, own: &Workload) -> bool {
    let backs = |entry: &Arc<ServiceEntry>| own.services.contains_key(&entry.service.key());
    let is_own = |uid: &Uid| *uid == own.uid;
    match &reference.destination {
        Destination::Hostname(key) => match snapshot.service(key) {
            Some(entry) => backs(entry),
            None => snapshot.workloads.by_host(key).is_some_and(|w| is_own(&w.uid)),
        },
        Destination::Address(at) => {
            let namespace: &Str = &own.namespace;
            match snapshot.services.by_address(at, namespace) {
                Some(entry) => backs(entry),
                None => snapshot.workloads.by_address(at).is_some_and(|w| is_own(&w.uid)),
            }
        }
    }
}
