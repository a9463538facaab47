//! What a cluster would add to plain manifests: addresses, pods of what makes pods, waypoints, the marks of the node
//! agent.
//!
//! Only what is missing, and nothing that a decision could be wrong for: pods run and are ready, and whoever is to be
//! in the mesh is captured.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ambit_lab::schedule::waypoints::{CLASS, GATEWAY_LABEL, HBONE_PORT};
use ambit_manifest::{Kind, Located, ObjectKey, Other};
use serde_json::{Value, json};

const MODE: &str = "istio.io/dataplane-mode";
const REDIRECTION: &str = "ambient.istio.io/redirection";
/// First addresses that are given to pods and to services; no decision depends on them.
const PODS: u32 = u32::from_be_bytes([10, 200, 0, 1]);
const SERVICES: u32 = u32::from_be_bytes([10, 201, 0, 1]);
/// Node of pods that name none.
const NODE: &str = "node";

/// Objects that are new or differ.
pub(super) fn added(objects: &BTreeMap<ObjectKey, Located>, others: &[Other]) -> Vec<Value> {
    let values = |kind: Kind| objects.values().filter(move |o| o.kind() == kind).map(|o| (*o.value).clone());
    let waypoints: Vec<Value> = values(Kind::Gateway).filter(is_waypoint).collect();
    let mut pods: Vec<Value> = values(Kind::Pod).filter(|pod| ips(pod).is_empty()).collect();
    pods.extend(values(Kind::Deployment).map(|of| of_template(&of["spec"]["template"], &of["metadata"])));
    pods.extend(of_others(objects, others));
    pods.extend(waypoints.iter().map(waypoint_pod));
    let mut services: Vec<Value> = values(Kind::Service).filter(needs_address).collect();
    services.extend(waypoints.iter().map(waypoint_service));
    let enrolled: BTreeSet<String> = values(Kind::Namespace)
        .filter(|ns| ns["metadata"]["labels"][MODE] == "ambient")
        .filter_map(|ns| ns["metadata"]["name"].as_str().map(ToOwned::to_owned))
        .collect();
    let mut made: Vec<Value> = Vec::new();
    made.extend(pods.into_iter().zip(PODS..).map(|(pod, ip)| running(pod, Ipv4Addr::from(ip), &enrolled)));
    made.extend(
        services.into_iter().zip(SERVICES..).map(|(service, ip)| addressed(service, Ipv4Addr::from(ip))),
    );
    made.extend(waypoints.into_iter().map(programmed));
    made
}

fn is_waypoint(gateway: &Value) -> bool {
    gateway["spec"]["gatewayClassName"] == CLASS && gateway["status"]["addresses"].is_null()
}

fn ips(pod: &Value) -> Vec<IpAddr> {
    pod["status"]["podIP"].as_str().and_then(|ip| ip.parse().ok()).into_iter().collect()
}

fn needs_address(service: &Value) -> bool {
    let spec = &service["spec"];
    spec["clusterIP"].is_null() && spec["type"] != "ExternalName"
}

/// One pod of what makes pods, which has these metadata.
fn of_template(template: &Value, of: &Value) -> Value {
    let mut metadata = template["metadata"].clone();
    metadata["name"] = of["name"].clone();
    metadata["namespace"] = of["namespace"].clone();
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
}

/// One pod of each object that makes pods and that nobody else makes. With the kind in its name where another pod has
/// the name already: a Job is often called as the Deployment that it prepares.
fn of_others(objects: &BTreeMap<ObjectKey, Located>, others: &[Other]) -> Vec<Value> {
    let makes_pods = |key: &&ObjectKey| matches!(key.kind, Kind::Pod | Kind::Deployment);
    let named = objects.keys().filter(makes_pods);
    let mut taken: BTreeSet<(String, String)> =
        named.map(|key| (key.namespace.clone().unwrap_or_default(), key.name.clone())).collect();
    let mut pods = Vec::new();
    for other in others {
        let Some(template) = other.template() else { continue };
        let owners = other.value["metadata"]["ownerReferences"].as_array();
        if owners.is_some_and(|owners| !owners.is_empty()) {
            continue;
        }
        let mut name = other.name.clone();
        if !taken.insert((other.namespace.clone(), name.clone())) {
            name = format!("{name}-{}", other.kind.to_lowercase());
            taken.insert((other.namespace.clone(), name.clone()));
        }
        pods.push(of_template(template, &json!({"name": name, "namespace": other.namespace})));
    }
    pods
}

fn waypoint_pod(gateway: &Value) -> Value {
    let (name, namespace) = (&gateway["metadata"]["name"], &gateway["metadata"]["namespace"]);
    let labels = json!({GATEWAY_LABEL: name, "networking.istio.io/tunnel": "http", MODE: "none"});
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"serviceAccountName": name, "containers": [{"name": "waypoint", "image": "waypoint"}]},
    })
}

fn waypoint_service(gateway: &Value) -> Value {
    let (name, namespace) = (&gateway["metadata"]["name"], &gateway["metadata"]["namespace"]);
    let port = json!({"name": "mesh", "port": HBONE_PORT, "targetPort": HBONE_PORT, "appProtocol": "hbone"});
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": {GATEWAY_LABEL: name}},
        "spec": {"selector": {GATEWAY_LABEL: name}, "ports": [port]},
    })
}

/// A Gateway as it is once its waypoint is there.
fn programmed(mut gateway: Value) -> Value {
    let text = |field: &str| gateway["metadata"][field].as_str().unwrap_or_default().to_owned();
    let host = format!("{}.{}.svc.cluster.local", text("name"), text("namespace"));
    gateway["status"]["addresses"] = json!([{"type": "Hostname", "value": host}]);
    gateway
}

/// A pod as it is once it runs.
fn running(mut pod: Value, ip: Ipv4Addr, enrolled: &BTreeSet<String>) -> Value {
    let own = pod["metadata"]["labels"][MODE].as_str().map(ToOwned::to_owned);
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
    let is_in = own.map_or_else(|| enrolled.contains(&namespace), |mode| mode == "ambient");
    if is_in && pod["spec"]["hostNetwork"] != true {
        if !pod["metadata"]["annotations"].is_object() {
            pod["metadata"]["annotations"] = json!({});
        }
        pod["metadata"]["annotations"][REDIRECTION] = json!("enabled");
    }
    if pod["spec"]["nodeName"].is_null() {
        pod["spec"]["nodeName"] = json!(NODE);
    }
    pod["status"] = json!({
        "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
        "conditions": [{"type": "Ready", "status": "True"}],
    });
    pod
}

fn addressed(mut service: Value, ip: Ipv4Addr) -> Value {
    service["spec"]["clusterIP"] = json!(ip);
    service["spec"]["clusterIPs"] = json!([ip]);
    service
}
