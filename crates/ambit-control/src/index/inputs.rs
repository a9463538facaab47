//! The objects as they stand, and how to find those of a namespace.

use std::collections::{BTreeMap, BTreeSet};

use ambit_types::Str;

use crate::input::{
    AuthorizationPolicy, EgressPolicy, EndpointSlice, Event, Gateway, GatewayClass, HttpPolicy, Key, Kind,
    Labels, MeshConfig, Name, Namespace, NetworkPolicy, Node, Object, PeerAuthentication, Pod,
    ReferenceGrant, RequestAuthentication, Route, Service, ServiceEntry, TrafficPolicy, WorkloadEntry,
};
use crate::pool::Pool;
use crate::routes::references;

/// Label by which a namespace or a pod asks for the mesh.
const DATAPLANE_MODE: &str = "istio.io/dataplane-mode";

/// Objects of one kind.
///
/// Each by itself: nodes of the tree keep room for objects that are not there, and pods are large.
#[derive(Debug, Clone)]
pub(crate) struct Table<T>(BTreeMap<Name, Box<T>>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Table<T> {
    /// The object of that name.
    pub(crate) fn named(&self, name: &Name) -> Option<&T> {
        self.0.get(name).map(|object| &**object)
    }

    /// Objects of a namespace, by name.
    pub(crate) fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &T> {
        self.entries_in(namespace).map(|(_, object)| object)
    }

    /// Objects of a namespace with their names.
    pub(crate) fn entries_in(&self, namespace: &str) -> impl Iterator<Item = (&Name, &T)> {
        let first = Name::new(namespace, "");
        let entries = self.0.range(first.clone()..);
        let entries = entries.take_while(move |(name, _)| name.namespace == first.namespace);
        entries.map(|(name, object)| (name, &**object))
    }

    /// All objects with their names.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&Name, &T)> {
        self.0.iter().map(|(name, object)| (name, &**object))
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
    pub(crate) gateway_classes: Table<GatewayClass>,
    pub(crate) gateways: Table<Gateway>,
    routes: BTreeMap<Kind, Table<Route>>,
    pub(crate) grants: Table<ReferenceGrant>,
    pub(crate) traffic_policies: Table<TrafficPolicy>,
    pub(crate) egress_policies: Table<EgressPolicy>,
    pub(crate) http_policies: Table<HttpPolicy>,
    pub(crate) request_authentications: Table<RequestAuthentication>,
    pub(crate) mesh_configs: Table<MeshConfig>,
    /// Routes and policies by what they attach to.
    attached: BTreeMap<Key, BTreeSet<Key>>,
    /// Routes by the services they send to.
    senders: BTreeMap<Name, BTreeSet<Key>>,
    entries_by_host: BTreeMap<Str, BTreeSet<Name>>,
    pods_by_node: BTreeMap<Str, BTreeSet<Name>>,
    /// Pods that ask for the mesh by a label of their own, by namespace.
    pods_asking: BTreeMap<Str, BTreeSet<Name>>,
    /// What pods have in common.
    labels: Pool<Labels>,
    words: Pool<Str>,
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
    GatewayClass(Name),
    Gateway(Name),
    Route(Key, Replaced<Route>),
    ReferenceGrant(Name),
    TrafficPolicy(Name, Box<Replaced<TrafficPolicy>>),
    EgressPolicy(Name),
    HttpPolicy(Name, Replaced<HttpPolicy>),
    RequestAuthentication(Name, Replaced<RequestAuthentication>),
    MeshConfig,
}

impl Inputs {
    /// Stores or drops an object; nothing if it was already as the event says.
    ///
    /// Two changes at most: an authorization policy may go from those of workloads to those of waypoints, or back.
    pub(crate) fn take(&mut self, event: Event) -> Vec<Change> {
        let (twin, change) = match event {
            Event::Put(object) => {
                let key = object.key();
                let is_of_waypoints = matches!(object, Object::HttpPolicy(_));
                (self.remove_twin(key, is_of_waypoints), self.put(object))
            }
            Event::Remove(key) => (self.remove_twin(key.clone(), false), self.remove(key)),
        };
        twin.into_iter().chain(change).collect()
    }

    /// Drops an authorization policy of the other sort.
    fn remove_twin(&mut self, key: Key, is_of_waypoints: bool) -> Option<Change> {
        if key.kind != Kind::AuthorizationPolicy {
            return None;
        }
        if is_of_waypoints {
            return remove(&mut self.authorization_policies, key.name, Change::AuthorizationPolicy);
        }
        remove(&mut self.http_policies, key.name, Change::HttpPolicy).inspect(|change| self.note(change))
    }

    fn put(&mut self, mut object: Object) -> Option<Change> {
        if let Object::Pod(pod) = &mut object {
            self.share_pod(pod);
        } else if let Object::EndpointSlice(slice) = &mut object {
            self.share_pods(slice);
        }
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
            Object::GatewayClass(o) => {
                put(&mut self.gateway_classes, name, o, |name, _| Change::GatewayClass(name))
            }
            Object::Gateway(o) => put(&mut self.gateways, name, *o, |name, _| Change::Gateway(name)),
            Object::Route(o) => put(self.routes.entry(o.kind()).or_default(), name, *o, route_change),
            Object::ReferenceGrant(o) => {
                put(&mut self.grants, name, o, |name, _| Change::ReferenceGrant(name))
            }
            Object::TrafficPolicy(o) => put(&mut self.traffic_policies, name, *o, traffic_change),
            Object::EgressPolicy(o) => {
                put(&mut self.egress_policies, name, o, |name, _| Change::EgressPolicy(name))
            }
            Object::HttpPolicy(o) => put(&mut self.http_policies, name, *o, Change::HttpPolicy),
            Object::RequestAuthentication(o) => {
                put(&mut self.request_authentications, name, *o, Change::RequestAuthentication)
            }
            Object::MeshConfig(o) => put(&mut self.mesh_configs, name, *o, |_, _| Change::MeshConfig),
        }
        .inspect(|change| self.note(change))
    }

    /// Lets a pod share what it has in common with others, and its name with what refers to it.
    fn share_pod(&mut self, pod: &mut Pod) {
        pod.share(&mut self.labels, &mut self.words);
        if let Some(before) = self.pods.named(&pod.name) {
            pod.name.clone_from(&before.name);
            if pod.uid == before.uid {
                pod.uid.clone_from(&before.uid);
            }
        }
    }

    /// Lets a slice share the names of its pods with these, as far as they are there.
    fn share_pods(&self, slice: &mut EndpointSlice) {
        for target in slice.endpoints.iter_mut().filter_map(|endpoint| endpoint.pod.as_mut()) {
            let Some(pod) = self.pods.named(&target.name) else { continue };
            target.name.clone_from(&pod.name);
            if target.uid == pod.uid {
                target.uid.clone_from(&pod.uid);
            }
        }
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
            Kind::GatewayClass => {
                remove(&mut self.gateway_classes, name, |name, _| Change::GatewayClass(name))
            }
            Kind::Gateway => remove(&mut self.gateways, name, |name, _| Change::Gateway(name)),
            Kind::HttpRoute | Kind::GrpcRoute | Kind::TlsRoute | Kind::TcpRoute | Kind::VirtualService => {
                remove(self.routes.entry(key.kind).or_default(), name, route_change)
            }
            Kind::ReferenceGrant => remove(&mut self.grants, name, |name, _| Change::ReferenceGrant(name)),
            Kind::TrafficPolicy => remove(&mut self.traffic_policies, name, traffic_change),
            Kind::EgressPolicy => {
                remove(&mut self.egress_policies, name, |name, _| Change::EgressPolicy(name))
            }
            Kind::RequestAuthentication => {
                remove(&mut self.request_authentications, name, Change::RequestAuthentication)
            }
            Kind::MeshConfig => remove(&mut self.mesh_configs, name, |_, _| Change::MeshConfig),
        }
        .inspect(|change| self.note(change))
    }

    /// Keeps the secondary indexes in step.
    fn note(&mut self, change: &Change) {
        match change {
            Change::Pod(name, pods) => {
                let node = |pod: &Pod| vec![pod.node.clone()];
                reindex(&mut self.pods_by_node, name, pods, node);
                let asking =
                    |pod: &Pod| is_asking(&pod.labels).then(|| pod.name.namespace.clone()).into_iter();
                reindex(&mut self.pods_asking, name, pods, |pod| asking(pod).collect());
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
            | Change::WorkloadEntry(..)
            | Change::GatewayClass(..)
            | Change::Gateway(..)
            | Change::ReferenceGrant(..)
            | Change::EgressPolicy(..)
            | Change::MeshConfig => {}
            Change::Route(key, routes) => {
                reindex(&mut self.attached, key, routes, references::parents);
                reindex(&mut self.senders, key, routes, references::backends);
            }
            Change::TrafficPolicy(name, policies) => {
                let key = Key::new(Kind::TrafficPolicy, name.clone());
                reindex(&mut self.attached, &key, policies, references::of_traffic_policy);
            }
            Change::HttpPolicy(name, policies) => {
                let key = Key::new(Kind::AuthorizationPolicy, name.clone());
                let targets = |policy: &HttpPolicy| references::of_policy(&policy.name, &policy.targets);
                reindex(&mut self.attached, &key, policies, targets);
            }
            Change::RequestAuthentication(name, policies) => {
                let key = Key::new(Kind::RequestAuthentication, name.clone());
                let targets =
                    |policy: &RequestAuthentication| references::of_policy(&policy.name, &policy.targets);
                reindex(&mut self.attached, &key, policies, targets);
            }
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

    /// A route.
    pub(crate) fn route(&self, key: &Key) -> Option<&Route> {
        self.routes.get(&key.kind)?.named(&key.name)
    }

    /// Routes and policies that attach to an object.
    pub(crate) fn attached_to(&self, key: &Key) -> impl Iterator<Item = &Key> {
        self.attached.get(key).into_iter().flatten()
    }

    /// Those of one kind; what they are in number does not matter to the others.
    pub(crate) fn attached_of_kind(&self, key: &Key, kind: Kind) -> impl Iterator<Item = &Key> {
        let first = Key::new(kind, Name::new("", ""));
        let attached = self.attached.get(key).into_iter().flat_map(move |all| all.range(first.clone()..));
        attached.take_while(move |one| one.kind == kind)
    }

    /// Routes that send to a service.
    pub(crate) fn senders_to(&self, service: &Name) -> impl Iterator<Item = &Key> {
        self.senders.get(service).into_iter().flatten()
    }

    /// Routes that send to any service of a namespace.
    pub(crate) fn senders_into(&self, namespace: &str) -> impl Iterator<Item = &Key> {
        let first = Name::new(namespace, "");
        let in_namespace = self.senders.range(first.clone()..);
        let in_namespace = in_namespace.take_while(move |(name, _)| name.namespace == first.namespace);
        in_namespace.flat_map(|(_, routes)| routes)
    }

    /// Namespaces with pods that ask for the mesh by a label of their own.
    pub(crate) fn namespaces_asking(&self) -> impl Iterator<Item = &Str> {
        self.pods_asking.keys()
    }

    /// Pods scheduled on a node.
    pub(crate) fn pods_on(&self, node: &str) -> impl Iterator<Item = &Pod> {
        self.pods_by_node.get(node).into_iter().flatten().filter_map(|name| self.pods.named(name))
    }
}

/// Whether labels of a namespace or pod ask for the mesh.
pub(crate) fn is_asking(labels: &Labels) -> bool {
    labels.get(DATAPLANE_MODE).is_some_and(|mode| **mode == *"ambient")
}

fn put<T: PartialEq + Clone>(
    table: &mut Table<T>,
    name: Name,
    new: T,
    change: fn(Name, Replaced<T>) -> Change,
) -> Option<Change> {
    if table.named(&name) == Some(&new) {
        return None;
    }
    // A copy has no room to spare, other than what was just read.
    let old = table.0.insert(name.clone(), Box::new(new.clone())).map(|old| *old);
    Some(change(name, Replaced { old, new: Some(new) }))
}

fn remove<T>(table: &mut Table<T>, name: Name, change: fn(Name, Replaced<T>) -> Change) -> Option<Change> {
    let old = table.0.remove(&name)?;
    Some(change(name, Replaced { old: Some(*old), new: None }))
}

fn traffic_change(name: Name, policies: Replaced<TrafficPolicy>) -> Change {
    Change::TrafficPolicy(name, Box::new(policies))
}

fn route_change(name: Name, routes: Replaced<Route>) -> Change {
    // An event has an object before it or after it, and both are of one kind.
    let kind = routes.both().next().map_or(Kind::HttpRoute, Route::kind);
    Change::Route(Key::new(kind, name), routes)
}

fn reindex<T, K: Ord, N: Ord + Clone>(
    index: &mut BTreeMap<K, BTreeSet<N>>,
    name: &N,
    replaced: &Replaced<T>,
    keys: impl Fn(&T) -> Vec<K>,
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
