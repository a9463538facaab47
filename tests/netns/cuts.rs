//! Changes of policy and labels re-decide connections that are open, within a second, and the record names why.

use std::time::{Duration, UNIX_EPOCH};

use ambit_runtime::clock;
use ambit_tests::lab::{Background, Lab, summary, wait_until};
use serde_json::{Value, json};

use crate::cast::{PORT, namespace, pod, security, server};

/// Longest time from the start of the command that makes the change until a connection is cut. All that a command waits
/// for comes after it has written its objects, so all of it counts: some 30 ms on an idle machine.
const LONGEST: Duration = Duration::from_secs(1);
/// A connection that is not cut ends by itself before.
const HELD: Duration = Duration::from_secs(90);

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
        let held = hold(&lab, "shop/caller", server);
        cuts(server, held, || lab.apply(&[deny("lock", &Value::Null)]));
        named(&lab, server, "shop/caller", "shop/lock");
        let _ = lab.lab(&["delete", "authorizationpolicy", "lock", "-n", "shop"]);
    }
}

#[test]
fn strict_cuts_live_plaintext() {
    let Some(lab) = Lab::up("cut-strict", &cast(), &[]) else { return };
    // Across nodes and on one node; what has an identity is left alone.
    let servers = ["shop/echo", "shop/near"];
    let plain = servers.iter().flat_map(|server| hold(&lab, "legacy/plain", server)).collect();
    let mut meshed = hold(&lab, "shop/caller", "shop/echo");
    let strict = security("PeerAuthentication", "shop/default", &json!({"mtls": {"mode": "STRICT"}}));
    cuts("plaintext to both servers", plain, || lab.apply(&[strict]));
    for server in servers {
        named(&lab, server, "legacy/plain", "istio-system/istio_converted_static_strict");
    }
    assert!(meshed.iter_mut().all(Background::is_running), "a connection with an identity was cut");
}

#[test]
fn a_new_label_puts_live_connections_under_a_policy() {
    let Some(lab) = Lab::up("cut-label", &cast(), &[]) else { return };
    lab.apply(&[deny("sealed", &json!({"sealed": "yes"}))]);
    let label = |pod: &str| drop(lab.lab(&["label", "pod", pod, "-n", "shop", "sealed=yes"]));
    let far = hold(&lab, "shop/caller", "shop/echo");
    let mut near = hold(&lab, "shop/caller", "shop/near");
    cuts("shop/echo", far, || label("echo"));
    named(&lab, "shop/echo", "shop/caller", "shop/sealed");
    assert!(near.iter_mut().all(Background::is_running), "a connection that no policy covers was cut");
    cuts("shop/near", near, || label("near"));
    named(&lab, "shop/near", "shop/caller", "shop/sealed");
}

/// Holds a connection of each address family that says something ten times a second.
fn hold(lab: &Lab, client: &str, server: &str) -> Vec<Background> {
    let args = ["--hold", "--connections", "1", "--duration", "60s", "--interval", "100ms"];
    let held = [4, 6].map(|family| lab.client(client, &lab.target(server, family, PORT), &args));
    for held in &held {
        wait_until("the connection is held", Duration::from_secs(5), || held.stderr().contains("\"open\":1"));
    }
    held.into()
}

/// Makes a change and demands that it cuts every connection held, each soon enough after the change was begun.
#[track_caller]
fn cuts(what: &str, held: Vec<Background>, change: impl FnOnce()) {
    let begun = clock::wall();
    change();
    let in_force = clock::wall().duration_since(begun).unwrap_or_default();
    let cut = |held: &Background| held.stderr().contains("\"event\":\"failed\"");
    wait_until("the connections are cut", Duration::from_secs(5), || held.iter().all(cut));
    let since = |held: Background| {
        let summary = summary(&held.finish(HELD));
        let ms = |key: &str| summary[key].as_u64().expect("milliseconds");
        let failed = UNIX_EPOCH + Duration::from_millis(ms("started_unix_ms") + ms("last_failure_ms"));
        failed.duration_since(begun).expect("it was held when the change was begun")
    };
    let took: Vec<Duration> = held.into_iter().map(since).collect();
    println!("{what}: cut {took:?} after the command was started, which took {in_force:?}");
    assert!(took.iter().all(|took| *took < LONGEST), "{what}: cut only after {took:?}");
}

/// Demands that the flow records and the log of the server's node name the change and the policy for each of the two
/// connections.
#[track_caller]
fn named(lab: &Lab, server: &str, client: &str, policy: &str) {
    let of = ["--to-pod", server, "--from-pod", client, "--code", "AMB2107"];
    let mut flows = Vec::new();
    wait_until("the cuts are recorded", Duration::from_secs(5), || {
        flows = lab.flows(&of);
        flows.retain(|f| f["direction"] == "inbound" && f["policy"] == policy && f["verdict"] == "denied");
        flows.len() >= 2
    });
    for flow in flows {
        let conn_id = flow["conn_id"].as_str().expect("a connection id");
        let log = lab.log_lines(conn_id);
        let node = format!("ztunnel-{}.log: ", flow["node"].as_str().expect("a node"));
        let says = |line: &&String| {
            let words = [" direction=\"inbound\" ", " code=\"AMB2107\" ", "\tconnection complete\t"];
            line.starts_with(&node)
                && words.iter().all(|w| line.contains(w))
                && line.contains(&format!(" policy=\"{policy}\" "))
        };
        assert_eq!(log.iter().filter(says).count(), 1, "{policy} in the log of {node}{log:#?}");
    }
}
