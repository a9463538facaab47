//! The control plane stops, the world changes, it comes back: no error meanwhile, and the change is in force at once.

use std::time::Duration;

use ambit_tests::lab::{Lab, all_completed, soak, summary, wait_until};
use serde_json::json;

use crate::cast::{PORT, namespace, pod, security, server, service};

#[test]
fn traffic_goes_on_without_control_plane_and_changes_follow_its_return() {
    let cast = [
        namespace("shop", true),
        pod("shop/caller", "node1", &[]),
        pod("shop/other", "node1", &[]),
        server("shop/echo", "node2"),
        service("shop/echo", "echo", 80, PORT),
    ];
    let Some(lab) = Lab::up("outage", &cast, &[]) else { return };
    let (length, patience) = if soak() { ("120s", 180) } else { ("10s", 40) };
    let target = lab.target("shop/echo", 4, PORT);
    let args = ["--hold", "--connections", "5", "--duration", length, "--interval", "200ms"];
    let held = lab.client("shop/caller", &target, &args);
    wait_until("the connections are held", Duration::from_secs(5), || held.stderr().contains("\"open\":5"));
    let _ = lab.lab(&["stop", "istiod"]);
    let policy = json!({"action": "DENY", "rules": [{"to": [{"operation": {"ports": ["7000"]}}]}]});
    let file = lab.file("change.yaml", &security("AuthorizationPolicy", "shop/lock", &policy).to_string());
    let _ = lab.lab(&["apply", "--no-wait", "-f", &file]);
    let load = lab.client("shop/caller", "echo.shop:80", &["--rate", "50", "--duration", length]);
    // A pod that had not spoken before: known, so it speaks now.
    assert_eq!(all_completed(&lab.call("shop/other", &target, &["--connections", "20"])), 20);
    let patience = Duration::from_secs(patience);
    let _ = all_completed(&summary(&load.finish(patience)));
    assert_eq!(all_completed(&summary(&held.finish(patience))), 5);
    let _ = lab.lab(&["start", "istiod"]);
    wait_until("the change is in force", Duration::from_secs(2), || {
        lab.call("shop/caller", &target, &["--connections", "1"])["ok"] == false
    });
}
