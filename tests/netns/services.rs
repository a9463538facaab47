//! Services: even balancing over healthy endpoints, and endpoints that go while traffic runs.

use std::time::Duration;

use ambit_tests::lab::{Lab, all_completed, summary, wait_until};
use serde_json::{Value, json};

use crate::cast::{PORT, namespace, oracle, pod, service};

/// Three replicas over two nodes, one client on each.
fn cast() -> Vec<Value> {
    let replicas = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "echo", "namespace": "shop"},
        "spec": {
            "replicas": 3, "selector": {"matchLabels": {"app": "echo"}},
            "template": {"metadata": {"labels": {"app": "echo"}}, "spec": {"containers": [oracle(PORT)]}},
        },
    });
    vec![
        namespace("shop", true),
        replicas,
        service("shop/echo", "echo", 80, PORT),
        pod("shop/one", "node1", &[]),
        pod("shop/two", "node2", &[]),
    ]
}

#[test]
fn connections_spread_evenly_over_replicas() {
    let Some(lab) = Lab::up("spread", &cast(), &[]) else { return };
    for client in ["shop/one", "shop/two"] {
        let summary = lab.call(client, "echo.shop:80", &["--connections", "3000", "--concurrency", "4"]);
        assert_eq!(all_completed(&summary), 3000);
        let servers = summary["servers"].as_object().expect("counts by server");
        assert_eq!(servers.len(), 3, "{servers:?}");
        for (name, count) in servers {
            let count = count.as_u64().expect("a count");
            assert!((800..=1200).contains(&count), "{name} had {count} of 3000: {servers:?}");
        }
    }
}

#[test]
fn an_endpoint_that_goes_costs_no_new_connection() {
    let Some(lab) = Lab::up("endpoints", &cast(), &[]) else { return };
    let names: Vec<String> = ["0", "1", "2"].iter().map(|n| format!("echo-{n}")).collect();
    for name in &names {
        drop(lab.get("pod", &format!("shop/{name}")));
    }
    // Removed as a rollout removes it: no connection of any age suffers that had not begun.
    let run = lab.client("shop/one", "echo.shop:80", &["--rate", "100", "--duration", "8s"]);
    wait_until("the client has begun", Duration::from_secs(5), || {
        !lab.flows(&["--from-pod", "shop/one"]).is_empty()
    });
    let _ = lab.lab(&["kill", "pod/shop/echo-1"]);
    new_connections_completed(&summary(&run.finish(Duration::from_secs(30))), 1);
    wait_until("it is back", Duration::from_secs(20), || is_ready(&lab, "shop/echo-1"));
    let run = lab.client("shop/one", "echo.shop:80", &["--rate", "100", "--duration", "5s"]);
    let _ = lab.lab(&["delete", "pod", "echo-2", "-n", "shop"]);
    new_connections_completed(&summary(&run.finish(Duration::from_secs(30))), 1);
}

/// Demands that no connection failed but those that were open at the moment of the fault.
#[track_caller]
fn new_connections_completed(summary: &Value, open_then_max: u64) {
    let failed = summary["connections"]["failed"].as_u64().expect("a count");
    let at = |key: &str| summary[key].as_u64();
    let window = at("last_failure_ms").zip(at("first_failure_ms")).map_or(0, |(last, first)| last - first);
    assert!(failed <= open_then_max && window < 100, "new connections failed: {summary:#}");
}

fn is_ready(lab: &Lab, pod: &str) -> bool {
    let object = lab.get("pod", pod);
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
}
