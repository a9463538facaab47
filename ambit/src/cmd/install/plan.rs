//! What an installation would change: the objects in the order in which they are written, and how each differs from
//! what is there. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::bundle::PART_OF;

#[cfg(test)]
mod tests;

/// Longest text of one value in a plan.
const VALUE_CHARS_MAX: usize = 60;
/// What an API server or a controller writes into every object, and no plan is about.
const NOT_OURS: &[&str] =
    &["managedFields", "resourceVersion", "generation", "creationTimestamp", "uid", "selfLink"];
/// The same among annotations.
const NOT_OURS_ANNOTATIONS: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    "deployment.kubernetes.io/revision",
    "deprecated.daemonset.template.generation",
];

/// A step of an installation; each is complete before the next begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Namespace and definitions, on which all else stands.
    Ground,
    /// Accounts, rights, what may reach whom.
    Rights,
    /// The control plane: its new replicas serve before the old ones go.
    ControlPlane,
    /// What only makes sense with a control plane.
    Around,
    /// The node agents, one node's after the other's.
    Agents,
    /// The ztunnels, each new one beside the old.
    Tunnels,
}

impl Stage {
    /// In a word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ground => "ground",
            Self::Rights => "rights",
            Self::ControlPlane => "control-plane",
            Self::Around => "around",
            Self::Agents => "agents",
            Self::Tunnels => "ztunnels",
        }
    }

    /// Where an object belongs.
    pub(crate) fn of(object: &Value) -> Self {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        match (text("/kind"), text("/metadata/name")) {
            ("Namespace" | "CustomResourceDefinition", _) => Self::Ground,
            ("Deployment" | "Service" | "PodDisruptionBudget" | "HorizontalPodAutoscaler", _) => {
                Self::ControlPlane
            }
            ("DaemonSet", "ztunnel") => Self::Tunnels,
            ("DaemonSet", _) => Self::Agents,
            ("GatewayClass" | "ValidatingWebhookConfiguration" | "PodMonitor", _) => Self::Around,
            _ => Self::Rights,
        }
    }
}

/// What becomes of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is not there yet.
    Create,
    /// It is there, and differs in these fields.
    Update(Vec<Difference>),
    /// It is there as it should be.
    Keep,
    /// It is there and somebody else's, who keeps it: definitions and the like serve as well.
    Leave,
    /// It is there and somebody else's, and cannot be shared.
    Clash,
    /// It is ours and not wanted any more.
    Remove,
}

impl Change {
    /// In a word.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update(_) => "change",
            Self::Keep => "keep",
            Self::Leave => "leave",
            Self::Clash => "clash",
            Self::Remove => "remove",
        }
    }
}

/// One field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Its path, such as `spec.template.spec.containers[ztunnel].image`.
    pub(crate) path: String,
    /// Its value; none if it is not there.
    pub(crate) before: Option<String>,
    /// What it becomes; none if it goes.
    pub(crate) after: Option<String>,
}

/// What becomes of an object of which `live` is there and `would` is what an apply makes of it.
pub(crate) fn change(wanted: &Value, live: Option<&Value>, would: Option<&Value>) -> Change {
    let Some(live) = live else { return Change::Create };
    if !is_ours(live) {
        match wanted["kind"].as_str().unwrap_or_default() {
            // A namespace that somebody made is taken in; labels are all that is added.
            "Namespace" => {}
            "CustomResourceDefinition" | "GatewayClass" => return Change::Leave,
            _ => return Change::Clash,
        }
    }
    let found = would.map(|would| differences(live, would)).unwrap_or_default();
    if found.is_empty() { Change::Keep } else { Change::Update(found) }
}

/// The object as it is to be written over `live`: what a webhook does in our absence is the control plane's to say once it
/// leads, and an upgrade does not open what it closed.
pub(crate) fn over(wanted: &Value, live: &Value) -> Value {
    let mut wanted = wanted.clone();
    if wanted["kind"] != "ValidatingWebhookConfiguration" || !is_ours(live) {
        return wanted;
    }
    let found = live["webhooks"].as_array().map(Vec::as_slice).unwrap_or_default();
    for webhook in wanted.get_mut("webhooks").and_then(Value::as_array_mut).into_iter().flatten() {
        let policy = found.iter().find(|one| one["name"] == webhook["name"]).map(|one| &one["failurePolicy"]);
        if let Some(policy) = policy.filter(|policy| policy.is_string()) {
            webhook["failurePolicy"] = policy.clone();
        }
    }
    wanted
}

