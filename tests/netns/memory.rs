//! What idle connections cost: resident memory of both ztunnels before, during, and after a burst on each.

use std::time::Duration;

use ambit_tests::lab::{Lab, soak, summary, wait_until};
use serde_json::Value;

use crate::cast::{PORT, namespace, pod, server};

const NODES: [&str; 2] = ["node1", "node2"];
const MIB: f64 = 1024.0;
/// Limits in MiB: a proxy that idles, what [`FULL`] idle connections add, and what a burst on each may leave.
const IDLE: f64 = 25.0;
const HELD: f64 = 40.0;
const LEFT: f64 = 20.0;
/// Connections that the limits are for.
const FULL: f64 = 5000.0;
/// What the allocator and the first tunnels take however few connections there are, in MiB.
const UNSCALED: f64 = 2.0;

#[test]
fn idle_connections_cost_little_and_give_back_what_a_burst_took() {
    let cast = [namespace("shop", true), pod("shop/caller", "node1", &[]), server("shop/echo", "node2")];
    let Some(lab) = Lab::up("memory", &cast, &[]) else { return };
    let (count, burst_after, burst) = if soak() { (5000, "40s", "1MiB") } else { (1000, "6s", "256KiB") };
    let limit = |full: f64| if soak() { full } else { full * f64::from(count) / FULL + UNSCALED };
    let target = lab.target("shop/echo", 4, PORT);
    let _ = lab.call("shop/caller", &target, &["--connections", "10"]);
    let idle = NODES.map(|n| resident(&lab, n));
    let connections = count.to_string();
    let load = ["--hold", "--connections", &connections, "--duration", "300s", "--stall-timeout", "60s"];
    let bursts = ["--burst-after", burst_after, "--burst-bytes", burst];
    let held = lab.client("shop/caller", &target, &[&load[..], &bursts].concat());
    let open = format!("\"open\":{count}");
    let event = |name: &str| held.stderr().lines().any(|l| l.contains(name) && l.contains(&open));
    wait_until("all are open", Duration::from_secs(35), || event("holding"));
    let opened = NODES.map(|n| resident(&lab, n));
    wait_until("all have moved their burst", Duration::from_secs(200), || event("burst"));
    // Measured while the connections are still open: what stays is what they hold.
    let (mut after, left) = ([0.0; 2], limit(LEFT));
    wait_until("both are back at what idle connections took", Duration::from_secs(25), || {
        after = NODES.map(|n| resident(&lab, n));
        after.iter().zip(opened).all(|(now, then)| *now < then + left)
    });
    assert_eq!(NODES.map(|n| live(&lab, n)), [count; 2], "connections were lost before the last measurement");
    println!("MiB: idle {idle:.1?}, {count} open {opened:.1?}, after the burst {after:.1?}");
    let summary = summary(&held.stop());
    assert_eq!(summary["connections"]["completed"], count, "{summary:#}");
    for (node, (idle, opened)) in NODES.iter().zip(idle.into_iter().zip(opened)) {
        let (cost, most) = (opened - idle, limit(HELD));
        assert!(cost < most, "{node}: {count} idle connections cost {cost:.1} MiB, more than {most:.1}");
        assert!(idle < IDLE, "{node}: idle at {idle:.1} MiB");
    }
}

/// Resident memory of a node's ztunnel in MiB.
fn resident(lab: &Lab, node: &str) -> f64 {
    let pid = lab.pid(&format!("ztunnel/{node}"));
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = text.lines().find(|l| l.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).expect("kB") / MIB
}

/// Open connections that a node's ztunnel carries for the pods of the test.
fn live(lab: &Lab, node: &str) -> u32 {
    let text = lab.ambit(&["get", "connections", "--node", node, "-n", "shop", "-o", "json"]).ok();
    let list: Value = serde_json::from_str(&text).expect("JSON from get connections");
    let all = list["items"].as_array().expect("items");
    let of_the_test = all.iter().filter(|c| c["path"] == "hbone");
    u32::try_from(of_the_test.count()).expect("a few thousand")
}
