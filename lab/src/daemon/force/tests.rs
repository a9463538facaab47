//! When a lab is up and a change is in force.

use ambit_manifest::read_value;
use serde_json::json;

use super::*;

fn snapshot(objects: &[Value]) -> Snapshot {
    let read = |value: &Value| {
        let located = read_value("test", value).expect("a good object");
        (located.key.clone(), located.into())
    };
    Snapshot { revision: 7, objects: objects.iter().map(read).collect() }
}

fn pod(labels: Value, status: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "shop", "labels": labels}, "spec": {"containers": [{"name": "c"}]}, "status": status})
}

fn ready(captured: Option<&str>) -> Value {
    let mut conditions = vec![json!({"type": "Ready", "status": "True"})];
    conditions.extend(captured.map(|c| json!({"type": CAPTURED, "status": c, "message": "AMB1101 not yet"})));
    json!({"phase": "Running", "conditions": conditions})
}

#[track_caller]
fn check(objects: &[Value], mesh: &Mesh, want: &[&str]) {
    let nodes = ["node1".to_owned()];
    assert_eq!(missing(&snapshot(objects), mesh, 7, &nodes).what, want);
}

#[test]
fn a_lab_is_up_when_every_pod_is_ready_and_captured_as_labelled() {
    let ambient = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {DATAPLANE_MODE: "ambient"}}});
    let plain = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    let node = json!({"node": "node1", "connected": true, "acked_revision": 7});
    let sync = Mesh::Sync(json!({"revision": 7, "nodes": [node]}));
    let none = json!({});
    check(&[plain.clone(), pod(none.clone(), ready(None))], &sync, &[]);
    check(&[ambient.clone(), pod(none.clone(), ready(Some("True")))], &sync, &[]);
    check(&[ambient.clone(), pod(none.clone(), ready(None))], &Mesh::None, &[]);
    check(
        &[ambient.clone(), pod(none.clone(), ready(Some("False")))],
        &sync,
        &["pod shop/web is labelled for the mesh but not captured: AMB1101 not yet"],
    );
    check(
        &[plain, pod(none.clone(), ready(Some("True")))],
        &sync,
        &["pod shop/web is not labelled for the mesh any more but still captured"],
    );
    check(&[ambient.clone(), pod(json!({DATAPLANE_MODE: "none"}), ready(None))], &sync, &[]);
    let failing = json!({"phase": "Pending", "conditions": [{"type": "Ready", "status": "False", "message": "no such program"}]});
    check(&[pod(none.clone(), failing)], &sync, &["pod shop/web is Pending and not ready: no such program"]);
    check(&[ambient, pod(none, json!({"phase": "Succeeded"}))], &sync, &[]);
}

#[test]
fn every_connected_node_has_to_acknowledge() {
    let node = |connected: bool, acked: u64| json!({"node": "node1", "connected": connected, "acked_revision": acked});
    let sync = |revision: u64, node: Value| Mesh::Sync(json!({"revision": revision, "nodes": [node]}));
    check(&[], &sync(7, node(true, 7)), &[]);
    check(&[], &sync(8, node(true, 9)), &[]);
    check(&[], &sync(7, node(true, 6)), &["node1 has acknowledged revision 6 of 7"]);
    check(&[], &sync(7, node(false, 7)), &["ztunnel/node1 is not connected to the control plane"]);
    check(
        &[],
        &Mesh::Sync(json!({"revision": 7, "nodes": []})),
        &["ztunnel/node1 is not connected to the control plane"],
    );
    let refusing = json!({"node": "node1", "connected": true, "acked_revision": 7,
        "rejected": [{"kind": "Authorization", "name": "shop/x", "reason": "prefix too long"}]});
    check(&[], &sync(7, refusing), &["node1 refuses Authorization shop/x: prefix too long"]);
    check(&[], &sync(6, node(true, 7)), &["istiod has read revision 6 of 7"]);
    let stopped = missing(&snapshot(&[]), &Mesh::Stopped, 7, &[]);
    assert!(stopped.hopeless);
}
