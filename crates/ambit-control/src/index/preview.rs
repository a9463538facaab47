//! What would become of an object if it were taken in, without taking it in.
//!
//! A small index is made of the object and of what it refers to, so that the answer is the one that its status would
//! have, and costs the same however large the mesh is. Meant for admission: it changes nothing, and a neighbour that is
//! missing is a note, since objects may come in any order.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ambit_route::RuleFault;
use ambit_types::Str;

use super::layer7::ROUTES;
use super::{Index, Inputs, Settings};
use crate::input::{EndpointSlice, Event, Key, Kind, Labels, Name, Object, Route};
use crate::routes::references::{self, Attachment};
use crate::routes::rule_errors;
use crate::status::{Condition, PROGRAMMED, Standing};
use crate::waypoints::gateway::{CLASS, fault_for_service, is_ours};
use crate::waypoints::policies;

/// Most objects beside one that take part; more could only turn one note into another.
const AROUND_MAX: usize = 1024;
/// Most rivals for one target, such as routes of one service.
const RIVALS_MAX: usize = 64;
/// Labels that name a waypoint, and those that say its namespace.
const WAYPOINT_LABELS: [(&str, &str); 2] = [
    ("istio.io/use-waypoint", "istio.io/use-waypoint-namespace"),
    ("istio.io/use-waypoint-canary", "istio.io/use-waypoint-canary-namespace"),
];
/// Namespace and name of the service of the API servers.
const API_NAMESPACE: &str = "default";
const API_SERVICE: &str = "kubernetes";
/// The value that opts out.
const NONE: &str = "none";

/// What would become of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preview {
    /// What is wrong in it, whatever else there is: the field, and why.
    pub faults: Vec<(String, String)>,
    /// What would not be in force as written, in the words of its status.
    pub notes: Vec<String>,
}

/// An object's surroundings, cut out of an index.
#[derive(Debug)]
pub struct Around {
    settings: Settings,
    objects: Vec<Object>,
}

impl Index {
    /// Whether an address is one of the API servers', by the endpoints of `default/kubernetes`.
    pub fn is_api_server(&self, address: IpAddr) -> bool {
        let is_of_servers = |slice: &&EndpointSlice| *slice.service == *API_SERVICE;
        let slices = self.inputs.slices.in_namespace(API_NAMESPACE).filter(is_of_servers);
        let mut endpoints = slices.flat_map(|slice| &slice.endpoints);
        endpoints.any(|one| one.address.to_canonical() == address.to_canonical())
    }

    /// Whether gateways of a class are waypoints.
    pub fn is_class_of_waypoints(&self, class: &str) -> bool {
        match self.inputs.gateway_classes.named(&Name::new("", class)) {
            Some(class) => is_ours(class),
            None => class == CLASS,
        }
    }

    /// What an object refers to, and what competes with it.
    pub fn around(&self, object: &Object) -> Around {
        let mut cut =
            Cut { inputs: &self.inputs, own: object.key(), seen: BTreeSet::new(), objects: Vec::new() };
        cut.of(object, &self.settings);
        Around { settings: self.settings.clone(), objects: cut.objects }
    }
}

impl Around {
    /// Nothing: what is wrong in an object itself shows without surroundings.
    pub fn nothing(settings: Settings) -> Self {
        Self { settings, objects: Vec::new() }
    }

    /// What would become of the object there.
    pub fn preview(self, object: Object) -> Preview {
        let key = object.key();
        let mut index = Index::new(self.settings);
        index.apply(self.objects.into_iter().map(Event::Put));
        index.apply([Event::Put(object.clone())]);
        Preview { faults: faults(&index, &key, &object), notes: notes(&index, &key, &object) }
    }
}

/// What is wrong in the object itself.
fn faults(index: &Index, key: &Key, object: &Object) -> Vec<(String, String)> {
    let of_spec = |text: &String| {
        let (field, words) = text.split_once(": ").unwrap_or(("", text.as_str()));
        (format!("spec.{field}").trim_end_matches('.').to_owned(), words.to_owned())
    };
    match object {
        Object::Route(_) => {
            let errors = rule_errors(&index.inputs, &index.settings, key);
            // A filter of a newer API is no mistake: its requests are refused, and its status says so.
            let own = errors.iter().filter(|error| !matches!(error.fault, RuleFault::Unsupported { .. }));
            own.map(|error| (format!("spec.{}", error.field), error.fault.to_string())).collect()
        }
        Object::HttpPolicy(of) => {
            policies::compile(&index.settings, of).err().iter().flatten().map(of_spec).collect()
        }
        Object::RequestAuthentication(of) => {
            policies::compile_rules(of).err().iter().flatten().map(of_spec).collect()
        }
        Object::AuthorizationPolicy(of) => {
            let fault = crate::policies::fault(of, &index.settings);
            fault.into_iter().map(|(field, words)| (field.to_owned(), words)).collect()
        }
        Object::Namespace(_)
        | Object::Node(_)
        | Object::Pod(_)
        | Object::Service(_)
        | Object::EndpointSlice(_)
        | Object::NetworkPolicy(_)
        | Object::PeerAuthentication(_)
        | Object::ServiceEntry(_)
        | Object::WorkloadEntry(_)
        | Object::GatewayClass(_)
        | Object::Gateway(_)
        | Object::ReferenceGrant(_)
        | Object::TrafficPolicy(_)
        | Object::EgressPolicy(_)
        | Object::MeshConfig(_) => Vec::new(),
    }
}

