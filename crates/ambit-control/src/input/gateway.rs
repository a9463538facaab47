//! Objects of the Gateway API, and the policies that waypoints enforce. Bodies are as written.

use ambit_policy::{http, jwt};
use ambit_types::{Str, written};

use super::{Created, Kind, Labels, Name};

/// A gateway class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayClass {
    /// Its name.
    pub name: Str,
    /// Its labels, of which `istio.io/waypoint-for` counts.
    pub labels: Labels,
    /// `spec.controllerName`.
    pub controller: Str,
}

/// A gateway; those of a waypoint's class are waypoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// Its namespace and name.
    pub name: Name,
    /// Its uid, for the owner references of what is made for it; empty if nobody said.
    pub uid: Str,
    /// `metadata.generation`, 0 if nobody said.
    pub generation: i64,
    /// Its labels, of which `istio.io/waypoint-for` counts.
    pub labels: Labels,
    /// Its annotations that say how it is made.
    pub annotations: Labels,
    /// What it says.
    pub spec: written::Gateway,
    /// Whether `status.addresses` holds any: it was made and can be reached.
    pub has_address: bool,
}

/// A route of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Its namespace and name.
    pub name: Name,
    /// When it was made.
    pub created: Created,
    /// `metadata.generation`, 0 if nobody said.
    pub generation: i64,
    /// What it says.
    pub spec: RouteSpec,
}

/// What a route says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteSpec {
    /// An HTTPRoute.
    Http(written::HttpRoute),
    /// A GRPCRoute.
    Grpc(written::GrpcRoute),
    /// A TLSRoute.
    Tls(written::TlsRoute),
    /// A TCPRoute.
    Tcp(written::TcpRoute),
    /// A VirtualService.
    Virtual(Virtual),
}

/// A VirtualService in the words of an HTTPRoute.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Virtual {
    /// Whether it counts.
    pub claim: Claim,
    /// Domains of the hosts that are written whole; they have to be the cluster's.
    pub domains: Vec<Str>,
    /// The services of its own namespace that it is for.
    pub parents: Vec<written::ParentRef>,
    /// Its rules, of which the first that agrees counts.
    pub rules: Vec<VirtualRule>,
}

/// A rule of a VirtualService.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualRule {
    /// Its place in `spec.http`; several may come of one.
    pub at: usize,
    /// What has words in an HTTPRoute.
    pub rule: written::HttpRule,
    /// When a request is sent again.
    pub retry: Option<written::RetryPolicy>,
    /// Faults put in on purpose.
    pub fault: Option<written::Fault>,
}

/// Whether a VirtualService counts, by what can be told of it alone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Claim {
    /// It is for services of its own namespace.
    #[default]
    Own,
    /// It is for others too, and so for none; in words.
    Refused(Str),
    /// It is for gateways of somebody else.
    Elsewhere,
}

impl Route {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self.spec {
            RouteSpec::Http(_) => Kind::HttpRoute,
            RouteSpec::Grpc(_) => Kind::GrpcRoute,
            RouteSpec::Tls(_) => Kind::TlsRoute,
            RouteSpec::Tcp(_) => Kind::TcpRoute,
            RouteSpec::Virtual(_) => Kind::VirtualService,
        }
    }

    /// What it attaches to.
    pub fn parents(&self) -> &[written::ParentRef] {
        match &self.spec {
            RouteSpec::Http(spec) => &spec.parent_refs,
            RouteSpec::Grpc(spec) => &spec.parent_refs,
            RouteSpec::Tls(spec) => &spec.parent_refs,
            RouteSpec::Tcp(spec) => &spec.parent_refs,
            RouteSpec::Virtual(spec) => &spec.parents,
        }
    }

    /// The first host domain it writes that is not the cluster's.
    pub(crate) fn foreign_domain(&self, cluster_domain: &str) -> Option<&Str> {
        match &self.spec {
            RouteSpec::Virtual(spec) => spec.domains.iter().find(|domain| ***domain != *cluster_domain),
            RouteSpec::Http(_) | RouteSpec::Grpc(_) | RouteSpec::Tls(_) | RouteSpec::Tcp(_) => None,
        }
    }
}

/// Objects of a namespace that others may refer to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceGrant {
    /// Its namespace and name.
    pub name: Name,
    /// What it says.
    pub spec: written::Grant,
}

/// What the Gateway API has no words for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrafficPolicy {
    /// Its namespace and name.
    pub name: Name,
    /// When it was made.
    pub created: Created,
    /// `metadata.generation`, 0 if nobody said.
    pub generation: i64,
    /// What it says.
    pub spec: written::TrafficPolicy,
}

/// An authorization policy with `targetRefs`, which a waypoint enforces.
///
/// One without is an [`super::AuthorizationPolicy`]. Both have one key: the later event counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpPolicy {
    /// Its namespace and name.
    pub name: Name,
    /// `metadata.generation`, 0 if nobody said.
    pub generation: i64,
    /// What it attaches to.
    pub targets: Vec<Target>,
    /// Annotation `istio.io/dry-run`.
    pub dry_run: bool,
    /// What it says.
    pub spec: http::written::Policy,
}

/// Tokens that are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestAuthentication {
    /// Its namespace and name.
    pub name: Name,
    /// `metadata.generation`, 0 if nobody said.
    pub generation: i64,
    /// What it attaches to; without any, nothing honours it.
    pub targets: Vec<Target>,
    /// Its rules.
    pub rules: Vec<jwt::written::Rule>,
}

/// What a policy attaches to: always of its own namespace, but for a class.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// Its group; empty means core.
    pub group: Str,
    /// Its kind.
    pub kind: Str,
    /// Its name.
    pub name: Str,
}
