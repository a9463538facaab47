//! When a lab is up and a change is in force.

use std::collections::BTreeMap;

use ambit_manifest::read_value;
use serde_json::json;

use super::*;
use crate::schedule::{ObjectName, Problem};

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

fn look(snapshot: &Snapshot, mesh: &Mesh, nodes: &[String], demand: &Demand) -> Missing {
    let lab = "cart".parse().unwrap();
    missing(Look { lab: &lab, snapshot, mesh, nodes, demand }, 7)
}

#[track_caller]
fn check(objects: &[Value], mesh: &Mesh, want: &[&str]) {
    let nodes = ["node1".to_owned()];
    assert_eq!(look(&snapshot(objects), mesh, &nodes, &Demand::Everything).what, want);
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
    check(&[ambient.clone(), pod(none.clone(), json!({"phase": "Succeeded"}))], &sync, &[]);
    check(&[ambient, pod(none, json!({"phase": "Failed"}))], &sync, &[]);
}

/// A pod of a name in `shop`, under a uid, with a specification, more metadata and whether it is ready.
fn named(name: &str, uid: &str, image: &str, more: Value, is_ready: bool) -> Value {
    let mut status = ready(None);
    status["conditions"][0]["status"] = json!(if is_ready { "True" } else { "False" });
    status["conditions"].as_array_mut().unwrap().push(json!({"type": SANDBOX, "status": "True"}));
    let mut metadata = json!({"name": name, "namespace": "shop", "uid": uid});
    metadata.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": status,
        "spec": {"containers": [{"name": "c", "image": image}]}})
}

fn shop(mode: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {DATAPLANE_MODE: mode}}})
}

fn deployment(image: &str) -> Value {
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}});
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template}})
}

/// What a change between two states waits for, when the lab runs without a mesh unless it says otherwise.
#[track_caller]
fn check_change(before: &[Value], after: &[Value], mesh: &Mesh, want: &[&str]) {
    let demand = Demand::of_change((&snapshot(before), &Outlook::default()), &snapshot(after));
    assert_eq!(look(&snapshot(after), mesh, &[], &demand).what, want);
}

#[test]
fn a_change_waits_for_the_pods_it_made_and_for_no_other() {
    let none = json!({});
    let sick = || named("sick", "1", "a", json!({}), false);
    let ending = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
    let labelled = named("sick", "1", "a", json!({"labels": {"tier": "back"}}), false);
    let fresh = named("fresh", "2", "a", none.clone(), false);
    check_change(&[sick()], &[sick()], &Mesh::None, &[]);
    check_change(&[sick()], &[labelled], &Mesh::None, &[]);
    check_change(&[sick()], &[sick(), fresh], &Mesh::None, &["pod shop/fresh is Running and not ready"]);
    let replaced = ["pod shop/sick is Running and not ready"];
    check_change(&[sick()], &[named("sick", "9", "a", none.clone(), false)], &Mesh::None, &replaced);
    check_change(&[sick()], &[named("sick", "1", "b", none, false)], &Mesh::None, &replaced);
    let gone = named("sick", "1", "a", ending, false);
    check_change(&[sick()], std::slice::from_ref(&gone), &Mesh::None, &["pod shop/sick is still ending"]);
    check_change(std::slice::from_ref(&gone), std::slice::from_ref(&gone), &Mesh::None, &[]);
}

#[test]
fn a_label_waits_for_the_capture_of_every_pod_it_moves() {
    let stopped_cleanly = Mesh::Sync(json!({"revision": 7, "nodes": []}));
    let sick = named("sick", "1", "a", json!({}), false);
    let unmade = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "unmade", "namespace": "shop", "uid": "2"},
        "spec": {"containers": [{"name": "c"}]}, "status": {"phase": "Pending"}});
    let (out, inside) = (shop("none"), shop("ambient"));
    let want = ["pod shop/sick is labelled for the mesh but not captured: the node agent has not spoken yet"];
    let before = [out.clone(), sick.clone(), unmade.clone()];
    check_change(&before, &[inside.clone(), sick.clone(), unmade.clone()], &stopped_cleanly, &want);
    // Somebody else's change meets the same pods later.
    let now = [inside, sick, unmade];
    check_change(&now, &now, &stopped_cleanly, &[]);
    check_change(std::slice::from_ref(&out), std::slice::from_ref(&out), &stopped_cleanly, &[]);
}

