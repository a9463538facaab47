//! What was told, made into a [`State`]: only what a batch touched is compiled, everything else is shared with the
//! state before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ambit_policy::http::provider::Provider;
use ambit_route::model::{Filter, Frontend, Group, HttpRoute, RouteKey, Rule};
use ambit_route::{RuleError, Table};
use ambit_state::{Change as MeshChange, Snapshot, World};
use ambit_types::{Reason, ServiceKey, Str, Uid, Workload};
use ambit_xds::client::store::Change;
use ambit_xds::client::{Content, Store, Update};
use ambit_xds::codec::Address;
use tracing::{info, warn};

use super::policies;
use crate::{Applied, Own, Policies, State};

/// What is wrong in the rules of routes, by `NAMESPACE/HOSTNAME/PORT`.
pub type Faults = Arc<BTreeMap<String, Vec<RuleError>>>;

/// Whom CUSTOM policies may ask, by name.
pub type Providers = BTreeMap<Str, Arc<Provider>>;

/// What the waypoint is called in discovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Its own record.
    pub uid: Uid,
    /// Its namespace.
    pub namespace: Str,
    /// Its Gateway, whose Service has the same name.
    pub gateway: Str,
}

/// The single writer of states.
#[derive(Debug)]
pub struct Builder {
    names: Names,
    world: World,
    mesh: Arc<Snapshot>,
    store: Store,
    routes: Arc<Table>,
    faults: Faults,
    policies: Policies,
    /// What every service has whatever its policies.
    basis: Applied,
    workload: Option<Arc<Workload>>,
    service: Option<ServiceKey>,
    has_other_providers: bool,
}

impl Builder {
    /// Knows nothing yet; `basis` is what every service has whatever its policies.
    pub fn new(node: &str, names: Names, basis: Applied) -> Self {
        let world = World::new(node);
        let all = Arc::new(basis.clone());
        Self {
            names,
            mesh: world.snapshot(),
            world,
            store: Store::default(),
            routes: Arc::default(),
            faults: Arc::default(),
            policies: Policies { all, ..Policies::default() },
            basis,
            workload: None,
            service: None,
            has_other_providers: false,
        }
    }

    /// Key of its own record.
    pub fn uid(&self) -> &Uid {
        &self.names.uid
    }

    /// Routes and policies as they came.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Whom CUSTOM policies may ask, if that is different from when this was asked last.
    pub fn take_providers(&mut self) -> Option<Providers> {
        std::mem::take(&mut self.has_other_providers).then(|| self.store.providers())
    }

    /// What is wrong in the rules of routes.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The state after all that was taken; none before the waypoint's own record is known.
    ///
    /// A record that is gone stays what the waypoint goes by, for as long as it runs.
    pub fn state(&self) -> Option<State> {
        let workload = self.workload.clone()?;
        let entry = self.service.as_ref().and_then(|key| self.mesh.service(key));
        let vips = entry.map(|entry| entry.service().vips.as_slice()).unwrap_or_default();
        let vips = vips.iter().filter(|vip| vip.network == workload.network).map(|vip| vip.ip).collect();
        let own = Own { service: entry.map(|entry| entry.service().key()), vips, workload };
        Some(State {
            mesh: self.mesh.clone(),
            routes: self.routes.clone(),
            policies: self.policies.clone(),
            own,
        })
    }

    /// Takes one response as one batch.
    pub fn take(&mut self, update: Update) {
        let mut targets = BTreeSet::new();
        for change in self.store.apply(&update) {
            match change {
                Change::Frontend(frontend) => self.put(&frontend),
                Change::FrontendRemoved { service, port } => self.remove(service, port),
                Change::Destination(destination) => {
                    Arc::make_mut(&mut self.routes).put_destination(&destination);
                }
                Change::DestinationRemoved(service) => {
                    Arc::make_mut(&mut self.routes).remove_destination(&service);
                }
                Change::Policies(touched) | Change::TokenRules(touched) => targets.extend(touched),
                Change::Providers => self.has_other_providers = true,
            }
        }
        policies::refresh(&mut self.policies, &self.store, &self.basis, &targets);
        match update.content {
            Content::Addresses { upserts, removed } => self.take_addresses(upserts, removed),
            Content::Policies { .. } | Content::Waypoint(_) | Content::Unknown { .. } => {}
        }
    }

    fn take_addresses(&mut self, upserts: Vec<Address>, removed: Vec<String>) {
        if self.service.as_ref().is_some_and(|own| removed.contains(&own.to_string())) {
            self.service = None;
        }
        let mut changes: Vec<MeshChange> = removed.into_iter().map(MeshChange::RemoveAddress).collect();
        for address in upserts {
            changes.push(match address {
                Address::Workload(workload) => MeshChange::Workload(workload),
                Address::Service(service) => {
                    if self.is_own(&service) {
                        self.service = Some(service.key());
                    }
                    MeshChange::Service(service)
                }
            });
        }
        self.mesh = self.world.apply(changes).snapshot;
        if let Some(workload) = self.mesh.workload(&self.names.uid) {
            self.workload = Some(workload.clone());
        }
    }

    /// Whether a service is the one of the waypoint's Gateway: a Kubernetes Service, whatever the cluster's domain.
    fn is_own(&self, service: &ambit_types::Service) -> bool {
        let Names { namespace, gateway, .. } = &self.names;
        service.namespace == *namespace
            && service.name == *gateway
            && service.hostname.starts_with(&format!("{gateway}.{namespace}.svc."))
    }

    fn remove(&mut self, service: ServiceKey, port: u16) {
        if self.store.lacks_routes(&service, port) {
            return self.put(&refusing(service, port));
        }
        let name = format!("{service}/{port}");
        if self.faults.contains_key(&name) {
            Arc::make_mut(&mut self.faults).remove(&name);
        }
        Arc::make_mut(&mut self.routes).remove(&service, port);
    }

    fn put(&mut self, frontend: &Frontend) {
        let errors = Arc::make_mut(&mut self.routes).put(frontend);
        let name = format!("{}/{}", frontend.service, frontend.port);
        let known = self.faults.get(&name).map(Vec::as_slice).unwrap_or_default();
        for error in errors.iter().filter(|error| !known.contains(error)) {
            metrics::counter!("ambit_config_rejected_total").increment(1);
            let code = Reason::ConfigRejected.code();
            warn!(frontend = name, %error, effect = ?error.effect, code, "a rule is not in force as written");
        }
        if errors.is_empty() && !known.is_empty() {
            info!(frontend = name, "its rules are in order again");
        }
        if errors.as_slice() != known {
            let faults = Arc::make_mut(&mut self.faults);
            match errors.is_empty() {
                true => drop(faults.remove(&name)),
                false => drop(faults.insert(name, errors)),
            }
        }
    }
}

/// Stands for the routes of a port that were sent and cannot be read: everything is answered 500, because without
/// routes requests would go where nobody meant them to.
fn refusing(service: ServiceKey, port: u16) -> Frontend {
    let rule = Rule {
        filters: vec![Filter::Unsupported { what: "routes that cannot be read".into() }],
        ..Rule::default()
    };
    let key = RouteKey::new(service.namespace.clone(), "unreadable");
    let route = HttpRoute { key, created: 0, rules: vec![rule] };
    Frontend { service, port, producer: Some(Group::Http(vec![route])), consumers: BTreeMap::new() }
}
