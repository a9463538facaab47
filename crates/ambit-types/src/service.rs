//! A service as discovery describes it (`istio.workload.Service`).

use std::net::IpAddr;

use crate::{
    AppProtocol, GatewayAddress, Identity, NetworkAddress, NetworkCidr, ServiceKey, Str, WeightedWaypoint,
};

/// A port of a service, or an endpoint's own mapping of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port {
    /// Port clients connect to.
    pub service_port: u16,
    /// Port of the endpoint; 0 on a service means that each endpoint says its own (a named port).
    pub target_port: u16,
    /// What it carries.
    pub app_protocol: AppProtocol,
}

/// What locality a preference compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Same region.
    Region,
    /// Same zone.
    Zone,
    /// Same subzone.
    Subzone,
    /// Same node.
    Node,
    /// Same cluster.
    Cluster,
    /// Same network.
    Network,
}

/// How preferences choose among endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum LoadBalancingMode {
    /// All endpoints alike.
    #[default]
    Any,
    /// Only endpoints that match every scope.
    Strict,
    /// The best matching endpoints there are.
    Failover,
    /// No choice: the address the client asked for.
    Passthrough,
}

/// Which endpoints count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum HealthPolicy {
    /// Ready endpoints.
    #[default]
    OnlyHealthy,
    /// Every endpoint (`publishNotReadyAddresses`).
    AllowAll,
}

/// How a service spreads connections.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct LoadBalancing {
    /// Scopes in order of preference.
    pub preference: Vec<Scope>,
    /// How they are applied.
    pub mode: LoadBalancingMode,
    /// Which endpoints count.
    pub health: HealthPolicy,
}

/// Address families a service uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum IpFamilies {
    /// Not stated.
    #[default]
    Automatic,
    /// IPv4 only.
    Ipv4Only,
    /// IPv6 only.
    Ipv6Only,
    /// Both.
    Dual,
}

impl IpFamilies {
    /// Whether addresses of a family may be used.
    pub fn allow(self, family: IpFamily) -> bool {
        match self {
            Self::Automatic | Self::Dual => true,
            Self::Ipv4Only => family == IpFamily::V4,
            Self::Ipv6Only => family == IpFamily::V6,
        }
    }
}

/// One address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IpFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpFamily {
    /// The family of an address; an IPv4 address that is written as an IPv6 one is IPv4.
    pub fn of(address: IpAddr) -> Self {
        if address.to_canonical().is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }
}

/// Who may see a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Visibility {
    /// Everybody.
    #[default]
    Public,
    /// Clients of its own namespace.
    Namespace,
}

/// A Kubernetes Service or one host of a ServiceEntry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Name of the object.
    pub name: Str,
    /// Its namespace.
    pub namespace: Str,
    /// Full host name.
    pub hostname: Str,
    /// Virtual addresses; empty for a headless service.
    pub vips: Vec<NetworkAddress>,
    /// Virtual address ranges (ServiceEntry with CIDR addresses).
    pub cidr_vips: Vec<NetworkCidr>,
    /// Its ports.
    pub ports: Vec<Port>,
    /// Identities its endpoints may have besides their own.
    pub subject_alt_names: Vec<Identity>,
    /// Its waypoint.
    pub waypoint: Option<GatewayAddress>,
    /// Several waypoints by weight; takes precedence over `waypoint`.
    pub weighted_waypoints: Vec<WeightedWaypoint>,
    /// How connections are spread.
    pub load_balancing: LoadBalancing,
    /// Address families.
    pub ip_families: IpFamilies,
    /// The one record that stands for the host name when several namespaces define it.
    pub canonical: bool,
    /// Ingress gateways go through its waypoint.
    pub ingress_use_waypoint: bool,
    /// Who may see it.
    pub visibility: Visibility,
}

impl Service {
    /// A service with the defaults of an empty message.
    pub fn new(namespace: impl Into<Str>, name: impl Into<Str>, hostname: impl Into<Str>) -> Self {
        Self {
            name: name.into(),
            namespace: namespace.into(),
            hostname: hostname.into(),
            vips: Vec::new(),
            cidr_vips: Vec::new(),
            ports: Vec::new(),
            subject_alt_names: Vec::new(),
            waypoint: None,
            weighted_waypoints: Vec::new(),
            load_balancing: LoadBalancing::default(),
            ip_families: IpFamilies::default(),
            canonical: false,
            ingress_use_waypoint: false,
            visibility: Visibility::default(),
        }
    }

    /// Its key in discovery.
    pub fn key(&self) -> ServiceKey {
        ServiceKey::new(self.namespace.clone(), self.hostname.clone())
    }

    /// The port entry clients mean by `port`.
    pub fn port(&self, port: u16) -> Option<&Port> {
        self.ports.iter().find(|p| p.service_port == port)
    }
}
