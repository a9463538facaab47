//! The incremental index: objects in, differing records out.
//!
//! An event marks what it can affect (`dirty`); the marked records are made anew from the objects and compared
//! with what was there. The outcome depends only on the objects held, never on the order in which they came: the
//! model test compares every state with one built from scratch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ambit_policy::model::Policy;
use ambit_types::{
    Network, PolicyKey, Service, ServiceKey, ServicePorts, Str, TrustDomain, Uid, Workload, workload,
};

use crate::diff::{Delta, replace};
use crate::input::{Event, Key, Kind, Name, Node, Object, Pod};
use crate::pool::Pool;
use crate::status::{Note, Report, Standing, Status};
use crate::waypoints::resources::Resources;
use crate::{policies, services, workloads};

mod dirty;
mod inputs;
mod layer7;
mod lead;
#[cfg(test)]
mod model;
mod preview;
#[cfg(test)]
mod tests;

use dirty::Dirty;
pub(crate) use inputs::{Change, Inputs};
use layer7::{Dirty7, Layer7};
pub use lead::Health;
pub use preview::{Around, Preview};

/// Label that names the network of the mesh, on the root namespace.
const NETWORK_LABEL: &str = "topology.istio.io/network";

/// What the index is told once.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Root of trust of every identity; default `cluster.local`.
    pub trust_domain: TrustDomain,
    /// Domain of service names; default `cluster.local`.
    pub cluster_domain: Str,
    /// Name of the cluster; default `Kubernetes`.
    pub cluster_id: Str,
    /// Namespace whose policies cover the mesh; default `istio-system`.
    pub root_namespace: Str,
    /// Whether policies marked as dry-run are sent; default true. Proxies that do not know the mark enforce them.
    pub dry_run_policies: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            trust_domain: TrustDomain::default(),
            cluster_domain: Str::from("cluster.local"),
            cluster_id: Str::from("Kubernetes"),
            root_namespace: Str::from("istio-system"),
            dry_run_policies: true,
        }
    }
}

/// An object that workloads are made of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Maker {
    Pod(Name),
    Slice(Name),
    ServiceEntry(Name),
    WorkloadEntry(Name),
}

/// What workloads have in common: pods of a deployment their services, pods of a node most of their settings.
#[derive(Debug, Clone, Default)]
struct Common {
    services: Pool<ServicePorts>,
    settings: Pool<Arc<workload::Settings>>,
    words: Pool<Str>,
}

impl Common {
    /// Shares the memory of what other workloads have, too.
    fn share(&mut self, workload: &mut Workload) {
        self.services.share(&mut workload.services);
        workload.settings.iter_mut().for_each(|settings| self.settings.share(settings));
        for policy in &mut workload.policies {
            self.words.share(&mut policy.namespace);
            self.words.share(&mut policy.name);
        }
        workload.policies.shrink_to_fit();
        self.words.share(&mut workload.canonical_revision);
        // Of what has no controller its own name stands for one, and that is nobody else's.
        for name in [&mut workload.workload_name, &mut workload.canonical_name] {
            if *name != workload.name {
                self.words.share(name);
            }
        }
    }
}

/// Everything the mesh should know.
#[derive(Debug, Clone, Default)]
pub struct Index {
    settings: Settings,
    inputs: Inputs,
    workloads: BTreeMap<Uid, Arc<Workload>>,
    services: BTreeMap<ServiceKey, Arc<Service>>,
    policies: BTreeMap<PolicyKey, Arc<Policy>>,
    /// Of makers other than pods, whose workload's uid follows from their name.
    uids: BTreeMap<Maker, Box<[Uid]>>,
    common: Common,
    keys: BTreeMap<Str, Box<[ServiceKey]>>,
    policy_keys: BTreeMap<Key, Box<[PolicyKey]>>,
    standings: BTreeMap<Key, Standing>,
    layer7: Layer7,
}

