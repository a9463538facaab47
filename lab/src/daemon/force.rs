//! Whether what was asked is in force on every node, and if not, what exactly is missing. Pure.
//!
//! Reads the objects' own status, as anybody could; the control plane's answer is an argument.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::name::LabName;
use crate::store::{Kind, ObjectKey, Snapshot};

mod demand;
mod waypoints;

pub use demand::{Demand, Outlook, Touched};

/// Label by which pods and namespaces ask for the mesh or opt out.
const DATAPLANE_MODE: &str = "istio.io/dataplane-mode";
/// Condition that the node agent writes.
const CAPTURED: &str = "ambit.internal/captured";
/// Condition that the pod's namespace and links are there, as the kubelet names it.
pub const SANDBOX: &str = "PodReadyToStartContainers";
/// Namespaces that are never enrolled.
const EXCLUDED: [&str; 2] = ["istio-system", "kube-system"];

/// What the mesh says about itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Mesh {
    /// The lab runs without one.
    None,
    /// The control plane was stopped by command, so nothing can come into force.
    Stopped,
    /// The control plane does not answer; why.
    Silent(String),
    /// The control plane's `/sync`.
    Sync(Value),
}

/// What is missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Missing {
    /// A sentence each.
    pub what: Vec<String>,
    /// What is no hindrance but worth telling, a sentence each.
    pub remarks: Vec<String>,
    /// Whether waiting cannot help.
    pub hopeless: bool,
}

/// What is looked at, once.
#[derive(Debug, Clone, Copy)]
pub struct Look<'a> {
    /// The lab's name, for commands that are named.
    pub lab: &'a LabName,
    /// The objects.
    pub snapshot: &'a Snapshot,
    /// The control plane.
    pub mesh: &'a Mesh,
    /// Nodes whose proxy runs.
    pub nodes: &'a [String],
    /// What is waited for.
    pub demand: &'a Demand,
}

/// Lists what is missing until revision `wanted` of the objects is in force, as far as it is waited for.
pub fn missing(look: Look<'_>, wanted: u64) -> Missing {
    let Look { lab, snapshot, mesh, nodes: _, demand } = look;
    let mut missing = Missing::default();
    let namespaces: BTreeMap<&str, &Value> =
        snapshot.of_kind(Kind::Namespace).map(|(key, value)| (key.name.as_str(), value)).collect();
    for (key, pod) in snapshot.of_kind(Kind::Pod) {
        let namespace = key.namespace.as_deref().unwrap_or_default();
        let who = format!("pod {namespace}/{}", key.name);
        let waited_for = demand.waits_for(key, pod);
        if deletion(pod).is_some() {
            missing.what.extend(waited_for.then(|| format!("{who} is still ending")));
            continue;
        }
        if waited_for {
            let why = demand.not_reported(pod).or_else(|| not_ready(pod));
            missing.what.extend(why.map(|why| format!("{who} {why}")));
            missing.remarks.extend(failure(pod).map(|why| {
                let logs = lab.command(&format!("logs pod/{namespace}/{}", key.name));
                format!("{who} has failed: {why}; its output: {logs}")
            }));
        }
        if *mesh != Mesh::None && demand.waits_for_capture(key, pod) {
            let labels = namespaces.get(namespace).copied();
            missing.what.extend(capture(pod, namespace, labels).map(|why| format!("{who} {why}")));
        }
    }
    waypoints::addresses(look, &mut missing);
    control_plane(look, wanted, &mut missing);
    missing
}

/// Why a pod does not count as up; none if it does, or if it has finished and will never be up again.
fn not_ready(pod: &Value) -> Option<String> {
    let phase = text(pod, "/status/phase").unwrap_or("Pending");
    if is_finished(pod) || condition(pod, "Ready").is_some_and(|c| status_of(c) == "True") {
        return None;
    }
    let told = why_not_ready(pod);
    Some(format!("is {phase} and not ready{}", told.map(|t| format!(": {t}")).unwrap_or_default()))
}

/// What the conditions say about a pod that is not ready.
fn why_not_ready(pod: &Value) -> Option<String> {
    let reasons = ["Ready", "ContainersReady", "Initialized", "PodScheduled"];
    reasons.iter().filter_map(|name| condition(pod, name)).find_map(|c| {
        let message = text(c, "/message").filter(|m| !m.is_empty())?;
        (status_of(c) != "True").then(|| message.to_owned())
    })
}

/// Whether all containers of a pod have ended for good, well or not.
fn is_finished(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), Some("Succeeded" | "Failed"))
}

/// Why a pod has failed for good; none if it has not.
fn failure(pod: &Value) -> Option<String> {
    let failed = text(pod, "/status/phase") == Some("Failed");
    failed.then(|| why_not_ready(pod).unwrap_or_else(|| "a container ended badly".to_owned()))
}

/// When a pod was told to end.
fn deletion(pod: &Value) -> Option<&str> {
    text(pod, "/metadata/deletionTimestamp")
}

/// Whether a pod has its network namespace, so that it can be captured.
fn has_sandbox(pod: &Value) -> bool {
    condition(pod, SANDBOX).is_some_and(|c| status_of(c) == "True")
}

