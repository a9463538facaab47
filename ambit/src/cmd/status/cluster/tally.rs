//! Pods counted one by one: which are to be captured, which are, and what of the mesh runs on each node. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::tag;
use crate::cmd::waypoint::facts::pod_rows;

/// Label that asks for the mesh, or opts out.
pub(super) const MODE: &str = "istio.io/dataplane-mode";
/// Its value that asks.
pub(super) const AMBIENT: &str = "ambient";
/// Its value that opts out.
const NONE: &str = "none";
/// Annotation of an injector of sidecars: such a pod is never captured.
const SIDECAR: &str = "sidecar.istio.io/status";
/// The namespace that the node agent never enrols.
const EXCLUDED: &str = "kube-system";
/// The condition by which the node agent says whether a pod is captured.
const CAPTURED: &str = "ambit.internal/captured";
/// By this label the mesh's own pods are known.
const NAME: &str = "app.kubernetes.io/name";
/// What runs on every node.
const ZTUNNEL: &str = "ztunnel";
const AGENT: &str = "ambit-cni";
/// Pods that are named one by one.
const MISSING_MAX: usize = 100;

/// What one node has.
#[derive(Debug, Default)]
struct OnNode {
    expected: usize,
    captured: usize,
    /// Versions of ztunnels, and whether one is ready.
    versions: BTreeSet<String>,
    ztunnel: Option<bool>,
    agent: Option<bool>,
}

/// The count.
#[derive(Debug)]
pub(super) struct Tally {
    root_namespace: String,
    enrolled: BTreeSet<String>,
    nodes: BTreeMap<String, OnNode>,
    waypoints: Vec<Value>,
    missing: Vec<Value>,
}

impl Tally {
    /// Nothing counted yet: of the control plane's namespace, the namespaces of the mesh, and the nodes there are.
    pub(super) fn new(root_namespace: &str, enrolled: BTreeSet<String>, nodes: BTreeSet<String>) -> Self {
        Self {
            root_namespace: root_namespace.to_owned(),
            enrolled,
            nodes: nodes.into_iter().map(|node| (node, OnNode::default())).collect(),
            waypoints: Vec::new(),
            missing: Vec::new(),
        }
    }

    /// Counts a pod.
    pub(super) fn take(&mut self, pod: &Value) {
        self.waypoints.extend(pod_rows(std::slice::from_ref(pod), &Value::Null));
        let Some(node) = pod.pointer("/spec/nodeName").and_then(Value::as_str) else { return };
        let is_expected = self.is_expected(pod);
        let is_captured = condition(pod, CAPTURED).is_some_and(|one| one["status"] == "True");
        let is_own = pod["metadata"]["namespace"] == *self.root_namespace;
        let on = self.nodes.entry(node.to_owned()).or_default();
        if is_own {
            on.add_own(pod);
        }
        if !is_expected {
            return;
        }
        on.expected += 1;
        on.captured += usize::from(is_captured);
        if !is_captured && self.missing.len() < MISSING_MAX {
            self.missing.push(missing(pod, node));
        }
    }

    /// Whether a pod is to be captured, as the node agent decides it.
    fn is_expected(&self, pod: &Value) -> bool {
        let metadata = &pod["metadata"];
        let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str);
        let namespace = text("/metadata/namespace").unwrap_or_default();
        let is_on_node = pod["spec"]["hostNetwork"] == true;
        let has_ended = matches!(text("/status/phase"), Some("Succeeded" | "Failed"));
        let is_going = !metadata["deletionTimestamp"].is_null();
        let has_sidecar = !metadata["annotations"][SIDECAR].is_null();
        if is_on_node || has_ended || is_going || has_sidecar || namespace == EXCLUDED {
            return false;
        }
        match metadata["labels"][MODE].as_str() {
            Some(AMBIENT) => true,
            Some(NONE) => false,
            Some(_) | None => self.enrolled.contains(namespace),
        }
    }

    /// The rows: nodes, pods of waypoints, and pods that are not captured and should be.
    pub(super) fn rows(self) -> (Vec<Value>, Vec<Value>, Vec<Value>) {
        let nodes = self.nodes.iter().map(|(name, on)| on.row(name)).collect();
        (nodes, self.waypoints, self.missing)
    }
}

impl OnNode {
    /// One of the mesh's own pods.
    fn add_own(&mut self, pod: &Value) {
        let ready = condition(pod, "Ready").is_some_and(|one| one["status"] == "True");
        let one = match pod["metadata"]["labels"][NAME].as_str() {
            Some(ZTUNNEL) => {
                let image = pod.pointer("/spec/containers/0/image").and_then(Value::as_str);
                self.versions.extend(image.and_then(tag).map(str::to_owned));
                &mut self.ztunnel
            }
            Some(AGENT) => &mut self.agent,
            Some(_) | None => return,
        };
        // While one replaces another there are two, of which one serves.
        *one = Some(one.unwrap_or(false) || ready);
    }

    fn row(&self, name: &str) -> Value {
        let ready = match (self.ztunnel, self.agent) {
            (None, None) => None,
            (ztunnel, agent) => Some(ztunnel == Some(true) && agent == Some(true)),
        };
        let versions: Vec<&str> = self.versions.iter().map(String::as_str).collect();
        json!({
            "node": name,
            "version": (!versions.is_empty()).then(|| versions.join(",")),
            "ready": ready,
            "synced": null,
            "state": null,
            "captured": self.captured,
            "expected": self.expected,
            "certificates_valid": null,
            "certificates": null,
            "selftest": null,
            "rejected": [],
        })
    }
}

fn missing(pod: &Value, node: &str) -> Value {
    let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let why = condition(pod, CAPTURED);
    // Of what the agent has said nothing, nothing is known.
    let word = |key: &str| why.and_then(|one| one[key].as_str()).map(str::to_owned);
    json!({
        "pod": format!("{}/{}", text("/metadata/namespace"), text("/metadata/name")),
        "node": node,
        "reason": word("reason"),
        "message": word("message").or_else(|| Some("the node agent has not said anything of it".to_owned())),
    })
}

fn condition<'a>(pod: &'a Value, of: &str) -> Option<&'a Value> {
    let mut all = pod.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    all.find(|one| one["type"] == of)
}
