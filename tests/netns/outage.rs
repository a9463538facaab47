//! The control plane stops, the world changes, it comes back: no error meanwhile, and the change is in force at once.

use std::fs;
use std::time::{Duration, SystemTime};

use ambit_runtime::clock;
use ambit_tests::lab::{Lab, all_completed, soak, summary, wait_until};
use serde_json::json;

use crate::cast::{PORT, namespace, pod, security, server, service};

/// Across nodes and on one node.
const SERVERS: [&str; 2] = ["shop/echo", "shop/near"];
/// Ticks of a second in `/proc`.
const USER_HZ: f64 = 100.0;

#[test]
fn traffic_goes_on_without_control_plane_and_changes_follow_its_return() {
    let cast = [
        namespace("shop", true),
        pod("shop/caller", "node1", &[]),
        pod("shop/other", "node1", &[]),
        server("shop/echo", "node2"),
        server("shop/near", "node1"),
        service("shop/echo", "echo", 80, PORT),
    ];
    let Some(lab) = Lab::up("outage", &cast, &[]) else { return };
    let (length, patience) = if soak() { ("120s", 180) } else { ("10s", 40) };
    let targets = SERVERS.map(|server| lab.target(server, 4, PORT));
    let args = ["--hold", "--connections", "5", "--duration", length, "--interval", "200ms"];
    let held = lab.client("shop/caller", &targets[0], &args);
    wait_until("the connections are held", Duration::from_secs(5), || held.stderr().contains("\"open\":5"));
    let _ = lab.lab(&["stop", "istiod"]);
    let policy = json!({"action": "DENY", "rules": [{"to": [{"operation": {"ports": ["7000"]}}]}]});
    let file = lab.file("change.yaml", &security("AuthorizationPolicy", "shop/lock", &policy).to_string());
    let _ = lab.lab(&["apply", "--no-wait", "-f", &file]);
    let load = lab.client("shop/caller", "echo.shop:80", &["--rate", "50", "--duration", length]);
    // A pod that had not spoken before: known, so it speaks now.
    for target in &targets {
        assert_eq!(all_completed(&lab.call("shop/other", target, &["--connections", "20"])), 20);
    }
    let patience = Duration::from_secs(patience);
    let _ = all_completed(&summary(&load.finish(patience)));
    assert_eq!(all_completed(&summary(&held.finish(patience))), 5);

    let asking = ["--rate", "20", "--duration", "60s"];
    let _asking = targets.map(|target| lab.client("shop/caller", &target, &asking));
    let _ = lab.lab(&["start", "istiod"]);
    let returned = started(lab.pid("istiod"));
    for server in SERVERS {
        let took =
            denied_since(&lab, server).duration_since(returned).expect("denied by what was read since");
        println!("{server}: the change is in force {took:?} after the control plane's start");
        assert!(took < Duration::from_secs(2), "{server}: the change was in force only after {took:?}");
    }
}

/// When a process was started.
fn started(pid: u64) -> SystemTime {
    let read = |path: &str| fs::read_to_string(path).expect("proc is mounted and the process runs");
    let stat = read(&format!("/proc/{pid}/stat"));
    // Field 22; the second one, the name, may have spaces and ends with the last parenthesis.
    let (_, fields) = stat.rsplit_once(") ").expect("the name in parentheses");
    let ticks: f64 = fields.split(' ').nth(19).and_then(|f| f.parse().ok()).expect("field 22");
    let up: f64 = read("/proc/uptime").split(' ').next().and_then(|f| f.parse().ok()).expect("the uptime");
    clock::wall() - Duration::from_secs_f64((up - ticks / USER_HZ).max(0.0))
}

/// Waits until the server's node refuses a connection by the new policy; when it first did.
#[track_caller]
fn denied_since(lab: &Lab, server: &str) -> SystemTime {
    let (mut first, of) = (None, ["--to-pod", server, "--code", "AMB2103", "--verdict", "denied"]);
    wait_until(&format!("{server} refuses by shop/lock"), Duration::from_secs(20), || {
        let flows = lab.flows(&of);
        let by_it = flows.iter().find(|f| f["direction"] == "inbound" && f["policy"] == "shop/lock");
        first = by_it.and_then(|f| humantime::parse_rfc3339(f["time"].as_str()?).ok());
        first.is_some()
    });
    first.expect("it was found")
}
