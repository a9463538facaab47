//! What only the leader of several control planes needs: which waypoints to make and how they are, what to write into
//! the status of objects, and which namespaces need the roots of the mesh.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ambit_types::Str;

use super::Index;
use super::inputs::is_asking;
use crate::input::{Gateway, Key, Kind, Name};
use crate::status::{ACCEPTED, Condition, Note, PARTIALLY_INVALID, Report, Standing, ZTUNNEL_ACCEPTED};
use crate::waypoints::{gateway, report};

/// How a waypoint that was made is now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// Whether the Service with the Gateway's name is there.
    pub has_service: bool,
    /// Addresses of that Service.
    pub addresses: Vec<IpAddr>,
    /// Whether one of its endpoints is ready.
    pub is_ready: bool,
}

impl Index {
    /// Gateways that are waypoints, whoever makes them.
    pub fn waypoint_gateways(&self) -> impl Iterator<Item = &Gateway> {
        let gateways = self.inputs.gateways.entries().map(|(_, gateway)| gateway);
        gateways.filter(|gateway| gateway::is_waypoint(&self.inputs, gateway))
    }

    /// How a waypoint is, by its Service and the endpoints of that.
    pub fn waypoint_health(&self, name: &Name) -> Health {
        let service = self.inputs.services.named(name);
        let slices = self.inputs.slices.in_namespace(&name.namespace);
        let mut endpoints =
            slices.filter(|slice| slice.service == name.name).flat_map(|slice| &slice.endpoints);
        Health {
            has_service: service.is_some(),
            addresses: service.map(|of| of.cluster_ips.clone()).unwrap_or_default(),
            is_ready: endpoints.any(|endpoint| endpoint.ready),
        }
    }

    /// The controller of a gateway class, if there is such a class.
    pub fn class_controller(&self, class: &str) -> Option<&Str> {
        self.inputs.gateway_classes.named(&Name::new("", class)).map(|class| &class.controller)
    }

    /// Namespaces whose pods need the roots of the mesh: those that ask for it, or have pods that do, and those of
    /// waypoints.
    pub fn meshed_namespaces(&self) -> BTreeSet<Str> {
        let labelled = self.inputs.namespaces.entries().filter(|(_, of)| is_asking(&of.labels));
        let asking = labelled.map(|(name, _)| &name.name).chain(self.inputs.namespaces_asking());
        let waypoints = self.waypoint_gateways().map(|gateway| &gateway.name.namespace);
        asking.chain(waypoints).cloned().collect()
    }

    /// What to write into the status of every object but the gateways: reports, and what became of objects that have
    /// none.
    pub fn conditions(&self) -> BTreeMap<Key, Arc<Report>> {
        // Gateways are told more than this, and a ConfigMap has no status.
        let is_ours = |key: &Key| !matches!(key.kind, Kind::Gateway | Kind::MeshConfig);
        let reports = self.reports().iter().filter(|(key, _)| is_ours(key));
        let mut all: BTreeMap<Key, Arc<Report>> =
            reports.map(|(key, report)| (key.clone(), report.clone())).collect();
        for (name, policy) in self.inputs.authorization_policies.entries() {
            let key = Key::new(Kind::AuthorizationPolicy, name.clone());
            if let Some(standing) = self.standings.get(&key) {
                let conditions = of_node_policy(standing);
                let report = Report { generation: policy.generation, conditions, parents: Vec::new() };
                all.insert(key, Arc::new(report));
            }
        }
        for (name, entry) in self.inputs.service_entries.entries() {
            let key = Key::new(Kind::ServiceEntry, name.clone());
            let bound = report::of_entry(&self.inputs, entry);
            let mut conditions = bound.map(|report| report.conditions).unwrap_or_default();
            conditions.extend(self.standings.get(&key).and_then(fault));
            if !conditions.is_empty() {
                let report = Report { generation: entry.generation, conditions, parents: Vec::new() };
                all.insert(key, Arc::new(report));
            }
        }
        for (name, _) in self.inputs.peer_authentications.entries() {
            let key = Key::new(Kind::PeerAuthentication, name.clone());
            if let Some(fault) = self.standings.get(&key).and_then(fault) {
                let report = Report { generation: 0, conditions: vec![fault], parents: Vec::new() };
                all.insert(key, Arc::new(report));
            }
        }
        all
    }
}

/// Conditions of a policy that nodes enforce. One that is stricter than written is in force, and says so twice: those
/// who look for what is not true would pass over it otherwise.
fn of_node_policy(standing: &Standing) -> Vec<Condition> {
    match standing {
        Standing::Accepted => vec![Condition::holds(ZTUNNEL_ACCEPTED, "Accepted", "attached to ztunnel")],
        Standing::Degraded(notes) => {
            let words = format!("attached to ztunnel, stricter than written: {}", joined(notes));
            let degraded = Condition::holds(ZTUNNEL_ACCEPTED, "UnsupportedValue", words);
            [Some(degraded), fault(standing)].into_iter().flatten().collect()
        }
        Standing::NotEnforced(note) => {
            vec![Condition::fails(ZTUNNEL_ACCEPTED, "UnsupportedValue", note.to_string())]
        }
    }
}

/// The condition of an object that is not in force as written; nothing if it is.
fn fault(standing: &Standing) -> Option<Condition> {
    match standing {
        Standing::Accepted => None,
        Standing::Degraded(notes) => {
            Some(Condition::holds(PARTIALLY_INVALID, "UnsupportedValue", joined(notes)))
        }
        Standing::NotEnforced(note) => Some(Condition::fails(ACCEPTED, "UnsupportedValue", note.to_string())),
    }
}

fn joined(notes: &[Note]) -> String {
    notes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
