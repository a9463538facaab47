//! What is counted, and what is called a fault.

use std::collections::BTreeSet;

use ambit_manifest::Kind;
use serde_json::{Value, json};

use super::tally::Tally;
use super::{is_well, missing_table, part, parts_table, report, tag};

/// A pod (`NAMESPACE/NAME`) on node1, with labels and what it says of capture.
fn pod(key: &str, labels: &Value, captured: Option<bool>) -> Value {
    let (namespace, name) = key.split_once('/').expect("NAMESPACE/NAME");
    let condition = captured.map(|is| {
        let (status, reason) = if is { ("True", "Captured") } else { ("False", "AMB1101") };
        json!({"type": "ambit.internal/captured", "status": status, "reason": reason, "message": "told"})
    });
    let conditions: Vec<Value> = condition.into_iter().collect();
    json!({
        "metadata": {"namespace": namespace, "name": name, "labels": labels},
        "spec": {"nodeName": "node1"},
        "status": {"phase": "Running", "conditions": conditions},
    })
}

fn own(name: &str, ready: bool, version: &str) -> Value {
    let mut pod = pod(&format!("mesh/{name}-x"), &json!({"app.kubernetes.io/name": name}), None);
    pod["spec"]["containers"] = json!([{"image": format!("example.com:5000/ambit/{name}:{version}")}]);
    pod["status"]["conditions"] = json!([{"type": "Ready", "status": if ready { "True" } else { "False" }}]);
    pod
}

fn tally(pods: &[Value]) -> (Vec<Value>, Vec<Value>, Vec<Value>) {
    let names = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<BTreeSet<String>>();
    let mut tally = Tally::new("mesh", names(&["shop"]), names(&["node1", "node2"]));
    pods.iter().for_each(|pod| tally.take(pod));
    tally.rows()
}

#[test]
fn those_pods_count_that_the_node_agent_would_capture() {
    let none = json!({});
    let mut host = pod("shop/host", &none, None);
    host["spec"]["hostNetwork"] = json!(true);
    let mut ended = pod("shop/ended", &none, None);
    ended["status"]["phase"] = json!("Succeeded");
    let mut going = pod("shop/going", &none, None);
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let mut sidecar = pod("shop/sidecar", &none, None);
    sidecar["metadata"]["annotations"] = json!({"sidecar.istio.io/status": "{}"});
    let mode = |value: &str| json!({"istio.io/dataplane-mode": value});
    let rows = [
        (pod("shop/web", &none, Some(true)), (1, 1)),
        (pod("shop/late", &none, Some(false)), (0, 1)),
        (pod("shop/new", &none, None), (0, 1)),
        (pod("shop/odd", &mode("other"), None), (0, 1)),
        (pod("bank/asks", &mode("ambient"), Some(true)), (1, 1)),
        (pod("bank/web", &none, None), (0, 0)),
        (pod("shop/out", &mode("none"), None), (0, 0)),
        (pod("kube-system/dns", &mode("ambient"), None), (0, 0)),
        (host, (0, 0)),
        (ended, (0, 0)),
        (going, (0, 0)),
        (sidecar, (0, 0)),
    ];
    for (pod, want) in &rows {
        let (nodes, _, missing) = tally(std::slice::from_ref(pod));
        let of = |key: &str| nodes[0][key].as_u64().expect("a number");
        assert_eq!((of("captured"), of("expected")), *want, "row {pod}");
        assert_eq!(missing.len() as u64, want.1 - want.0, "row {pod}");
    }
    let (_, _, missing) = tally(&[pod("shop/late", &none, Some(false)), pod("shop/new", &none, None)]);
    assert_eq!(
        missing_table(&missing),
        "NOT CAPTURED   NODE    REASON    MESSAGE\n\
         shop/late      node1   AMB1101   told\n\
         shop/new       node1   -         the node agent has not said anything of it\n"
    );
}

#[test]
fn a_node_has_the_version_that_runs_there_and_what_is_not_known_is_empty() {
    let (nodes, _, _) =
        tally(&[own("ztunnel", true, "1.1"), own("ztunnel", false, "1.2"), own("ambit-cni", true, "1.2")]);
    assert_eq!((&nodes[0]["version"], &nodes[0]["ready"]), (&json!("1.1,1.2"), &json!(true)));
    assert_eq!((&nodes[1]["version"], &nodes[1]["ready"]), (&Value::Null, &Value::Null));
    for unknown in ["synced", "state", "certificates", "certificates_valid", "selftest"] {
        assert!(nodes[0][unknown].is_null(), "{unknown}");
    }
    let (nodes, _, _) = tally(&[own("ztunnel", true, "1.1")]);
    assert_eq!(nodes[0]["ready"], false, "without its agent nothing is captured there");
    // A pod of that name in a namespace of somebody else is not ours.
    let mut other = own("ztunnel", true, "9");
    other["metadata"]["namespace"] = json!("shop");
    assert!(tally(&[other]).0[0]["version"].is_null());
}

