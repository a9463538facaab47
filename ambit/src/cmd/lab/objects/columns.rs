//! Which columns a kind has in a table. Pure.

use serde_json::Value;

use crate::out;

/// Lays objects of one kind out as kubectl would, as far as a lab has the facts.
pub(super) fn table(kind: &str, objects: &[&Value], with_namespace: bool) -> String {
    let own = columns(kind);
    let mut heading: Vec<&str> = if with_namespace { vec!["NAMESPACE", "NAME"] } else { vec!["NAME"] };
    heading.extend(own.iter().map(|(title, _)| *title));
    let row = |object: &&Value| {
        let mut row = Vec::new();
        if with_namespace {
            row.push(text(object, "/metadata/namespace"));
        }
        row.push(text(object, "/metadata/name"));
        row.extend(own.iter().map(|(_, cell)| cell(object)));
        row
    };
    out::table(&heading, &objects.iter().map(row).collect::<Vec<_>>())
}

type Cell = fn(&Value) -> String;

fn columns(kind: &str) -> Vec<(&'static str, Cell)> {
    match kind {
        "Pod" => vec![
            ("READY", ready),
            ("STATUS", phase),
            ("RESTARTS", restarts),
            ("IP", |o| list(o, "/status/podIPs", "ip")),
            ("NODE", |o| text(o, "/spec/nodeName")),
            ("CAPTURED", |o| condition(o, "ambit.internal/captured")),
        ],
        "Node" => vec![
            ("STATUS", |o| {
                if condition(o, "Ready") == "True" { "Ready".to_owned() } else { "NotReady".to_owned() }
            }),
            ("INTERNAL-IP", |o| list(o, "/status/addresses", "address")),
            ("PODS", |o| words(o, "/spec/podCIDRs")),
        ],
        "Service" => vec![
            ("TYPE", |o| text_or(o, "/spec/type", "ClusterIP")),
            ("CLUSTER-IP", |o| words(o, "/spec/clusterIPs")),
            ("PORTS", |o| list(o, "/spec/ports", "port")),
        ],
        "Deployment" => vec![("REPLICAS", |o| text_or(o, "/spec/replicas", "1"))],
        "Namespace" => vec![("MESH", |o| {
            let labels = o.pointer("/metadata/labels").and_then(Value::as_object);
            let mode = labels.and_then(|l| l.get("istio.io/dataplane-mode")).and_then(Value::as_str);
            mode.unwrap_or("-").to_owned()
        })],
        "Gateway" => vec![
            ("CLASS", |o| text(o, "/spec/gatewayClassName")),
            ("ADDRESS", |o| list(o, "/status/addresses", "value")),
            ("PROGRAMMED", |o| condition(o, "Programmed")),
        ],
        "GatewayClass" => vec![("CONTROLLER", |o| text(o, "/spec/controllerName"))],
        "AuthorizationPolicy" => vec![("ACTION", |o| text_or(o, "/spec/action", "ALLOW"))],
        "PeerAuthentication" => vec![("MODE", |o| text_or(o, "/spec/mtls/mode", "UNSET"))],
        _ => Vec::new(),
    }
}

fn text(object: &Value, pointer: &str) -> String {
    text_or(object, pointer, "-")
}

fn text_or(object: &Value, pointer: &str, default: &str) -> String {
    match object.pointer(pointer) {
        None | Some(Value::Null) => default.to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn words(object: &Value, pointer: &str) -> String {
    let all = object.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
    joined(all.filter_map(Value::as_str).map(str::to_owned).collect())
}

fn list(object: &Value, pointer: &str, key: &str) -> String {
    let all = object.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
    joined(all.map(|entry| text(entry, &format!("/{key}"))).collect())
}

fn joined(all: Vec<String>) -> String {
    if all.is_empty() { "-".to_owned() } else { all.join(",") }
}

fn condition(object: &Value, name: &str) -> String {
    let all = object.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let mut found =
        all.filter(|c| c.get("type").and_then(Value::as_str) == Some(name)).map(|c| text(c, "/status"));
    found.next_back().unwrap_or_else(|| "-".to_owned())
}

fn phase(object: &Value) -> String {
    if object.pointer("/metadata/deletionTimestamp").is_some() {
        return "Terminating".to_owned();
    }
    // As kubectl: why a container does not run says more than the phase, unless it is only about to.
    let statuses = object.pointer("/status/containerStatuses").and_then(Value::as_array);
    let reasons = statuses.into_iter().flatten().map(|s| text_or(s, "/state/waiting/reason", ""));
    let mut telling = reasons.filter(|r| !r.is_empty() && r != "ContainerCreating");
    telling.next().unwrap_or_else(|| text_or(object, "/status/phase", "Pending"))
}

fn ready(object: &Value) -> String {
    let all = object.pointer("/spec/containers").and_then(Value::as_array).map_or(0, Vec::len);
    let statuses =
        object.pointer("/status/containerStatuses").and_then(Value::as_array).into_iter().flatten();
    let ready = statuses.filter(|s| s.get("ready").and_then(Value::as_bool) == Some(true)).count();
    format!("{ready}/{all}")
}

fn restarts(object: &Value) -> String {
    let statuses =
        object.pointer("/status/containerStatuses").and_then(Value::as_array).into_iter().flatten();
    statuses.filter_map(|s| s.get("restartCount").and_then(Value::as_u64)).sum::<u64>().to_string()
}
