//! Workloads that are no pods: workload entries, endpoints of service entries, endpoints listed by hand.

use std::net::IpAddr;

use ambit_types::workload::{Health, NetworkMode};
use ambit_types::{Network, ServiceKey, Str, Workload};

use super::{From, labels, ports};
use crate::input::selector::contains_all;
use crate::input::{
    Endpoint, EndpointSlice, Labels, Name, Resolution, ServiceEntry, SliceEndpoint, WorkloadEntry,
};
use crate::waypoints;

/// Names the group whose members registered themselves.
const REGISTRATION_GROUP: &str = "istio.io/autoRegistrationGroup";
/// Name of the workload.
const WORKLOAD_NAME: &str = "service.istio.io/workload-name";

impl From<'_> {
    pub(super) fn workload_entry(&self, entry: &WorkloadEntry) -> Workload {
        let Name { namespace, name } = &entry.name;
        let uid =
            format!("{}/networking.istio.io/WorkloadEntry/{namespace}/{name}", self.settings.cluster_id);
        let endpoint = &entry.endpoint;
        let mut workload = self.at_endpoint(uid, &entry.name, endpoint, &endpoint.labels);
        let group = entry.annotations.get(REGISTRATION_GROUP);
        if let Some(name) = group {
            workload.workload_name = name.clone();
        }
        labels::set_canonical(&mut workload, &endpoint.labels);
        workload.waypoint = waypoints::own(self.settings, namespace, &endpoint.labels);
        let selecting = self.inputs.services.in_namespace(namespace).filter(|service| {
            let selected = !service.selector.is_empty() && contains_all(&endpoint.labels, &service.selector);
            selected && !service.external_name
        });
        workload.services.extend(selecting.map(|service| {
            let ports = ports::of_endpoint(&service.ports, endpoint);
            (self.key(&service.name), ports)
        }));
        for service in self.inputs.service_entries.in_namespace(namespace) {
            let selector = &service.workload_selector;
            if !selector.is_empty() && contains_all(&endpoint.labels, selector) {
                self.back_entry(&mut workload, service, endpoint);
            }
        }
        workload
    }

    pub(super) fn entry(&self, entry: &ServiceEntry) -> Vec<Workload> {
        if self.hosts_won(entry).next().is_none() {
            return Vec::new();
        }
        if !entry.endpoints.is_empty() {
            return entry.endpoints.iter().map(|endpoint| self.entry_endpoint(entry, endpoint)).collect();
        }
        match entry.resolution {
            Resolution::Dns if entry.workload_selector.is_empty() => {
                self.hosts_won(entry).map(|host| self.implicit_endpoint(entry, host)).collect()
            }
            Resolution::Dns | Resolution::None | Resolution::Static => Vec::new(),
        }
    }

    fn entry_uid(&self, entry: &ServiceEntry, address: &str) -> String {
        let Name { namespace, name } = &entry.name;
        format!("{}/networking.istio.io/ServiceEntry/{namespace}/{name}/{address}", self.settings.cluster_id)
    }

    /// An endpoint has the labels of its service entry, and its own before those.
    fn entry_endpoint(&self, entry: &ServiceEntry, endpoint: &Endpoint) -> Workload {
        let both = entry.labels.iter().chain(endpoint.labels.iter());
        let merged: Labels = both.map(|(key, value)| (key.clone(), value.clone())).collect();
        let uid = self.entry_uid(entry, &endpoint.address);
        let mut workload = self.at_endpoint(uid, &entry.name, endpoint, &merged);
        labels::set_canonical(&mut workload, &merged);
        workload.waypoint = waypoints::own(self.settings, &entry.name.namespace, &endpoint.labels);
        self.back_entry(&mut workload, entry, endpoint);
        workload
    }

    /// The host name itself, where DNS finds the endpoints.
    fn implicit_endpoint(&self, entry: &ServiceEntry, host: &Str) -> Workload {
        let mut workload = self.workload(self.entry_uid(entry, host), &entry.name, &entry.labels);
        workload.workload_name = entry.name.name.clone();
        labels::set_canonical(&mut workload, &entry.labels);
        workload.hostname = host.clone();
        let key = ServiceKey::new(entry.name.namespace.clone(), host.clone());
        workload.services.insert(key, ports::of_entry(entry, |_| None));
        workload
    }

    fn at_endpoint(&self, uid: String, name: &Name, endpoint: &Endpoint, labels: &Labels) -> Workload {
        let mut workload = self.workload(uid, name, labels);
        match endpoint.address.parse::<IpAddr>() {
            Ok(ip) => workload.addresses = vec![ip.to_canonical()],
            Err(_) => workload.hostname = endpoint.address.clone(),
        }
        if !endpoint.network.is_empty() {
            workload.network = Network::from(endpoint.network.clone());
        }
        if !endpoint.service_account.is_empty() {
            workload.service_account = endpoint.service_account.clone();
        }
        if endpoint.weight > 0 {
            workload.capacity = endpoint.weight;
        }
        workload.locality = endpoint.locality.clone();
        workload.workload_name = labels.get(WORKLOAD_NAME).unwrap_or(&name.name).clone();
        workload
    }

    fn back_entry(&self, workload: &mut Workload, entry: &ServiceEntry, endpoint: &Endpoint) {
        workload.services.extend(self.hosts_won(entry).map(|host| {
            let key = ServiceKey::new(entry.name.namespace.clone(), host.clone());
            let ports = ports::of_entry(entry, |name| endpoint.ports.get(name).copied());
            (key, ports)
        }));
    }

    /// Endpoints that are no pods: nothing is known of them but where they are.
    pub(super) fn slice(&self, slice: &EndpointSlice) -> Vec<Workload> {
        let name = Name::new(slice.name.namespace.clone(), slice.service.clone());
        let Some(service) = self.inputs.services.named(&name).filter(|s| !s.external_name) else {
            return Vec::new();
        };
        let ports = ports::of_slice(&service.ports, slice);
        let endpoint = |endpoint: &SliceEndpoint| {
            let ip = endpoint.address.to_canonical();
            let Name { namespace, name: slice_name } = &slice.name;
            let cluster = &self.settings.cluster_id;
            let uid = format!("{cluster}/discovery.k8s.io/EndpointSlice/{namespace}/{slice_name}/{ip}");
            let mut workload = self.workload(uid, &slice.name, &Labels::new());
            workload.policies.clear();
            workload.addresses = vec![ip];
            workload.network_mode = NetworkMode::HostNetwork;
            workload.health = if endpoint.ready { Health::Healthy } else { Health::Unhealthy };
            workload.workload_name = slice_name.clone();
            workload.canonical_name = name.name.clone();
            workload.services.insert(self.key(&name), ports.clone());
            workload
        };
        slice.endpoints.iter().filter(|e| e.pod.is_none()).map(endpoint).collect()
    }
}
