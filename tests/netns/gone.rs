//! A pod that is deleted takes its open connections with it, at once; one that only leaves the mesh keeps them.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use ambit_tests::lab::{Background, Lab, wait_until};

use crate::cast::{namespace, pod};

/// Takes connections, and neither reads nor closes any.
const KEEP: &str =
    "import socket\ns=socket.create_server(('',8000)); kept=[]\nwhile True: kept.append(s.accept())";
/// Opens one and keeps it.
const HOLD: &str = "import socket,sys,time\ns=socket.create_connection((sys.argv[1],8000),5)\nprint('open',flush=True)\ntime.sleep(600)";

#[test]
fn an_open_connection_does_not_hold_the_namespace_of_a_deleted_pod() {
    let cast = [
        namespace("shop", true),
        namespace("legacy", false),
        pod("shop/deleted", "node1", &[]),
        pod("shop/released", "node1", &[]),
        pod("legacy/sink", "node2", &["python3", "-c", KEEP]),
    ];
    let Some(lab) = Lab::up("gone", &cast, &[]) else { return };
    let mut held = ["shop/deleted", "shop/released"].map(|pod| hold(&lab, pod));
    let [deleted, released] = ["shop/deleted", "shop/released"].map(|pod| namespace_of(&lab, pod));
    assert!(handles(&lab, deleted) > 0 && handles(&lab, released) > 0);
    let _ = lab.lab(&["label", "pod", "released", "-n", "shop", "istio.io/dataplane-mode=none"]);
    wait_until("the pod is released", Duration::from_secs(5), || !lab.is_captured("shop/released"));
    let _ = lab.lab(&["delete", "pod", "deleted", "-n", "shop"]);
    let took = wait_until("its namespace is let go", Duration::from_secs(10), || handles(&lab, deleted) == 0);
    println!("the namespace of a deleted pod was let go after {took:?}");
    // It was released before the other one was deleted: taken for gone as well, it would be over by now.
    assert!(handles(&lab, released) > 0, "the connection of a pod that is still there was cut");
    assert!(held[1].is_running());
}

/// Holds a plain connection to the sink.
fn hold(lab: &Lab, pod: &str) -> Background {
    let target = lab.address("legacy/sink", 4).to_string();
    let held = lab.spawn(pod, &["python3", "-c", HOLD, &target]);
    wait_until("it is open", Duration::from_secs(5), || held.stdout().contains("open"));
    held
}

/// The inode of a pod's network namespace.
fn namespace_of(lab: &Lab, pod: &str) -> u64 {
    let link = lab.exec(pod, &["readlink", "/proc/self/ns/net"]).ok();
    let inode = link.trim().trim_start_matches("net:[").trim_end_matches(']');
    inode.parse().expect("net:[INODE]")
}

/// Descriptors of a namespace that the node's ztunnel has.
fn handles(lab: &Lab, inode: u64) -> usize {
    let own = fs::metadata("/proc/self/ns/net").expect("a namespace").dev();
    let all = fs::read_dir(format!("/proc/{}/fd", lab.pid("ztunnel/node1"))).expect("it runs");
    let files = all.flatten().filter_map(|fd| fs::metadata(fd.path()).ok());
    files.filter(|file| file.dev() == own && file.ino() == inode).count()
}
