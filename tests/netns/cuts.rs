//! Changes of policy and labels re-decide connections that are open, within a second, and the record names why.

use std::time::Duration;

use ambit_tests::lab::{Background, Lab, wait_until};
use serde_json::{Value, json};

use crate::cast::{PORT, namespace, pod, security, server};

const SECOND: Duration = Duration::from_secs(1);

fn cast() -> Vec<Value> {
    vec![
        namespace("istio-system", false),
        namespace("shop", true),
        namespace("legacy", false),
        pod("shop/caller", "node1", &[]),
        pod("legacy/plain", "node1", &[]),
        server("shop/echo", "node2"),
        server("shop/near", "node1"),
    ]
}

fn deny(name: &str, selector: &Value) -> Value {
    let mut spec = json!({"action": "DENY", "rules": [{"from": [{"source": {"namespaces": ["shop"]}}]}]});
    if !selector.is_null() {
        spec["selector"] = json!({"matchLabels": selector});
    }
    security("AuthorizationPolicy", &format!("shop/{name}"), &spec)
}

#[test]
fn a_new_denial_cuts_live_connections() {
    let Some(lab) = Lab::up("cuts", &cast(), &[]) else { return };
    for server in ["shop/echo", "shop/near"] {
        let mut held = hold(&lab, "shop/caller", server);
        lab.apply(&[deny("lock", &Value::Null)]);
        ends_within_a_second(&mut held);
        names(&lab, server, "AMB2107", Some("shop/lock"));
        let _ = lab.lab(&["delete", "authorizationpolicy", "lock", "-n", "shop"]);
    }
}

#[test]
fn strict_cuts_live_plaintext() {
    let Some(lab) = Lab::up("cut-strict", &cast(), &[]) else { return };
    let mut held = hold(&lab, "legacy/plain", "shop/echo");
    lab.apply(&[security("PeerAuthentication", "shop/default", &json!({"mtls": {"mode": "STRICT"}}))]);
    ends_within_a_second(&mut held);
    names(&lab, "shop/echo", "AMB2107", None);
}

#[test]
fn a_new_label_puts_live_connections_under_a_policy() {
    let Some(lab) = Lab::up("cut-label", &cast(), &[]) else { return };
    lab.apply(&[deny("sealed", &json!({"sealed": "yes"}))]);
    let mut held = hold(&lab, "shop/caller", "shop/echo");
    let mut other = hold(&lab, "shop/caller", "shop/near");
    let _ = lab.lab(&["label", "pod", "echo", "-n", "shop", "sealed=yes"]);
    ends_within_a_second(&mut held);
    names(&lab, "shop/echo", "AMB2107", Some("shop/sealed"));
    assert!(other.is_running(), "a connection that no policy covers was cut: {}", other.stdout());
}

/// Holds a connection that says something ten times a second.
fn hold(lab: &Lab, client: &str, server: &str) -> Background {
    let args = ["--hold", "--connections", "1", "--duration", "60s", "--interval", "100ms"];
    let held = lab.client(client, &lab.target(server, 4, PORT), &args);
    wait_until("the connection is held", Duration::from_secs(5), || held.stderr().contains("\"open\":1"));
    held
}

/// From when the change is in force on every node, as the command said by returning.
#[track_caller]
fn ends_within_a_second(held: &mut Background) {
    wait_until("the connection is cut", SECOND, || held.stderr().contains("\"event\":\"failed\""));
}

/// Demands a record of the cut at the server's node.
#[track_caller]
fn names(lab: &Lab, server: &str, code: &str, policy: Option<&str>) {
    let is_it = |flow: &Value| {
        flow["direction"] == "inbound"
            && flow["code"] == code
            && policy.is_none_or(|name| flow["policy"] == name)
    };
    let mut flows = Vec::new();
    for _ in 0..100 {
        flows = lab.flows(&["--to-pod", server]);
        if flows.iter().any(is_it) {
            return;
        }
    }
    panic!("no record with {code} and {policy:?}: {flows:#?}");
}
