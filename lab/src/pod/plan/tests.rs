//! Pod objects as processes to start.

use super::*;
use serde_json::json;

fn pod(container: serde_json::Value) -> core::Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "web-0", "namespace": "shop", "uid": "u1", "labels": {"app": "web"}},
        "spec": {"nodeName": "node1", "containers": [container], "terminationGracePeriodSeconds": 2},
        "status": {"podIP": "10.244.1.2", "podIPs": [{"ip": "10.244.1.2"}, {"ip": "fd00:10:244:1::2"}], "hostIP": "172.30.0.1"}
    }))
    .expect("a good pod")
}

#[test]
fn a_container_becomes_program_and_environment() {
    let values = Values::from([(
        ("ConfigMap", "shop".to_owned(), "cfg".to_owned()),
        BTreeMap::from([("port".to_owned(), "8080".to_owned())]),
    )]);
    let pod = pod(json!({
        "name": "web", "command": ["serve", "$(WHERE):$(PORT)"], "args": ["--as", "$(ME)"], "workingDir": "/tmp",
        "env": [
            {"name": "WHERE", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "PORT", "valueFrom": {"configMapKeyRef": {"name": "cfg", "key": "port"}}},
            {"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "WHO", "valueFrom": {"fieldRef": {"fieldPath": "spec.serviceAccountName"}}},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
            {"name": "SOCKET", "value": "/run/$(NODE)/$(UID)/admin.sock"},
            {"name": "MAYBE", "valueFrom": {"secretKeyRef": {"name": "no", "key": "no", "optional": true}}}
        ]
    }));
    let plan = PodPlan::of(&pod, &values).expect("a good pod");
    let web = &plan.containers[0];
    assert_eq!(web.argv, ["serve", "10.244.1.2:8080", "--as", "web"]);
    assert_eq!(web.directory, PathBuf::from("/tmp"));
    let env: BTreeMap<_, _> = web.env.iter().cloned().collect();
    assert_eq!((&*env["WHO"], &*env["SOCKET"]), ("default", "/run/node1/u1/admin.sock"));
    assert!(!env.contains_key("MAYBE"));
    assert_eq!(plan.grace, Duration::from_secs(2));
    assert_eq!(plan.addresses.len(), 2);
}

#[test]
fn a_missing_reference_is_named() {
    let pod = pod(json!({"name": "web", "command": ["x"], "env": [
        {"name": "P", "valueFrom": {"configMapKeyRef": {"name": "cfg", "key": "port"}}}]}));
    let why = PodPlan::of(&pod, &Values::new()).expect_err("nothing has that key");
    assert_eq!(why, "container web: variable P wants key port of ConfigMap cfg, which does not exist");
}

#[test]
fn arguments_without_a_command_run_nothing() {
    let pod = pod(json!({"name": "web", "args": ["-v"]}));
    assert!(PodPlan::of(&pod, &Values::new()).expect("a good pod").containers[0].argv.is_empty());
}

#[test]
fn restart_policies_differ_on_exit_codes() {
    let rows = [
        (Restart::Always, 0, true),
        (Restart::OnFailure, 0, false),
        (Restart::OnFailure, 1, true),
        (Restart::Never, 1, false),
    ];
    for (policy, code, again) in rows {
        assert_eq!(policy.starts_again(code), again, "row {policy:?} {code}");
    }
}
