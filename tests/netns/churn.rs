//! Pods come and go on reused addresses with swapped accounts: nothing is delivered to the wrong one, nothing leaks.

use std::fs;
use std::time::Duration;

use ambit_tests::lab::{Lab, all_completed, soak, wait_until};
use serde_json::{Value, json};

use crate::cast::{PORT, account, namespace, pod, security, server};

const PARTS: [&str; 4] = ["ztunnel/node1", "ztunnel/node2", "cni/node1", "cni/node2"];

#[test]
fn reused_addresses_reach_the_pod_that_has_them_now() {
    let accounts = json!({"rules": [{"from": [{"source": {"serviceAccounts": ["shop/good"]}}]}]});
    let cast = [
        namespace("shop", true),
        account("shop/good"),
        account("shop/bad"),
        with_account(pod("shop/good", "node1", &[]), "good"),
        server("shop/fixed", "node1"),
        security("AuthorizationPolicy", "shop/only-good", &accounts),
    ];
    let Some(lab) = Lab::up("churn", &cast, &[]) else { return };
    let cycles = if soak() { 500 } else { 25 };
    let warm = cycles / 5;
    let (mut before, mut addresses, mut warm_series) = (Vec::new(), std::collections::BTreeSet::new(), 0);
    for cycle in 0..cycles {
        if cycle == warm {
            (before, warm_series) = (descriptors(&lab), series_of(&lab));
            println!("descriptors of {PARTS:?}: {before:?}");
        }
        let target = one(&lab, cycle);
        let _ = addresses.insert(target);
    }
    let reused = addresses.len() < cycles;
    // A peer that is gone with its namespace says no goodbye: its tunnels end when it does not answer a ping.
    wait_until("no descriptor is left of pods that are gone", Duration::from_secs(75), || {
        let grown = before.iter().zip(descriptors(&lab)).filter(|(then, now)| *now > **then + 8);
        grown.count() == 0
    });
    assert!(reused, "no address was used twice: {addresses:?}");
    // Series name the pods, so they grow with new names until they expire, 25 minutes later; none may grow without end.
    let series = series_of(&lab);
    println!("{series} metric series, {warm_series} after {warm} of {cycles} cycles");
    assert!(series <= warm_series + 40 * (cycles - warm), "more series than new pods explain");
}

/// Creates a server and a client of alternating accounts, checks both, deletes them; the server's target.
fn one(lab: &Lab, cycle: usize) -> String {
    let (name, other) = (format!("s{cycle}"), format!("c{cycle}"));
    let allowed = cycle.is_multiple_of(2);
    let client =
        with_account(pod(&format!("shop/{other}"), "node2", &[]), if allowed { "good" } else { "bad" });
    let order = if cycle.is_multiple_of(3) {
        vec![client, server(&format!("shop/{name}"), "node2")]
    } else {
        vec![server(&format!("shop/{name}"), "node2"), client]
    };
    lab.apply(&order);
    let target = lab.target(&format!("shop/{name}"), 4, PORT);
    let expect = ["--expect-server", &name, "--connections", "3"];
    assert_eq!(all_completed(&lab.call("shop/good", &target, &expect)), 3, "cycle {cycle}");
    let fixed = lab.target("shop/fixed", 4, PORT);
    let summary =
        lab.call(&format!("shop/{other}"), &fixed, &["--connections", "1", "--stall-timeout", "2s"]);
    assert_eq!(summary["ok"], allowed, "cycle {cycle}: the identity is that of the pod now: {summary:#}");
    let _ = lab.lab(&["delete", "pod", &name, &other, "-n", "shop"]);
    target
}

fn with_account(mut pod: Value, account: &str) -> Value {
    pod["spec"]["serviceAccountName"] = json!(account);
    pod
}

/// Open descriptors of the node programs.
fn descriptors(lab: &Lab) -> Vec<usize> {
    PARTS
        .iter()
        .map(|part| fs::read_dir(format!("/proc/{}/fd", lab.pid(part))).map_or(0, Iterator::count))
        .collect()
}

/// Metric series of all ztunnels.
fn series_of(lab: &Lab) -> usize {
    let nodes = ["node1", "node2"];
    let texts = nodes.map(|n| lab.on_node(n, &["curl", "-s", "http://127.0.0.1:15020/metrics"]).ok());
    texts.iter().flat_map(|t| t.lines()).filter(|l| !l.starts_with('#')).count()
}
