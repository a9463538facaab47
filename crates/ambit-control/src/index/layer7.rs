//! What waypoints need, kept in step with the objects: frontends, destinations, policies, reports.
//!
//! Records are made for services and policies first, whoever needs them; then the resources of every waypoint that
//! one of them concerns are gathered anew from records at hand and compared with what it has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ambit_policy::http::Policy;
use ambit_policy::jwt;
use ambit_route::RuleError;
use ambit_route::model::{DestinationPolicy, Frontend};
use ambit_types::{PolicyKey, Service, ServiceKey, Str};

use super::{Inputs, Settings};
use crate::diff::{Delta, replace};
use crate::egress;
use crate::input::{Key, Kind, Name};
use crate::routes;
use crate::routes::references::Attachment;
use crate::services::service_host;
use crate::status::Report;
use crate::waypoints::policies::{self, Targeted};
use crate::waypoints::providers::{self, Providers};
use crate::waypoints::resources::{Attached, FrontendKey, Reach, Resources};
use crate::waypoints::{gateway, named_in, report};

mod dirty;
mod uses;

pub(super) use dirty::{Dirty7, ROUTES};

/// Records for waypoints.
#[derive(Debug, Clone, Default)]
pub(super) struct Layer7 {
    frontends: BTreeMap<FrontendKey, Arc<Frontend>>,
    /// Which frontends a service has.
    ports: BTreeMap<Name, Box<[FrontendKey]>>,
    destinations: BTreeMap<ServiceKey, Arc<DestinationPolicy>>,
    policies: BTreeMap<Name, Result<Policy, Vec<String>>>,
    authentications: BTreeMap<Name, Result<Vec<jwt::Rule>, Vec<String>>>,
    providers: Providers,
    rule_errors: BTreeMap<Key, Arc<[RuleError]>>,
    /// Waypoints by service, and services by waypoint.
    bindings: BTreeMap<ServiceKey, BTreeSet<Name>>,
    bound: BTreeMap<Name, BTreeSet<ServiceKey>>,
    /// Services whose policies a waypoint needs.
    uses: BTreeMap<Name, BTreeSet<ServiceKey>>,
    pub(super) waypoints: BTreeMap<Name, Arc<Resources>>,
    pub(super) reports: BTreeMap<Key, Arc<Report>>,
}

impl Layer7 {
    /// Makes anew what is marked. `services` are the records of discovery, `touched` those that were made anew.
    pub(super) fn remake(
        &mut self,
        inputs: &Inputs,
        settings: &Settings,
        services: &BTreeMap<ServiceKey, Arc<Service>>,
        touched: &BTreeSet<ServiceKey>,
        mut dirty: Dirty7,
        delta: &mut Delta,
    ) {
        for key in touched {
            self.rebind(inputs, settings, key, services.get(key), &mut dirty);
        }
        for name in std::mem::take(&mut dirty.services) {
            self.remake_service(inputs, settings, &name, &mut dirty);
        }
        for key in std::mem::take(&mut dirty.policies) {
            self.recompile(inputs, settings, &key);
        }
        if dirty.providers {
            self.remake_providers(inputs, settings, &mut dirty);
        }
        self.mark_targets(inputs, settings, &mut dirty);
        for name in std::mem::take(&mut dirty.waypoints) {
            self.gather(inputs, settings, name, delta);
        }
        for key in &dirty.routes {
            self.rule_errors.remove(key);
            let errors = routes::rule_errors(inputs, settings, key);
            if !errors.is_empty() {
                self.rule_errors.insert(key.clone(), errors.into());
            }
        }
        for key in dirty.reports.union(&dirty.routes) {
            self.rewrite(inputs, settings, key, delta);
        }
    }

