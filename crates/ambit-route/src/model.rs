//! The routes and traffic policies of one waypoint, as they travel in discovery: parsed, references resolved, not yet
//! compiled.
//!
//! The shape follows the Gateway API, so that one object changed is one small message. Who may attach what where has
//! been settled before: a route that was not accepted is not here. What is here may still be wrong in itself;
//! [`crate::Table::compile`] finds that out, rule by rule.

mod backends;
mod filters;
mod matches;
mod policy;

use std::collections::BTreeMap;
use std::fmt;

use ambit_types::{ServiceKey, Str};

pub use backends::{
    Backend, BackendFault, Backoff, Conditions, Consent, CookieLife, Persistence, PersistenceCarrier, Retry,
    Target, Timeouts,
};
pub use filters::{
    Cors, Filter, Fraction, HeaderChange, Mirror, PathChange, Redirect, Respond, Rewrite, Scheme,
};
pub use matches::{GrpcMatch, HttpMatch, NameMatch, PathMatch, ValueMatch};
pub use policy::{
    Abort, Balance, Connections, Delay, Destination, DestinationPolicy, Fault, HashKey, LimitKey, LimitScope,
    Outlier, RateLimit, RetryBudget, SlowStart,
};

/// What bounds one object. The Gateway API's own limits, and ours for what costs memory or time to compile.
pub mod limits {
    /// Matches of one rule.
    pub const MATCHES_MAX: usize = 64;
    /// Header conditions, and as many query conditions, of one match.
    pub const CONDITIONS_MAX: usize = 16;
    /// Filters of one rule, and as many of one backend.
    pub const FILTERS_MAX: usize = 16;
    /// Backends of one rule.
    pub const BACKENDS_MAX: usize = 16;
    /// Headers in each list of a header modifier.
    pub const HEADER_CHANGES_MAX: usize = 16;
    /// Largest weight of a backend.
    pub const WEIGHT_MAX: u32 = 1_000_000;
    /// Bytes of a path in a match, a redirect or a rewrite.
    pub const PATH_BYTES_MAX: usize = 1024;
    /// Bytes of a regular expression.
    pub const PATTERN_BYTES_MAX: usize = 1024;
    /// Bytes that one compiled regular expression may take.
    pub const PATTERN_COMPILED_BYTES_MAX: usize = 1 << 20;
    /// Patterns for paths, services and methods that one group may have: they are tried one after the other.
    pub const PATH_PATTERNS_MAX: usize = 128;
    /// Bytes of a body that a rule answers itself.
    pub const RESPOND_BYTES_MAX: usize = 64 << 10;
    /// Attempts that a retry may add.
    pub const RETRIES_MAX: u32 = 20;
}

/// All that a waypoint routes by.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteConfig {
    /// Ports of services that have routes. Services without any are not listed.
    pub frontends: Vec<Frontend>,
    /// Policies for services as destinations. Services with none but defaults are not listed.
    pub destinations: Vec<Destination>,
}

/// A port of a service as clients address it, with the routes attached to it.
///
/// A route attached to all ports of a service is repeated for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frontend {
    /// The service.
    pub service: ServiceKey,
    /// The service's port, not the target port.
    pub port: u16,
    /// Routes of the service's own namespace: they apply to every client without a group of its own.
    pub producer: Option<Group>,
    /// Routes of other namespaces: each group applies to the clients of its namespace, and replaces the producer's
    /// (GEP-1294).
    pub consumers: BTreeMap<Str, Group>,
}

/// Routes that are merged: all of one kind, because on one port the stronger kind excludes the others
/// (GRPCRoute, HTTPRoute, VirtualService, TLSRoute, TCPRoute).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Group {
    /// HTTPRoutes.
    Http(Vec<HttpRoute>),
    /// Lists of rules of which the first that agrees counts, as Istio's VirtualServices have them: those of the older
    /// route first.
    Listed(Vec<HttpRoute>),
    /// GRPCRoutes.
    Grpc(Vec<GrpcRoute>),
    /// TLSRoutes.
    Tls(Vec<StreamRoute>),
    /// TCPRoutes.
    Tcp(Vec<StreamRoute>),
    /// In place of routes, on a port that declares no protocol: what holds for its requests. It does not say that the
    /// port carries requests; what turns out to be none is passed on as without routes.
    Unrouted(Vec<HttpRoute>),
}

impl Group {
    /// Whether nothing is attached after all.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Http(routes) | Self::Listed(routes) | Self::Unrouted(routes) => routes.is_empty(),
            Self::Grpc(routes) => routes.is_empty(),
            Self::Tls(routes) | Self::Tcp(routes) => routes.is_empty(),
        }
    }
}

/// Name of a route; orders routes of one age.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteKey {
    /// Its namespace.
    pub namespace: Str,
    /// Its name.
    pub name: Str,
}

impl RouteKey {
    /// Makes a key of its parts.
    pub fn new(namespace: impl Into<Str>, name: impl Into<Str>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for RouteKey {
    /// `NAMESPACE/NAME`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// An HTTPRoute.
pub type HttpRoute = Route<HttpMatch>;

/// A GRPCRoute.
pub type GrpcRoute = Route<GrpcMatch>;

/// An HTTPRoute or GRPCRoute. Hostnames are not here: a mesh route does not match by them (GEP-1294).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route<M> {
    /// Its name.
    pub key: RouteKey,
    /// Creation in seconds since 1970: of two equal matches the older route's wins.
    pub created: u64,
    /// Its rules in the order of the object.
    pub rules: Vec<Rule<M>>,
}

/// What to do with the requests that any of the matches wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule<M> {
    /// Name given to it.
    pub name: Option<Str>,
    /// Any of these; none stands for one that everything agrees with.
    pub matches: Vec<M>,
    /// Changes to request and response, or an answer, in the order listed.
    pub filters: Vec<Filter>,
    /// Where requests go, by weight.
    pub backends: Vec<Backend>,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// When to try again; none leaves what is always safe, see [`Retry::of_the_mesh`].
    pub retry: Option<Retry>,
    /// How a client stays with an endpoint.
    pub persistence: Option<Persistence>,
    /// Limits on the rate of requests.
    pub rate_limits: Vec<RateLimit>,
    /// Faults put in on purpose.
    pub fault: Option<Fault>,
}

impl<M> Default for Rule<M> {
    fn default() -> Self {
        Self {
            name: None,
            matches: Vec::new(),
            filters: Vec::new(),
            backends: Vec::new(),
            timeouts: Timeouts::default(),
            retry: None,
            persistence: None,
            rate_limits: Vec::new(),
            fault: None,
        }
    }
}

/// A TLSRoute or TCPRoute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRoute {
    /// Its name.
    pub key: RouteKey,
    /// Creation in seconds since 1970.
    pub created: u64,
    /// Server names of a TLSRoute, exact or `*.suffix`; none stands for every name. Unused by TCPRoute.
    pub hostnames: Vec<Str>,
    /// Where connections go, by weight.
    pub backends: Vec<Backend>,
}
