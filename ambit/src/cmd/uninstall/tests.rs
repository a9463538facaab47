//! The order of a removal, and what stays.

use super::*;

#[test]
fn the_webhook_goes_first_and_rights_after_the_programs() {
    let all = bundle::everything().unwrap();
    let of = |phase: Phase| all.iter().filter(|o| Phase::of(o) == phase).map(name_of).collect::<Vec<_>>();
    assert_eq!(of(Phase::Webhook), ["ValidatingWebhookConfiguration istio-validator-istio-system"]);
    assert_eq!(of(Phase::Agents), ["DaemonSet istio-system/ambit-cni"]);
    assert_eq!(of(Phase::Tunnels), ["DaemonSet istio-system/ztunnel"]);
    assert!(of(Phase::Ground).contains(&"ServiceAccount istio-system/ambit-cni".to_owned()));
    assert!(of(Phase::Last).contains(&"Namespace istio-system".to_owned()));
}

#[test]
fn a_pod_is_released_when_its_annotation_is_gone_or_it_has_ended() {
    let pod = |phase: &str, word: Value| json!({"metadata": {"annotations": {REDIRECTION: word}}, "status": {"phase": phase}});
    assert!(is_captured(&pod("Running", json!("enabled"))));
    assert!(is_captured(&pod("Running", json!("pending"))));
    assert!(!is_captured(&pod("Succeeded", json!("enabled"))));
    assert!(!is_captured(&pod("Running", Value::Null)));
}

#[test]
fn nodes_without_a_ready_agent_are_named() {
    let set = |wanted: u64, ready: u64| {
        let status = json!({"desiredNumberScheduled": wanted, "numberReady": ready, "observedGeneration": 2});
        json!({"metadata": {"generation": 2}, "status": status})
    };
    let pod = |node: &str, ready: &str| json!({"spec": {"nodeName": node}, "status": {"conditions": [{"type": "Ready", "status": ready}]}});
    let nodes = ["n1", "n2", "n3"].map(|name| json!({"metadata": {"name": name}}));
    let mut leaving = pod("n3", "True");
    leaving["metadata"] = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
    let pods = [pod("n1", "True"), pod("n2", "False"), leaving];
    let found = |wanted, ready| agents::without_agent(&set(wanted, ready), &pods, &nodes);
    assert!(found(3, 3).is_empty(), "they stand");
    assert!(found(0, 0).is_empty(), "it is meant for no node");
    assert_eq!(found(3, 1), ["n2", "n3"]);
    let all = ["n1", "n2", "n3"].map(|node| pod(node, "True"));
    assert_eq!(agents::without_agent(&set(4, 3), &all, &nodes), ["1 of 4 nodes"]);
    let mut old = set(3, 3);
    old["metadata"]["generation"] = json!(3);
    assert_eq!(
        agents::without_agent(&old, &pods, &nodes),
        ["n2", "n3"],
        "the status is from before a change"
    );
}

#[test]
fn only_what_we_wrote_is_taken_for_ours() {
    let named = |namespace: &str, name: &str| json!({"metadata": {"namespace": namespace, "name": name}});
    let secret = WRITTEN.iter().find(|written| written.kind == "Secret").unwrap();
    assert!(secret.is(&named("istio-system", "istio-ca-secret")));
    assert!(!secret.is(&named("istio-system", "cacerts")));
    assert!(!secret.is(&named("shop", "istio-ca-secret")));
    let map = WRITTEN.iter().find(|written| written.kind == "ConfigMap").unwrap();
    assert!(map.is(&named("shop", "istio-ca-root-cert")));
}

#[test]
fn only_what_the_control_plane_says_is_taken_back() {
    let said = |manager: &str, part: &str, status: &Value| {
        json!({"apiVersion": "v1", "kind": "Service", "status": status, "metadata": {
        "name": "cart", "namespace": "shop", "resourceVersion": "7",
        "managedFields": [{"manager": manager, "subresource": part, "operation": "Apply", "fieldsV1": {"f:status": {
            "f:conditions": {"k:{\"type\":\"istio.io/WaypointBound\"}": {".": {}, "f:status": {}}},
            "f:observedGeneration": {},
        }}}]}})
    };
    let (ours, theirs) = (json!({"type": "istio.io/WaypointBound"}), json!({"type": "theirs"}));
    let rows = [
        (json!({"conditions": [ours], "observedGeneration": 3}), Value::Null),
        (
            json!({"conditions": [ours], "observedGeneration": 3, "loadBalancer": {}}),
            json!({"conditions": null, "observedGeneration": null}),
        ),
        (json!({"conditions": [theirs, ours]}), json!({"conditions": [theirs], "observedGeneration": null})),
    ];
    for (status, left) in rows {
        let change = order::taken_back(&said("ambit-istiod", "status", &status)).unwrap();
        assert_eq!(change, json!({"metadata": {"resourceVersion": "7"}, "status": left}), "{status}");
        assert!(order::taken_back(&said("ambit-istiod", "", &status)).is_none());
        assert!(order::taken_back(&said("kubectl", "status", &status)).is_none());
    }
}

#[test]
fn a_workload_is_gone_with_its_pods() {
    let pods: Vec<_> = bundle::everything().unwrap().iter().filter_map(order::pods_of).collect();
    assert_eq!(pods, ["app=istiod,istio=pilot", "app=ztunnel", "app.kubernetes.io/name=ambit-cni"]);
}

#[test]
fn a_long_list_is_cut() {
    let names: Vec<String> = (1..=7).map(|n| format!("p{n}")).collect();
    assert_eq!(first(&names), "p1, p2, p3, p4, p5 and 2 more");
    assert_eq!(first(&names[..2]), "p1, p2");
}
