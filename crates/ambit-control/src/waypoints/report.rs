//! How gateways and services stand: made, bound.

use ambit_types::Reason;

use super::gateway::{NOT_A_WAYPOINT, NOT_READY, fault_for_service, is_waypoint};
use super::{HBONE_PORT, Tags, binding};
use crate::index::Inputs;
use crate::input::{Gateway, Service, ServiceEntry};
use crate::services::is_of_gateway;
use crate::status::{ACCEPTED, Condition, PROGRAMMED, Report, WAYPOINT_BOUND};

/// How a waypoint stands; nothing about gateways of other classes, which are others' affair.
pub(crate) fn of_gateway(inputs: &Inputs, gateway: &Gateway) -> Option<Report> {
    if !is_waypoint(inputs, gateway) {
        return None;
    }
    let accepted = if listens_as_a_waypoint(gateway) {
        Condition::holds(ACCEPTED, "Accepted", "a waypoint")
    } else {
        let words = format!("Expected a single listener on port {HBONE_PORT} with protocol \"HBONE\"");
        Condition::fails(ACCEPTED, "UnsupportedProtocol", words)
    };
    let programmed = if gateway.has_address {
        Condition::holds(PROGRAMMED, "Programmed", "it can be reached")
    } else {
        Condition::fails(PROGRAMMED, "AddressNotAssigned", "it has no address yet")
    };
    Some(Report {
        generation: gateway.generation,
        conditions: vec![accepted, programmed],
        parents: Vec::new(),
    })
}

/// A waypoint has one listener, that of tunnels: nothing carries out what any other asks for.
fn listens_as_a_waypoint(gateway: &Gateway) -> bool {
    match gateway.spec.listeners.as_slice() {
        [one] => one.protocol == "HBONE" && one.port == i64::from(HBONE_PORT),
        _ => false,
    }
}

/// How a service stands with the waypoint it asks for; nothing if it asks for none.
pub(crate) fn of_service(inputs: &Inputs, service: &Service) -> Option<Report> {
    if service.external_name || is_of_gateway(&service.labels) {
        // An alias has no address that traffic could have, and what is made for a gateway is bound to none.
        return None;
    }
    let tags = Tags {
        namespace: &service.name.namespace,
        labels: &service.labels,
        annotations: &service.annotations,
    };
    of_tags(inputs, tags, 0)
}

/// The same of a service entry.
pub(crate) fn of_entry(inputs: &Inputs, entry: &ServiceEntry) -> Option<Report> {
    let tags =
        Tags { namespace: &entry.name.namespace, labels: &entry.labels, annotations: &entry.annotations };
    of_tags(inputs, tags, entry.generation)
}

fn of_tags(inputs: &Inputs, tags: Tags<'_>, generation: i64) -> Option<Report> {
    let binding = binding(inputs, tags)?;
    let condition = match fault_for_service(inputs, &binding.primary, tags.namespace) {
        Some((reason, words)) => {
            // What is no waypoint has no port where one is looked for.
            let is_absent = matches!(reason, NOT_READY | NOT_A_WAYPOINT);
            let code = if is_absent { Reason::WaypointUnbound } else { Reason::WaypointNotServing };
            let message = format!("{words}; connections to the service are refused ({})", code.code());
            Condition::fails(WAYPOINT_BOUND, reason, message)
        }
        None => {
            let mut message = format!("Successfully attached to waypoint {}", binding.primary);
            if let Some((_, words)) = &binding.canary_fault {
                message.push_str(&format!(". Canary waypoint not attached: {words}"));
            }
            Condition::holds(WAYPOINT_BOUND, "WaypointAccepted", message)
        }
    };
    Some(Report { generation, conditions: vec![condition], parents: Vec::new() })
}
