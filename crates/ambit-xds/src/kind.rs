//! The kinds of resources that nodes and waypoints subscribe to.

use std::fmt;

/// A kind of resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Workloads and services, `istio.workload.Address`.
    Address,
    /// Policies of nodes, `istio.security.Authorization`.
    Authorization,
    /// Routes attached to a port of a service, `ambit.waypoint.v1.Frontend`.
    Frontend,
    /// How services are treated as destinations, `ambit.waypoint.v1.Destination`.
    Destination,
    /// Policies of waypoints, `ambit.waypoint.v1.HttpPolicy`.
    HttpPolicy,
    /// How tokens are checked, `ambit.waypoint.v1.RequestAuthentication`.
    RequestAuthentication,
    /// Whom CUSTOM policies ask, `ambit.waypoint.v1.ExtensionProvider`.
    Provider,
}

impl Kind {
    /// Both that a node asks for, in the order in which its stream does.
    pub const ALL: [Self; 2] = [Self::Address, Self::Authorization];

    /// Those that a waypoint asks for, in the order in which its stream does.
    pub const WAYPOINT: [Self; 6] = [
        Self::Address,
        Self::Provider,
        Self::RequestAuthentication,
        Self::HttpPolicy,
        Self::Destination,
        Self::Frontend,
    ];

    /// Its type URL.
    pub fn url(self) -> &'static str {
        match self {
            Self::Address => "type.googleapis.com/istio.workload.Address",
            Self::Authorization => "type.googleapis.com/istio.security.Authorization",
            Self::Frontend => "type.googleapis.com/ambit.waypoint.v1.Frontend",
            Self::Destination => "type.googleapis.com/ambit.waypoint.v1.Destination",
            Self::HttpPolicy => "type.googleapis.com/ambit.waypoint.v1.HttpPolicy",
            Self::RequestAuthentication => "type.googleapis.com/ambit.waypoint.v1.RequestAuthentication",
            Self::Provider => "type.googleapis.com/ambit.waypoint.v1.ExtensionProvider",
        }
    }

    /// The kind a type URL means, if it is one that nodes ask for.
    pub fn of(url: &str) -> Option<Self> {
        Self::among(&Self::ALL, url)
    }

    /// The kind a type URL means, if it is one of these.
    pub fn among(kinds: &[Self], url: &str) -> Option<Self> {
        kinds.iter().copied().find(|kind| kind.url() == url)
    }

    /// Place in [`PerKind`].
    fn index(self) -> usize {
        match self {
            Self::Address => 0,
            Self::Authorization => 1,
            Self::Frontend => 2,
            Self::Destination => 3,
            Self::HttpPolicy => 4,
            Self::RequestAuthentication => 5,
            Self::Provider => 6,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address => "Address",
            Self::Authorization => "Authorization",
            Self::Frontend => "Frontend",
            Self::Destination => "Destination",
            Self::HttpPolicy => "HttpPolicy",
            Self::RequestAuthentication => "RequestAuthentication",
            Self::Provider => "ExtensionProvider",
        })
    }
}

/// One value for each kind.
#[derive(Debug, Clone, Default)]
pub(crate) struct PerKind<T>([T; 7]);

impl<T> PerKind<T> {
    pub(crate) fn of(&self, kind: Kind) -> &T {
        &self.0[kind.index()]
    }

    pub(crate) fn of_mut(&mut self, kind: Kind) -> &mut T {
        &mut self.0[kind.index()]
    }
}