    /// Brings the waypoints of a service up to date, and marks what depends on them.
    fn rebind(
        &mut self,
        inputs: &Inputs,
        settings: &Settings,
        key: &ServiceKey,
        service: Option<&Arc<Service>>,
        dirty: &mut Dirty7,
    ) {
        let before = self.bindings.remove(key).unwrap_or_default();
        let now: BTreeSet<Name> = service.map(|s| named_in(s).collect()).unwrap_or_default();
        for gone in before.difference(&now) {
            if let Some(services) = self.bound.get_mut(gone) {
                services.remove(key);
                if services.is_empty() {
                    self.bound.remove(gone);
                }
            }
        }
        for name in &now {
            self.bound.entry(name.clone()).or_default().insert(key.clone());
        }
        // Bound as before or not, the waypoint may now admit the namespace that it did not.
        dirty.waypoints.extend(before.iter().chain(&now).cloned());
        if !now.is_empty() {
            self.bindings.insert(key.clone(), now);
        }
        let entries = inputs.entries_of_host(&key.hostname).filter(|e| e.name.namespace == key.namespace);
        let entries = entries.map(|entry| Key::new(Kind::ServiceEntry, entry.name.clone()));
        let service = service_name(settings, key).map(|name| Key::new(Kind::Service, name));
        for object in entries.chain(service.clone()) {
            dirty.reports.extend(inputs.attached_to(&object).cloned());
        }
        dirty.reports.extend(service);
    }

    /// The ports of a service and its policy as a destination.
    fn remake_service(&mut self, inputs: &Inputs, settings: &Settings, name: &Name, dirty: &mut Dirty7) {
        let key = routes::service_key(settings, name);
        let mine = self.ports.remove(name).unwrap_or_default();
        let made = routes::frontends(inputs, settings, name).into_iter();
        let made = made.map(|f| (FrontendKey { service: f.service.clone(), port: f.port }, f)).collect();
        let (mut changed, mut removed) = (BTreeMap::new(), BTreeSet::new());
        let now = replace(&mut self.frontends, &mine, made, &mut changed, &mut removed);
        if !now.is_empty() {
            self.ports.insert(name.clone(), now);
        }
        if !changed.is_empty() || !removed.is_empty() {
            dirty.waypoints.extend(self.bindings.get(&key).into_iter().flatten().cloned());
        }
        let policy = routes::destination(inputs, name);
        if policy.as_ref() != self.destinations.get(&key).map(|held| &**held) {
            let users = self.uses.iter().filter(|(_, uses)| uses.contains(&key));
            dirty.waypoints.extend(users.map(|(waypoint, _)| waypoint.clone()));
            match policy {
                Some(policy) => self.destinations.insert(key, Arc::new(policy)),
                None => self.destinations.remove(&key),
            };
        }
    }

    fn recompile(&mut self, inputs: &Inputs, settings: &Settings, key: &Key) {
        let name = &key.name;
        if key.kind == Kind::RequestAuthentication {
            match inputs.request_authentications.named(name) {
                Some(of) => self.authentications.insert(name.clone(), policies::compile_rules(of)),
                None => self.authentications.remove(name),
            };
        } else {
            match inputs.http_policies.named(name) {
                Some(of) => self.policies.insert(name.clone(), policies::compile(settings, of)),
                None => self.policies.remove(name),
            };
        }
    }

    /// The providers of the mesh. They change seldom, so that every policy that may name one is looked at again.
    fn remake_providers(&mut self, inputs: &Inputs, settings: &Settings, dirty: &mut Dirty7) {
        self.providers = Providers::of(inputs, settings);
        dirty.reports.insert(providers::key(settings));
        let policies = inputs.http_policies.entries();
        for (name, _) in policies.filter(|(_, of)| providers::named_by(of).is_some()) {
            dirty.reports.insert(Key::new(Kind::AuthorizationPolicy, name.clone()));
        }
        dirty.waypoints.extend(self.waypoints.keys().cloned());
    }

