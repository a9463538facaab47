//! What an event can affect: the records to make anew.
//!
//! Marking too much only costs time; marking too little is what the model test looks for. Objects are looked up
//! as they stand after the event, and whatever changes later in the batch marks for itself.

use std::collections::BTreeSet;

use ambit_types::Str;

use super::inputs::Replaced;
use super::{Change, Inputs, Maker, Settings};
use crate::input::selector::contains_all;
use crate::input::{
    AuthorizationPolicy, EndpointSlice, Labels, Name, Namespace, NetworkPolicy, PeerAuthentication, Service,
    ServiceEntry,
};
use crate::services::service_host;
use crate::waypoints::mentions;

/// Records to make anew.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    pub(super) makers: BTreeSet<Maker>,
    pub(super) hosts: BTreeSet<Str>,
    pub(super) authorization_policies: BTreeSet<Name>,
    pub(super) peer_authentications: BTreeSet<Name>,
    pub(super) service_entries: BTreeSet<Name>,
    pub(super) static_strict: bool,
}

impl Dirty {
    pub(super) fn mark(&mut self, inputs: &Inputs, settings: &Settings, change: &Change) {
        match change {
            Change::Namespace(namespaces) => self.namespace(inputs, settings, namespaces),
            Change::Node(name) => {
                self.makers.extend(inputs.pods_on(&name.name).map(|pod| Maker::Pod(pod.name.clone())));
            }
            Change::Pod(name, _) => _ = self.makers.insert(Maker::Pod(name.clone())),
            Change::Service(name, services) => self.service(inputs, settings, name, services),
            Change::EndpointSlice(name, slices) => self.slice(name, slices),
            Change::NetworkPolicy(name, policies) => self.network_policy(inputs, name, policies),
            Change::AuthorizationPolicy(name, policies) => {
                self.authorization_policy(inputs, settings, name, policies);
            }
            Change::PeerAuthentication(name, policies) => {
                self.peer_authentication(inputs, settings, name, policies);
            }
            Change::ServiceEntry(_, entries) => {
                for entry in entries.both() {
                    self.entry(inputs, settings, entry);
                }
            }
            // Others of the namespace may have more or less room for their rules.
            Change::EgressPolicy(name) => self.pods_of(inputs, &name.namespace),
            Change::WorkloadEntry(name) => _ = self.makers.insert(Maker::WorkloadEntry(name.clone())),
            Change::Gateway(name) => self.gateway(inputs, settings, name),
            Change::GatewayClass(class) => {
                let gateways = inputs.gateways.entries();
                for (name, _) in gateways.filter(|(_, g)| g.spec.gateway_class_name == *class.name) {
                    self.gateway(inputs, settings, name);
                }
            }
            // What only waypoints are told of.
            Change::Route(..)
            | Change::ReferenceGrant(..)
            | Change::TrafficPolicy(..)
            | Change::HttpPolicy(..)
            | Change::RequestAuthentication(..)
            | Change::MeshConfig => {}
        }
    }

    /// Everything that carries the network.
    pub(super) fn mark_all(&mut self, inputs: &Inputs, settings: &Settings) {
        self.makers.extend(inputs.pods.entries().map(|(name, _)| Maker::Pod(name.clone())));
        self.makers.extend(inputs.slices.entries().map(|(name, _)| Maker::Slice(name.clone())));
        self.makers
            .extend(inputs.workload_entries.entries().map(|(name, _)| Maker::WorkloadEntry(name.clone())));
        for (name, entry) in inputs.service_entries.entries() {
            self.makers.insert(Maker::ServiceEntry(name.clone()));
            self.hosts.extend(entry.hosts.iter().cloned());
        }
        self.hosts.extend(inputs.services.entries().map(|(name, _)| service_host(settings, name)));
    }

    /// A namespace hands its waypoint and its traffic distribution down to its services.
    fn namespace(&mut self, inputs: &Inputs, settings: &Settings, changed: &Replaced<Namespace>) {
        for namespace in changed.both() {
            self.hosts
                .extend(inputs.services.entries_in(&namespace.name).map(|(n, _)| service_host(settings, n)));
            let entries = inputs.service_entries.in_namespace(&namespace.name);
            self.hosts.extend(entries.flat_map(|entry| entry.hosts.iter().cloned()));
            // And a waypoint for workloads to its pods.
            self.pods_of(inputs, &namespace.name);
        }
    }

    fn pods_of(&mut self, inputs: &Inputs, namespace: &str) {
        self.makers.extend(inputs.pods.entries_in(namespace).map(|(name, _)| Maker::Pod(name.clone())));
    }

    /// What a gateway is for decides which objects of namespaces that name it are bound to it, and whether a canary
    /// takes a share.
    fn gateway(&mut self, inputs: &Inputs, settings: &Settings, gateway: &Name) {
        for (_, namespace) in inputs.namespaces.entries() {
            if mentions(&namespace.name, &namespace.labels, gateway) {
                self.namespace(inputs, settings, &Replaced { old: None, new: Some(namespace.clone()) });
            }
        }
        let services = inputs.services.entries();
        let services = services.filter(|(name, s)| mentions(&name.namespace, &s.labels, gateway));
        self.hosts.extend(services.map(|(name, _)| service_host(settings, name)));
        let entries = inputs.service_entries.entries();
        let entries = entries.filter(|(name, e)| mentions(&name.namespace, &e.labels, gateway));
        self.hosts.extend(entries.flat_map(|(_, entry)| entry.hosts.iter().cloned()));
    }

