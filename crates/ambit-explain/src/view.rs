//! What the engine may look at: the mesh as one program holds it, and the facts that only programs have.

use std::collections::BTreeMap;
use std::sync::Arc;

use ambit_state::waypoint::State;
use ambit_state::{MeshedPlaintext, SameNode, Snapshot};
use ambit_types::{Identity, Uid};
use serde::Serialize;

/// The mesh as one program has it.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Workloads, services and L4 policies.
    pub snapshot: &'a Snapshot,
    /// What each waypoint goes by, by the key of any of its instances; where one is missing, what it would do is not
    /// known and [`crate::Explanation::assumed`] says so.
    pub waypoints: &'a BTreeMap<Uid, Arc<State>>,
    /// Certificates by identity, where they are known. An identity that is missing here is not judged.
    pub certificates: &'a BTreeMap<Identity, Certificate>,
    /// How the proxies are set.
    pub settings: Settings,
}

/// How the proxies are set, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// What to do on the same node.
    pub same_node: SameNode,
    /// What to do with plaintext from a workload that speaks HBONE.
    pub meshed_plaintext: MeshedPlaintext,
}

/// How it stands with a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Certificate {
    /// In force.
    Valid {
        /// Seconds that it is still valid.
        remaining_s: u64,
    },
    /// Past its end.
    Expired,
    /// None was issued yet.
    Missing,
    /// The CA refuses to issue one.
    Refused,
}

static NO_WAYPOINTS: BTreeMap<Uid, Arc<State>> = BTreeMap::new();
static NO_CERTIFICATES: BTreeMap<Identity, Certificate> = BTreeMap::new();

impl<'a> View<'a> {
    /// A view without waypoints and certificates, with proxies as they are set by default.
    pub fn new(snapshot: &'a Snapshot) -> Self {
        let settings = Settings::default();
        Self { snapshot, waypoints: &NO_WAYPOINTS, certificates: &NO_CERTIFICATES, settings }
    }

    /// With what waypoints go by.
    #[must_use]
    pub fn with_waypoints(self, waypoints: &'a BTreeMap<Uid, Arc<State>>) -> Self {
        Self { waypoints, ..self }
    }

    /// With certificates.
    #[must_use]
    pub fn with_certificates(self, certificates: &'a BTreeMap<Identity, Certificate>) -> Self {
        Self { certificates, ..self }
    }

    /// With other settings.
    #[must_use]
    pub fn with_settings(self, settings: Settings) -> Self {
        Self { settings, ..self }
    }
}
