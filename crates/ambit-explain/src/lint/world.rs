//! The objects by what the checks ask of them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::unsupported::is_not_honoured;
use super::{Item, Scope};

/// Label that says whether something is in the mesh.
pub(super) const MODE: &str = "istio.io/dataplane-mode";
/// Label that names a waypoint.
pub(super) const USE_WAYPOINT: &str = "istio.io/use-waypoint";
/// Label that says which namespace the named waypoint is in.
pub(super) const WAYPOINT_NAMESPACE: &str = "istio.io/use-waypoint-namespace";
/// Classes of gateways that are waypoints.
const WAYPOINT_CLASSES: [&str; 2] = ["istio-waypoint", "ambit-waypoint"];
/// Namespace whose policies hold for the whole mesh.
pub(super) const ROOT: &str = "istio-system";

/// A pod, or what a controller makes pods of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Workload<'a> {
    /// Place of the object that has it.
    pub(super) item: usize,
    /// Its namespace.
    pub(super) namespace: &'a str,
    /// Its name.
    pub(super) name: &'a str,
    /// Its metadata.
    pub(super) metadata: &'a Value,
    /// Its spec.
    pub(super) spec: &'a Value,
    /// Path of its metadata in that object.
    pub(super) path: &'static str,
}

/// The objects.
pub(super) struct World<'a> {
    pub(super) items: &'a [Item<'a>],
    pub(super) scope: Scope,
    names: BTreeSet<(&'a str, &'a str, &'a str)>,
    by_name: BTreeMap<(&'a str, &'a str, &'a str), &'a Value>,
    of_kind: BTreeMap<&'a str, Vec<&'a Item<'a>>>,
    /// By namespace, each list in the order of the objects.
    workloads: BTreeMap<&'a str, Vec<Workload<'a>>>,
}

impl<'a> World<'a> {
    pub(super) fn new(items: &'a [Item<'a>], scope: Scope) -> Self {
        let key = |item: &Item<'a>| (item.kind, item.namespace, item.name);
        let mut workloads: BTreeMap<&str, Vec<Workload<'a>>> = BTreeMap::new();
        let mut of_kind: BTreeMap<&str, Vec<&'a Item<'a>>> = BTreeMap::new();
        // What is not honoured is nobody's waypoint, though it may have the kind and name of one.
        let honoured = || items.iter().enumerate().filter(|(_, item)| !is_not_honoured(item));
        for (at, item) in honoured() {
            of_kind.entry(item.kind).or_default().push(item);
            if let Some(workload) = workload(at, item) {
                workloads.entry(item.namespace).or_default().push(workload);
            }
        }
        Self {
            items,
            scope,
            names: honoured().map(|(_, item)| key(item)).collect(),
            by_name: honoured().map(|(_, item)| (key(item), item.body)).collect(),
            of_kind,
            workloads,
        }
    }

    /// The objects of a kind.
    pub(super) fn of_kind(&self, kind: &str) -> impl Iterator<Item = &'a Item<'a>> {
        self.of_kind.get(kind).into_iter().flatten().copied()
    }

    /// What the object at a place has as pods.
    pub(super) fn workload_of(&self, at: usize) -> Option<&Workload<'a>> {
        let all = self.workloads(self.items[at].namespace);
        all.binary_search_by_key(&at, |one| one.item).ok().map(|place| &all[place])
    }

    /// Whether something is certainly not there.
    pub(super) fn is_missing(&self, kind: &str, namespace: &str, name: &str) -> bool {
        self.scope == Scope::Whole && !self.names.contains(&(kind, namespace, name))
    }

    pub(super) fn object(&self, kind: &str, namespace: &str, name: &str) -> Option<&'a Value> {
        self.by_name.get(&(kind, namespace, name)).copied()
    }

    /// Pods and what pods are made of in a namespace.
    pub(super) fn workloads(&self, namespace: &str) -> &[Workload<'a>] {
        self.workloads.get(namespace).map_or(&[], Vec::as_slice)
    }

    /// A label of a namespace.
    pub(super) fn label_of_namespace(&self, namespace: &str, label: &str) -> Option<&'a str> {
        label_of(&self.object("Namespace", "", namespace)?["metadata"], label)
    }

    /// Whether a workload is in the mesh: its own label before that of its namespace.
    pub(super) fn is_enrolled(&self, workload: &Workload<'_>) -> bool {
        let own = label_of(workload.metadata, MODE);
        let mode = own.or_else(|| self.label_of_namespace(workload.namespace, MODE));
        mode == Some("ambient") && workload.spec["hostNetwork"] != true && !is_waypoint_pod(workload)
    }

    /// The waypoint that a service asks for, as namespace and name.
    pub(super) fn waypoint_of<'n>(&self, namespace: &'n str, service: &str) -> Option<(&'n str, &'n str)>
    where
        'a: 'n,
    {
        let own = self.object("Service", namespace, service)?;
        let name = label_of(&own["metadata"], USE_WAYPOINT);
        let (name, metadata) = match name {
            Some(name) => (name, &own["metadata"]),
            None => {
                let of = self.object("Namespace", "", namespace)?;
                (label_of(&of["metadata"], USE_WAYPOINT)?, &of["metadata"])
            }
        };
        let of = label_of(metadata, WAYPOINT_NAMESPACE).unwrap_or(namespace);
        (!name.is_empty() && name != "none").then_some((of, name))
    }

    /// Whether a Gateway is there and a waypoint.
    pub(super) fn is_waypoint(&self, namespace: &str, name: &str) -> bool {
        let class =
            self.object("Gateway", namespace, name).and_then(|g| g["spec"]["gatewayClassName"].as_str());
        class.is_some_and(|class| WAYPOINT_CLASSES.contains(&class))
    }
}