/// What its status would say that is not well.
fn notes(index: &Index, key: &Key, object: &Object) -> Vec<String> {
    if let Object::Namespace(namespace) = object {
        return waypoints(&namespace.name, &namespace.labels)
            .filter_map(|name| fault_for_service(&index.inputs, &name, &namespace.name))
            .map(|(reason, words)| format!("{reason}: {words}"))
            .collect();
    }
    let Some(report) = index.layer7.reports.get(key) else {
        return match index.standings.get(key) {
            None | Some(Standing::Accepted) => Vec::new(),
            Some(Standing::Degraded(notes)) => notes.iter().map(ToString::to_string).collect(),
            Some(Standing::NotEnforced(note)) => vec![format!("not in force: {note}")],
        };
    };
    let of_parents = report.parents.iter().flat_map(|parent| &parent.conditions);
    // Nobody has an address before it was made.
    let told = |condition: &&Condition| condition.is_fault() && condition.kind != PROGRAMMED;
    let mut notes: Vec<String> =
        report.conditions.iter().chain(of_parents).filter(told).map(ToString::to_string).collect();
    notes.dedup();
    notes
}

/// Waypoints that labels name.
fn waypoints(namespace: &Str, labels: &Labels) -> impl Iterator<Item = Name> {
    WAYPOINT_LABELS.into_iter().filter_map(move |(name, of)| {
        let name = labels.get(name).filter(|name| !name.is_empty() && ***name != *NONE)?;
        Some(Name::new(labels.get(of).unwrap_or(namespace).clone(), name.clone()))
    })
}

/// Gathers what takes part.
struct Cut<'a> {
    inputs: &'a Inputs,
    own: Key,
    seen: BTreeSet<Key>,
    objects: Vec<Object>,
}