#[test]
fn a_change_waits_for_the_deployments_it_changed() {
    let owner = json!({"ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "d", "controller": true}]});
    let replica = named("web-0", "1", "a", owner, false);
    let (old, new) = ([deployment("a"), replica.clone()], [deployment("b"), replica]);
    check_change(&old, &old, &Mesh::None, &[]);
    check_change(&old, &new, &Mesh::None, &["pod shop/web-0 is Running and not ready"]);

    let object = |name: &str| ObjectName { namespace: "shop".to_owned(), name: name.to_owned() };
    let problem = |kind, name: &str| Problem { kind, object: object(name), message: "no room".to_owned() };
    let outlook = Outlook {
        problems: vec![problem("Pod", "nowhere"), problem("Pod", "web-1")],
        rules: vec!["service rules of node1 are not in force: they are being written".to_owned()],
        unfinished: [object("web"), object("other")].into(),
    };
    let left = |demand: &Demand| demand.left_of(&outlook);
    let (old, new) = (snapshot(&old), snapshot(&new));
    assert_eq!(left(&Demand::of_change((&old, &outlook), &old)), outlook.rules);
    assert_eq!(left(&Demand::pod(&object("web-0"), &outlook, BTreeMap::new())), outlook.rules);
    let want =
        ["Pod shop/web-1: no room", &outlook.rules[0], "Deployment shop/web is still replacing its pods"];
    assert_eq!(left(&Demand::of_change((&old, &outlook), &new)), want);
    assert_eq!(left(&Demand::Everything).len(), 5);
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
    let stopped = look(&snapshot(&[]), &Mesh::Stopped, &[], &Demand::Everything);
    assert!(stopped.hopeless);
    assert_eq!(stopped.what, ["istiod is stopped; start it with: ambit lab start istiod --name cart"]);
}

#[test]
fn a_started_pod_is_waited_for_until_its_new_run_is_reported() {
    let name = ObjectName { namespace: "shop".to_owned(), name: "web".to_owned() };
    let runs = BTreeMap::from([("c".to_owned(), 2)]);
    let demand = Demand::pod(&name, &Outlook::default(), runs);
    let with = |restarts: u32| {
        let mut pod = named("web", "1", "a", json!({}), true);
        pod["status"]["containerStatuses"] =
            json!([{"name": "c", "restartCount": restarts, "image": "", "imageID": "", "ready": true}]);
        pod
    };
    let missing = |pod: Value| {
        look(&snapshot(&[pod, named("other", "2", "a", json!({}), false)]), &Mesh::None, &[], &demand).what
    };
    assert_eq!(missing(with(1)), ["pod shop/web is being started"]);
    assert_eq!(missing(with(2)), Vec::<String>::new());
    assert_eq!(missing(with(3)), Vec::<String>::new());
}

/// A Gateway of the class of waypoints, with that many pods asked for.
fn gateway(replicas: &str, addresses: &[&str]) -> Value {
    let addresses: Vec<Value> = addresses.iter().map(|a| json!({"value": a})).collect();
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "waypoint", "namespace": "shop", "annotations": {"ambit.internal/replicas": replicas}},
        "spec": {"gatewayClassName": "istio-waypoint",
            "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}]},
        "status": {"addresses": addresses}})
}

/// The control plane with one node that has everything, and these pods of waypoints.
fn with_waypoints(waypoints: Value) -> Mesh {
    let node = json!({"node": "node1", "connected": true, "acked_revision": 7});
    Mesh::Sync(json!({"revision": 7, "nodes": [node], "waypoints": waypoints}))
}

#[test]
fn a_gateway_is_waited_for_until_it_has_its_address() {
    let mesh = with_waypoints(json!([]));
    let lacks = ["Gateway shop/waypoint has no address yet: none of its pods has been ready"];
    check(&[gateway("1", &[])], &mesh, &lacks);
    check(&[gateway("1", &["10.96.0.16"])], &mesh, &[]);
    check(&[gateway("0", &[])], &mesh, &[]);
    check(&[gateway("1", &[])], &Mesh::None, &[]);
    let (new, other) = (gateway("1", &[]), gateway("2", &[]));
    check_change(&[], std::slice::from_ref(&new), &mesh, &lacks);
    check_change(std::slice::from_ref(&new), &[other], &mesh, &lacks);
    // One that had none before is not the next command's business.
    check_change(std::slice::from_ref(&new), std::slice::from_ref(&new), &mesh, &[]);
}

