//! Which objects a plan changes, and in which fields.

use serde_json::json;

use super::*;

fn ours(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "kind": kind,
        "metadata": {"name": name, "namespace": "istio-system", "labels": {PART_OF.0: PART_OF.1}},
        "spec": spec,
    })
}

fn paths(live: &Value, would: &Value) -> Vec<String> {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let line = |d: &Difference| format!("{} {} {}", d.path, text(&d.before), text(&d.after));
    differences(live, would).iter().map(line).collect()
}

#[test]
fn an_element_with_a_name_is_compared_with_its_namesake() {
    let env = |list: Value| json!({"spec": {"containers": [{"name": "c", "env": list}]}});
    let before = env(json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]));
    let after =
        env(json!([{"name": "N", "value": "0"}, {"name": "A", "value": "1"}, {"name": "B", "value": "3"}]));
    assert_eq!(
        paths(&before, &after),
        [
            "spec.containers[c].env[B].value 2 3",
            "spec.containers[c].env[N] - {\"name\":\"N\",\"value\":\"0\"}",
        ]
    );
}

#[test]
fn what_the_server_writes_is_no_difference() {
    let live = json!({
        "metadata": {"name": "n", "uid": "u", "resourceVersion": "7", "generation": 3, "managedFields": [{}],
            "annotations": {"deployment.kubernetes.io/revision": "2"}},
        "spec": {"a": 1}, "status": {"x": 1},
    });
    assert_eq!(paths(&live, &json!({"metadata": {"name": "n"}, "spec": {"a": 1}})), [""; 0]);
    assert_eq!(paths(&live, &json!({"metadata": {"name": "n"}, "spec": {"a": [2]}})), ["spec.a 1 [2]"]);
}

#[test]
fn what_is_somebody_elses_is_never_taken_over() {
    let foreign = |kind: &str| json!({"kind": kind, "metadata": {"name": "istiod"}});
    for (kind, want) in [
        ("Service", Change::Clash),
        ("ServiceAccount", Change::Clash),
        ("DaemonSet", Change::Clash),
        ("CustomResourceDefinition", Change::Leave),
        ("GatewayClass", Change::Leave),
        ("Namespace", Change::Keep),
    ] {
        let live = foreign(kind);
        assert_eq!(change(&foreign(kind), Some(&live), Some(&live)), want, "{kind}");
        assert_eq!(change(&foreign(kind), None, None), Change::Create, "{kind}");
    }
    let mine = ours("Service", "istiod", json!({}));
    assert_eq!(change(&mine, Some(&mine), Some(&mine)), Change::Keep);
}

#[test]
fn only_a_new_template_restarts_anything() {
    let at = |n: u32, image: &str| json!({"replicas": n, "template": {"spec": {"image": image}}});
    let before = ours("DaemonSet", "ztunnel", at(1, "a"));
    let told = |spec: Value| {
        let after = ours("DaemonSet", "ztunnel", spec);
        restarts(&after, &change(&after, Some(&before), Some(&after)))
    };
    assert!(told(at(1, "b")).is_some_and(|words| words.contains("takes over")));
    assert_eq!(told(at(2, "a")), None);
    assert_eq!(told(at(1, "a")), None);
}

#[test]
fn the_order_is_that_in_which_things_stand_on_each_other() {
    let stages: Vec<Stage> = crate::bundle::everything().unwrap().iter().map(Stage::of).collect();
    for stage in
        [Stage::Ground, Stage::Rights, Stage::ControlPlane, Stage::Around, Stage::Agents, Stage::Tunnels]
    {
        assert!(stages.contains(&stage), "nothing is of the stage {}", stage.as_str());
    }
    assert!(Stage::ControlPlane < Stage::Agents && Stage::Agents < Stage::Tunnels);
}

#[test]
fn a_workload_is_rolled_out_when_every_pod_is_new_and_available() {
    let set = |seen: i64, updated: i64, available: i64| {
        json!({"kind": "DaemonSet", "metadata": {"generation": 2}, "status": {"observedGeneration": seen,
            "desiredNumberScheduled": 3, "updatedNumberScheduled": updated, "numberAvailable": available}})
    };
    assert_eq!(pending(&set(2, 3, 3)), None);
    assert!(pending(&set(1, 3, 3)).is_some());
    assert_eq!(pending(&set(2, 3, 2)).unwrap(), "3 of 3 are new, 2 available");
    let one = json!({"kind": "Deployment", "metadata": {"generation": 1}, "spec": {"replicas": 2},
        "status": {"observedGeneration": 1, "updatedReplicas": 2, "availableReplicas": 2}});
    assert_eq!(pending(&one), None);
}

#[test]
fn an_upgrade_leaves_a_webhook_closed_that_the_control_plane_closed() {
    let webhooks = |policy: &str| {
        let mut object = ours("ValidatingWebhookConfiguration", "w", Value::Null);
        object["webhooks"] =
            json!([{"name": "a", "failurePolicy": policy}, {"name": "b", "failurePolicy": "Ignore"}]);
        object
    };
    let (wanted, mut live) = (webhooks("Ignore"), webhooks("Fail"));
    assert_eq!(over(&wanted, &live), live);
    // A webhook that is new is as installed.
    live["webhooks"].as_array_mut().unwrap().remove(0);
    assert_eq!(over(&wanted, &live), wanted);
    // What somebody else said is not ours to keep.
    let mut foreign = webhooks("Fail");
    foreign["metadata"]["labels"] = json!({});
    assert_eq!(over(&wanted, &foreign), wanted);
}
