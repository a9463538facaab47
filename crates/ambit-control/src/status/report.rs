//! Conditions of objects that have a status: what a controller writes into it (GEP-1364).

use std::fmt;

use ambit_types::Reason;
use ambit_types::written::ParentRef;

use super::{Note, Standing};

/// A condition of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// What it is about, such as `Accepted`.
    pub kind: &'static str,
    /// Whether it holds.
    pub holds: bool,
    /// Why, as one word.
    pub reason: &'static str,
    /// Why, for people.
    pub message: String,
}

impl Condition {
    pub(crate) fn holds(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, holds: true, reason, message: message.into() }
    }

    pub(crate) fn fails(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, holds: false, reason, message: message.into() }
    }

    /// Whether it tells of something to be put right.
    pub fn is_fault(&self) -> bool {
        !self.holds || self.kind == PARTIALLY_INVALID
    }
}

impl fmt::Display for Condition {
    /// `Accepted=False NoMatchingParent: there is no Service shop/web`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let holds = if self.holds { "True" } else { "False" };
        write!(f, "{}={holds} {}: {}", self.kind, self.reason, self.message)
    }
}

/// Whether an object is in force.
pub const ACCEPTED: &str = "Accepted";
/// Whether what it refers to is there.
pub const RESOLVED_REFS: &str = "ResolvedRefs";
/// Set where a part of it is not in force.
pub const PARTIALLY_INVALID: &str = "PartiallyInvalid";
/// Whether a gateway was made.
pub const PROGRAMMED: &str = "Programmed";
/// Whether a service has the waypoint it asks for.
pub const WAYPOINT_BOUND: &str = "istio.io/WaypointBound";
/// Whether a waypoint enforces a policy.
pub const WAYPOINT_ACCEPTED: &str = "WaypointAccepted";

/// Whether nodes enforce a policy.
pub const ZTUNNEL_ACCEPTED: &str = "ZtunnelAccepted";

/// Reason of an import that names hosts it does not own.
pub(crate) const OUT_OF_NAMESPACE: &str = "ImportOutOfNamespace";

/// What to write into an object's status.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Generation that was looked at.
    pub generation: i64,
    /// Conditions of the object itself.
    pub conditions: Vec<Condition>,
    /// Conditions by parent, for routes. Parents of other controllers are not here.
    pub parents: Vec<ParentReport>,
}

/// How a route stands with one parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentReport {
    /// The parent as written.
    pub parent: ParentRef,
    /// Its conditions.
    pub conditions: Vec<Condition>,
}

impl Report {
    /// Every condition, whatever it belongs to.
    pub fn all(&self) -> impl Iterator<Item = &Condition> {
        self.conditions.iter().chain(self.parents.iter().flat_map(|parent| &parent.conditions))
    }

    /// The same in short.
    pub(crate) fn standing(&self) -> Standing {
        let refused = self.all().find(|c| !c.holds && matches!(c.kind, ACCEPTED | WAYPOINT_ACCEPTED));
        let note = |c: &Condition| {
            let text = format!("{}: {}", c.reason, c.message);
            match c.reason {
                OUT_OF_NAMESPACE => Note::coded(Reason::ImportOutOfNamespace, text),
                _ => Note::plain(text),
            }
        };
        match refused {
            Some(condition) if self.parents.len() < 2 => Standing::NotEnforced(note(condition)),
            Some(_) | None => Standing::of(self.all().filter(|c| c.is_fault()).map(note).collect()),
        }
    }
}
