//! Kubernetes objects reduced to the fields the mesh reads, each with the key it is stored under.
//!
//! The source of the objects fills these in and has refused by then what cannot be read. Defaults that an API
//! server would write (a service's target port, a pod's service account) are already applied.

use std::net::IpAddr;

use ambit_types::Str;

mod cluster;
mod gateway;
mod labels;
mod mesh;
mod mesh_config;
pub(crate) mod selector;

pub use cluster::{
    ContainerPort, Controller, EndpointSlice, Namespace, NetworkPolicy, Node, Phase, Pod, Service,
    ServicePort, SliceEndpoint, SlicePort, TargetPort, TargetRef, Transport,
};
pub use gateway::{
    Claim, Gateway, GatewayClass, HttpPolicy, ReferenceGrant, RequestAuthentication, Route, RouteSpec,
    Target, TrafficPolicy, Virtual, VirtualRule,
};
pub use labels::Labels;
pub use mesh::{
    AuthorizationPolicy, Condition, EgressPolicy, Endpoint, EntryPort, Mode, Operation, PeerAuthentication,
    PolicyAction, PolicyRule, Resolution, ServiceEntry, Source, Terms, WorkloadEntry,
};
pub(crate) use mesh_config::MESH_CONFIG;
pub use mesh_config::{MeshConfig, WrittenProvider};
pub use selector::{Expression, LabelSelector, Operator};

/// Namespace and name of an object; the namespace is empty for cluster-scoped ones.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// Its namespace.
    pub namespace: Str,
    /// Its name.
    pub name: Str,
}

impl Name {
    /// Makes a name of its parts.
    pub fn new(namespace: impl Into<Str>, name: impl Into<Str>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.namespace.is_empty() {
            true => f.write_str(&self.name),
            false => write!(f, "{}/{}", self.namespace, self.name),
        }
    }
}

/// What kind of object a key belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `v1 Namespace`.
    Namespace,
    /// `v1 Node`.
    Node,
    /// `v1 Pod`.
    Pod,
    /// `v1 Service`.
    Service,
    /// `discovery.k8s.io/v1 EndpointSlice`.
    EndpointSlice,
    /// `networking.k8s.io/v1 NetworkPolicy`.
    NetworkPolicy,
    /// `security.istio.io AuthorizationPolicy`.
    AuthorizationPolicy,
    /// `security.istio.io PeerAuthentication`.
    PeerAuthentication,
    /// `networking.istio.io ServiceEntry`.
    ServiceEntry,
    /// `networking.istio.io WorkloadEntry`.
    WorkloadEntry,
    /// `gateway.networking.k8s.io GatewayClass`.
    GatewayClass,
    /// `gateway.networking.k8s.io Gateway`.
    Gateway,
    /// `gateway.networking.k8s.io HTTPRoute`.
    HttpRoute,
    /// `gateway.networking.k8s.io GRPCRoute`.
    GrpcRoute,
    /// `gateway.networking.k8s.io TLSRoute`.
    TlsRoute,
    /// `gateway.networking.k8s.io TCPRoute`.
    TcpRoute,
    /// `networking.istio.io VirtualService`.
    VirtualService,
    /// `gateway.networking.k8s.io ReferenceGrant`.
    ReferenceGrant,
    /// `ambit.internal TrafficPolicy`.
    TrafficPolicy,
    /// `ambit.internal EgressPolicy`.
    EgressPolicy,
    /// `security.istio.io RequestAuthentication`.
    RequestAuthentication,
    /// `v1 ConfigMap` with the configuration of the mesh.
    MeshConfig,
}

impl Kind {
    /// The kind as manifests spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::Pod => "Pod",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::PeerAuthentication => "PeerAuthentication",
            Self::ServiceEntry => "ServiceEntry",
            Self::WorkloadEntry => "WorkloadEntry",
            Self::GatewayClass => "GatewayClass",
            Self::Gateway => "Gateway",
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
            Self::TlsRoute => "TLSRoute",
            Self::TcpRoute => "TCPRoute",
            Self::VirtualService => "VirtualService",
            Self::ReferenceGrant => "ReferenceGrant",
            Self::TrafficPolicy => "TrafficPolicy",
            Self::EgressPolicy => "EgressPolicy",
            Self::RequestAuthentication => "RequestAuthentication",
            Self::MeshConfig => "ConfigMap",
        }
    }
}

/// Key of one object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace and name.
    pub name: Name,
}

