//! The objects as they stand, and how to find those of a namespace.

use std::collections::{BTreeMap, BTreeSet};

use ambit_types::Str;

use crate::input::{
    AuthorizationPolicy, EndpointSlice, Event, Key, Kind, Name, Namespace, NetworkPolicy, Node, Object,
    PeerAuthentication, Pod, Service, ServiceEntry, WorkloadEntry,
};

/// Objects of one kind.
#[derive(Debug, Clone)]
pub(crate) struct Table<T>(BTreeMap<Name, T>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Table<T> {
    /// The object of that name.
    pub(crate) fn named(&self, name: &Name) -> Option<&T> {
        self.0.get(name)
    }

    /// Objects of a namespace, by name.
    pub(crate) fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &T> {
        self.entries_in(namespace).map(|(_, object)| object)
    }

    /// Objects of a namespace with their names.
    pub(crate) fn entries_in(&self, namespace: &str) -> impl Iterator<Item = (&Name, &T)> {
        let first = Name::new(namespace, "");
        self.0.range(first.clone()..).take_while(move |(name, _)| name.namespace == first.namespace)
    }

    /// All objects with their names.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&Name, &T)> {
        self.0.iter()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// All objects.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inputs {
    pub(crate) namespaces: Table<Namespace>,
    pub(crate) nodes: Table<Node>,
    pub(crate) pods: Table<Pod>,
    pub(crate) services: Table<Service>,
    pub(crate) slices: Table<EndpointSlice>,
    pub(crate) network_policies: Table<NetworkPolicy>,
    pub(crate) authorization_policies: Table<AuthorizationPolicy>,
    pub(crate) peer_authentications: Table<PeerAuthentication>,
    pub(crate) service_entries: Table<ServiceEntry>,
    pub(crate) workload_entries: Table<WorkloadEntry>,
    entries_by_host: BTreeMap<Str, BTreeSet<Name>>,
    pods_by_node: BTreeMap<Str, BTreeSet<Name>>,
}

/// An object before and after an event.
#[derive(Debug)]
pub(crate) struct Replaced<T> {
    pub(crate) old: Option<T>,
    pub(crate) new: Option<T>,
}

impl<T> Replaced<T> {
    /// The object before and the object after, as far as there are any.
    pub(crate) fn both(&self) -> impl Iterator<Item = &T> {
        self.old.iter().chain(&self.new)
    }
}

/// What an event replaced.
#[derive(Debug)]
pub(crate) enum Change {
    Namespace(Replaced<Namespace>),
    Node(Name),
    Pod(Name, Replaced<Pod>),
    Service(Name, Replaced<Service>),
    EndpointSlice(Name, Replaced<EndpointSlice>),
    NetworkPolicy(Name, Replaced<NetworkPolicy>),
    AuthorizationPolicy(Name, Replaced<AuthorizationPolicy>),
    PeerAuthentication(Name, Replaced<PeerAuthentication>),
    ServiceEntry(Name, Replaced<ServiceEntry>),
    WorkloadEntry(Name),
}

impl Inputs {
    /// Stores or drops an object; nothing if it was already as the event says.
    pub(crate) fn take(&mut self, event: Event) -> Option<Change> {
        match event {
            Event::Put(object) => self.put(object),
            Event::Remove(key) => self.remove(key),
        }
    }

    fn put(&mut self, object: Object) -> Option<Change> {
        let name = object.key().name;
        match object {
            Object::Namespace(o) => put(&mut self.namespaces, name, o, |_, r| Change::Namespace(r)),
            Object::Node(o) => put(&mut self.nodes, name, o, |name, _| Change::Node(name)),
            Object::Pod(o) => put(&mut self.pods, name, *o, Change::Pod),
            Object::Service(o) => put(&mut self.services, name, *o, Change::Service),
            Object::EndpointSlice(o) => put(&mut self.slices, name, o, Change::EndpointSlice),
            Object::NetworkPolicy(o) => put(&mut self.network_policies, name, o, Change::NetworkPolicy),
            Object::AuthorizationPolicy(o) => {
                put(&mut self.authorization_policies, name, *o, Change::AuthorizationPolicy)
            }
            Object::PeerAuthentication(o) => {
                put(&mut self.peer_authentications, name, o, Change::PeerAuthentication)
            }
            Object::ServiceEntry(o) => put(&mut self.service_entries, name, *o, Change::ServiceEntry),
            Object::WorkloadEntry(o) => {
                put(&mut self.workload_entries, name, *o, |name, _| Change::WorkloadEntry(name))
            }
        }
        .inspect(|change| self.note(change))
    }

    fn remove(&mut self, key: Key) -> Option<Change> {
        let name = key.name;
        match key.kind {
            Kind::Namespace => remove(&mut self.namespaces, name, |_, r| Change::Namespace(r)),
            Kind::Node => remove(&mut self.nodes, name, |name, _| Change::Node(name)),
            Kind::Pod => remove(&mut self.pods, name, Change::Pod),
            Kind::Service => remove(&mut self.services, name, Change::Service),
            Kind::EndpointSlice => remove(&mut self.slices, name, Change::EndpointSlice),
            Kind::NetworkPolicy => remove(&mut self.network_policies, name, Change::NetworkPolicy),
            Kind::AuthorizationPolicy => {
                remove(&mut self.authorization_policies, name, Change::AuthorizationPolicy)
            }
            Kind::PeerAuthentication => {
                remove(&mut self.peer_authentications, name, Change::PeerAuthentication)
            }
            Kind::ServiceEntry => remove(&mut self.service_entries, name, Change::ServiceEntry),
            Kind::WorkloadEntry => {
                remove(&mut self.workload_entries, name, |name, _| Change::WorkloadEntry(name))
            }
        }
        .inspect(|change| self.note(change))
    }

    /// Keeps the secondary indexes in step.
    fn note(&mut self, change: &Change) {
        match change {
            Change::Pod(name, pods) => {
                let node = |pod: &Pod| vec![pod.node.clone()];
                reindex(&mut self.pods_by_node, name, pods, node);
            }
            Change::ServiceEntry(name, entries) => {
                reindex(&mut self.entries_by_host, name, entries, |entry| entry.hosts.clone());
            }
            Change::Namespace(..)
            | Change::Node(..)
            | Change::Service(..)
            | Change::EndpointSlice(..)
            | Change::NetworkPolicy(..)
            | Change::AuthorizationPolicy(..)
            | Change::PeerAuthentication(..)
            | Change::WorkloadEntry(..) => {}
        }
    }

    /// Service entries that name a host.
    pub(crate) fn entries_of_host(&self, host: &str) -> impl Iterator<Item = &ServiceEntry> {
        self.entries_by_host
            .get(host)
            .into_iter()
            .flatten()
            .filter_map(|name| self.service_entries.named(name))
    }

    /// Pods scheduled on a node.
    pub(crate) fn pods_on(&self, node: &str) -> impl Iterator<Item = &Pod> {
        self.pods_by_node.get(node).into_iter().flatten().filter_map(|name| self.pods.named(name))
    }
}

fn put<T: PartialEq + Clone>(
    table: &mut Table<T>,
    name: Name,
    new: T,
    change: fn(Name, Replaced<T>) -> Change,
) -> Option<Change> {
    if table.0.get(&name) == Some(&new) {
        return None;
    }
    let old = table.0.insert(name.clone(), new.clone());
    Some(change(name, Replaced { old, new: Some(new) }))
}

fn remove<T>(table: &mut Table<T>, name: Name, change: fn(Name, Replaced<T>) -> Change) -> Option<Change> {
    let old = table.0.remove(&name)?;
    Some(change(name, Replaced { old: Some(old), new: None }))
}

fn reindex<T>(
    index: &mut BTreeMap<Str, BTreeSet<Name>>,
    name: &Name,
    replaced: &Replaced<T>,
    keys: impl Fn(&T) -> Vec<Str>,
) {
    for key in replaced.old.iter().flat_map(&keys) {
        if let Some(names) = index.get_mut(&key) {
            names.remove(name);
            if names.is_empty() {
                index.remove(&key);
            }
        }
    }
    for key in replaced.new.iter().flat_map(&keys) {
        index.entry(key).or_default().insert(name.clone());
    }
}