fn workload<'a>(at: usize, item: &Item<'a>) -> Option<Workload<'a>> {
    let (metadata, spec, path) = match item.kind {
        "Pod" => (&item.body["metadata"], &item.body["spec"], "metadata"),
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "ReplicationController" | "Job" => {
            let template = &item.body["spec"]["template"];
            (&template["metadata"], &template["spec"], "spec.template.metadata")
        }
        "CronJob" => {
            let template = &item.body["spec"]["jobTemplate"]["spec"]["template"];
            (&template["metadata"], &template["spec"], "spec.jobTemplate.spec.template.metadata")
        }
        _ => return None,
    };
    Some(Workload { item: at, namespace: item.namespace, name: item.name, metadata, spec, path })
}

/// A pod of a waypoint is behind no ztunnel.
fn is_waypoint_pod(workload: &Workload<'_>) -> bool {
    label_of(workload.metadata, "gateway.networking.k8s.io/gateway-name").is_some()
}

/// A label of an object's metadata.
pub(super) fn label_of<'a>(metadata: &'a Value, label: &str) -> Option<&'a str> {
    metadata["labels"].get(label).and_then(Value::as_str)
}

/// The members of a list; none if it is no list.
pub(super) fn list(value: &Value) -> impl Iterator<Item = (usize, &Value)> {
    value.as_array().into_iter().flatten().enumerate()
}

/// Texts of a list.
pub(super) fn texts(value: &Value) -> impl Iterator<Item = (usize, &str)> {
    list(value).filter_map(|(at, one)| Some((at, one.as_str()?)))
}

/// Whether labels have all that a map asks for.
pub(super) fn matches_labels(wanted: &Value, metadata: &Value) -> bool {
    let wanted = wanted.as_object().into_iter().flatten();
    wanted.into_iter().all(|(name, value)| metadata["labels"].get(name) == Some(value))
}

/// Whether a Kubernetes label selector takes the labels.
pub(super) fn is_selected(selector: &Value, metadata: &Value) -> bool {
    let agrees = |expression: &Value| {
        let held = expression["key"].as_str().and_then(|key| label_of(metadata, key));
        let among = held.is_some_and(|held| texts(&expression["values"]).any(|(_, value)| value == held));
        match expression["operator"].as_str() {
            Some("In") => among,
            Some("NotIn") => !among,
            Some("Exists") => held.is_some(),
            Some("DoesNotExist") => held.is_none(),
            _ => false,
        }
    };
    matches_labels(&selector["matchLabels"], metadata)
        && list(&selector["matchExpressions"]).all(|(_, expression)| agrees(expression))
}
