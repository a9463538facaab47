//! Objects that a cluster has without being asked: its nodes, its first namespaces, default service accounts, and
//! the class of waypoints.

use std::collections::BTreeMap;
use std::fs;
use std::time::SystemTime;

use ambit_runtime::clock;
use serde_json::{Value, json};

use super::owner::Owner;
use crate::error::LabError;
use crate::pod::sandbox::Site;
use crate::schedule::waypoints;
use crate::store::{Kind, ObjectKey};

/// Namespaces of every cluster.
const NAMESPACES: [&str; 3] = ["default", "istio-system", "kube-system"];

/// Writes the nodes, the first namespaces and the class of waypoints.
pub(super) fn declare(owner: &Owner) -> Result<(), LabError> {
    let namespaces = NAMESPACES.into_iter().map(|name| (Kind::Namespace, name));
    let nodes = owner.sites.keys().map(|name| (Kind::Node, name.as_str()));
    let snapshot = owner.store.snapshot();
    let missing = namespaces
        .chain(nodes)
        .filter(|(kind, name)| snapshot.find(&ObjectKey::new(*kind, None, name)).is_none());
    let born = missing
        .map(|(kind, name)| json!({"apiVersion": "v1", "kind": kind.as_str(), "metadata": {"name": name}}));
    owner.store.put(&born.collect::<Vec<_>>())?;
    let class = ObjectKey::new(Kind::GatewayClass, None, waypoints::CLASS);
    if snapshot.find(&class).is_none() {
        let object = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": class.kind.as_str(),
            "metadata": {"name": class.name}, "spec": {"controllerName": waypoints::CONTROLLER},
        });
        owner.store.put(&[object])?;
    }
    complete(owner)
}

/// Gives what has none its uid and time, nodes their addresses, namespaces their default account.
pub(super) fn complete(owner: &Owner) -> Result<(), LabError> {
    let snapshot = owner.store.snapshot();
    for (key, object) in &snapshot.objects {
        if object.value.pointer("/metadata/uid").is_none() {
            let born = json!({"uid": new_uid()?, "creationTimestamp": timestamp(clock::wall())});
            owner.store.change(key, |object| merge(object, "/metadata", born.clone()))?;
        }
    }
    for (key, _) in snapshot.of_kind(Kind::Node) {
        if let Some(site) = owner.sites.get(&key.name) {
            owner.store.change(key, |node| describe(node, site))?;
        }
    }
    let mut accounts = Vec::new();
    for (key, _) in snapshot.of_kind(Kind::Namespace) {
        let account = ObjectKey::new(Kind::ServiceAccount, Some(&key.name), "default");
        if snapshot.find(&account).is_none() {
            let metadata = json!({"name": "default", "namespace": key.name});
            accounts.push(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}));
        }
    }
    owner.store.put(&accounts)
}

fn describe(node: &mut Value, site: &Site) {
    let (index, families) = (site.node.index, site.families);
    merge(
        node,
        "/metadata",
        json!({"labels": {"kubernetes.io/hostname": site.node.name, "kubernetes.io/os": "linux"}}),
    );
    let cidrs: Vec<String> = index.pod_cidrs(families).iter().map(ToString::to_string).collect();
    merge(node, "", json!({"spec": {"podCIDR": cidrs.first(), "podCIDRs": cidrs}}));
    let mut addresses: Vec<Value> = index
        .fabric(families)
        .iter()
        .map(|a| json!({"type": "InternalIP", "address": a.to_string()}))
        .collect();
    addresses.push(json!({"type": "Hostname", "address": site.node.name}));
    let ready = json!([{"type": "Ready", "status": "True", "reason": "KubeletReady"}]);
    merge(node, "", json!({"status": {"addresses": addresses, "conditions": ready}}));
}

/// Merges a value into the object at a pointer: maps key by key, everything else replaced.
pub(super) fn merge(object: &mut Value, pointer: &str, with: Value) {
    if let Some(place) = object.pointer_mut(pointer) {
        merge_value(place, with);
    }
}

fn merge_value(into: &mut Value, with: Value) {
    match (into, with) {
        (Value::Object(into), Value::Object(with)) => {
            for (key, value) in with {
                merge_value(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, with) => *into = with,
    }
}

/// A uid that nothing else has.
pub(super) fn new_uid() -> Result<String, LabError> {
    let path = "/proc/sys/kernel/random/uuid";
    fs::read_to_string(path).map(|u| u.trim().to_owned()).map_err(LabError::file("drawing a uid from", path))
}

/// A time as Kubernetes writes it.
pub(super) fn timestamp(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}

/// Labels of a node, for the scheduler.
pub(super) fn labels_of(node: &Value) -> BTreeMap<String, String> {
    let labels = node.pointer("/metadata/labels").and_then(Value::as_object);
    let text = |(k, v): (&String, &Value)| Some((k.clone(), v.as_str()?.to_owned()));
    labels.into_iter().flatten().filter_map(text).collect()
}
