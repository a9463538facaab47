//! Endpoints of Services: which pods stand behind each, in the form of EndpointSlice objects.
//!
//! Services without a selector bring their own slices and are left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ContainerPort, ObjectReference, Pod, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::selector::{self, Labels};
use super::{ObjectName, addresses, services};
use crate::address::Families;

/// On an EndpointSlice: the Service it belongs to.
pub const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// On an EndpointSlice: who writes it.
pub const OWNER_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
/// The value of [`OWNER_LABEL`] on slices that are made here.
pub const OWNER: &str = "endpointslice-controller.k8s.io";
/// On a Node: the zone that its endpoints are in.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// The most endpoints in one slice, as Kubernetes' own controller has it.
const ENDPOINTS_MAX: usize = 100;

/// The endpoint slices of every Service with a selector, in order of namespace and name.
///
/// `zones` holds the zone of each node that has one.
pub fn slices(
    services: &[Service],
    pods: &[Pod],
    zones: &BTreeMap<String, String>,
    families: Families,
) -> Vec<EndpointSlice> {
    let mut sorted: Vec<&Service> = services.iter().collect();
    sorted.sort_by_key(|s| ObjectName::of(&s.metadata));
    let mut pods: Vec<&Pod> = pods.iter().collect();
    pods.sort_by_key(|p| ObjectName::of(&p.metadata));
    sorted.iter().flat_map(|service| of_service(service, &pods, zones, families)).collect()
}

/// What has to be written and removed so that the store holds exactly the wanted slices.
///
/// Only slices that are made here count; those that users bring are left alone.
pub fn changes(wanted: &[EndpointSlice], stored: &[EndpointSlice]) -> (Vec<EndpointSlice>, Vec<ObjectName>) {
    let own = |s: &&EndpointSlice| {
        s.metadata.labels.as_ref().and_then(|l| l.get(OWNER_LABEL)).is_some_and(|o| o == OWNER)
    };
    let there: BTreeMap<ObjectName, &EndpointSlice> =
        stored.iter().filter(own).map(|s| (ObjectName::of(&s.metadata), s)).collect();
    let names: BTreeSet<ObjectName> = wanted.iter().map(|s| ObjectName::of(&s.metadata)).collect();
    let same = |a: &EndpointSlice, b: &EndpointSlice| {
        a.endpoints == b.endpoints && a.ports == b.ports && a.metadata.labels == b.metadata.labels
    };
    let put =
        wanted.iter().filter(|s| there.get(&ObjectName::of(&s.metadata)).is_none_or(|old| !same(old, s)));
    let put = put.cloned().collect();
    (put, there.into_keys().filter(|name| !names.contains(name)).collect())
}

/// Whether the pod's condition `Ready` holds.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Whether all of the pod's containers have ended for good.
pub fn is_finished(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"))
}

/// The port of a pod that a Service's port leads to; nothing if the pod has no port of that name.
pub fn target_port(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(number)) => Some(if *number == 0 { port.port } else { *number }),
        Some(IntOrString::String(name)) => {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let fits = |p: &&ContainerPort| {
                p.name.as_deref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol
            };
            named_ports(pod).find(fits).map(|p| p.container_port).or_else(|| name.parse().ok())
        }
    }
}

fn named_ports(pod: &Pod) -> impl Iterator<Item = &ContainerPort> {
    let containers = pod.spec.iter().flat_map(|s| &s.containers);
    containers.flat_map(|c| c.ports.iter().flatten())
}

/// Name, protocol and number of the ports of one slice.
type Ports = Vec<(Option<String>, String, i32, Option<String>)>;

fn of_service(
    service: &Service,
    pods: &[&Pod],
    zones: &BTreeMap<String, String>,
    families: Families,
) -> Vec<EndpointSlice> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let wanted = spec.selector.clone().unwrap_or_default();
    if wanted.is_empty() || services::is_external(service) {
        return Vec::new();
    }
    let name = ObjectName::of(&service.metadata);
    let mut out = Vec::new();
    for family in services::ip_families(service, families) {
        let mut groups: BTreeMap<Ports, Vec<Endpoint>> = BTreeMap::new();
        for pod in pods.iter().filter(|p| is_behind(p, &name, &wanted)) {
            let own = addresses(pod).into_iter().find(|a| services::family_of(*a) == family);
            if let Some(address) = own {
                groups.entry(ports_of(spec, pod)).or_default().push(endpoint(service, pod, address, zones));
            }
        }
        let numbered = groups.into_iter().flat_map(|(ports, all)| {
            all.chunks(ENDPOINTS_MAX).map(|some| (ports.clone(), some.to_vec())).collect::<Vec<_>>()
        });
        for (number, (ports, endpoints)) in numbered.enumerate() {
            out.push(slice(service, family, number, ports, endpoints));
        }
    }
    out
}

fn is_behind(pod: &Pod, service: &ObjectName, wanted: &Labels) -> bool {
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    let same = pod.metadata.namespace.as_deref().unwrap_or("default") == service.namespace;
    same && selector::equals(wanted.iter(), &labels) && !is_finished(pod)
}

fn ports_of(spec: &ServiceSpec, pod: &Pod) -> Ports {
    let resolved = spec.ports.iter().flatten().filter_map(|port| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        let name = Some(port.name.clone().unwrap_or_default());
        Some((name, protocol, target_port(port, pod)?, port.app_protocol.clone()))
    });
    resolved.collect()
}

fn endpoint(service: &Service, pod: &Pod, address: IpAddr, zones: &BTreeMap<String, String>) -> Endpoint {
    let spec = pod.spec.as_ref();
    let node = spec.and_then(|s| s.node_name.clone());
    let not_ready_too = service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses).unwrap_or(false);
    let (serving, terminating) = (is_ready(pod), pod.metadata.deletion_timestamp.is_some());
    let subdomain = spec.and_then(|s| s.subdomain.as_deref());
    let hostname =
        spec.and_then(|s| s.hostname.clone()).filter(|_| subdomain == service.metadata.name.as_deref());
    Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(not_ready_too || (serving && !terminating)),
            serving: Some(not_ready_too || serving),
            terminating: Some(terminating),
        }),
        hostname,
        zone: node.as_ref().and_then(|n| zones.get(n).cloned()),
        node_name: node,
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}

fn slice(
    service: &Service,
    family: &'static str,
    number: usize,
    ports: Ports,
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    let name = service.metadata.name.clone().unwrap_or_default();
    let suffix = if number == 0 { String::new() } else { format!("-{number}") };
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_LABEL.to_owned(), name.clone());
    labels.insert(OWNER_LABEL.to_owned(), OWNER.to_owned());
    if services::is_headless(service) {
        labels.insert("service.kubernetes.io/headless".to_owned(), String::new());
    }
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Service".to_owned(),
        name: name.clone(),
        uid: service.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    };
    let port = |(name, protocol, number, app_protocol)| EndpointPort {
        name,
        protocol: Some(protocol),
        port: Some(number),
        app_protocol,
    };
    EndpointSlice {
        address_type: family.to_owned(),
        endpoints,
        ports: Some(ports.into_iter().map(port).collect()),
        metadata: ObjectMeta {
            namespace: service.metadata.namespace.clone(),
            name: Some(format!("{name}-{}{suffix}", family.to_lowercase())),
            labels: Some(labels),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
    }
}