/// Whether an object says that it is part of an installation of ours.
pub(crate) fn is_ours(object: &Value) -> bool {
    object["metadata"]["labels"][PART_OF.0] == PART_OF.1
}

/// What restarts because of a change, in words; nothing for most.
pub(crate) fn restarts(object: &Value, change: &Change) -> Option<&'static str> {
    let Change::Update(found) = change else { return None };
    if !found.iter().any(|difference| difference.path.starts_with("spec.template")) {
        return None;
    }
    Some(match Stage::of(object) {
        Stage::ControlPlane => {
            "each replica, after a new one serves; proxies reconnect, traffic does not notice"
        }
        Stage::Agents => {
            "the agent of each node, one node at a time; captured pods stay captured, new pods wait"
        }
        Stage::Tunnels => {
            "the ztunnel of each node, one node at a time; the new one takes over, open connections have the grace period"
        }
        Stage::Ground | Stage::Rights | Stage::Around => return None,
    })
}

/// The fields in which two versions of an object differ, by path; what no plan is about is left out.
pub(crate) fn differences(live: &Value, would: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(String::new(), Some(&plain(live)), Some(&plain(would)), &mut found);
    found
}

fn plain(object: &Value) -> Value {
    let mut object = object.clone();
    object.as_object_mut().map(|all| all.remove("status"));
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        NOT_OURS.iter().for_each(|name| {
            metadata.remove(*name);
        });
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.retain(|name, _| !NOT_OURS_ANNOTATIONS.contains(&name.as_str()));
            if annotations.is_empty() {
                metadata.remove("annotations");
            }
        }
    }
    object
}

fn compare(path: String, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<Difference>) {
    if before == after {
        return;
    }
    match (before.map(by_name), after.map(by_name)) {
        (Some(Some(before)), Some(Some(after))) => {
            let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
            names.sort();
            names.dedup();
            for name in names {
                let below = match (path.is_empty(), name.starts_with('[')) {
                    (true, _) => name.clone(),
                    (false, true) => format!("{path}{name}"),
                    (false, false) => format!("{path}.{name}"),
                };
                compare(below, before.get(name).copied(), after.get(name).copied(), found);
            }
        }
        _ => found.push(Difference { path, before: before.map(shown), after: after.map(shown) }),
    }
}

/// The members of a map, or the elements of a list, by name where they have one.
fn by_name(value: &Value) -> Option<BTreeMap<String, &Value>> {
    match value {
        Value::Object(map) if !map.is_empty() => Some(map.iter().map(|(k, v)| (k.clone(), v)).collect()),
        Value::Array(list) if !list.is_empty() => {
            let named: BTreeMap<String, &Value> = list
                .iter()
                .filter_map(|one| Some((format!("[{}]", one.get("name")?.as_str()?), one)))
                .collect();
            if named.len() == list.len() {
                return Some(named);
            }
            Some(list.iter().enumerate().map(|(i, one)| (format!("[{i}]"), one)).collect())
        }
        Value::Object(_)
        | Value::Array(_)
        | Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_) => None,
    }
}

fn shown(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if text.chars().count() <= VALUE_CHARS_MAX {
        return text;
    }
    let mut text: String = text.chars().take(VALUE_CHARS_MAX).collect();
    text.push('…');
    text
}

/// Why a workload is not rolled out yet; none if it is.
pub(crate) fn pending(object: &Value) -> Option<String> {
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    if number("/status/observedGeneration") < number("/metadata/generation") {
        return Some("the controller has not seen it yet".to_owned());
    }
    let (wanted, updated, available) = match object["kind"].as_str() {
        Some("DaemonSet") => (
            number("/status/desiredNumberScheduled"),
            number("/status/updatedNumberScheduled"),
            number("/status/numberAvailable"),
        ),
        _ => (
            object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1),
            number("/status/updatedReplicas"),
            number("/status/availableReplicas"),
        ),
    };
    let is_done = updated >= wanted && available >= wanted;
    (!is_done).then(|| format!("{updated} of {wanted} are new, {available} available"))
}
