//! Policies that apply to one workload: its own, those of its namespace and of the whole mesh, and those of the
//! waypoints in front of it or of its services.

use std::collections::{BTreeMap, BTreeSet};

use ambit_control::waypoints::resources::{AttachedPolicy, Reach};
use ambit_control::{Index, Name};
use ambit_policy::model::{Policy, Scope};
use ambit_types::{PolicyKey, ServiceKey, Workload};
use serde_json::{Value, json};

use crate::observe::gateway;
use crate::report;

#[cfg(test)]
mod tests;

/// A workload by its name.
pub(super) fn find<'a>(index: &'a Index, namespace: &str, name: &str) -> Option<&'a Workload> {
    let mut all = index.workloads().values().map(|one| &**one);
    all.find(|workload| *workload.namespace == *namespace && *workload.name == *name)
}

/// What applies to a workload: at its ztunnel, the widest first, then at waypoints.
pub(super) fn of(index: &Index, workload: &Workload) -> Vec<Value> {
    let policies = index.policies().values();
    let mut covering: Vec<(u8, Value)> = policies.filter_map(|policy| at_ztunnel(policy, workload)).collect();
    covering.sort_by_key(|(width, _)| *width);
    let own = workload.policies.iter().filter(|key| !index.policies().contains_key(*key));
    let unknown = own.map(|key| json!({ "name": key.to_string(), "at": "ztunnel", "from": "workload" }));
    let covering = covering.into_iter().map(|(_, value)| value);
    covering.chain(unknown).chain(at_waypoints(index, workload)).collect()
}

/// A policy that ztunnel enforces, if it covers the workload, and how wide it is.
fn at_ztunnel(policy: &Policy, workload: &Workload) -> Option<(u8, Value)> {
    let (width, from, covers) = match policy.scope {
        Scope::Global => (0, "mesh", true),
        Scope::Namespace => (1, "namespace", policy.key.namespace == workload.namespace),
        Scope::WorkloadSelector => (2, "workload", workload.policies.contains(&policy.key)),
    };
    covers.then(|| {
        let mut shown = report::policy(policy);
        shown["at"] = json!("ztunnel");
        shown["from"] = json!(from);
        (width, shown)
    })
}

/// Policies of waypoints, each with what of the workload's they guard.
fn at_waypoints(index: &Index, workload: &Workload) -> Vec<Value> {
    let mut gateways: BTreeMap<Name, BTreeSet<&ServiceKey>> = BTreeMap::new();
    if let Some(gateway) = workload.waypoint.as_ref().and_then(gateway) {
        gateways.entry(gateway).or_default();
    }
    for key in workload.services.keys() {
        let Some(service) = index.services().get(key) else { continue };
        let weighted = service.weighted_waypoints.iter().map(|one| &one.destination);
        for gateway in service.waypoint.iter().chain(weighted).filter_map(gateway) {
            gateways.entry(gateway).or_default().insert(key);
        }
    }
    let each = gateways.iter().flat_map(|(gateway, services)| {
        let policies = index.waypoints().get(gateway).into_iter().flat_map(|own| &own.policies);
        let reached = policies.filter(move |(_, attached)| reaches(&attached.reach, services));
        reached.map(move |(key, attached)| shown(gateway, key, attached))
    });
    each.collect()
}

fn reaches(reach: &Reach, services: &BTreeSet<&ServiceKey>) -> bool {
    match reach {
        Reach::All => true,
        Reach::Services(named) => named.iter().any(|key| services.contains(key)),
    }
}

fn shown(gateway: &Name, key: &PolicyKey, attached: &AttachedPolicy) -> Value {
    let (from, services) = match &attached.reach {
        Reach::All => ("waypoint", Vec::new()),
        Reach::Services(named) => ("service", named.iter().map(ToString::to_string).collect()),
    };
    let policy = attached.of.as_ref();
    json!({
        "name": key.to_string(),
        "at": format!("waypoint {gateway}"),
        "from": from,
        "services": services,
        // One that cannot be read lets nothing through where it applies.
        "action": policy.map(|policy| policy.action.to_string()),
        "rules": policy.map(|policy| policy.rules.len()),
        "dry_run": policy.map(|policy| policy.dry_run),
    })
}
