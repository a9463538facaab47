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
/// Annotation that a sidecar injector leaves on a pod.
pub(super) const SIDECAR_STATUS: &str = "sidecar.istio.io/status";
/// Port of tunnels.
pub(super) const HBONE: u64 = 15008;
/// Class of waypoints.
const WAYPOINT_CLASS: &str = "istio-waypoint";
/// Controller of classes of waypoints.
const WAYPOINT_CONTROLLER: &str = "istio.io/mesh-controller";
/// Says what traffic a waypoint is for, on a gateway or its class.
const WAYPOINT_FOR: &str = "istio.io/waypoint-for";
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

/// What traffic a waypoint is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Traffic {
    Services,
    Workloads,
    All,
    Nothing,
}

impl Traffic {
    pub(super) fn has_services(self) -> bool {
        matches!(self, Self::Services | Self::All)
    }
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
        let honoured = move || items.iter().enumerate().filter(|(_, item)| !is_not_honoured(item));
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

    /// What says whether a workload is in the mesh: its own label, if that is clear, or that of its namespace.
    pub(super) fn mode(&self, workload: &Workload<'a>) -> Option<&'a str> {
        let own = label_of(workload.metadata, MODE).filter(|mode| ["ambient", "none"].contains(mode));
        own.or_else(|| self.label_of_namespace(workload.namespace, MODE))
    }

    /// Whether a workload is in the mesh.
    pub(super) fn is_enrolled(&self, workload: &Workload<'a>) -> bool {
        self.mode(workload) == Some("ambient")
            && workload.spec["hostNetwork"] != true
            && annotation_of(workload.metadata, SIDECAR_STATUS).is_none()
            && !is_waypoint_pod(workload)
    }

    /// Whether a Service or ServiceEntry that is there goes through no waypoint, for certain.
    pub(super) fn is_without_waypoint(&self, kind: &str, namespace: &str, name: &str) -> bool {
        let Some(own) = self.object(kind, namespace, name) else { return false };
        let of_namespace = self.object("Namespace", "", namespace);
        match label_of(&own["metadata"], USE_WAYPOINT).filter(|name| !name.is_empty()) {
            Some(waypoint) => waypoint == "none",
            // The namespace may ask for one where nobody looks.
            None if of_namespace.is_none() && self.scope == Scope::Part => false,
            None => !of_namespace.is_some_and(|of| self.binds_services(namespace, &of["metadata"])),
        }
    }

    /// Whether the labels of a namespace send its services through a waypoint.
    fn binds_services(&self, namespace: &str, metadata: &Value) -> bool {
        let asked = label_of(metadata, USE_WAYPOINT).filter(|name| !name.is_empty() && *name != "none");
        let Some(name) = asked else { return false };
        let of = label_of(metadata, WAYPOINT_NAMESPACE).unwrap_or(namespace);
        // One that is not there is taken for one of services.
        self.object("Gateway", of, name).is_none_or(|gateway| self.traffic(gateway).has_services())
    }

    /// Whether a Gateway is a waypoint, by its class's controller or, where the class is not known, by its name.
    pub(super) fn is_waypoint(&self, gateway: &Value) -> bool {
        let Some(name) = gateway["spec"]["gatewayClassName"].as_str() else { return false };
        match self.object("GatewayClass", "", name) {
            Some(class) => class["spec"]["controllerName"] == WAYPOINT_CONTROLLER,
            None => name == WAYPOINT_CLASS,
        }
    }

    /// What a waypoint is for: its own label before that of its class; services, if neither says.
    pub(super) fn traffic(&self, gateway: &Value) -> Traffic {
        let class = gateway["spec"]["gatewayClassName"].as_str().unwrap_or_default();
        let of_class = || label_of(&self.object("GatewayClass", "", class)?["metadata"], WAYPOINT_FOR);
        match label_of(&gateway["metadata"], WAYPOINT_FOR).or_else(of_class) {
            Some("workload") => Traffic::Workloads,
            Some("all") => Traffic::All,
            Some("none") => Traffic::Nothing,
            Some(_) | None => Traffic::Services,
        }
    }

    /// Whether the services of a namespace may use a waypoint of namespace `own`, by its listener of HBONE.
    pub(super) fn is_allowed(&self, gateway: &Value, own: &str, namespace: &str) -> bool {
        let is_hbone = |one: &&Value| one["protocol"] == "HBONE" || one["port"].as_u64() == Some(HBONE);
        let listeners = gateway["spec"]["listeners"].as_array().into_iter().flatten();
        let allowed = listeners.into_iter().find(is_hbone).map(|one| &one["allowedRoutes"]["namespaces"]);
        match allowed.and_then(|allowed| allowed["from"].as_str()) {
            Some("All") => true,
            Some("None") => false,
            Some("Selector") => {
                let of = self.object("Namespace", "", namespace);
                let selector = allowed.map(|allowed| &allowed["selector"]).filter(|one| one.is_object());
                of.zip(selector).is_some_and(|(of, selector)| is_selected(selector, &of["metadata"]))
            }
            Some(_) | None => own == namespace,
        }
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
pub(super) fn is_waypoint_pod(workload: &Workload<'_>) -> bool {
    label_of(workload.metadata, "gateway.networking.k8s.io/gateway-name").is_some()
}

/// A label of an object's metadata.
pub(super) fn label_of<'a>(metadata: &'a Value, label: &str) -> Option<&'a str> {
    metadata["labels"].get(label).and_then(Value::as_str)
}

/// An annotation of an object's metadata.
pub(super) fn annotation_of<'a>(metadata: &'a Value, annotation: &str) -> Option<&'a str> {
    metadata["annotations"].get(annotation).and_then(Value::as_str)
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
