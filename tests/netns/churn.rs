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
    let (mut before, mut addresses, mut lasting) = (Vec::new(), std::collections::BTreeSet::new(), 0);
    for cycle in 0..cycles {
        if cycle == warm {
            let (all, passing) = series(&lab);
            (before, lasting) = (descriptors(&lab), all - passing);
            println!("descriptors of {PARTS:?}: {before:?}; {all} series, {passing} of pods that go");
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
    // Series name the pods, and go a minute after them; what is left tells of pods that are there, and of reasons.
    let mut now = (0, 0);
    wait_until("no series is left of pods that are gone", Duration::from_secs(90), || {
        now = series(&lab);
        now.1 == 0
    });
    println!("{} series after {cycles} cycles, {lasting} of what stays after {warm}", now.0);
    assert!(now.0 <= lasting + 10, "{} series after {cycles} cycles, {lasting} after {warm}", now.0);
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

/// Metric series of all ztunnels, and how many of them name a server or a client of a cycle.
fn series(lab: &Lab) -> (usize, usize) {
    let scrape = |n| lab.on_node(n, &["curl", "-s", "http://127.0.0.1:15020/metrics"]).ok();
    let text = ["node1", "node2"].map(scrape).concat();
    let lines: Vec<&str> = text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()).collect();
    let of_a_cycle = |line: &&&str| {
        let names = line.split("_workload=\"").skip(1).filter_map(|rest| rest.split('"').next());
        names.filter_map(|name| name.strip_prefix(['s', 'c'])).any(|rest| rest.parse::<usize>().is_ok())
    };
    (lines.len(), lines.iter().filter(of_a_cycle).count())
}
