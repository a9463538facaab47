//! Who takes part: namespaces, pods and services as objects, in a few words.
//!
//! Only makes objects; what runs in the pods is named by the test.

use ambit_tests::lab::ambit;
use serde_json::{Value, json};

/// Where the traffic oracle listens.
pub(crate) const PORT: u16 = 7000;

/// A namespace, in the mesh or not.
pub(crate) fn namespace(name: &str, enrolled: bool) -> Value {
    let labels = if enrolled { json!({"istio.io/dataplane-mode": "ambient"}) } else { json!({}) };
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

/// A service account (`NAMESPACE/NAME`).
pub(crate) fn account(key: &str) -> Value {
    let (namespace, name) = split(key);
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}})
}

/// A pod (`NAMESPACE/NAME`) on a node, with an `app` label of its name, that runs `command` or nothing.
pub(crate) fn pod(key: &str, node: &str, command: &[&str]) -> Value {
    let (namespace, name) = split(key);
    let mut container = json!({"name": "app"});
    if !command.is_empty() {
        container["command"] = json!(command);
    }
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {"nodeName": node, "containers": [container]},
    })
}

/// A container that runs the traffic oracle's server on a port, ready once it listens.
pub(crate) fn oracle(port: u16) -> Value {
    json!({
        "name": format!("echo-{port}"),
        "command": [ambit(), "echoer", "server", "--listen", format!("[::]:{port}")],
        "ports": [{"containerPort": port}],
        "readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1},
    })
}

/// A pod that runs the traffic oracle's server on [`PORT`].
pub(crate) fn server(key: &str, node: &str) -> Value {
    let mut pod = pod(key, node, &[]);
    pod["spec"]["containers"] = json!([oracle(PORT)]);
    pod
}

/// A service (`NAMESPACE/NAME`) in front of the pods with that `app` label, in every family the lab has.
pub(crate) fn service(key: &str, app: &str, port: u16, target: u16) -> Value {
    let (namespace, name) = split(key);
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "ipFamilyPolicy": "PreferDualStack",
            "selector": {"app": app},
            "ports": [{"port": port, "targetPort": target}],
        },
    })
}

/// A security policy (`NAMESPACE/NAME`).
pub(crate) fn security(kind: &str, key: &str, spec: &Value) -> Value {
    let (namespace, name) = split(key);
    json!({
        "apiVersion": "security.istio.io/v1", "kind": kind,
        "metadata": {"name": name, "namespace": namespace}, "spec": spec,
    })
}

pub(crate) fn split(key: &str) -> (&str, &str) {
    key.split_once('/').expect("NAMESPACE/NAME")
}