#[test]
fn every_waypoint_that_serves_has_to_acknowledge() {
    let labels = json!({"labels": {
        "gateway.networking.k8s.io/gateway-name": "waypoint", "gateway.istio.io/managed": "istio.io-mesh-controller",
    }});
    let own = |is_ready: bool| [named("waypoint-0", "1", "a", labels.clone(), is_ready)];
    let told = |pod: &str, connected: bool, acked: u64| {
        json!([{"gateway": "shop/waypoint", "pod": pod, "connected": connected, "acked_revision": acked,
            "rejected": []}])
    };
    check(&own(true), &with_waypoints(told("waypoint-0", true, 7)), &[]);
    let behind = ["waypoint/shop/waypoint (pod waypoint-0) has acknowledged revision 6 of 7"];
    check(&own(true), &with_waypoints(told("waypoint-0", true, 6)), &behind);
    let away = ["waypoint/shop/waypoint (pod waypoint-0) is not connected to the control plane"];
    check(&own(true), &with_waypoints(told("waypoint-0", false, 7)), &away);
    check(&own(true), &with_waypoints(told("waypoint-1", true, 7)), &away);
    check(&own(true), &with_waypoints(json!([])), &away);
    let of = |connected: bool, acked: u64| told("waypoint-0", connected, acked)[0].clone();
    check(&own(true), &with_waypoints(json!([of(false, 3), of(true, 7)])), &[]);
    // A control plane that knows of no waypoints, and a pod that does not serve, hold nobody up.
    let node = json!({"node": "node1", "connected": true, "acked_revision": 7});
    check(&own(true), &Mesh::Sync(json!({"revision": 7, "nodes": [node]})), &[]);
    check_change(&own(false), &own(false), &with_waypoints(json!([])), &[]);
    // While it is connected, requests may go through a pod that is starting or ending too.
    check_change(&own(false), &own(false), &with_waypoints(told("waypoint-0", true, 7)), &[]);
    check_change(&own(false), &own(false), &with_waypoints(told("waypoint-0", true, 6)), &behind);
    let mut ending = own(true);
    ending[0]["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    check_change(&ending, &ending, &with_waypoints(told("waypoint-0", true, 6)), &behind);
    check_change(&ending, &ending, &with_waypoints(told("waypoint-0", true, 7)), &[]);
    check_change(&ending, &ending, &with_waypoints(told("waypoint-0", false, 6)), &[]);
}

#[test]
fn gateways_of_another_controller_hold_nobody_up() {
    let class = |controller: &str| {
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
            "metadata": {"name": "istio-waypoint"}, "spec": {"controllerName": controller}})
    };
    let labels = json!({"labels": {
        "gateway.networking.k8s.io/gateway-name": "waypoint", "gateway.istio.io/managed": "istio.io-mesh-controller",
    }});
    let pod = named("waypoint-0", "1", "a", labels, true);
    let of = |controller: &str| {
        let objects = [class(controller), gateway("1", &[]), pod.clone()];
        look(&snapshot(&objects), &with_waypoints(json!([])), &["node1".to_owned()], &Demand::Everything)
    };
    assert_eq!(of("istio.io/mesh-controller").what.len(), 2);
    let left = of("example.com/other");
    assert_eq!(left.what, Vec::<String>::new());
    assert_eq!(
        left.remarks,
        ["Gateway shop/waypoint is told nothing: GatewayClass istio-waypoint has the controller \
          example.com/other, not istio.io/mesh-controller"]
    );
}

#[test]
fn a_waypoint_that_refuses_protection_holds_up_the_change() {
    let labels = json!({"labels": {
        "gateway.networking.k8s.io/gateway-name": "waypoint", "gateway.istio.io/managed": "istio.io-mesh-controller",
    }});
    let pods = [named("waypoint-0", "1", "a", labels, true)];
    let refused = |kind: &str| {
        let refused = json!({"kind": kind, "name": "shop/strict", "reason": "too many rules"});
        let mesh =
            with_waypoints(json!([{"gateway": "shop/waypoint", "pod": "waypoint-0", "connected": true,
            "acked_revision": 7, "rejected": [refused]}]));
        let left = look(&snapshot(&pods), &mesh, &["node1".to_owned()], &Demand::Everything);
        (left.what, left.remarks)
    };
    let words = |kind: &str| {
        format!("waypoint/shop/waypoint (pod waypoint-0) refuses {kind} shop/strict: too many rules")
    };
    for kind in ["HttpPolicy", "RequestAuthentication"] {
        assert_eq!(refused(kind), (vec![words(kind)], vec![]));
    }
    assert_eq!(refused("Frontend"), (vec![], vec![words("Frontend")]));
}