impl Cut<'_> {
    fn of(&mut self, object: &Object, settings: &Settings) {
        match object {
            Object::Namespace(of) => self.waypoints(&of.name, &of.labels),
            Object::Service(of) => {
                self.waypoints(&of.name.namespace, &of.labels);
                self.namespace(&of.name.namespace);
            }
            Object::ServiceEntry(of) => {
                self.waypoints(&of.name.namespace, &of.labels);
                self.namespace(&of.name.namespace);
                self.owners(&of.hosts, settings);
            }
            Object::Gateway(of) => self.class(&of.spec.gateway_class_name),
            Object::Route(of) => self.route(of),
            Object::TrafficPolicy(of) => {
                for target in references::of_traffic_policy(of) {
                    self.target(&target);
                    self.rivals(&target, &[Kind::TrafficPolicy]);
                }
                for limit in of.spec.rate_limits.iter().filter_map(|limit| limit.global.as_ref()) {
                    self.grants(limit.service.namespace.as_deref().unwrap_or(&of.name.namespace));
                }
            }
            Object::HttpPolicy(of) => {
                self.attachments(&references::attachments(&of.name, &of.targets));
                self.mesh_config();
            }
            Object::RequestAuthentication(of) => {
                self.attachments(&references::attachments(&of.name, &of.targets));
            }
            Object::Node(_)
            | Object::Pod(_)
            | Object::EndpointSlice(_)
            | Object::NetworkPolicy(_)
            | Object::AuthorizationPolicy(_)
            | Object::PeerAuthentication(_)
            | Object::WorkloadEntry(_)
            | Object::GatewayClass(_)
            | Object::ReferenceGrant(_)
            | Object::EgressPolicy(_)
            | Object::MeshConfig(_) => {}
        }
    }

    fn route(&mut self, route: &Route) {
        for parent in references::parents(route) {
            self.target(&parent);
            self.rivals(&parent, &ROUTES);
        }
        for backend in references::backends(route) {
            self.grants(&backend.namespace);
            self.target(&Key::new(Kind::Service, backend));
        }
    }

    /// Whoever else has one of the hosts.
    fn owners(&mut self, hosts: &[Str], settings: &Settings) {
        for host in hosts {
            let entries: Vec<Object> = self
                .inputs
                .entries_of_host(host)
                .take(RIVALS_MAX)
                .map(|entry| Object::ServiceEntry(Box::new(entry.clone())))
                .collect();
            entries.into_iter().for_each(|entry| self.add(entry));
            let domain = format!(".svc.{}", settings.cluster_domain);
            if let Some((name, namespace)) =
                host.strip_suffix(domain.as_str()).and_then(|h| h.split_once('.'))
            {
                self.target(&Key::new(Kind::Service, Name::new(namespace, name)));
            }
        }
    }

    fn attachments(&mut self, all: &[Attachment]) {
        for one in all {
            self.target(&one.key());
        }
    }

    /// An object that is referred to, with what its own state depends on.
    fn target(&mut self, key: &Key) {
        match key.kind {
            Kind::Service => {
                let Some(service) = self.inputs.services.named(&key.name) else { return };
                self.add(Object::Service(Box::new(service.clone())));
                self.namespace(&key.name.namespace);
                self.waypoints(&key.name.namespace, &service.labels);
            }
            Kind::ServiceEntry => {
                let Some(entry) = self.inputs.service_entries.named(&key.name) else { return };
                self.add(Object::ServiceEntry(Box::new(entry.clone())));
                self.namespace(&key.name.namespace);
                self.waypoints(&key.name.namespace, &entry.labels);
            }
            Kind::Gateway => self.gateway(&key.name),
            Kind::GatewayClass => self.class(&key.name.name),
            Kind::HttpRoute | Kind::GrpcRoute | Kind::TlsRoute | Kind::TcpRoute | Kind::VirtualService => {
                let Some(route) = self.inputs.route(key) else { return };
                self.add(Object::Route(Box::new(route.clone())));
            }
            Kind::TrafficPolicy => {
                let Some(policy) = self.inputs.traffic_policies.named(&key.name) else { return };
                self.add(Object::TrafficPolicy(Box::new(policy.clone())));
            }
            Kind::Namespace
            | Kind::Node
            | Kind::Pod
            | Kind::EndpointSlice
            | Kind::NetworkPolicy
            | Kind::AuthorizationPolicy
            | Kind::PeerAuthentication
            | Kind::WorkloadEntry
            | Kind::ReferenceGrant
            | Kind::RequestAuthentication
            | Kind::EgressPolicy
            | Kind::MeshConfig => {}
        }
    }

    /// What is attached to the same object.
    fn rivals(&mut self, target: &Key, kinds: &[Kind]) {
        for kind in kinds {
            let rivals: Vec<Key> =
                self.inputs.attached_of_kind(target, *kind).take(RIVALS_MAX).cloned().collect();
            rivals.iter().for_each(|rival| self.target(rival));
        }
    }

    fn namespace(&mut self, name: &Str) {
        if let Some(namespace) = self.inputs.namespaces.named(&Name::new("", name.clone())) {
            self.add(Object::Namespace(namespace.clone()));
            self.waypoints(name, &namespace.labels);
        }
    }

    fn waypoints(&mut self, namespace: &Str, labels: &Labels) {
        for name in waypoints(namespace, labels) {
            self.gateway(&name);
        }
    }

    fn gateway(&mut self, name: &Name) {
        if let Some(gateway) = self.inputs.gateways.named(name) {
            self.add(Object::Gateway(Box::new(gateway.clone())));
            self.class(&gateway.spec.gateway_class_name);
        }
    }

    fn class(&mut self, name: &str) {
        if let Some(class) = self.inputs.gateway_classes.named(&Name::new("", name)) {
            self.add(Object::GatewayClass(class.clone()));
        }
    }

    fn grants(&mut self, namespace: &str) {
        let grants = self.inputs.grants.in_namespace(namespace).take(AROUND_MAX);
        let grants: Vec<Object> = grants.map(|grant| Object::ReferenceGrant(grant.clone())).collect();
        grants.into_iter().for_each(|grant| self.add(grant));
    }

    fn mesh_config(&mut self) {
        let configs = self.inputs.mesh_configs.entries().take(1);
        let configs: Vec<Object> =
            configs.map(|(_, config)| Object::MeshConfig(Box::new(config.clone()))).collect();
        configs.into_iter().for_each(|config| self.add(config));
    }

    /// One more, once; never what the object itself replaces.
    fn add(&mut self, object: Object) {
        let key = object.key();
        if key != self.own && self.objects.len() < AROUND_MAX && self.seen.insert(key) {
            self.objects.push(object);
        }
    }
}