    fn service(&mut self, inputs: &Inputs, settings: &Settings, name: &Name, changed: &Replaced<Service>) {
        let host = service_host(settings, name);
        for entry in inputs.entries_of_host(&host) {
            self.entry(inputs, settings, entry);
        }
        self.hosts.insert(host);
        for service in changed.both() {
            if !service.selector.is_empty() {
                self.selected(inputs, &name.namespace, &service.selector);
            }
        }
        for (slice_name, slice) in inputs.slices.entries_in(&name.namespace) {
            if slice.service == name.name {
                self.one_slice(slice_name, slice);
            }
        }
    }

    fn slice(&mut self, name: &Name, changed: &Replaced<EndpointSlice>) {
        for slice in changed.both() {
            self.one_slice(name, slice);
        }
    }

    fn one_slice(&mut self, name: &Name, slice: &EndpointSlice) {
        self.makers.insert(Maker::Slice(name.clone()));
        let pods = slice.endpoints.iter().filter_map(|e| e.pod.as_ref());
        self.makers.extend(pods.map(|pod| Maker::Pod(pod.name.clone())));
    }

    /// A service entry also decides, with others of its hosts, who stands for each host.
    fn entry(&mut self, inputs: &Inputs, settings: &Settings, entry: &ServiceEntry) {
        self.one_entry(inputs, entry);
        for host in &entry.hosts {
            self.hosts.insert(host.clone());
            for rival in inputs.entries_of_host(host) {
                self.one_entry(inputs, rival);
            }
        }
        for (name, _) in inputs.services.entries_in(&entry.name.namespace) {
            if entry.hosts.contains(&service_host(settings, name)) {
                self.hosts.insert(service_host(settings, name));
            }
        }
    }

    fn one_entry(&mut self, inputs: &Inputs, entry: &ServiceEntry) {
        self.service_entries.insert(entry.name.clone());
        self.makers.insert(Maker::ServiceEntry(entry.name.clone()));
        if !entry.workload_selector.is_empty() {
            self.selected(inputs, &entry.name.namespace, &entry.workload_selector);
        }
    }

    fn network_policy(&mut self, inputs: &Inputs, name: &Name, changed: &Replaced<NetworkPolicy>) {
        for policy in changed.both() {
            let pods = inputs.pods.entries_in(&name.namespace);
            let selected = pods.filter(|(_, pod)| policy.pods.accepts(&pod.labels));
            self.makers.extend(selected.map(|(name, _)| Maker::Pod(name.clone())));
        }
    }

    fn authorization_policy(
        &mut self,
        inputs: &Inputs,
        settings: &Settings,
        name: &Name,
        changed: &Replaced<AuthorizationPolicy>,
    ) {
        self.authorization_policies.insert(name.clone());
        for policy in changed.both() {
            if policy.selector.is_empty() {
                continue;
            }
            if name.namespace == settings.root_namespace {
                self.selected_anywhere(inputs, &policy.selector);
            } else {
                self.selected(inputs, &name.namespace, &policy.selector);
            }
        }
    }

    fn peer_authentication(
        &mut self,
        inputs: &Inputs,
        settings: &Settings,
        name: &Name,
        changed: &Replaced<PeerAuthentication>,
    ) {
        self.static_strict = true;
        self.peer_authentications.insert(name.clone());
        let mesh = name.namespace == settings.root_namespace;
        for policy in changed.both() {
            match (policy.selector.is_empty(), mesh) {
                (false, true) => {}
                (false, false) => self.selected(inputs, &name.namespace, &policy.selector),
                (true, true) => {
                    self.peer_authentications
                        .extend(inputs.peer_authentications.entries().map(|(name, _)| name.clone()));
                    self.selected_anywhere(inputs, &Labels::new());
                }
                (true, false) => {
                    let of_namespace = inputs.peer_authentications.entries_in(&name.namespace);
                    self.peer_authentications.extend(of_namespace.map(|(name, _)| name.clone()));
                    self.selected(inputs, &name.namespace, &Labels::new());
                }
            }
        }
    }

    /// Workloads of a namespace whose labels agree.
    fn selected(&mut self, inputs: &Inputs, namespace: &str, wanted: &Labels) {
        let pods = inputs.pods.entries_in(namespace).filter(|(_, pod)| contains_all(&pod.labels, wanted));
        self.makers.extend(pods.map(|(name, _)| Maker::Pod(name.clone())));
        let entries = inputs.workload_entries.entries_in(namespace);
        let entries = entries.filter(|(_, entry)| contains_all(&entry.endpoint.labels, wanted));
        self.makers.extend(entries.map(|(name, _)| Maker::WorkloadEntry(name.clone())));
        // Endpoints within service entries carry labels of their own; there are few enough to make them all anew.
        let entries = inputs.service_entries.entries_in(namespace);
        self.makers.extend(entries.map(|(name, _)| Maker::ServiceEntry(name.clone())));
    }

    fn selected_anywhere(&mut self, inputs: &Inputs, wanted: &Labels) {
        let pods = inputs.pods.entries().filter(|(_, pod)| contains_all(&pod.labels, wanted));
        self.makers.extend(pods.map(|(name, _)| Maker::Pod(name.clone())));
        let entries = inputs.workload_entries.entries();
        self.makers.extend(entries.map(|(name, _)| Maker::WorkloadEntry(name.clone())));
        let entries = inputs.service_entries.entries();
        self.makers.extend(entries.map(|(name, _)| Maker::ServiceEntry(name.clone())));
    }
}
