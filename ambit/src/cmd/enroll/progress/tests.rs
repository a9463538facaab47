//! What is said of pods on their way into the mesh or out of it.

use serde_json::json;

use super::*;

fn pod(name: &str, captured: bool, restarts: u64) -> Value {
    let annotations = if captured { json!({REDIRECTION: "enabled"}) } else { json!({}) };
    json!({
        "metadata": {"name": name, "uid": name, "annotations": annotations, "labels": {}},
        "spec": {},
        "status": {"phase": "Running", "containerStatuses": [{"restartCount": restarts}],
            "conditions": [{"type": CAPTURED, "status": if captured { "True" } else { "False" }, "reason": "AMB1101"}]},
    })
}

#[test]
fn pods_are_counted_until_all_have_followed() {
    let mut pods = vec![pod("a", true, 3), pod("b", false, 0)];
    let before = Restarts::of(&pods);
    let progress = Progress::of(&pods, Way::In);
    assert_eq!(progress.line(before.more_in(&pods)), "captured 1/2, 0 restarted");
    assert_eq!(progress.waiting(), "b (AMB1101)");
    assert!(!progress.is_complete());
    pods[1] = pod("b", true, 1);
    let progress = Progress::of(&pods, Way::In);
    assert_eq!(progress.line(before.more_in(&pods)), "captured 2/2, 1 restarted");
    assert!(progress.is_complete());
    assert_eq!(Progress::of(&pods, Way::Out).line(0), "released 0/2, 0 restarted");
}

#[test]
fn a_pending_pod_is_neither_captured_nor_released() {
    let mut one = pod("a", true, 0);
    one["metadata"]["annotations"][REDIRECTION] = json!("pending");
    for way in [Way::In, Way::Out] {
        assert!(!Progress::of(std::slice::from_ref(&one), way).is_complete());
    }
}

#[test]
fn pods_that_the_label_is_not_about_are_named_as_such() {
    let with = |pointer: &str, key: &str, value: Value| {
        let mut pod = pod("x", false, 0);
        pod.pointer_mut(pointer).unwrap()[key] = value;
        pod
    };
    let aside = [
        with("/spec", "hostNetwork", json!(true)),
        with("/status", "phase", json!("Succeeded")),
        with("/metadata", "deletionTimestamp", json!("2026-01-01T00:00:00Z")),
        with("/metadata/labels", MODE, json!("none")),
    ];
    for pod in &aside {
        assert!(Progress::of(std::slice::from_ref(pod), Way::In).is_complete(), "{pod}");
    }
    let progress = Progress::of(&aside, Way::In);
    assert_eq!(progress.line(0), "captured 0/0, 0 restarted, 4 not concerned");
    assert_eq!(progress.would("shop"), "namespace shop: 0 of 0 pods would be captured, 4 not concerned");
}