    /// Marks the waypoints where a policy applies, or did.
    fn mark_targets(&self, inputs: &Inputs, settings: &Settings, dirty: &mut Dirty7) {
        for target in std::mem::take(&mut dirty.targets) {
            let services: Vec<ServiceKey> = match target {
                Attachment::Gateway(name) => {
                    dirty.waypoints.insert(name);
                    continue;
                }
                Attachment::Class(_) => {
                    dirty.waypoints.extend(self.waypoints.keys().cloned());
                    continue;
                }
                Attachment::Service(name) => vec![routes::service_key(settings, &name)],
                Attachment::ServiceEntry(name) => {
                    let entry = inputs.service_entries.named(&name);
                    let hosts = entry.iter().flat_map(|entry| &entry.hosts);
                    hosts.map(|host| ServiceKey::new(name.namespace.clone(), host.clone())).collect()
                }
            };
            let bound = services.iter().filter_map(|service| self.bindings.get(service)).flatten();
            dirty.waypoints.extend(bound.cloned());
        }
    }

    /// Gathers what a waypoint needs and says what of it differs.
    fn gather(&mut self, inputs: &Inputs, settings: &Settings, name: Name, delta: &mut Delta) {
        let is_waypoint = inputs.gateways.named(&name).is_some_and(|g| gateway::is_waypoint(inputs, g));
        if !is_waypoint {
            self.uses.remove(&name);
            if self.waypoints.remove(&name).is_some() {
                delta.removed_waypoints.insert(name);
            }
            return;
        }
        let bound = self.bound.get(&name).into_iter().flatten().cloned();
        let (served, refused): (BTreeSet<ServiceKey>, BTreeSet<ServiceKey>) =
            bound.partition(|key| gateway::serves(inputs, &name, &key.namespace));
        let (mut next, uses) = self.routing(&served);
        self.add_policies(inputs, settings, &name, &served, &mut next);
        if !refused.is_empty() {
            // Discovery binds them all the same, and their own policies are not sent: nothing may be allowed.
            let stands = Attached { of: None, reach: Reach::Services(refused) };
            next.policies.insert(policies::unserved(&name), Arc::new(stands));
        }
        self.providers.add_to(&mut next);
        let is_new = !self.waypoints.contains_key(&name);
        let before = self.waypoints.get(&name).cloned().unwrap_or_default();
        let difference = before.difference(&next);
        // Of one that is new it is worth knowing that it needs nothing: it may have been withdrawn before.
        if is_new || !difference.is_empty() {
            delta.waypoints.insert(name.clone(), difference);
        }
        self.uses.insert(name.clone(), uses);
        self.waypoints.insert(name, Arc::new(next));
    }

    /// Frontends of services, and the destinations that they and their routes lead to.
    fn routing(&self, bound: &BTreeSet<ServiceKey>) -> (Resources, BTreeSet<ServiceKey>) {
        let mut resources = Resources::default();
        let mut uses = bound.clone();
        for service in bound {
            let key = |port| FrontendKey { service: service.clone(), port };
            for (key, frontend) in self.frontends.range(key(0)..=key(u16::MAX)) {
                uses::of_frontend(frontend, &mut uses);
                resources.frontends.insert(key.clone(), frontend.clone());
            }
        }
        let destinations =
            uses.iter().filter_map(|key| Some((key.clone(), self.destinations.get(key)?.clone())));
        resources.destinations = destinations.collect();
        (resources, uses)
    }

    fn add_policies(
        &self,
        inputs: &Inputs,
        settings: &Settings,
        name: &Name,
        bound: &BTreeSet<ServiceKey>,
        to: &mut Resources,
    ) {
        let namespaces: BTreeSet<&Str> = bound
            .iter()
            .map(|key| &key.namespace)
            .chain([&name.namespace, &settings.root_namespace])
            .collect();
        for namespace in namespaces {
            for of in inputs.http_policies.in_namespace(namespace) {
                let reach = Targeted::policy(of).reach(inputs, settings, name, bound);
                insert(&mut to.policies, &of.name, self.policies.get(&of.name), reach);
            }
            for of in inputs.request_authentications.in_namespace(namespace) {
                let reach = Targeted::authentication(of).reach(inputs, settings, name, bound);
                insert(&mut to.authentications, &of.name, self.authentications.get(&of.name), reach);
            }
        }
    }

