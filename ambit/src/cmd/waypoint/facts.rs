//! What objects and control plane say about waypoints, put together. Pure.

use ambit_lab::schedule::waypoints;
use serde_json::{Value, json};

/// On a namespace or service: the waypoint it asks for; `none` opts out.
pub(super) const USE_WAYPOINT: &str = "istio.io/use-waypoint";
/// Beside it: the waypoint's namespace, if it is another.
const USE_WAYPOINT_NAMESPACE: &str = "istio.io/use-waypoint-namespace";
/// On a Gateway: which traffic it serves. Default `service`.
pub(super) const WAYPOINT_FOR: &str = "istio.io/waypoint-for";
/// On a Gateway: the revision that looks after it.
const REVISION: &str = "istio.io/rev";

/// A waypoint with its conditions, pods and services.
pub(super) fn item(gateway: &Value, pods: &[Value], bound: &[String], sync: &Value) -> Value {
    let name = full_name(gateway);
    let own = |row: &Value| row["gateway"] == name.as_str();
    let conditions = gateway.pointer("/status/conditions").cloned().unwrap_or_else(|| json!([]));
    json!({
        "namespace": text(gateway, "/metadata/namespace"),
        "name": text(gateway, "/metadata/name"),
        "revision": label(gateway, REVISION).unwrap_or("default"),
        "traffic_type": traffic(gateway),
        "programmed": programmed(gateway),
        "replicas": waypoints::replicas(gateway),
        "conditions": conditions,
        "pods": pod_rows(pods, sync).into_iter().filter(own).collect::<Vec<_>>(),
        "services": bound,
    })
}

/// The same where the control plane cannot be asked: a scaler may have changed the number of pods.
pub(super) fn without_control_plane(mut item: Value) -> Value {
    item["replicas"] = Value::Null;
    item
}

/// Whether everything of a waypoint is as it should be: it has its address and its pods, and each of those is
/// ready and has the newest configuration. Where how many pods are wanted is not known, its conditions tell, and that
/// those pods that stay are ready.
pub(super) fn is_well(item: &Value) -> bool {
    let pods: Vec<&Value> = item["pods"].as_array().into_iter().flatten().collect();
    let staying: Vec<&&Value> = pods.iter().filter(|pod| pod["ending"] != true).collect();
    if item["replicas"].is_null() {
        return item["programmed"] == "True" && staying.iter().all(|pod| pod["ready"] == true);
    }
    item["programmed"] == "True"
        && u64::try_from(staying.len()).ok() == item["replicas"].as_u64()
        && staying.iter().all(|pod| pod["ready"] == true && pod["synced"] == true)
}

/// The pods of all waypoints, and what the control plane says of each; without its word, `synced` is null.
pub(in crate::cmd) fn pod_rows(pods: &[Value], sync: &Value) -> Vec<Value> {
    let row = |pod: &Value| {
        let waypoint = waypoints::waypoint_of(pod)?;
        let gateway = format!("{}/{waypoint}", text(pod, "/metadata/namespace").unwrap_or_default());
        let name = text(pod, "/metadata/name").unwrap_or_default();
        let entries = sync["waypoints"].as_array();
        let is_its = |e: &&Value| e["gateway"] == *gateway && e["pod"] == *name;
        // A pod of that name on another node may have left an entry of its own.
        let own = entries.into_iter().flatten().filter(is_its);
        let entry = own.max_by_key(|e| e["connected"] == true);
        let connected = entry.is_some_and(|e| e["connected"] == true);
        let newest = entry.is_some_and(|e| e["acked_revision"].as_u64() >= sync["revision"].as_u64());
        Some(json!({
            "gateway": gateway,
            "pod": name,
            "node": text(pod, "/spec/nodeName"),
            "ready": is_ready(pod),
            "ending": pod.pointer("/metadata/deletionTimestamp").is_some(),
            "connected": entries.map(|_| connected),
            "synced": entries.map(|_| connected && newest),
            "acked_revision": entry.map(|e| e["acked_revision"].clone()),
            "rejected": entry.map_or_else(|| json!([]), |e| e["rejected"].clone()),
        }))
    };
    pods.iter().filter_map(row).collect()
}

fn is_ready(pod: &Value) -> bool {
    let mut all = pod.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let ready = all.any(|c| c["type"] == "Ready" && c["status"] == "True");
    ready && pod.pointer("/metadata/deletionTimestamp").is_none()
}

/// The services that ask for a waypoint by their own labels or by those of their namespace, as `NAMESPACE/NAME`.
pub(super) fn bound(gateway: &Value, services: &[Value], namespaces: &[Value]) -> Vec<String> {
    let wanted = (text(gateway, "/metadata/namespace"), text(gateway, "/metadata/name"));
    // One that is for workloads alone, or for nothing, serves no service.
    if !matches!(traffic(gateway), "service" | "all") {
        return Vec::new();
    }
    let asks = |service: &&Value| {
        let namespace = text(service, "/metadata/namespace").unwrap_or_default();
        let home = namespaces.iter().find(|n| text(n, "/metadata/name") == Some(namespace));
        // A waypoint is not reached through a waypoint.
        let own = if waypoints::waypoint_of(service).is_some() { None } else { Some(*service) };
        let asking = own.into_iter().chain(home.filter(|_| own.is_some()));
        let asked = asking.into_iter().find_map(|object| {
            let name = label(object, USE_WAYPOINT)?;
            Some((label(object, USE_WAYPOINT_NAMESPACE).or(Some(namespace)), Some(name)))
        });
        asked.is_some_and(|asked| asked == wanted)
    };
    services.iter().filter(asks).map(full_name).collect()
}

/// Names of the waypoints of a namespace.
pub(super) fn names(gateways: &[Value], namespace: &str) -> Vec<String> {
    let own = |g: &&Value| waypoints::is_waypoint(g) && text(g, "/metadata/namespace") == Some(namespace);
    gateways.iter().filter(own).filter_map(|g| text(g, "/metadata/name").map(str::to_owned)).collect()
}

/// Which traffic a waypoint serves.
fn traffic(gateway: &Value) -> &str {
    label(gateway, WAYPOINT_FOR).unwrap_or("service")
}

/// Whether a waypoint was made: its condition, `Unknown` as long as nobody has said.
fn programmed(gateway: &Value) -> &str {
    let all = gateway.pointer("/status/conditions").and_then(Value::as_array);
    let told = all.and_then(|all| all.iter().find(|c| c["type"] == "Programmed"));
    told.and_then(|c| c["status"].as_str()).unwrap_or("Unknown")
}

/// `NAMESPACE/NAME`.
pub(super) fn full_name(object: &Value) -> String {
    let part = |pointer: &str| text(object, pointer).unwrap_or_default().to_owned();
    format!("{}/{}", part("/metadata/namespace"), part("/metadata/name"))
}

pub(super) fn is_named(object: &Value, namespace: &str, name: &str) -> bool {
    text(object, "/metadata/namespace") == Some(namespace) && text(object, "/metadata/name") == Some(name)
}

/// A label; none if it is not there or empty.
pub(super) fn label<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    let labels = object.pointer("/metadata/labels")?;
    labels.get(name).and_then(Value::as_str).filter(|value| !value.is_empty())
}

pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str)
}
