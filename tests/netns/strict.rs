//! STRICT: plaintext is refused at once with a code, the node's probes of declared ports pass, nothing else from there.

use std::time::Duration;

use ambit_tests::lab::{Lab, all_completed, wait_until};
use serde_json::{Value, json};

use crate::cast::{PORT, namespace, oracle, pod, security};

/// A port that listens and that no manifest declares.
const HIDDEN: u16 = 7999;

fn cast() -> Vec<Value> {
    let mut echo = pod("shop/echo", "node2", &[]);
    let mut hidden = oracle(HIDDEN);
    for key in ["ports", "readinessProbe"] {
        let _ = hidden.as_object_mut().expect("an object").remove(key);
    }
    echo["spec"]["containers"] = json!([oracle(PORT), hidden]);
    vec![
        namespace("istio-system", false),
        namespace("shop", true),
        namespace("legacy", false),
        security("PeerAuthentication", "istio-system/default", &json!({"mtls": {"mode": "STRICT"}})),
        echo,
        pod("shop/caller", "node1", &[]),
        pod("legacy/far", "node1", &[]),
        pod("legacy/near", "node2", &[]),
    ]
}

#[test]
fn strict_refuses_plaintext_and_admits_probes_ipv4() {
    check("strict4", "ipv4", 4);
}

#[test]
fn strict_refuses_plaintext_and_admits_probes_ipv6() {
    check("strict6", "ipv6", 6);
}

#[test]
fn strict_refuses_plaintext_and_admits_probes_dual_stack() {
    check("strict46", "dual", 6);
}

#[track_caller]
fn check(name: &str, families: &str, family: u8) {
    // It comes up only if the node's readiness probes of the declared port pass.
    let Some(lab) = Lab::up(name, &cast(), &[&format!("ip_families={families}")]) else { return };
    let (open, hidden) = (lab.target("shop/echo", family, PORT), lab.target("shop/echo", family, HIDDEN));
    for client in ["legacy/far", "legacy/near"] {
        for target in [&open, &hidden] {
            let summary = lab.call(client, target, &["--connections", "1"]);
            assert_eq!(summary["ok"], false, "{client} reached {target} in plaintext");
            let took = summary["duration_ms"].as_u64().expect("milliseconds");
            assert!(took < 1000, "{client} was refused after {took} ms: {summary:#}");
        }
    }
    wait_until("four refusals are recorded", Duration::from_secs(5), || {
        recorded(&lab, "AMB2301", "denied") >= 4
    });
    for target in [&open, &hidden] {
        assert_eq!(all_completed(&lab.call("shop/caller", target, &["--connections", "5"])), 5);
    }
    probes(&lab, &open, &hidden);
}

#[track_caller]
fn probes(lab: &Lab, open: &str, hidden: &str) {
    let node = |target: &str| {
        let client = [&*ambit_tests::lab::ambit(), "echoer", "client", target, "--connections", "1"]
            .map(str::to_owned);
        let client: Vec<&str> = client.iter().map(String::as_str).collect();
        ambit_tests::lab::summary(&lab.on_node("node2", &client))
    };
    assert_eq!(node(open)["ok"], true, "the node reaches a declared probe port");
    assert_eq!(node(hidden)["ok"], false, "the node reached a port that no probe uses");
    wait_until("probes are recorded as such", Duration::from_secs(5), || {
        recorded(lab, "AMB2304", "allowed") >= 1
    });
    let _ = lab.lab(&["restart", "ztunnel/node2"]);
    wait_until("still ready", Duration::from_secs(10), || {
        let object = lab.get("pod", "shop/echo");
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
    });
}

/// Records at the server with a code and a verdict.
fn recorded(lab: &Lab, code: &str, verdict: &str) -> usize {
    let flows = lab.flows(&["--to-pod", "shop/echo"]);
    flows.iter().filter(|f| f["code"] == code && f["verdict"] == verdict).count()
}
