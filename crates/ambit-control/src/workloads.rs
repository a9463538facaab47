//! Pods, workload entries and endpoints as workloads of discovery.

use std::collections::BTreeMap;
use std::sync::Arc;

use ambit_types::service::Port;
use ambit_types::workload::{Health, NetworkMode, Settings as Extra, WorkloadType};
use ambit_types::{Network, ServiceKey, ServicePorts, Str, TunnelProtocol, Uid, Workload};

use crate::index::{Inputs, Maker, Settings};
use crate::input::selector::contains_all;
use crate::input::{EndpointSlice, Labels, Name, Pod, canonical_addresses};
use crate::services::{Owner, owner, protocol, service_host};
use crate::{egress, policies, waypoints};

mod external;
mod labels;
mod ports;

/// Written by the node agent when a pod's traffic is redirected.
const REDIRECTION: &str = "ambient.istio.io/redirection";
/// Names the gateway a pod is an instance of.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// The workloads one object makes.
pub(crate) fn made_by(
    inputs: &Inputs,
    settings: &Settings,
    network: &Network,
    maker: &Maker,
) -> Vec<Workload> {
    let from = From { inputs, settings, network };
    match maker {
        Maker::Pod(name) => from.inputs.pods.named(name).and_then(|pod| from.pod(pod)).into_iter().collect(),
        Maker::Slice(name) => inputs.slices.named(name).map(|s| from.slice(s)).unwrap_or_default(),
        Maker::ServiceEntry(name) => {
            inputs.service_entries.named(name).map(|e| from.entry(e)).unwrap_or_default()
        }
        Maker::WorkloadEntry(name) => {
            inputs.workload_entries.named(name).map(|e| from.workload_entry(e)).into_iter().collect()
        }
    }
}

/// The uid of a pod's workload, which no other object makes.
pub(crate) fn uid_of_pod(settings: &Settings, pod: &Name) -> Uid {
    let Name { namespace, name } = pod;
    Uid::from(format!("{}//Pod/{namespace}/{name}", settings.cluster_id))
}

/// What workloads are made from.
struct From<'a> {
    inputs: &'a Inputs,
    settings: &'a Settings,
    network: &'a Network,
}

impl From<'_> {
    fn pod(&self, pod: &Pod) -> Option<Workload> {
        if pod.phase.is_final() || pod.addresses.is_empty() {
            return None;
        }
        let namespace = &pod.name.namespace;
        let mut workload = self.workload(uid_of_pod(self.settings, &pod.name), &pod.name, &pod.labels);
        workload.addresses = canonical_addresses(pod.addresses.iter().copied());
        workload.service_account = pod.service_account.clone();
        workload.node = pod.node.clone();
        workload.health = if pod.ready && !pod.deleting { Health::Healthy } else { Health::Unhealthy };
        workload.network_mode =
            if pod.host_network { NetworkMode::HostNetwork } else { NetworkMode::Standard };
        if pod.annotations.get(REDIRECTION).is_some_and(|r| **r == *"enabled") {
            workload.tunnel = TunnelProtocol::Hbone;
        }
        workload.workload_name = labels::controller_name(pod);
        labels::set_canonical(&mut workload, &pod.labels);
        // A waypoint is not reached through a waypoint.
        if !pod.labels.contains_key(GATEWAY_NAME) {
            workload.waypoint = waypoints::of_workload(self.inputs, self.settings, namespace, &pod.labels);
        }
        workload.services = self.services_of_pod(pod);
        let node = self.inputs.nodes.named(&Name::new("", pod.node.clone()));
        if let Some(node) = node {
            workload.locality = labels::locality(&node.labels);
        }
        workload.settings = Some(Arc::new(Extra {
            probe_ports: sorted(pod.probe_ports.clone()),
            node_addresses: node
                .map(|n| canonical_addresses(n.addresses.iter().copied()))
                .unwrap_or_default(),
            network_policy: self
                .inputs
                .network_policies
                .in_namespace(namespace)
                .any(|policy| policy.pods.accepts(&pod.labels)),
            egress: egress::of_pod(self.inputs, pod),
        }));
        Some(workload)
    }

    /// A workload with what every kind has in common.
    fn workload(&self, uid: impl Into<Uid>, name: &Name, labels: &Labels) -> Workload {
        let mut workload = Workload::new(uid, name.namespace.clone(), name.name.clone());
        workload.cluster_id = self.settings.cluster_id.clone();
        workload.network = self.network.clone();
        workload.trust_domain = self.settings.trust_domain.clone();
        workload.workload_type = WorkloadType::Pod;
        workload.policies = policies::named_by(self.inputs, self.settings, &name.namespace, labels);
        // That they are there tells proxies to hold waypoints. Of what is no pod nobody knows whether a NetworkPolicy
        // selects it.
        workload.settings = Some(Arc::new(Extra { network_policy: true, ..Extra::default() }));
        if labels::speaks_hbone(labels) {
            workload.tunnel = TunnelProtocol::Hbone;
            workload.native_tunnel = true;
        }
        workload
    }

    fn services_of_pod(&self, pod: &Pod) -> ServicePorts {
        let namespace = &pod.name.namespace;
        let mut backed = BTreeMap::new();
        for service in self.inputs.services.in_namespace(namespace) {
            let selected = !service.selector.is_empty() && contains_all(&pod.labels, &service.selector);
            if selected && !service.external_name {
                let ports = ports::of_pod(&service.ports, pod);
                backed.insert(self.key(&service.name), ports);
            }
        }
        for slice in self.inputs.slices.in_namespace(namespace) {
            let name = Name::new(namespace.clone(), slice.service.clone());
            let service = self.inputs.services.named(&name);
            // Nearly every slice is of a service with a selector: its endpoints, of which there may be as many as pods,
            // need not be looked through for each pod.
            if let Some(service) = service.filter(|s| s.selector.is_empty() && !s.external_name)
                && lists(slice, pod)
            {
                let ports: &mut Vec<Port> = backed.entry(self.key(&name)).or_default();
                ports::merge(ports, ports::of_slice(&service.ports, slice));
            }
        }
        for entry in self.inputs.service_entries.in_namespace(namespace) {
            let selector = &entry.workload_selector;
            if !selector.is_empty() && contains_all(&pod.labels, selector) {
                for host in self.hosts_won(entry) {
                    let key = ServiceKey::new(namespace.clone(), host.clone());
                    backed.insert(key, ports::of_entry(entry, |name| ports::named(pod, name)));
                }
            }
        }
        backed.into()
    }

    /// Hosts of a service entry for which it stands in its namespace.
    fn hosts_won<'e>(&self, entry: &'e crate::input::ServiceEntry) -> impl Iterator<Item = &'e Str> {
        let mine = |host: &&Str| {
            owner(self.inputs, self.settings, &entry.name.namespace, host) == Some(Owner::Entry(&entry.name))
        };
        entry.hosts.iter().filter(mine)
    }

    fn key(&self, service: &Name) -> ServiceKey {
        ServiceKey::new(service.namespace.clone(), service_host(self.settings, service))
    }
}

fn lists(slice: &EndpointSlice, pod: &Pod) -> bool {
    let targets = slice.endpoints.iter().filter_map(|e| e.pod.as_ref());
    targets.into_iter().any(|t| t.name == pod.name && (t.uid.is_empty() || t.uid == pod.uid))
}

fn sorted(mut ports: Vec<u16>) -> Vec<u16> {
    ports.sort_unstable();
    ports.dedup();
    ports
}