/// Whether a pod is to be in the mesh, by its labels and its namespace's in that state of the objects.
fn enrolment(objects: &Snapshot, key: &ObjectKey, pod: &Value) -> bool {
    let namespace = key.namespace.as_deref().unwrap_or_default();
    should_be_captured(pod, namespace, objects.find(&ObjectKey::new(Kind::Namespace, None, namespace)))
}

/// Why a pod's capture is not as its labels ask; none if it is.
fn capture(pod: &Value, namespace: &str, namespace_object: Option<&Value>) -> Option<String> {
    let captured = condition(pod, CAPTURED);
    let is_captured = captured.is_some_and(|c| status_of(c) == "True");
    match (should_be_captured(pod, namespace, namespace_object), is_captured) {
        (true, false) => {
            let told = captured.and_then(|c| text(c, "/message")).filter(|m| !m.is_empty());
            let told = told.map_or_else(|| "the node agent has not spoken yet".to_owned(), str::to_owned);
            Some(format!("is labelled for the mesh but not captured: {told}"))
        }
        (false, true) => Some("is not labelled for the mesh any more but still captured".to_owned()),
        (true, true) | (false, false) => None,
    }
}

/// Whether a pod is to be in the mesh, by its labels and its namespace's.
pub fn should_be_captured(pod: &Value, namespace: &str, namespace_object: Option<&Value>) -> bool {
    let mode = |object: &Value| {
        labels(object).and_then(|l| l.get(DATAPLANE_MODE)).and_then(Value::as_str).map(str::to_owned)
    };
    let asked = match mode(pod).as_deref() {
        Some("ambient") => true,
        Some("none") => false,
        Some(_) | None => namespace_object.and_then(mode).as_deref() == Some("ambient"),
    };
    let host_network = pod.pointer("/spec/hostNetwork").and_then(Value::as_bool).unwrap_or(false);
    let sidecar =
        pod.pointer("/metadata/annotations").and_then(|a| a.get("sidecar.istio.io/status")).is_some();
    asked && !host_network && !is_finished(pod) && !sidecar && !EXCLUDED.contains(&namespace)
}

/// Whether the node agent says that a pod is captured.
pub fn is_captured(pod: &Value) -> bool {
    condition(pod, CAPTURED).is_some_and(|c| status_of(c) == "True")
}

fn control_plane(look: Look<'_>, wanted: u64, missing: &mut Missing) {
    match look.mesh {
        Mesh::None => {}
        Mesh::Stopped => {
            // Only worth saying alone: what pods lack may still come.
            missing.hopeless = missing.what.is_empty();
            let start = look.lab.command("start istiod");
            missing.what.push(format!("istiod is stopped; start it with: {start}"));
        }
        Mesh::Silent(why) => missing.what.push(format!("istiod does not answer: {why}")),
        Mesh::Sync(sync) => {
            acknowledged(sync, wanted, look.nodes, missing);
            waypoints::acknowledged(look.snapshot, sync, wanted, missing);
        }
    }
}

fn acknowledged(sync: &Value, wanted: u64, nodes: &[String], missing: &mut Missing) {
    let number = |value: &Value, key: &str| value.get(key).and_then(Value::as_u64).unwrap_or(0);
    let revision = number(sync, "revision");
    if revision < wanted {
        missing.what.push(format!("istiod has read revision {revision} of {wanted}"));
    }
    let entries = sync.get("nodes").and_then(Value::as_array);
    for node in nodes {
        let mut entries = entries.into_iter().flatten();
        let entry = entries.find(|e| e.get("node").and_then(Value::as_str) == Some(node));
        let entry = entry.filter(|e| e.get("connected").and_then(Value::as_bool) == Some(true));
        let Some(entry) = entry else {
            missing.what.push(format!("ztunnel/{node} is not connected to the control plane"));
            continue;
        };
        let acked = number(entry, "acked_revision");
        if acked < wanted {
            missing.what.push(format!("{node} has acknowledged revision {acked} of {wanted}"));
        }
        for refused in entry.get("rejected").and_then(Value::as_array).into_iter().flatten() {
            let told = |key: &str| text(refused, key).unwrap_or_default().to_owned();
            missing.what.push(format!(
                "{node} refuses {} {}: {}",
                told("/kind"),
                told("/name"),
                told("/reason")
            ));
        }
    }
}

/// What the control plane finds wrong although it reads, a line each.
pub fn warnings(mesh: &Mesh) -> Vec<String> {
    let Mesh::Sync(sync) = mesh else { return Vec::new() };
    let problems = sync.get("problems").and_then(Value::as_array).into_iter().flatten();
    problems.filter_map(|p| text(p, "/text").map(str::to_owned)).collect()
}

/// A condition of an object's status, by its type.
pub fn condition<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array)?;
    conditions.iter().find(|c| text(c, "/type") == Some(name))
}

fn status_of(condition: &Value) -> &str {
    text(condition, "/status").unwrap_or("Unknown")
}

fn labels(object: &Value) -> Option<&serde_json::Map<String, Value>> {
    object.pointer("/metadata/labels").and_then(Value::as_object)
}

fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str)
}

#[cfg(test)]
mod tests;