#[test]
fn parts_that_are_not_there_are_no_zero() {
    let deployment = json!({"spec": {"replicas": 2, "template": {"spec": {"containers": [{"image": "r/i:3"}]}}},
        "status": {"readyReplicas": 1}});
    let daemons = json!({"status": {"numberReady": 3, "desiredNumberScheduled": 3}});
    let parts = [
        part("Deployment", "mesh/istiod-lite", Some(&deployment)),
        part("DaemonSet", "mesh/ztunnel", Some(&daemons)),
        part("DaemonSet", "mesh/ambit-cni", None),
    ];
    assert_eq!(
        parts_table(&parts),
        "PART                          READY   VERSION\n\
         Deployment mesh/istiod-lite   1/2     3\n\
         DaemonSet mesh/ztunnel        3/3     -\n\
         DaemonSet mesh/ambit-cni      -       -\n"
    );
    let row = |captured: u64, ready: Value| json!({"captured": captured, "expected": 2, "ready": ready});
    let whole = &parts[1..2];
    assert!(is_well(whole, &[row(2, Value::Null), row(2, json!(true))], &[]));
    assert!(!is_well(&parts[..1], &[], &[]) && !is_well(&parts[2..], &[], &[]));
    assert!(!is_well(whole, &[row(1, json!(true))], &[]));
    assert!(!is_well(whole, &[row(2, json!(false))], &[]));
    assert!(!is_well(whole, &[], &[json!({"ready": false})]));
    assert!(is_well(whole, &[], &[json!({"ready": false, "ending": true})]));
    let tags = ["r/i:1", "r:5000/i", "r:5000/i:2", "i@sha256:ab", "i:3@sha256:ab", "i"].map(tag);
    assert_eq!(tags, [Some("1"), None, Some("2"), None, Some("3"), None]);
}

#[test]
fn objects_are_named_by_what_the_mesh_says_of_them() {
    let condition =
        |of: &str, status: &str| json!({"type": of, "status": status, "reason": "R", "message": "m"});
    let object = |status: Value| {
        json!({"metadata": {"namespace": "shop", "name": "one"}, "status": status,
            "spec": {"gatewayClassName": "nginx"}})
    };
    let conditions = |all: &[Value]| object(json!({"conditions": all}));
    let parent = |controller: &str, status: &str| {
        object(
            json!({"parents": [{"controllerName": controller, "conditions": [condition("Accepted", status)]}]}),
        )
    };
    let rows = [
        (Kind::AuthorizationPolicy, conditions(&[condition("ZtunnelAccepted", "False")]), true),
        (Kind::AuthorizationPolicy, conditions(&[condition("ZtunnelAccepted", "True")]), false),
        (Kind::AuthorizationPolicy, object(json!({})), false),
        (Kind::HTTPRoute, parent("istio.io/gateway-controller", "False"), true),
        (Kind::HTTPRoute, parent("istio.io/gateway-controller", "True"), false),
        (Kind::HTTPRoute, parent("example.com/other", "False"), false),
        (Kind::HTTPRoute, conditions(&[condition("PartiallyInvalid", "False")]), false),
        (Kind::HTTPRoute, conditions(&[condition("PartiallyInvalid", "True")]), true),
        (Kind::Service, conditions(&[condition("istio.io/WaypointBound", "False")]), true),
        (Kind::Service, conditions(&[condition("example.com/Theirs", "False")]), false),
        (Kind::Gateway, conditions(&[condition("Programmed", "False")]), false),
    ];
    for (kind, object, is_faulty) in rows {
        let found = report(kind, &object);
        assert_eq!(found.is_some(), is_faulty, "row {kind:?} {object}");
        assert!(found.is_none_or(|found| found["name"] == "shop/one"));
    }
    let mut waypoint = conditions(&[condition("Programmed", "False")]);
    waypoint["spec"]["gatewayClassName"] = json!("istio-waypoint");
    assert!(report(Kind::Gateway, &waypoint).is_some());
}
