//! At which of its ports a workload serves a service port.

use ambit_types::Str;
use ambit_types::service::Port;

use super::protocol;
use crate::input::{Endpoint, EndpointSlice, Pod, ServiceEntry, ServicePort, TargetPort, Transport};

/// Ports of a service at a pod; a name the pod does not declare leaves its port out.
pub(super) fn of_pod(ports: &[ServicePort], pod: &Pod) -> Vec<Port> {
    resolve(ports, |port| match &port.target {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(name) => named(pod, name),
    })
}

/// Ports of a service at a workload entry: its own mapping stands before the service's.
pub(super) fn of_endpoint(ports: &[ServicePort], endpoint: &Endpoint) -> Vec<Port> {
    resolve(ports, |port| match &port.target {
        TargetPort::Number(number) => Some(endpoint.ports.get(&port.name).copied().unwrap_or(*number)),
        TargetPort::Name(name) => endpoint.ports.get(name).copied(),
    })
}

/// Ports of a service as its endpoint slice maps them, by name.
pub(super) fn of_slice(ports: &[ServicePort], slice: &EndpointSlice) -> Vec<Port> {
    resolve(ports, |port| slice.ports.iter().find(|p| p.name == port.name).map(|p| p.port))
}

/// Ports of a service entry: the workload's own port of that name stands first.
pub(super) fn of_entry(entry: &ServiceEntry, own: impl Fn(&Str) -> Option<u16>) -> Vec<Port> {
    let port = |written: &crate::input::EntryPort| {
        let port = protocol::entry_port(written);
        Port { target_port: own(&written.name).unwrap_or(port.target_port), ..port }
    };
    entry.ports.iter().map(port).collect()
}

/// The TCP port a pod declares under a name.
pub(super) fn named(pod: &Pod, name: &Str) -> Option<u16> {
    let tcp = pod.ports.iter().filter(|p| p.transport == Transport::Tcp);
    tcp.into_iter().find(|p| p.name == *name && !name.is_empty()).map(|p| p.port)
}

/// Adds ports that are not there yet.
pub(super) fn merge(to: &mut Vec<Port>, more: Vec<Port>) {
    for port in more {
        if !to.iter().any(|p| p.service_port == port.service_port) {
            to.push(port);
        }
    }
}

fn resolve(ports: &[ServicePort], target: impl Fn(&ServicePort) -> Option<u16>) -> Vec<Port> {
    let tcp = ports.iter().filter(|p| p.transport == Transport::Tcp);
    tcp.filter_map(|port| {
        let app_protocol = protocol::of_port(port);
        target(port).map(|target_port| Port { service_port: port.port, target_port, app_protocol })
    })
    .collect()
}
