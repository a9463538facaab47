//! What the control plane publishes: every resource encoded once, with its version, for all connections.
//!
//! A copy shares everything with its original, so a connection keeps the state it has sent for the price of what
//! has changed since. Versions are hashes of the content: equal on every replica and after every restart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ambit_policy::model::Policy;
use ambit_types::Str;

use super::entry::{self, Entry, Links};
use super::history::{History, Touched};
use super::leads::Leads;
use super::shards::{Same, Shards};
use super::waypoint::{WaypointDelta, WaypointResources};
use crate::codec::{Address, authorization};
use crate::kind::Kind;
use crate::node::WaypointKey;

/// Changes to publish.
#[derive(Debug, Clone, Default)]
pub struct Delta {
    /// New or changed workloads and services.
    pub addresses: Vec<Address>,
    /// Uids and `NAMESPACE/HOSTNAME` that are gone.
    pub removed_addresses: Vec<String>,
    /// New or changed policies.
    pub policies: Vec<Arc<Policy>>,
    /// `NAMESPACE/NAME` that are gone.
    pub removed_policies: Vec<String>,
}

/// Everything published, at one revision of the configuration.
#[derive(Debug, Clone, Default)]
pub struct Resources {
    revision: u64,
    addresses: Shards<Arc<Entry>>,
    policies: Shards<Arc<Entry>>,
    /// What each waypoint gets besides.
    waypoints: BTreeMap<WaypointKey, Arc<WaypointResources>>,
    /// Alias to names.
    aliases: Leads,
    /// Service to the workloads behind it.
    endpoints: Leads,
    /// Node to the workloads on it.
    nodes: Leads,
    /// What the newest changes touched of workloads and services.
    history: History,
}

impl Resources {
    /// Publishes changes as of `revision`; whether anything differs from before.
    ///
    /// Revisions only grow; a smaller one is raised to the one already reached.
    pub fn apply(&mut self, revision: u64, delta: Delta) -> bool {
        self.revision = self.revision.max(revision);
        let mut touched = Touched::default();
        for name in &delta.removed_addresses {
            self.remove_address(name, &mut touched);
        }
        for address in &delta.addresses {
            self.put_address(address, &mut touched);
        }
        let mut changed = !touched.names.is_empty();
        self.history.push(touched);
        for name in &delta.removed_policies {
            changed |= self.policies.remove(name).is_some();
        }
        for policy in &delta.policies {
            let entry = Entry::plain(authorization::encode_any(policy));
            changed |= self.policies.put(Str::from(policy.key.to_string()), Arc::new(entry));
        }
        changed
    }

    /// Publishes changes for one waypoint as of `revision`; whether anything differs from before.
    ///
    /// A revision is in force once both halves of it are published: do both before any connection is told.
    pub fn apply_waypoint(&mut self, revision: u64, waypoint: &WaypointKey, delta: WaypointDelta) -> bool {
        self.revision = self.revision.max(revision);
        // One that was never heard of is made for the first resource only.
        if delta.is_empty() {
            return false;
        }
        Arc::make_mut(self.waypoints.entry(waypoint.clone()).or_default()).apply(delta)
    }

    /// Takes away everything of a waypoint that is gone; whether there was anything.
    pub fn forget_waypoint(&mut self, revision: u64, waypoint: &WaypointKey) -> bool {
        self.revision = self.revision.max(revision);
        self.waypoints.remove(waypoint).is_some()
    }

    /// The waypoints that anything was published for.
    pub fn waypoints(&self) -> impl Iterator<Item = &WaypointKey> {
        self.waypoints.keys()
    }

    /// The revision of the configuration this is made of.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// How many resources of a kind there are; of waypoints', those of all of them.
    pub fn len(&self, kind: Kind) -> usize {
        match self.of(kind, None) {
            Some(shards) => shards.len(),
            None => self.waypoints.values().filter_map(|own| own.of(kind)).map(Shards::len).sum(),
        }
    }

    /// Whether nothing is published.
    pub fn is_empty(&self) -> bool {
        Kind::ALL.into_iter().chain(Kind::WAYPOINT).all(|kind| self.len(kind) == 0)
    }

    /// Version of a resource that is the same for every client, if it exists.
    pub fn version(&self, kind: Kind, name: &str) -> Option<&str> {
        self.version_for(None, kind, name)
    }

    /// Version of a resource as a waypoint gets it, if it exists.
    pub fn version_for(&self, waypoint: Option<&WaypointKey>, kind: Kind, name: &str) -> Option<&str> {
        self.of(kind, waypoint)?.get(name).map(|entry| entry.version())
    }

    /// Resources of a kind as a client gets them; none if it is a waypoint's kind and nothing is there for it.
    pub(super) fn of(&self, kind: Kind, waypoint: Option<&WaypointKey>) -> Option<&Shards<Arc<Entry>>> {
        match kind {
            Kind::Address => Some(&self.addresses),
            Kind::Authorization => Some(&self.policies),
            Kind::Frontend
            | Kind::Destination
            | Kind::HttpPolicy
            | Kind::RequestAuthentication
            | Kind::Provider => self.waypoints.get(waypoint?)?.of(kind),
        }
    }

