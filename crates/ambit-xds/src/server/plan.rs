//! Who is served what, and in which order, so that nothing is referred to before it is there.

use crate::kind::Kind;
use crate::node::WaypointKey;

/// Whom a connection serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Role {
    /// A node's proxy.
    Node,
    /// A replica of this waypoint.
    Waypoint(WaypointKey),
}

/// Which changes of a kind a step sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Of what is new or changed that which denies whatever else is there.
    StandIns,
    /// What is new or changed.
    Upserts,
    /// What is gone.
    Removals,
    /// Both in one response.
    Whole,
}

impl Part {
    pub(super) fn has_upserts(self) -> bool {
        match self {
            Self::Upserts | Self::Whole => true,
            Self::StandIns | Self::Removals => false,
        }
    }

    pub(super) fn has_removals(self) -> bool {
        match self {
            Self::Removals | Self::Whole => true,
            Self::StandIns | Self::Upserts => false,
        }
    }
}

/// What a cycle sends one after the other, each answered before the next.
pub(super) type Plan = &'static [(Kind, Part)];

/// A workload never names a policy that is not there.
const NODE: Plan = &[
    (Kind::Authorization, Part::Upserts),
    (Kind::Address, Part::Whole),
    (Kind::Authorization, Part::Removals),
];

/// A service is protected before it appears and until it is gone; a route comes after the services it sends to, and
/// leaves before them. Tokens are looked at before a policy asks for one, and for as long as one does; so are providers.
/// What denies everything comes before all that may loosen something in its place: rules for tokens that no longer reach
/// a service would leave a DENY open there that compares a claim. It goes with the policies that are gone.
const WAYPOINT: Plan = &[
    (Kind::HttpPolicy, Part::StandIns),
    (Kind::Provider, Part::Upserts),
    (Kind::RequestAuthentication, Part::Upserts),
    (Kind::HttpPolicy, Part::Upserts),
    (Kind::Destination, Part::Upserts),
    (Kind::Address, Part::Upserts),
    (Kind::Frontend, Part::Whole),
    (Kind::Address, Part::Removals),
    (Kind::Destination, Part::Removals),
    (Kind::HttpPolicy, Part::Removals),
    (Kind::RequestAuthentication, Part::Removals),
    (Kind::Provider, Part::Removals),
];

impl Role {
    /// What it may subscribe to, and does before it counts as served.
    pub(super) fn kinds(&self) -> &'static [Kind] {
        match self {
            Self::Node => &Kind::ALL,
            Self::Waypoint(_) => &Kind::WAYPOINT,
        }
    }

    pub(super) fn plan(&self) -> Plan {
        match self {
            Self::Node => NODE,
            Self::Waypoint(_) => WAYPOINT,
        }
    }

    pub(super) fn waypoint(&self) -> Option<&WaypointKey> {
        match self {
            Self::Node => None,
            Self::Waypoint(key) => Some(key),
        }
    }

    /// Its kinds as a sentence names them.
    pub(super) fn served(&self) -> String {
        let names: Vec<String> = self.kinds().iter().map(Kind::to_string).collect();
        match names.split_last() {
            Some((last, rest)) => format!("{} and {last} are", rest.join(", ")),
            None => "nothing is".to_owned(),
        }
    }
}
