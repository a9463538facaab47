//! EgressPolicy with real connections: where a pod may connect outside the mesh, and that `ambit explain` says the same.
//!
//! Outside is what discovery knows of no address: pods in a node's network, which share its address.

use std::time::Duration;

use ambit_tests::lab::{Lab, wait_until};
use serde_json::{Value, json};

use crate::cast::{PORT, namespace, oracle, pod, server};

const CLIENT: &str = "shop/caller";
/// Outside the mesh, on the other node.
const OUTSIDE: &str = "legacy/host";
/// Where it listens beside [`PORT`].
const SECOND: u16 = 7001;
const WAIT: Duration = Duration::from_secs(10);
const DENIED: &str = "AMB3005";

fn cast() -> Vec<Value> {
    let mut outside = pod(OUTSIDE, "node2", &[]);
    outside["spec"]["hostNetwork"] = json!(true);
    outside["spec"]["containers"] = json!([oracle(PORT), oracle(SECOND)]);
    vec![
        namespace("shop", true),
        namespace("legacy", false),
        pod(CLIENT, "node1", &[]),
        pod("shop/other", "node1", &[]),
        server("shop/echo", "node2"),
        server("legacy/plain", "node2"),
        outside,
    ]
}

fn policy(spec: &Value) -> Value {
    json!({
        "apiVersion": "ambit.internal/v1alpha1", "kind": "EgressPolicy",
        "metadata": {"name": "out", "namespace": "shop"}, "spec": spec,
    })
}

/// Whether a connection is let out; what `ambit explain` says has to be the same.
#[track_caller]
fn is_let_out(lab: &Lab, from: &str, to: &str) -> bool {
    let is_open = lab.call(from, to, &["--connections", "1"])["ok"] == true;
    let told: Value =
        serde_json::from_str(&lab.ambit(&["explain", from, to, "-o", "json"]).stdout).expect("JSON");
    let told = &told["items"][0];
    let is_told = (told["verdict"] == "allow", &told["reason"]["code"]);
    let want = if is_open { Value::Null } else { json!(DENIED) };
    assert_eq!(is_told, (is_open, &want), "{from} to {to}: {told:#}");
    is_open
}

/// Applies a policy and waits until the client's node goes by it; `to` is let out before or after, not both.
#[track_caller]
fn puts(lab: &Lab, spec: &Value, to: &str, is_open: bool) {
    lab.apply(&[policy(spec)]);
    wait_until("the client's node goes by the policy", WAIT, || {
        (lab.call(CLIENT, to, &["--connections", "1"])["ok"] == true) == is_open
    });
}

#[test]
fn pods_leave_the_mesh_only_where_a_policy_lets_them() {
    let Some(lab) = Lab::up("egress", &cast(), &[]) else { return };
    let (first, second) = (lab.target(OUTSIDE, 4, PORT), lab.target(OUTSIDE, 4, SECOND));
    let all = [&first, &second];
    let lets = || all.map(|to| is_let_out(&lab, CLIENT, to));
    assert_eq!(lets(), [true, true], "without a policy");

    puts(&lab, &json!({}), &first, false);
    assert_eq!(lets(), [false, false], "without a rule");
    for known in ["shop/echo", "legacy/plain"] {
        assert!(is_let_out(&lab, CLIENT, &lab.target(known, 4, PORT)), "{known} is known to the mesh");
    }
    refusals_are_recorded(&lab, &first);

    puts(&lab, &json!({"allow": [{"ports": [PORT]}]}), &first, true);
    assert_eq!(lets(), [true, false], "one port");

    let range = format!("{}/32", lab.address(OUTSIDE, 4));
    puts(&lab, &json!({"default": "Deny", "allow": [{"cidrs": [range]}]}), &second, true);
    assert_eq!(lets(), [true, true], "its range");

    puts(&lab, &json!({"allow": [{"cidrs": ["192.0.2.0/24"]}]}), &second, false);
    assert_eq!(lets(), [false, false], "another range");

    let other = json!({"selector": {"matchLabels": {"app": "other"}}});
    puts(&lab, &other, &second, true);
    assert_eq!(lets(), [true, true], "a policy of another pod");
    assert!(!is_let_out(&lab, "shop/other", &first), "the pod that is selected");

    drop(lab.lab(&["delete", "egresspolicy", "out", "-n", "shop"]));
    wait_until("the other pod is let out", WAIT, || {
        lab.call("shop/other", &first, &["--connections", "1"])["ok"] == true
    });
}

/// The client's node says who, where to and by which policy.
#[track_caller]
fn refusals_are_recorded(lab: &Lab, to: &str) {
    let mut found = Vec::new();
    wait_until("the refusal is recorded", WAIT, || {
        found = lab.flows(&["--code", DENIED]);
        found.retain(|flow| flow["dst"]["addr"] == to);
        !found.is_empty()
    });
    let flow = &found[0];
    assert_eq!(flow["src"]["workload"], "caller", "{flow:#}");
    assert_eq!((&flow["verdict"], &flow["policy"]), (&json!("denied"), &json!("shop/out")), "{flow:#}");
    let error = flow["error"].as_str().unwrap_or_default();
    assert!(error.contains(&format!("no rule admits {to}")), "{flow:#}");
    let metrics = lab.on_node("node1", &["curl", "-s", "http://127.0.0.1:15020/metrics"]).ok();
    assert!(metrics.lines().any(|line| line.contains(DENIED)), "no metric tells of it");
}
