//! A node that vanishes in the middle of open connections, wholly or in one direction: both ends learn of it in time.

use std::fs;
use std::path::Path;
use std::time::Duration;

use ambit_net::linux::netns::NetNs;
use ambit_runtime::clock;
use ambit_tests::lab::{Background, Lab, all_completed, peer, wait_until};
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

/// Says a byte and waits for it; once there is a file, sends far more than one segment and waits for the end.
const SEND_MUCH: &str = "import os,socket,sys,time\nh,p=sys.argv[1].rsplit(':',1)\n\
                         s=socket.create_connection((h.strip('[]'),int(p)),5); s.sendall(b'x'); s.recv(1)\n\
                         print('open',flush=True)\nwhile not os.path.exists(sys.argv[2]): time.sleep(.05)\n\
                         s.settimeout(60)\ntry:\n  s.sendall(b'y'*200000)\n  while s.recv(65536): pass\n\
                         except OSError as e: print('lost',e,flush=True)";

/// Row 33: the fabric swallows what is large and says nothing, and the kernel may not find that out by itself.
#[test]
fn a_path_that_swallows_large_packets_has_its_own_code() {
    let web = pod("shop/web", "node2", &["python3", &peer("echo.py"), "8000"]);
    let cast = [namespace("shop", true), pod("shop/caller", "node1", &[]), web];
    let Some(lab) = Lab::up("mtu", &cast, &[]) else { return };
    for pod in ["shop/caller", "shop/web"] {
        let netns = NetNs::open(Path::new(&format!("/proc/{}/ns/net", lab.pod_pid(pod)))).expect("it runs");
        let written = netns.run(|| fs::write("/proc/sys/net/ipv4/tcp_mtu_probing", "0"));
        written.expect("root enters it").expect("root writes it");
    }
    let (target, go) = (lab.target("shop/web", 4, 8000), Path::new(&lab.folder("mtu")).join("go"));
    let go = go.display().to_string();
    let caller = lab.spawn("shop/caller", &["python3", "-c", SEND_MUCH, &target, &go]);
    wait_until("the connection is open", Duration::from_secs(10), || caller.stdout().contains("open"));
    let rules = "table inet narrow { chain postrouting { type filter hook postrouting priority -350; \
                 oifname \"eth0\" meta length > 1000 drop; }; }";
    drop(lab.on_node("node1", &["nft", rules]).ok());
    fs::write(&go, "").expect("a temporary folder");
    wait_until("the caller is told", Duration::from_secs(40), || caller.stdout().contains("lost"));
    let told = || lab.flows(&["--from-pod", "shop/caller", "--code", "AMB4005"]);
    wait_until("it has its own code", Duration::from_secs(10), || !told().is_empty());
    let record = told().remove(0);
    assert_eq!(
        (&record["direction"], &record["verdict"]),
        (&"outbound".into(), &"denied".into()),
        "{record:#}"
    );
    drop(lab.on_node("node1", &["nft", "delete", "table", "inet", "narrow"]).ok());
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