impl Index {
    /// An empty index.
    pub fn new(settings: Settings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// Takes a batch of events and returns every record that differs once all of them are in force.
    pub fn apply(&mut self, batch: impl IntoIterator<Item = Event>) -> Delta {
        let (mut dirty, mut dirty7) = (Dirty::default(), Dirty7::default());
        let mut batch: Vec<Event> = batch.into_iter().collect();
        // Slices share the names of their pods, which have to be there for that.
        batch.sort_by_key(is_of_slice);
        for event in batch {
            let network = self.network();
            for change in self.inputs.take(event) {
                dirty.mark(&self.inputs, &self.settings, &change);
                dirty7.mark(&self.inputs, &change);
            }
            if self.network() != network {
                dirty.mark_all(&self.inputs, &self.settings);
            }
        }
        let mut delta = Delta::default();
        self.remake_policies(&dirty, &mut delta);
        let touched = self.remake_services(&dirty, &mut delta);
        self.remake_workloads(&dirty, &mut delta);
        self.layer7.remake(&self.inputs, &self.settings, &self.services, &touched, dirty7, &mut delta);
        self.standings_of_reports(&delta);
        delta
    }

    fn remake_policies(&mut self, dirty: &Dirty, delta: &mut Delta) {
        for name in &dirty.authorization_policies {
            let key = Key { kind: Kind::AuthorizationPolicy, name: name.clone() };
            let object = self.inputs.authorization_policies.named(name);
            let made = object.map(|o| policies::authorization(o, &self.settings));
            let (policy, standing) = made.unzip();
            // One for waypoints stands as its report says, which may be as before.
            if self.inputs.http_policies.named(name).is_none() {
                set_standing(&mut self.standings, &key, standing);
            }
            self.replace_policies(key, policy.flatten(), delta);
        }
        for name in &dirty.peer_authentications {
            let key = Key { kind: Kind::PeerAuthentication, name: name.clone() };
            let object = self.inputs.peer_authentications.named(name);
            let standing = object.map(|o| {
                if o.selector.is_empty() || policies::is_for_workloads(&self.settings, o) {
                    Standing::Accepted
                } else {
                    Standing::NotEnforced(Note::plain("a selector in the root namespace selects no workload"))
                }
            });
            let policy = object.and_then(|o| policies::derived(&self.inputs, &self.settings, o));
            set_standing(&mut self.standings, &key, standing);
            self.replace_policies(key, policy, delta);
        }
        if dirty.static_strict {
            // Its maker is no object; an empty name cannot be one.
            let key = Key { kind: Kind::PeerAuthentication, name: Name::new("", "") };
            let needed = self.inputs.peer_authentications.len() > 0;
            self.replace_policies(key, needed.then(|| policies::static_strict(&self.settings)), delta);
        }
    }

    fn replace_policies(&mut self, maker: Key, policy: Option<Policy>, delta: &mut Delta) {
        let mine = self.policy_keys.remove(&maker).unwrap_or_default();
        let made = policy.into_iter().map(|p| (p.key.clone(), p)).collect();
        let changed = (&mut delta.policies, &mut delta.removed_policies);
        let now = replace(&mut self.policies, &mine, made, changed.0, changed.1);
        if !now.is_empty() {
            self.policy_keys.insert(maker, now);
        }
    }

    /// Returns the keys of every record that was made anew, or was to be.
    fn remake_services(&mut self, dirty: &Dirty, delta: &mut Delta) -> BTreeSet<ServiceKey> {
        let mut touched = BTreeSet::new();
        let network = self.network();
        for host in &dirty.hosts {
            let mine = self.keys.remove(host).unwrap_or_default();
            let made = services::of_host(&self.inputs, &self.settings, &network, host);
            let made = made.into_iter().map(|s| (s.key(), s)).collect();
            let changed = (&mut delta.services, &mut delta.removed_services);
            let now = replace(&mut self.services, &mine, made, changed.0, changed.1);
            touched.extend(mine.into_iter().chain(now.iter().cloned()));
            if !now.is_empty() {
                self.keys.insert(host.clone(), now);
            }
        }
        for name in &dirty.service_entries {
            let key = Key { kind: Kind::ServiceEntry, name: name.clone() };
            let object = self.inputs.service_entries.named(name);
            let standing = object.map(|o| services::standing(&self.inputs, &self.settings, o));
            set_standing(&mut self.standings, &key, standing);
        }
        touched
    }

    /// What became of objects with a report, in short. A service stands whether its waypoint does or not.
    fn standings_of_reports(&mut self, delta: &Delta) {
        let changed = delta.reports.iter().map(|(key, report)| (key, Some(report.standing())));
        for (key, standing) in changed.chain(delta.removed_reports.iter().map(|key| (key, None))) {
            let is_of_nodes = key.kind == Kind::AuthorizationPolicy
                && self.inputs.authorization_policies.named(&key.name).is_some();
            if key.kind != Kind::Service && !is_of_nodes {
                set_standing(&mut self.standings, key, standing);
            }
        }
    }

    fn remake_workloads(&mut self, dirty: &Dirty, delta: &mut Delta) {
        let network = self.network();
        for maker in &dirty.makers {
            let mine: Box<[Uid]> = match maker {
                Maker::Pod(name) => Box::from([workloads::uid_of_pod(&self.settings, name)]),
                Maker::Slice(_) | Maker::ServiceEntry(_) | Maker::WorkloadEntry(_) => {
                    self.uids.remove(maker).unwrap_or_default()
                }
            };
            let mut made = workloads::made_by(&self.inputs, &self.settings, &network, maker);
            for workload in &mut made {
                // The key stays when the workload is replaced.
                if let Some((uid, _)) = self.workloads.get_key_value(&workload.uid) {
                    workload.uid.clone_from(uid);
                }
                self.common.share(workload);
            }
            let made = made.into_iter().map(|w| (w.uid.clone(), w)).collect();
            let changed = (&mut delta.workloads, &mut delta.removed_workloads);
            let now = replace(&mut self.workloads, &mine, made, changed.0, changed.1);
            if !now.is_empty() && !matches!(maker, Maker::Pod(_)) {
                self.uids.insert(maker.clone(), now);
            }
        }
    }

    fn network(&self) -> Network {
        let root = self.inputs.namespaces.named(&Name::new("", self.settings.root_namespace.clone()));
        root.and_then(|n| n.labels.get(NETWORK_LABEL))
            .map_or_else(Network::default, |l| Network::from(l.clone()))
    }

    /// Every workload.
    pub fn workloads(&self) -> &BTreeMap<Uid, Arc<Workload>> {
        &self.workloads
    }

    /// Every service.
    pub fn services(&self) -> &BTreeMap<ServiceKey, Arc<Service>> {
        &self.services
    }

    /// Every policy, those that stand for a PeerAuthentication included.
    pub fn policies(&self) -> &BTreeMap<PolicyKey, Arc<Policy>> {
        &self.policies
    }

    /// What every waypoint needs, by namespace and name of its Gateway.
    pub fn waypoints(&self) -> &BTreeMap<Name, Arc<Resources>> {
        &self.layer7.waypoints
    }

    /// What to write into the status of routes, gateways, policies, and services that ask for a waypoint.
    pub fn reports(&self) -> &BTreeMap<Key, Arc<Report>> {
        &self.layer7.reports
    }

    /// What became of every policy, service entry, route and waypoint, by kind and name.
    pub fn statuses(&self) -> impl Iterator<Item = Status> {
        self.standings
            .iter()
            .map(|(object, standing)| Status { object: object.clone(), standing: standing.clone() })
    }

    /// A node, by name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.inputs.nodes.named(&Name::new("", name))
    }

    /// Every node, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.inputs.nodes.entries().map(|(_, node)| node)
    }

    /// Pods scheduled on a node, whatever their phase.
    pub fn pods_on<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Pod> {
        self.inputs.pods_on(node)
    }

    /// What the index was told.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}

fn is_of_slice(event: &Event) -> bool {
    match event {
        Event::Put(object) => matches!(object, Object::EndpointSlice(_)),
        Event::Remove(key) => key.kind == Kind::EndpointSlice,
    }
}

fn set_standing(standings: &mut BTreeMap<Key, Standing>, key: &Key, standing: Option<Standing>) {
    match standing {
        Some(standing) => standings.insert(key.clone(), standing),
        None => standings.remove(key),
    };
}
