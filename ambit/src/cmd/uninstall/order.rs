//! What belongs to an installation beside what was applied, and in which order all of it goes. Pure.

use serde_json::{Map, Value, json};

/// Kind of definitions.
pub(super) const CRD: &str = "CustomResourceDefinition";

/// When an object that was applied goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Before all else: it would refuse what comes after.
    Webhook,
    /// Once no pod is captured any more.
    ControlPlane,
    /// When nothing has to be taken out of pods any more.
    Agents,
    /// After the agents.
    Tunnels,
    /// Accounts and rights, when nobody uses them.
    Ground,
    /// Definitions and the namespace, each by a rule of its own.
    Last,
}

impl Phase {
    pub(super) fn of(object: &Value) -> Self {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        match object["kind"].as_str().unwrap_or_default() {
            "ValidatingWebhookConfiguration" => Self::Webhook,
            "Deployment" | "HorizontalPodAutoscaler" | "PodDisruptionBudget" => Self::ControlPlane,
            "DaemonSet" if name == "ztunnel" => Self::Tunnels,
            "DaemonSet" => Self::Agents,
            CRD | "Namespace" => Self::Last,
            _ => Self::Ground,
        }
    }
}

/// Objects that our programs write.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    pub(super) version: &'static str,
    pub(super) kind: &'static str,
    /// Label selector.
    pub(super) labels: Option<&'static str>,
    /// Their names; empty for any.
    names: &'static [&'static str],
    /// Their namespace; none for any.
    namespace: Option<&'static str>,
}

impl Written {
    /// Whether an object of the kind, with the labels, is one of these.
    pub(super) fn is(&self, object: &Value) -> bool {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        (self.names.is_empty() || self.names.contains(&text("/metadata/name")))
            && self.namespace.is_none_or(|namespace| text("/metadata/namespace") == namespace)
    }
}

const WAYPOINTS: Option<&str> = Some("gateway.istio.io/managed=istio.io-mesh-controller");

/// What was made for waypoints; their Gateways are people's.
pub(super) const MADE: &[Written] = &[
    of_waypoints("autoscaling/v2", "HorizontalPodAutoscaler"),
    of_waypoints("policy/v1", "PodDisruptionBudget"),
    of_waypoints("apps/v1", "Deployment"),
    of_waypoints("v1", "Service"),
    of_waypoints("v1", "ServiceAccount"),
];

const fn of_waypoints(version: &'static str, kind: &'static str) -> Written {
    Written { version, kind, labels: WAYPOINTS, names: &[], namespace: None }
}

/// What the control plane keeps: the root of trust, its key, the leader's lease.
pub(super) const WRITTEN: &[Written] = &[
    Written {
        version: "v1",
        kind: "ConfigMap",
        labels: Some("istio.io/config=true"),
        names: &["istio-ca-root-cert"],
        namespace: None,
    },
    Written {
        version: "v1",
        kind: "ConfigMap",
        labels: None,
        names: &["istio-ca-rotation"],
        namespace: Some(crate::bundle::NAMESPACE),
    },
    Written {
        version: "certificates.k8s.io/v1beta1",
        kind: "ClusterTrustBundle",
        labels: None,
        names: &["istio.io:istiod-ca:root-cert"],
        namespace: None,
    },
    // Not `cacerts`, which people put there.
    Written {
        version: "v1",
        kind: "Secret",
        labels: None,
        names: &["istio-ca-secret"],
        namespace: Some(crate::bundle::NAMESPACE),
    },
    Written {
        version: "coordination.k8s.io/v1",
        kind: "Lease",
        labels: None,
        names: &["istiod-lite"],
        namespace: Some(crate::bundle::NAMESPACE),
    },
];

/// Under which name the control plane owns what it writes into people's objects.
const CONTROL_PLANE: &str = "ambit-istiod";