    pub(super) fn addresses(&self) -> &Shards<Arc<Entry>> {
        &self.addresses
    }

    /// The newest changes of workloads and services.
    pub(super) fn history(&self) -> &History {
        &self.history
    }

    /// Workloads and services that are new or different here, and the names of those that only `older` has; both
    /// ordered by name.
    pub(super) fn since<'a>(&'a self, older: &'a Self) -> (BTreeMap<&'a Str, &'a Arc<Entry>>, Vec<&'a Str>) {
        let Some(steps) = self.history.since(older.history.newest()) else {
            return self.addresses.since(&older.addresses);
        };
        let (mut changed, mut removed) = (BTreeMap::new(), BTreeSet::new());
        for name in steps.flat_map(|step| &step.names) {
            match (self.addresses.entry(name), older.addresses.entry(name)) {
                (Some((_, new)), Some((_, old))) if new.same(old) => {}
                (Some((name, new)), _) => _ = changed.insert(name, new),
                (None, Some((name, _))) => _ = removed.insert(name),
                (None, None) => {}
            }
        }
        (changed, removed.into_iter().collect())
    }

    /// Names behind a name or an alias.
    pub(super) fn resolve(&self, key: &str) -> Vec<Str> {
        if self.addresses.get(key).is_some() {
            return vec![Str::from(key)];
        }
        self.aliases.of(key).cloned().collect()
    }

    /// Whether there is anything behind a name or an alias.
    pub(super) fn leads_somewhere(&self, key: &str) -> bool {
        self.addresses.get(key).is_some() || self.aliases.of(key).next().is_some()
    }

    /// Workloads on a node.
    pub(super) fn on_node(&self, node: &str) -> impl Iterator<Item = &Str> {
        self.nodes.of(node)
    }

    /// Workloads behind a service.
    pub(super) fn endpoints(&self, service: &str) -> impl Iterator<Item = &Str> {
        self.endpoints.of(service)
    }

    /// What a client that has `name` needs besides: the endpoints of a service, waypoints and gateways.
    pub(super) fn beside(&self, name: &str) -> Vec<Str> {
        self.endpoints(name).cloned().chain(self.gateways(name)).collect()
    }

    /// Waypoints and gateways that a workload or service names.
    pub(super) fn gateways(&self, name: &str) -> impl Iterator<Item = Str> {
        let named = self.addresses.get(name).into_iter().flat_map(|entry| entry.links.gateways.iter());
        named.flat_map(move |key| self.resolve(key))
    }

    /// The services in front of a workload, which say whether it is behind a waypoint.
    pub(super) fn in_front(&self, name: &str) -> impl Iterator<Item = &Str> {
        let named = self.addresses.get(name).into_iter().flat_map(|entry| entry.links.services.iter());
        named.filter(move |service| self.addresses.get(service).is_some())
    }

    /// Keys that a workload or service leads to, whether there is anything behind them or not: its waypoints and
    /// gateways, and the services that it is behind.
    pub(super) fn leads(&self, name: &str) -> impl Iterator<Item = &Str> {
        let links = self.addresses.get(name).map(|entry| &entry.links);
        links.into_iter().flat_map(|links| links.gateways.iter().chain(links.services.iter()))
    }

    fn put_address(&mut self, address: &Address, touched: &mut Touched) {
        let mut entry = Entry::of(address);
        self.share(&mut entry.links);
        let name = entry::name(address);
        match self.addresses.get(&name) {
            Some(old) if old.has_content_of(&entry) => return,
            // Most changes of a workload are of its readiness, and nothing leads elsewhere.
            Some(old) if old.links == entry.links => {}
            Some(_) | None => {
                self.remove_address(&name, touched);
                self.link(&name, &entry.links);
            }
        }
        touch(touched, &name, &entry.links);
        self.addresses.insert(name, Arc::new(entry));
    }

    /// Lets names of services be those that other workloads behind them have.
    fn share(&self, links: &mut Links) {
        for service in links.services.iter_mut() {
            if let Some(held) = self.endpoints.key(service) {
                *service = held.clone();
            }
        }
    }

    fn link(&mut self, name: &Str, links: &Links) {
        for alias in links.aliases.iter() {
            self.aliases.add(alias, name);
        }
        for service in links.services.iter() {
            self.endpoints.add(service, name);
        }
        if let Some(node) = &links.node {
            self.nodes.add(node, name);
        }
    }

    fn remove_address(&mut self, name: &str, touched: &mut Touched) {
        let Some((key, _)) = self.addresses.entry(name) else { return };
        let key = key.clone();
        let Some(entry) = self.addresses.remove(name) else { return };
        for alias in entry.links.aliases.iter() {
            self.aliases.remove(alias, name);
        }
        for service in entry.links.services.iter() {
            self.endpoints.remove(service, name);
        }
        if let Some(node) = &entry.links.node {
            self.nodes.remove(node, name);
        }
        touch(touched, &key, &entry.links);
    }
}

fn touch(touched: &mut Touched, name: &Str, links: &Links) {
    touched.names.insert(name.clone());
    touched.keys.extend(links.aliases.iter().chain(links.services.iter()).cloned());
    touched.nodes.extend(links.node.clone());
}
