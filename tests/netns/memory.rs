//! What idle connections cost: resident memory of both ztunnels before, during, and after a burst on each.

use std::time::Duration;

use ambit_tests::lab::{Lab, soak, summary, wait_until};

use crate::cast::{PORT, namespace, pod, server};

const NODES: [&str; 2] = ["node1", "node2"];
const MIB: f64 = 1024.0;

#[test]
fn idle_connections_cost_little_and_give_back_what_a_burst_took() {
    let cast = [namespace("shop", true), pod("shop/caller", "node1", &[]), server("shop/echo", "node2")];
    let Some(lab) = Lab::up("memory", &cast, &[]) else { return };
    // Limits of the full length, in MiB for 5,000 connections; the shortened run allows the same for fewer.
    let (count, burst_after) = if soak() { ("5000", "40s") } else { ("1000", "6s") };
    let target = lab.target("shop/echo", 4, PORT);
    let _ = lab.call("shop/caller", &target, &["--connections", "10"]);
    let idle = NODES.map(|n| resident(&lab, n));
    let args = [
        "--hold",
        "--connections",
        count,
        "--duration",
        if soak() { "85s" } else { "40s" },
        "--burst-after",
        burst_after,
        "--burst-bytes",
        if soak() { "1MiB" } else { "256KiB" },
    ];
    let held = lab.client("shop/caller", &target, &args);
    let open = format!("\"open\":{count}");
    let event = |name: &str| held.stderr().lines().any(|l| l.contains(name) && l.contains(&open));
    wait_until("all are open", Duration::from_secs(35), || event("holding"));
    let opened = NODES.map(|n| resident(&lab, n));
    wait_until("all have moved their burst", Duration::from_secs(80), || event("burst"));
    // Measured while the connections are still open: what stays is what they hold.
    let mut after = [0.0; 2];
    wait_until("both are back within 20 MiB of what idle connections took", Duration::from_secs(25), || {
        after = NODES.map(|n| resident(&lab, n));
        after.iter().zip(opened).all(|(now, then)| *now < then + 20.0)
    });
    println!("MiB: idle {idle:.1?}, {count} open {opened:.1?}, after the burst {after:.1?}");
    let summary = summary(&held.stop());
    assert_eq!(summary["connections"]["failed"], 0, "{summary:#}");
    for (node, (idle, opened)) in NODES.iter().zip(idle.into_iter().zip(opened)) {
        assert!(opened - idle < 40.0, "{node}: {count} idle connections cost {:.1} MiB", opened - idle);
        assert!(idle < 25.0, "{node}: idle at {idle:.1} MiB");
    }
}

/// Resident memory of a node's ztunnel in MiB.
fn resident(lab: &Lab, node: &str) -> f64 {
    let pid = lab.pid(&format!("ztunnel/{node}"));
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = text.lines().find(|l| l.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).expect("kB") / MIB
}
