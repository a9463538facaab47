//! A ztunnel that dies and one that is replaced: new connections work again within two seconds, or all the time.

use std::time::Duration;

use ambit_tests::lab::{Lab, soak, summary, wait_until};
use serde_json::Value;

use crate::cast::{PORT, namespace, pod, server};

const CONNECT: [&str; 4] = ["--connect-timeout", "1s", "--stall-timeout", "1s"];

fn up(name: &str) -> Option<Lab> {
    let cast = [namespace("shop", true), pod("shop/caller", "node1", &[]), server("shop/echo", "node2")];
    Lab::up(name, &cast, &[])
}

#[test]
fn new_connections_work_within_two_seconds_of_a_kill() {
    let Some(lab) = up("kill") else { return };
    let target = lab.target("shop/echo", 4, PORT);
    for node in ["node1", "node2"] {
        let part = format!("ztunnel/{node}");
        let before = lab.pid(&part);
        let _ = lab.lab(&["kill", &part]);
        wait_until("it is started again", Duration::from_secs(10), || ![0, before].contains(&lab.pid(&part)));
        wait_until("a connection completes", Duration::from_secs(2), || {
            lab.call("shop/caller", &target, &[&["--connections", "1"], &CONNECT[..]].concat())["ok"] == true
        });
    }
}

#[test]
fn a_graceful_restart_refuses_no_connection() {
    let Some(lab) = up("graceful") else { return };
    let target = lab.target("shop/echo", 4, PORT);
    let (rate, length) = if soak() { ("500", "20s") } else { ("100", "12s") };
    let load = lab.client("shop/caller", &target, &["--rate", rate, "--duration", length]);
    wait_until("the load has begun", Duration::from_secs(5), || {
        !lab.flows(&["--from-pod", "shop/caller"]).is_empty()
    });
    for node in ["node1", "node2"] {
        let part = format!("ztunnel/{node}");
        let before = lab.pid(&part);
        let _ = lab.lab(&["restart", &part]);
        assert_ne!(before, lab.pid(&part), "{part} was not replaced");
    }
    let summary: Value = summary(&load.finish(Duration::from_secs(60)));
    assert_eq!(summary["connections"]["failed"], 0, "connections failed: {summary:#}");
    assert!(
        summary["connections"]["completed"].as_u64() > Some(500),
        "too few to show anything: {summary:#}"
    );
}
