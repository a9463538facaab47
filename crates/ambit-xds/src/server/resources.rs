//! What the control plane publishes: every resource encoded once, with its version, for all connections.
//!
//! A copy shares everything with its original, so a connection keeps the state it has sent for the price of what
//! has changed since. Versions are hashes of the content: equal on every replica and after every restart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ambit_policy::model::Policy;
use ambit_types::service::HealthPolicy;
use ambit_types::{Destination, GatewayAddress, Service, Str, Workload};
use xxhash_rust::xxh64::xxh64;

use super::shards::{Same, Shards};
use super::waypoint::{WaypointDelta, WaypointResources};
use crate::any::Any;
use crate::codec::{Address, authorization};
use crate::kind::Kind;
use crate::node::WaypointKey;
use crate::proto::envoy::service::discovery::v3::Resource;

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
    aliases: Index,
    /// Service to the workloads behind it.
    endpoints: Index,
    /// Node to the workloads on it.
    nodes: Index,
}

type Index = Shards<Arc<BTreeSet<Str>>>;

/// One resource.
#[derive(Debug)]
pub(super) struct Entry {
    version: String,
    content: Any,
    links: Links,
}

/// What leads to a resource, and where it leads.
#[derive(Debug, Default)]
struct Links {
    aliases: Vec<Str>,
    services: Vec<Str>,
    node: Option<Str>,
    /// Names or aliases of waypoints and gateways.
    gateways: Vec<Str>,
    /// A service that takes endpoints which are not ready.
    unready_too: bool,
}

impl Same for Arc<Entry> {
    fn same(&self, other: &Self) -> bool {
        Self::ptr_eq(self, other) || self.version == other.version
    }
}

impl Entry {
    /// One that nothing leads to but its name.
    pub(super) fn plain(content: Any) -> Self {
        Self::new(content, Links::default())
    }

    fn new(content: Any, links: Links) -> Self {
        Self { version: format!("{:016x}", xxh64(&content.value, 0)), content, links }
    }

    /// Hash of the content.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// Whether it is a service that takes endpoints which are not ready.
    pub(super) fn takes_unready(&self) -> bool {
        self.links.unready_too
    }

    /// The message; aliases only for those who asked by alias.
    pub(super) fn message(&self, name: &str, with_aliases: bool) -> Resource {
        let aliases = if with_aliases { &self.links.aliases[..] } else { &[] };
        Resource {
            version: self.version.clone(),
            resource: Some(self.content.clone()),
            name: name.to_owned(),
            aliases: aliases.iter().map(ToString::to_string).collect(),
            ..Resource::default()
        }
    }
}

impl Resources {
    /// Publishes changes as of `revision`; whether anything differs from before.
    ///
    /// Revisions only grow; a smaller one is raised to the one already reached.
    pub fn apply(&mut self, revision: u64, delta: Delta) -> bool {
        self.revision = self.revision.max(revision);
        let mut changed = false;
        for name in &delta.removed_addresses {
            changed |= self.remove_address(name);
        }
        for address in &delta.addresses {
            changed |= self.put_address(address);
        }
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

    /// Names behind a name or an alias.
    pub(super) fn resolve(&self, key: &str) -> Vec<Str> {
        if self.addresses.get(key).is_some() {
            return vec![Str::from(key)];
        }
        self.aliases.get(key).map(|names| names.iter().cloned().collect()).unwrap_or_default()
    }

    /// Workloads on a node.
    pub(super) fn on_node(&self, node: &str) -> impl Iterator<Item = &Str> {
        self.nodes.get(node).into_iter().flat_map(|names| names.iter())
    }

    /// Workloads behind a service.
    pub(super) fn endpoints(&self, service: &str) -> impl Iterator<Item = &Str> {
        self.endpoints.get(service).into_iter().flat_map(|names| names.iter())
    }

    /// What a client that has `name` needs besides: the endpoints of a service, waypoints and gateways.
    pub(super) fn beside(&self, name: &str) -> Vec<Str> {
        self.endpoints(name).cloned().chain(self.gateways(name)).collect()
    }

    /// Waypoints and gateways that a workload or service names.
    pub(super) fn gateways(&self, name: &str) -> impl Iterator<Item = Str> {
        let named = self.addresses.get(name).into_iter().flat_map(|entry| &entry.links.gateways);
        named.flat_map(move |key| self.resolve(key))
    }

    /// The services in front of a workload, which say whether it is behind a waypoint.
    pub(super) fn in_front(&self, name: &str) -> impl Iterator<Item = &Str> {
        let named = self.addresses.get(name).into_iter().flat_map(|entry| &entry.links.services);
        named.filter(move |service| self.addresses.get(service).is_some())
    }

    fn put_address(&mut self, address: &Address) -> bool {
        let entry = Entry::new(address.encode(), links(address));
        let name = Str::from(address.name());
        if self.addresses.get(&name).is_some_and(|old| old.version == entry.version) {
            return false;
        }
        self.remove_address(&name);
        for alias in &entry.links.aliases {
            add(&mut self.aliases, alias, &name);
        }
        for service in &entry.links.services {
            add(&mut self.endpoints, service, &name);
        }
        if let Some(node) = &entry.links.node {
            add(&mut self.nodes, node, &name);
        }
        self.addresses.insert(name, Arc::new(entry));
        true
    }

    fn remove_address(&mut self, name: &str) -> bool {
        let Some(entry) = self.addresses.remove(name) else { return false };
        for alias in &entry.links.aliases {
            drop_name(&mut self.aliases, alias, name);
        }
        for service in &entry.links.services {
            drop_name(&mut self.endpoints, service, name);
        }
        if let Some(node) = &entry.links.node {
            drop_name(&mut self.nodes, node, name);
        }
        true
    }
}

fn add(index: &mut Index, key: &Str, name: &Str) {
    let mut names = index.remove(key).unwrap_or_default();
    Arc::make_mut(&mut names).insert(name.clone());
    index.insert(key.clone(), names);
}

fn drop_name(index: &mut Index, key: &Str, name: &str) {
    let Some(mut names) = index.remove(key) else { return };
    Arc::make_mut(&mut names).remove(name);
    if !names.is_empty() {
        index.insert(key.clone(), names);
    }
}

fn links(address: &Address) -> Links {
    let aliases = address.aliases().into_iter().map(Str::from).collect();
    match address {
        Address::Workload(workload) => of_workload(workload, aliases),
        Address::Service(service) => of_service(service, aliases),
    }
}

fn of_workload(workload: &Workload, aliases: Vec<Str>) -> Links {
    let gateways = workload.waypoint.iter().chain(&workload.network_gateway);
    Links {
        aliases,
        services: workload.services.keys().map(|key| Str::from(key.to_string())).collect(),
        node: (!workload.node.is_empty()).then(|| workload.node.clone()),
        gateways: gateways.map(gateway_key).collect(),
        unready_too: false,
    }
}

fn of_service(service: &Service, aliases: Vec<Str>) -> Links {
    let weighted = service.weighted_waypoints.iter().map(|entry| &entry.destination);
    let gateways = service.waypoint.iter().chain(weighted).map(gateway_key).collect();
    let unready_too = service.load_balancing.health == HealthPolicy::AllowAll;
    Links { aliases, gateways, unready_too, ..Links::default() }
}

fn gateway_key(gateway: &GatewayAddress) -> Str {
    Str::from(match &gateway.destination {
        Destination::Hostname(key) => key.to_string(),
        Destination::Address(address) => address.to_string(),
    })
}
