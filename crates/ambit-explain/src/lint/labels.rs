//! Labels that contradict each other, and workloads that nothing protects.

use serde_json::Value;

use super::world::{MODE, ROOT, SIDECAR_STATUS, Workload, World, annotation_of, label_of, matches_labels};
use super::{Finding, Scope, Severity, finding};

/// Asks for a sidecar, as a label or an annotation.
const INJECT: &str = "sidecar.istio.io/inject";
/// Annotation that the node agent leaves on a pod that is captured.
const REDIRECTION: &str = "ambient.istio.io/redirection";

pub(super) fn check(world: &World<'_>, at: usize, findings: &mut Vec<Finding>) {
    let item = &world.items[at];
    if item.kind == "Namespace" {
        both_marks(at, &item.body["metadata"], findings);
    }
    if let Some(workload) = world.workload_of(at) {
        sidecar(world, workload, findings);
        host_network(world, workload, findings);
        uncovered(world, workload, findings);
    }
}

/// Both kinds of mesh on one namespace.
fn both_marks(at: usize, metadata: &Value, findings: &mut Vec<Finding>) {
    if label_of(metadata, MODE) != Some("ambient") {
        return;
    }
    let marks = [("istio-injection", "enabled"), (INJECT, "true")];
    let marked = marks.into_iter().find(|(label, value)| label_of(metadata, label) == Some(*value));
    if let Some((label, _)) = marked {
        let path = format!("metadata.labels[{label}]");
        findings.push(contradiction((at, path), label, Severity::Error).also(&["KIA1311"]));
    }
}

/// A sidecar, or a wish for one, in a pod of the mesh.
fn sidecar<'a>(world: &World<'a>, workload: &Workload<'a>, findings: &mut Vec<Finding>) {
    let Workload { item, metadata, path, .. } = *workload;
    if world.mode(workload) != Some("ambient") {
        return;
    }
    let is_own = label_of(metadata, MODE) == Some("ambient");
    let is_injected = annotation_of(metadata, SIDECAR_STATUS).is_some();
    let mark = if is_injected {
        Some(("annotations", SIDECAR_STATUS))
    } else if label_of(metadata, INJECT) == Some("true") {
        Some(("labels", INJECT))
    } else if annotation_of(metadata, INJECT) == Some("true") {
        Some(("annotations", INJECT))
    } else {
        None
    };
    let Some((map, mark)) = mark else { return };
    // The node agent goes by the sidecar that is there; a wish for one is honoured by nobody here.
    let severity = if is_own || is_injected { Severity::Error } else { Severity::Warning };
    let is_captured = annotation_of(metadata, REDIRECTION) == Some("enabled");
    let also: &[&str] = match (is_own, is_captured) {
        (true, false) => &["KIA1311", "KIA1315"],
        (true, true) => &["KIA1311", "KIA1314", "KIA1315"],
        (false, false) => &["KIA1316"],
        (false, true) => &["KIA1314", "KIA1316"],
    };
    findings.push(contradiction((item, format!("{path}.{map}[{mark}]")), mark, severity).also(also));
}

fn contradiction(at: (usize, String), mark: &str, severity: Severity) -> Finding {
    let message = format!("{mark} stands for a sidecar and {MODE} for the mesh of nodes; only one can be");
    finding("AMB1002", severity, at, message, format!("take {mark} or {MODE} away"))
}

fn host_network<'a>(world: &World<'a>, workload: &Workload<'a>, findings: &mut Vec<Finding>) {
    if world.mode(workload) == Some("ambient") && workload.spec["hostNetwork"] == true {
        let message = "it has the node's network, so that it cannot be in the mesh";
        let fix = "record the exception with the label istio.io/dataplane-mode=none";
        findings.push(finding("AMB1001", Severity::Info, (workload.item, workload.path), message, fix));
    }
}

/// A workload of the mesh that every identity may call.
fn uncovered<'a>(world: &World<'a>, workload: &Workload<'a>, findings: &mut Vec<Finding>) {
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
