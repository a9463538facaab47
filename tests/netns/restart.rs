//! A ztunnel that dies and one that is replaced: new connections work again within two seconds, or all the time.

use std::time::Duration;

use ambit_tests::lab::{Lab, soak, summary, wait_until};
use serde_json::Value;

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
    let (rate, length) = if soak() { ("250", "20s") } else { ("50", "12s") };
    let load = SERVERS.map(|server| {
        let target = lab.target(server, 4, PORT);
        lab.client("shop/caller", &target, &["--rate", rate, "--duration", length])
    });
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
    }
    for (server, load) in SERVERS.iter().zip(load) {
        let summary: Value = summary(&load.finish(Duration::from_secs(60)));
        assert_eq!(summary["connections"]["failed"], 0, "{server}: connections failed: {summary:#}");
        assert!(
            summary["connections"]["completed"].as_u64() > Some(500),
            "{server}: too few to show anything: {summary:#}"
        );
    }
}
