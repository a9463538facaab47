//! What an event can affect at waypoints.

use std::collections::BTreeSet;

use crate::index::inputs::Replaced;
use crate::index::{Change, Inputs};
use crate::input::{Key, Kind, Name, Route, TrafficPolicy};
use crate::routes::references::{self, Attachment, attachments};

/// Every kind of route.
pub(in crate::index) const ROUTES: [Kind; 5] =
    [Kind::HttpRoute, Kind::GrpcRoute, Kind::TlsRoute, Kind::TcpRoute, Kind::VirtualService];

/// Records to make anew.
#[derive(Debug, Default)]
pub(in crate::index) struct Dirty7 {
    /// Services whose frontends and policy as a destination may differ.
    pub(super) services: BTreeSet<Name>,
    /// Routes that may have other mistakes than before; their reports are written too.
    pub(super) routes: BTreeSet<Key>,
    /// Objects whose reports may differ.
    pub(super) reports: BTreeSet<Key>,
    /// Policies and authentications to compile.
    pub(super) policies: BTreeSet<Key>,
    /// What they attach to, or did.
    pub(super) targets: BTreeSet<Attachment>,
    /// Waypoints that may need something else.
    pub(super) waypoints: BTreeSet<Name>,
    /// Whether the providers that policies name may differ.
    pub(super) providers: bool,
}

impl Dirty7 {
    pub(in crate::index) fn mark(&mut self, inputs: &Inputs, change: &Change) {
        match change {
            Change::Service(name, _) => self.service(inputs, name),
            Change::Route(key, routes) => self.route(inputs, key, routes),
            Change::ReferenceGrant(name) => {
                for key in inputs.senders_into(&name.namespace) {
                    self.sender(inputs, key);
                }
                self.limits_into(inputs, &name.namespace);
            }
            Change::TrafficPolicy(name, policies) => self.traffic_policy(inputs, name, policies),
            Change::EgressPolicy(name) => {
                let key = |name: &Name| Key::new(Kind::EgressPolicy, name.clone());
                self.reports.insert(key(name));
                // They share the bound of the namespace.
                let others = inputs.egress_policies.entries_in(&name.namespace);
                self.reports.extend(others.map(|(name, _)| key(name)));
            }
            Change::HttpPolicy(name, policies) => {
                let key = Key::new(Kind::AuthorizationPolicy, name.clone());
                let targets = policies.both().flat_map(|p| attachments(name, &p.targets));
                self.targeted(key, targets);
            }
            Change::RequestAuthentication(name, policies) => {
                let key = Key::new(Kind::RequestAuthentication, name.clone());
                let targets = policies.both().flat_map(|p| attachments(name, &p.targets));
                self.targeted(key, targets);
            }
            Change::Gateway(name) => self.gateway(inputs, name),
            Change::GatewayClass(name) => {
                let of_class = |class: &str| *class == *name.name;
                let gateways = inputs.gateways.entries();
                for (name, _) in gateways.filter(|(_, g)| of_class(&g.spec.gateway_class_name)) {
                    self.gateway(inputs, name);
                }
            }
            Change::ServiceEntry(name, _) => {
                let key = Key::new(Kind::ServiceEntry, name.clone());
                self.reports.extend(inputs.attached_to(&key).cloned());
            }
            Change::MeshConfig => self.providers = true,
            Change::Namespace(..)
            | Change::Node(..)
            | Change::Pod(..)
            | Change::EndpointSlice(..)
            | Change::NetworkPolicy(..)
            | Change::AuthorizationPolicy(..)
            | Change::PeerAuthentication(..)
            | Change::WorkloadEntry(..) => {}
        }
    }

    fn service(&mut self, inputs: &Inputs, name: &Name) {
        let key = Key::new(Kind::Service, name.clone());
        self.services.insert(name.clone());
        self.reports.extend(inputs.attached_to(&key).cloned());
        self.reports.insert(key);
        for key in inputs.senders_to(name) {
            self.sender(inputs, key);
        }
    }

    /// A route whose references may lead elsewhere.
    fn sender(&mut self, inputs: &Inputs, key: &Key) {
        self.reports.insert(key.clone());
        self.services.extend(inputs.route(key).into_iter().flat_map(parents));
    }

    fn route(&mut self, inputs: &Inputs, key: &Key, changed: &Replaced<Route>) {
        self.routes.insert(key.clone());
        self.reports.extend(inputs.attached_to(key).cloned());
        for service in changed.both().flat_map(parents) {
            // Its rivals there may have won or lost; routes of its own kind are none.
            let service = Key::new(Kind::Service, service);
            for kind in ROUTES.into_iter().filter(|kind| *kind != key.kind) {
                self.reports.extend(inputs.attached_of_kind(&service, kind).cloned());
            }
            self.services.insert(service.name);
        }
    }

    /// Policies whose limits are counted in another namespace, which may grant that or not.
    fn limits_into(&mut self, inputs: &Inputs, namespace: &str) {
        for (name, policy) in inputs.traffic_policies.entries() {
            let mut limits = policy.spec.rate_limits.iter().filter_map(|limit| limit.global.as_ref());
            if limits.any(|global| global.service.namespace.as_deref() == Some(namespace)) {
                self.traffic_targets(inputs, name, references::of_traffic_policy(policy));
            }
        }
    }

    fn traffic_policy(&mut self, inputs: &Inputs, name: &Name, changed: &Replaced<TrafficPolicy>) {
        self.traffic_targets(inputs, name, changed.both().flat_map(references::of_traffic_policy));
    }

    fn traffic_targets(&mut self, inputs: &Inputs, name: &Name, targets: impl IntoIterator<Item = Key>) {
        self.reports.insert(Key::new(Kind::TrafficPolicy, name.clone()));
        for target in targets {
            self.reports.extend(inputs.attached_to(&target).cloned());
            if target.kind == Kind::Service {
                let is_route = |key: &&Key| key.kind != Kind::TrafficPolicy;
                self.routes.extend(inputs.attached_to(&target).filter(is_route).cloned());
                self.services.insert(target.name);
            } else {
                self.services.extend(inputs.route(&target).into_iter().flat_map(parents));
                self.routes.insert(target);
            }
        }
    }

    fn targeted(&mut self, key: Key, targets: impl Iterator<Item = Attachment>) {
        self.targets.extend(targets);
        self.reports.insert(key.clone());
        self.policies.insert(key);
    }

    fn gateway(&mut self, inputs: &Inputs, name: &Name) {
        let key = Key::new(Kind::Gateway, name.clone());
        self.waypoints.insert(name.clone());
        self.reports.extend(inputs.attached_to(&key).cloned());
        self.reports.insert(key);
    }
}

fn parents(route: &Route) -> impl Iterator<Item = Name> {
    references::parents(route).into_iter().map(|key| key.name)
}
