//! Labels that contradict each other or name what is not there, and workloads that nothing protects.

use super::world::{MODE, ROOT, USE_WAYPOINT, WAYPOINT_NAMESPACE, World, label_of, matches_labels};
use super::{Finding, Scope, Severity, finding};

pub(super) fn check(world: &World<'_>, at: usize, findings: &mut Vec<Finding>) {
    let item = &world.items[at];
    if item.kind == "Namespace" || item.kind == "Service" {
        waypoint(world, at, findings);
    }
    if item.kind == "Namespace" {
        sidecars(at, &item.body["metadata"], "metadata", findings);
    }
    if let Some(workload) = world.workload_of(at) {
        sidecars(at, workload.metadata, workload.path, findings);
        host_network(world, workload, findings);
        uncovered(world, workload, findings);
    }
}

/// Both kinds of mesh on one object.
fn sidecars(at: usize, metadata: &serde_json::Value, path: &str, findings: &mut Vec<Finding>) {
    if label_of(metadata, MODE) != Some("ambient") {
        return;
    }
    let marks = [("istio-injection", "enabled"), ("sidecar.istio.io/inject", "true")];
    let marked = marks.into_iter().find(|(label, value)| label_of(metadata, label) == Some(*value));
    if let Some((label, _)) = marked {
        let message = format!("{label} asks for a sidecar and {MODE} for the mesh of nodes; only one can be");
        let fix = format!("take {label} or {MODE} away");
        let path = format!("{path}.labels[{label}]");
        findings.push(finding("AMB1002", Severity::Error, (at, path), message, fix).also(&["KIA1311"]));
    }
}

/// A waypoint that is asked for and is not there, or is asked for by what is not in the mesh.
fn waypoint(world: &World<'_>, at: usize, findings: &mut Vec<Finding>) {
    let item = &world.items[at];
    let metadata = &item.body["metadata"];
    let Some(name) = label_of(metadata, USE_WAYPOINT).filter(|name| !name.is_empty() && *name != "none")
    else {
        return;
    };
    let own = if item.kind == "Namespace" { item.name } else { item.namespace };
    let namespace = label_of(metadata, WAYPOINT_NAMESPACE).unwrap_or(own);
    let path = format!("metadata.labels[{USE_WAYPOINT}]");
    if world.scope == Scope::Whole && !world.is_waypoint(namespace, name) {
        let message = format!("there is no waypoint {namespace}/{name}: what asks for it is refused");
        let fix = format!("ambit waypoint apply -n {namespace} --name {name}, or take the label away");
        let made = finding("AMB3101", Severity::Error, (at, path.clone()), message, fix);
        findings.push(made.also(&["KIA1313"]));
    }
    let mode = world.label_of_namespace(own, MODE);
    let members = world.workloads(own);
    let is_out = mode != Some("ambient") && !members.iter().any(|one| world.is_enrolled(one));
    if world.scope == Scope::Whole && is_out {
        let message = format!("a waypoint is asked for, but namespace {own} is not in the mesh");
        let fix = format!("ambit enroll ns {own}");
        findings.push(finding("KIA1312", Severity::Warning, (at, path), message, fix));
    }
}

fn host_network(world: &World<'_>, workload: &super::world::Workload<'_>, findings: &mut Vec<Finding>) {
    let mode =
        label_of(workload.metadata, MODE).or_else(|| world.label_of_namespace(workload.namespace, MODE));
    if mode == Some("ambient") && workload.spec["hostNetwork"] == true {
        let message = "it has the node's network, so that it cannot be in the mesh";
        let fix = "record the exception with the label istio.io/dataplane-mode=none";
        findings.push(finding("AMB1001", Severity::Info, (workload.item, workload.path), message, fix));
    }
}

/// A workload of the mesh that every identity may call.
fn uncovered(world: &World<'_>, workload: &super::world::Workload<'_>, findings: &mut Vec<Finding>) {
    if world.scope == Scope::Part || !world.is_enrolled(workload) {
        return;
    }
    let covers = |item: &super::Item<'_>| {
        let spec = &item.body["spec"];
        let is_for = item.namespace == workload.namespace || item.namespace == ROOT;
        let targets = !spec["targetRef"].is_null() || spec["targetRefs"].is_array();
        is_for && !targets && matches_labels(&spec["selector"]["matchLabels"], workload.metadata)
    };
    if !world.of_kind("AuthorizationPolicy").any(covers) {
        let message = "no AuthorizationPolicy covers it: whoever reaches it may connect";
        let fix = format!("ambit policy suggest -n {}", workload.namespace);
        findings.push(finding("KIA1301", Severity::Info, (workload.item, workload.path), message, fix));
    }
}