/// Kinds of people's objects in whose status the control plane writes conditions. Routes are not among them: theirs also
/// hold what other implementations wrote.
pub(super) const REPORTED: &[(&str, &str)] = &[
    ("v1", "Service"),
    ("security.istio.io/v1", "AuthorizationPolicy"),
    ("security.istio.io/v1", "PeerAuthentication"),
    ("security.istio.io/v1", "RequestAuthentication"),
    ("networking.istio.io/v1", "ServiceEntry"),
    ("networking.istio.io/v1", "VirtualService"),
    ("ambit.internal/v1", "TrafficPolicy"),
    ("ambit.internal/v1alpha1", "EgressPolicy"),
    // Of waypoints only: of others the control plane owns nothing.
    ("gateway.networking.k8s.io/v1", "Gateway"),
];

/// A merge into an object's status that takes out what the control plane says there; none if it says nothing.
///
/// Not an apply of nothing: that leaves `null` behind where a condition was the only one, which no definition allows.
pub(super) fn taken_back(object: &Value) -> Option<Value> {
    let owners = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    let is_ours = |owner: &&Value| {
        owner["manager"] == CONTROL_PLANE && owner["subresource"] == "status" && owner["operation"] == "Apply"
    };
    let owned = owners?.iter().find(is_ours)?.pointer("/fieldsV1/f:status")?.as_object()?;
    let live = &object["status"];
    let left: Map<String, Value> = owned
        .iter()
        .filter_map(|(field, parts)| Some((field.strip_prefix("f:")?, parts)))
        .map(|(field, parts)| (field.to_owned(), others(&live[field], parts)))
        .collect();
    let stays = |(field, value): (&String, &Value)| {
        left.get(field).map_or_else(|| !value.is_null(), |kept| !kept.is_null())
    };
    let is_empty = !live.as_object().into_iter().flatten().any(stays);
    // What somebody says in the meantime is not lost: the version that was read is the one that is changed.
    let version = &object["metadata"]["resourceVersion"];
    let status = if is_empty { Value::Null } else { Value::Object(left) };
    Some(json!({"metadata": {"resourceVersion": version}, "status": status}))
}

/// What others hold of a field; null if they hold nothing. Only lists of conditions are shared.
fn others(live: &Value, owned: &Value) -> Value {
    let keys = owned.as_object().into_iter().flatten().filter_map(|(key, _)| key.strip_prefix("k:"));
    let keys: Vec<Value> = keys.filter_map(|key| serde_json::from_str(key).ok()).collect();
    let is_owned = |one: &&Value| {
        keys.iter()
            .filter_map(Value::as_object)
            .any(|key| key.iter().all(|(name, value)| one[name] == *value))
    };
    let kept: Vec<Value> =
        live.as_array().into_iter().flatten().filter(|one| !is_owned(one)).cloned().collect();
    if keys.is_empty() || kept.is_empty() { Value::Null } else { Value::Array(kept) }
}

/// What people made, and keep: without us it does nothing.
pub(super) const USERS: &[(&str, &str)] = &[
    ("security.istio.io/v1", "AuthorizationPolicy"),
    ("security.istio.io/v1", "PeerAuthentication"),
    ("security.istio.io/v1", "RequestAuthentication"),
    ("networking.istio.io/v1", "ServiceEntry"),
    ("networking.istio.io/v1", "WorkloadEntry"),
    ("networking.istio.io/v1", "VirtualService"),
    ("ambit.internal/v1", "TrafficPolicy"),
    ("ambit.internal/v1alpha1", "EgressPolicy"),
    ("gateway.networking.k8s.io/v1", "Gateway"),
];

/// Selector of a workload's pods; none for what has none.
pub(super) fn pods_of(object: &Value) -> Option<String> {
    if !matches!(object["kind"].as_str(), Some("Deployment" | "DaemonSet")) {
        return None;
    }
    let labels = object.pointer("/spec/selector/matchLabels")?.as_object()?;
    let one = |(key, value): (&String, &Value)| Some(format!("{key}={}", value.as_str()?));
    labels.iter().map(one).collect::<Option<Vec<_>>>().map(|all| all.join(","))
}
