//! A node that vanishes in the middle of open connections, wholly or in one direction: both ends learn of it in time.

use std::time::Duration;

use ambit_runtime::clock;
use ambit_tests::lab::{Background, Lab, all_completed, wait_until};
use serde_json::{Value, json};

use crate::cast::{PORT, namespace, pod, server};

/// Faults 23 and 24: longest time until an application sees the reset; 18 s is usual.
const LIMIT: Duration = Duration::from_secs(22);

fn node(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
}

#[test]
fn a_node_that_vanishes_is_given_up_by_both_ends() {
    let mut cast = vec![namespace("shop", true)];
    cast.extend(["node1", "node2", "node3", "node4"].map(node));
    for n in 2..5 {
        cast.push(server(&format!("shop/echo{n}"), &format!("node{n}")));
        cast.extend(["busy", "quiet"].map(|client| pod(&format!("shop/{client}{n}"), "node1", &[])));
    }
    let Some(lab) = Lab::up("vanish", &cast, &[]) else { return };
    let mut held: Vec<(String, Background)> = Vec::new();
    for n in 2..5 {
        for (client, interval) in [("busy", "100ms"), ("quiet", "1h")] {
            let client = format!("shop/{client}{n}");
            let connection = hold(&lab, &client, &format!("shop/echo{n}"), interval);
            held.push((client, connection));
        }
    }
    let begun = clock::monotonic();
    let _ = lab.lab(&["cut", "node2"]);
    deafen(&lab, "node3", "prerouting", "iifname");
    deafen(&lab, "node4", "postrouting", "oifname");
    for (client, connection) in &mut held {
        let left = LIMIT.saturating_sub(clock::monotonic().saturating_duration_since(begun));
        wait_until(&format!("{client} is told"), left, || {
            connection.stderr().contains("\"event\":\"failed\"")
        });
        println!("{client} after {:?}", clock::monotonic().saturating_duration_since(begun));
        assert!(connection.stderr().contains("reset"), "{client}: {}", connection.stderr());
    }
    for n in 2..5 {
        let left = LIMIT.saturating_sub(clock::monotonic().saturating_duration_since(begun));
        wait_until(&format!("echo{n} is told"), left, || is_alone(&lab, &format!("shop/echo{n}")));
    }
    // Nobody waits on a tunnel that is gone.
    let _ = lab.lab(&["heal", "node2"]);
    for node in ["node3", "node4"] {
        drop(lab.on_node(node, &["nft", "delete", "table", "inet", "oneway"]).ok());
    }
    for n in 2..5 {
        let target = lab.target(&format!("shop/echo{n}"), 4, PORT);
        let summary = lab.call(&format!("shop/busy{n}"), &target, &["--connections", "3"]);
        assert_eq!(all_completed(&summary), 3);
    }
}

/// Holds a connection that speaks now and then, and waits for answers longer than any limit here.
fn hold(lab: &Lab, client: &str, server: &str, interval: &str) -> Background {
    let args = ["--hold", "--connections", "1", "--duration", "300s", "--stall-timeout", "120s"];
    let target = lab.target(server, 4, PORT);
    let held = lab.client(client, &target, &[&args[..], &["--interval", interval]].concat());
    wait_until("the connection is held", Duration::from_secs(5), || held.stderr().contains("\"open\":1"));
    held
}

/// Drops what a node receives, or what it sends, at its link to the others.
fn deafen(lab: &Lab, node: &str, hook: &str, side: &str) {
    let rules = format!(
        "table inet oneway {{ chain {hook} {{ type filter hook {hook} priority -350; {side} \"eth0\" drop; }}; }}"
    );
    drop(lab.on_node(node, &["nft", &rules]).ok());
}

/// Whether a server has no connection any more.
fn is_alone(lab: &Lab, server: &str) -> bool {
    let port = format!("sport = :{PORT}");
    lab.exec(server, &["ss", "-Htn", "state", "established", &port]).ok().trim().is_empty()
}