impl Key {
    /// Makes a key of its parts.
    pub fn new(kind: Kind, name: Name) -> Self {
        Self { kind, name }
    }
}

impl std::fmt::Display for Key {
    /// `HTTPRoute shop/cart`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.name)
    }
}

/// One object of any kind the mesh reads.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// A namespace.
    Namespace(Namespace),
    /// A node.
    Node(Node),
    /// A pod.
    Pod(Box<Pod>),
    /// A service.
    Service(Box<Service>),
    /// Endpoints of a service.
    EndpointSlice(EndpointSlice),
    /// A network policy.
    NetworkPolicy(NetworkPolicy),
    /// An authorization policy.
    AuthorizationPolicy(Box<AuthorizationPolicy>),
    /// Strictness towards plaintext.
    PeerAuthentication(PeerAuthentication),
    /// A service beyond the cluster.
    ServiceEntry(Box<ServiceEntry>),
    /// A workload beyond the cluster.
    WorkloadEntry(Box<WorkloadEntry>),
    /// A class of gateways.
    GatewayClass(GatewayClass),
    /// A gateway.
    Gateway(Box<Gateway>),
    /// A route of any kind.
    Route(Box<Route>),
    /// What may be referred to from elsewhere.
    ReferenceGrant(ReferenceGrant),
    /// What the Gateway API has no words for.
    TrafficPolicy(Box<TrafficPolicy>),
    /// Where pods may connect outside the mesh.
    EgressPolicy(EgressPolicy),
    /// An authorization policy for waypoints.
    HttpPolicy(Box<HttpPolicy>),
    /// Tokens that are checked.
    RequestAuthentication(Box<RequestAuthentication>),
    /// The configuration of the mesh.
    MeshConfig(Box<MeshConfig>),
}

impl Object {
    /// The key the object is stored under.
    pub fn key(&self) -> Key {
        let (kind, name) = match self {
            Self::Namespace(o) => (Kind::Namespace, Name::new("", o.name.clone())),
            Self::Node(o) => (Kind::Node, Name::new("", o.name.clone())),
            Self::Pod(o) => (Kind::Pod, o.name.clone()),
            Self::Service(o) => (Kind::Service, o.name.clone()),
            Self::EndpointSlice(o) => (Kind::EndpointSlice, o.name.clone()),
            Self::NetworkPolicy(o) => (Kind::NetworkPolicy, o.name.clone()),
            Self::AuthorizationPolicy(o) => (Kind::AuthorizationPolicy, o.name.clone()),
            Self::PeerAuthentication(o) => (Kind::PeerAuthentication, o.name.clone()),
            Self::ServiceEntry(o) => (Kind::ServiceEntry, o.name.clone()),
            Self::WorkloadEntry(o) => (Kind::WorkloadEntry, o.name.clone()),
            Self::GatewayClass(o) => (Kind::GatewayClass, Name::new("", o.name.clone())),
            Self::Gateway(o) => (Kind::Gateway, o.name.clone()),
            Self::Route(o) => (o.kind(), o.name.clone()),
            Self::ReferenceGrant(o) => (Kind::ReferenceGrant, o.name.clone()),
            Self::TrafficPolicy(o) => (Kind::TrafficPolicy, o.name.clone()),
            Self::EgressPolicy(o) => (Kind::EgressPolicy, o.name.clone()),
            Self::HttpPolicy(o) => (Kind::AuthorizationPolicy, o.name.clone()),
            Self::RequestAuthentication(o) => (Kind::RequestAuthentication, o.name.clone()),
            Self::MeshConfig(o) => (Kind::MeshConfig, o.name.clone()),
        };
        Key { kind, name }
    }
}

/// Something happened to an object.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// It is new, or replaces the one with the same key.
    Put(Object),
    /// It is gone; an unknown key is no error.
    Remove(Key),
}

/// When an object was made, in seconds since 1970; 0 if nobody said. The older of two wins, then the name decides.
pub type Created = u64;

/// Addresses in the order given, unwrapped from IPv4-mapped form, without repetition.
pub fn canonical_addresses(addresses: impl IntoIterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut kept: Vec<IpAddr> = Vec::new();
    for address in addresses {
        let address = address.to_canonical();
        if !kept.contains(&address) {
            kept.push(address);
        }
    }
    // A list of one would keep room for four, in every pod.
    kept.shrink_to_fit();
    kept
}
