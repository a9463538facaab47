//! A ztunnel that dies and one that is replaced: new connections work again within two seconds, or all the time.

use std::time::Duration;

use ambit_runtime::clock;
use ambit_tests::lab::{Background, Lab, kept_its_rate, soak, summary, wait_until};

use crate::cast::{PORT, namespace, pod, server};

const CONNECT: [&str; 4] = ["--connect-timeout", "1s", "--stall-timeout", "1s"];

/// Across nodes and on one node.
const SERVERS: [&str; 2] = ["shop/echo", "shop/near"];

fn up(name: &str) -> Option<Lab> {
    let cast = [
        namespace("shop", true),
        pod("shop/caller", "node1", &[]),
        server("shop/echo", "node2"),
        server("shop/near", "node1"),
    ];
    Lab::up(name, &cast, &[])
}

#[test]
fn new_connections_work_within_two_seconds_of_a_kill() {
    let Some(lab) = up("kill") else { return };
    let targets = SERVERS.map(|server| lab.target(server, 4, PORT));
    for node in ["node1", "node2"] {
        let part = format!("ztunnel/{node}");
        let before = lab.pid(&part);
        let _ = lab.lab(&["kill", &part]);
        wait_until("it is started again", Duration::from_secs(10), || ![0, before].contains(&lab.pid(&part)));
        wait_until("connections complete", Duration::from_secs(2), || {
            targets.iter().all(|target| {
                lab.call("shop/caller", target, &[&["--connections", "1"], &CONNECT[..]].concat())["ok"]
                    == true
            })
        });
    }
}

#[test]
fn a_graceful_restart_refuses_no_connection() {
    let Some(lab) = up("graceful") else { return };
    // Across nodes, where both proxies take part, the whole rate; on one node some beside it.
    let (rates, further) = if soak() { ([500, 100], 8) } else { ([50, 50], 3) };
    let mut load: Vec<Background> =
        SERVERS.iter().zip(rates).map(|(server, rate)| begin(&lab, server, rate)).collect();
    wait_until("the load has begun", Duration::from_secs(5), || {
        let by = |server: &str, path: &str| {
            lab.flows(&["--from-pod", "shop/caller", "--to-pod", server]).iter().any(|f| f["path"] == path)
        };
        by("shop/echo", "hbone") && by("shop/near", "local")
    });
    for node in ["node1", "node2"] {
        let part = format!("ztunnel/{node}");
        let before = lab.pid(&part);
        let _ = lab.lab(&["restart", &part]);
        assert_ne!(before, lab.pid(&part), "{part} was not replaced");
        goes_on(&lab, &mut load, &part, Duration::from_secs(further));
    }
    for ((server, rate), load) in SERVERS.iter().zip(rates).zip(load) {
        let summary = summary(&load.stop());
        assert_eq!(summary["connections"]["failed"], 0, "{server}: connections failed: {summary:#}");
        let made = kept_its_rate(&summary, rate);
        println!("{server}: {made} connections in {} ms, {rate} a second", summary["duration_ms"]);
    }
}

/// Opens connections to a server until it is stopped.
fn begin(lab: &Lab, server: &str, rate: u64) -> Background {
    let target = lab.target(server, 4, PORT);
    lab.client("shop/caller", &target, &["--rate", &rate.to_string(), "--duration", "300s"])
}

/// Waits until the load, which must have run all the time, has begun connections to each server so long after a part
/// came back: what was replaced was replaced under load, and what replaces it serves.
#[track_caller]
fn goes_on(lab: &Lab, load: &mut [Background], part: &str, further: Duration) {
    let since = clock::wall() + further;
    for server in SERVERS {
        let to = ["--from-pod", "shop/caller", "--to-pod", server];
        let what = format!("connections to {server} begin {further:?} after {part} was replaced");
        wait_until(&what, further + Duration::from_secs(15), || lab.youngest(&to) >= Some(since));
    }
    assert!(load.iter_mut().all(Background::is_running), "the load ended before {part} was replaced");
}
