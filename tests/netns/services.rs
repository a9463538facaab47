//! Services: even balancing over healthy endpoints, and endpoints that go while traffic runs.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ambit_runtime::clock;
use ambit_tests::lab::{Lab, all_completed, kept_its_rate, summary, wait_until};
use serde_json::{Value, json};

use crate::cast::{PORT, namespace, oracle, pod, service};

/// Connections a second that each client opens while an endpoint goes.
const RATE: u64 = 80;
/// How long after the endpoint was gone each client must still open connections.
const AFTER: Duration = Duration::from_secs(2);

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
fn an_endpoint_that_is_killed_costs_no_new_connection() {
    let Some(lab) = Lab::up("endpoint-killed", &cast(), &[]) else { return };
    costs_no_new_connection(&lab, "shop/echo-1", &["lab", "kill", "pod/shop/echo-1"]);
    wait_until("it is back", Duration::from_secs(20), || is_ready(&lab, "shop/echo-1"));
    costs_no_new_connection(&lab, "shop/echo-0", &["lab", "kill", "pod/shop/echo-0"]);
}

#[test]
fn an_endpoint_that_is_removed_costs_no_new_connection() {
    let Some(lab) = Lab::up("endpoint-removed", &cast(), &[]) else { return };
    for pod in ["echo-1", "echo-0"] {
        costs_no_new_connection(&lab, &format!("shop/{pod}"), &["lab", "delete", "pod", pod, "-n", "shop"]);
        // The deployment replaces it under its name.
        wait_until("it is back", Duration::from_secs(20), || is_ready(&lab, &format!("shop/{pod}")));
    }
}

/// Takes an endpoint away from under a client of each node, and demands that only connections which were begun before
/// its process was gone may have failed.
#[track_caller]
fn costs_no_new_connection(lab: &Lab, pod: &str, fault: &[&str]) {
    let pid = lab.pod_pid(pod);
    let begun = |client: &str| lab.flows(&["--from-pod", client]).len();
    // They run until they are stopped: the fault falls inside, however long it takes.
    let rate = RATE.to_string();
    let run = ["--rate", &rate, "--duration", "120s"];
    let runs = ["shop/one", "shop/two"].map(|c| (c, begun(c), lab.client(c, "echo.shop:80", &run)));
    wait_until("both clients have begun", Duration::from_secs(5), || {
        runs.iter().all(|(client, before, _)| begun(client) > before + 10)
    });
    let command = lab.start(fault);
    let gone = end_of(pid);
    drop(command.finish(Duration::from_secs(30)).ok());
    for (client, _, _) in &runs {
        let what = format!("{client} opens connections {AFTER:?} after {pod} was gone");
        wait_until(&what, Duration::from_secs(20), || {
            lab.youngest(&["--from-pod", client]) >= Some(gone + AFTER)
        });
    }
    for (client, _, run) in runs {
        cost_nothing_since(gone, &format!("{client} without {pod}"), &summary(&run.stop()));
    }
}

/// Demands that no connection of a load failed that was begun after the endpoint was gone.
#[track_caller]
fn cost_nothing_since(gone: SystemTime, who: &str, summary: &Value) {
    let started = summary["started_unix_ms"].as_u64().expect("a time");
    let at = |ms: u64| UNIX_EPOCH + Duration::from_millis(started + ms);
    let ran = summary["duration_ms"].as_u64().expect("milliseconds");
    assert!(at(ran) >= gone + AFTER, "{who}: the load ended too early: {summary:#}");
    if let Some(youngest) = summary["last_failed_begun_ms"].as_u64().map(at) {
        let late = youngest.duration_since(gone).unwrap_or_default();
        assert!(late.is_zero(), "{who}: a connection begun {late:?} after it was gone failed: {summary:#}");
    }
    let failed = summary["connections"]["failed"].as_u64().expect("a count");
    assert!(failed <= 3, "{who}: more failed than were open there: {summary:#}");
    let _ = kept_its_rate(summary, RATE);
}

/// Waits until a process has closed everything it had open; when that was.
#[track_caller]
fn end_of(pid: u64) -> SystemTime {
    let state = || fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    // A process closes its files before it becomes a zombie.
    let ended = |stat: &str| stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']));
    let patience = clock::monotonic() + Duration::from_secs(10);
    while state().is_some_and(|stat| !ended(&stat)) {
        assert!(clock::monotonic() < patience, "process {pid} does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
    clock::wall()
}

fn is_ready(lab: &Lab, pod: &str) -> bool {
    let object = lab.get("pod", pod);
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
}