    /// Writes the report of an object anew.
    fn rewrite(&mut self, inputs: &Inputs, settings: &Settings, key: &Key, delta: &mut Delta) {
        let report = self.report(inputs, settings, key);
        if report.as_ref() == self.reports.get(key).map(|held| &**held) {
            return;
        }
        match report.map(Arc::new) {
            Some(report) => {
                self.reports.insert(key.clone(), report.clone());
                delta.reports.insert(key.clone(), report);
            }
            None => {
                self.reports.remove(key);
                delta.removed_reports.insert(key.clone());
            }
        }
    }

    fn report(&self, inputs: &Inputs, settings: &Settings, key: &Key) -> Option<Report> {
        let name = &key.name;
        let is_served = |service: &ServiceKey| self.is_served(inputs, service);
        let mistakes = |list: Option<&Vec<String>>| list.cloned().unwrap_or_default();
        match key.kind {
            Kind::HttpRoute | Kind::GrpcRoute | Kind::TlsRoute | Kind::TcpRoute | Kind::VirtualService => {
                let errors = self.rule_errors.get(key).map_or(&[][..], |errors| errors);
                let by_name = |name: &Name| is_served(&routes::service_key(settings, name));
                routes::report_of_route(inputs, settings, key, errors, &by_name)
            }
            Kind::TrafficPolicy => {
                inputs.traffic_policies.named(name).map(|policy| routes::report_of_policy(inputs, policy))
            }
            Kind::EgressPolicy => {
                inputs.egress_policies.named(name).map(|policy| egress::report(inputs, policy))
            }
            Kind::AuthorizationPolicy => inputs.http_policies.named(name).map(|of| {
                let wrong = mistakes(self.policies.get(name).and_then(|made| made.as_ref().err()));
                let mut report = Targeted::policy(of).report(inputs, settings, &wrong, &is_served);
                report.conditions.extend(self.providers.condition(settings, of));
                report
            }),
            Kind::RequestAuthentication => inputs.request_authentications.named(name).map(|of| {
                let wrong = mistakes(self.authentications.get(name).and_then(|made| made.as_ref().err()));
                Targeted::authentication(of).report(inputs, settings, &wrong, &is_served)
            }),
            Kind::MeshConfig => self.providers.report(inputs, settings, name),
            Kind::Gateway => report::of_gateway(inputs, inputs.gateways.named(name)?),
            Kind::Service => report::of_service(inputs, inputs.services.named(name)?),
            Kind::Namespace
            | Kind::Node
            | Kind::Pod
            | Kind::EndpointSlice
            | Kind::NetworkPolicy
            | Kind::PeerAuthentication
            | Kind::ServiceEntry
            | Kind::WorkloadEntry
            | Kind::GatewayClass
            | Kind::ReferenceGrant => None,
        }
    }

    fn is_served(&self, inputs: &Inputs, service: &ServiceKey) -> bool {
        let mut bound = self.bindings.get(service).into_iter().flatten();
        bound.any(|name| gateway::serves(inputs, name, &service.namespace))
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.frontends.is_empty()
            && self.ports.is_empty()
            && self.destinations.is_empty()
            && self.policies.is_empty()
            && self.authentications.is_empty()
            && self.providers == Providers::default()
            && self.rule_errors.is_empty()
            && self.bindings.is_empty()
            && self.bound.is_empty()
            && self.uses.is_empty()
            && self.waypoints.is_empty()
            && self.reports.is_empty()
    }
}

/// Puts a policy where it reaches. One that is not compiled yet counts as one with a mistake.
fn insert<T: Clone>(
    to: &mut BTreeMap<PolicyKey, Arc<Attached<T>>>,
    name: &Name,
    compiled: Option<&Result<T, Vec<String>>>,
    reach: Option<Reach>,
) {
    if let Some(reach) = reach {
        let of = compiled.and_then(|made| made.as_ref().ok()).cloned();
        to.insert(policies::key(name), Arc::new(Attached { of, reach }));
    }
}

/// The name of the Kubernetes service that a key can mean.
fn service_name(settings: &Settings, key: &ServiceKey) -> Option<Name> {
    let (name, _) = key.hostname.split_once('.')?;
    let name = Name::new(key.namespace.clone(), name);
    (service_host(settings, &name) == key.hostname).then_some(name)
}
