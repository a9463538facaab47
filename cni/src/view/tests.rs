//! Which pods of the source are this node's, and what is read of them.

use serde_json::json;

use super::*;

fn pod(value: serde_json::Value) -> PodObject {
    serde_json::from_value(value).unwrap()
}

#[test]
fn only_admitted_pods_of_this_node_are_ours() {
    let object = |name: &str, uid: &str, node: &str| {
        pod(json!({
            "metadata": {"name": name, "namespace": "shop", "uid": uid},
            "spec": {"nodeName": node, "containers": []},
        }))
    };
    let pods = [object("a", "u1", "node1"), object("b", "u2", "node2"), object("c", "", "node1")];
    let ours = pods_of_node("node1", &pods, []);
    assert_eq!(ours.keys().collect::<Vec<_>>(), ["u1"]);
    assert_eq!(ours["u1"].namespace_labels, None);
    assert_eq!(ours["u1"].service_account, "default");
}

#[test]
fn what_decides_is_read() {
    let object = pod(json!({
        "metadata": {
            "name": "a", "namespace": "shop", "uid": "u1",
            "labels": {"app": "cart"}, "annotations": {"ambient.istio.io/redirection": "enabled"},
        },
        "spec": {"nodeName": "node1", "serviceAccountName": "cart", "hostNetwork": true, "containers": []},
        "status": {
            "phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
            "conditions": [
                {"type": "Ready", "status": "True"},
                {"type": "ambit.internal/captured", "status": "False", "reason": "AMB1101", "message": "why"},
            ],
        },
    }));
    let namespace: Namespace =
        serde_json::from_value(json!({"metadata": {"name": "shop", "labels": {"k": "v"}}})).unwrap();
    let ours = pods_of_node("node1", [&object], [&namespace]);
    let pod = &ours["u1"];
    assert_eq!(pod.addresses.len(), 2);
    assert!(pod.running && !pod.finished && pod.host_network);
    assert_eq!(pod.redirection(), Some("enabled"));
    assert_eq!(pod.service_account, "cart");
    assert_eq!(pod.namespace_labels.as_ref().unwrap()["k"], "v");
    let condition = pod.condition.as_ref().unwrap();
    assert_eq!((condition.status, condition.reason.as_str()), (false, "AMB1101"));
    let mut done = object.clone();
    done.status.as_mut().unwrap().phase = Some("Failed".to_owned());
    assert!(pods_of_node("node1", [&done], [])["u1"].finished);
}
