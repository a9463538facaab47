//! Enrolment by label on running pods: open connections live on, new ones are tunnelled, and the same way back.

use std::time::Duration;

use ambit_tests::lab::{Background, Capture, Lab, all_completed, peer, summary, wait_until};

use crate::cast::{PORT, namespace, pod, server};

const LABEL: &str = "istio.io/dataplane-mode";

#[test]
fn a_label_moves_new_connections_into_the_mesh_ipv4() {
    check("enrol4", "ipv4", 4);
}

#[test]
fn a_label_moves_new_connections_into_the_mesh_ipv6() {
    check("enrol6", "ipv6", 6);
}

#[test]
fn a_label_moves_new_connections_into_the_mesh_dual_stack() {
    check("enrol46", "dual", 6);
}

#[track_caller]
fn check(name: &str, families: &str, family: u8) {
    let cast = [
        namespace("shop", false),
        pod("shop/caller", "node1", &[]),
        server("shop/echo", "node2"),
        pod("shop/web", "node2", &["python3", &peer("echo.py"), "8000"]),
    ];
    let Some(lab) = Lab::up(name, &cast, &[&format!("ip_families={families}")]) else { return };
    let (echo, web) = (lab.target("shop/echo", family, PORT), lab.target("shop/web", family, 8000));
    let pids = ["shop/caller", "shop/echo", "shop/web"].map(|p| pod_pid(&lab, p));
    let held = hold(&lab, &echo);

    let capture = lab.capture();
    say(&lab, &web, "marker-before");
    wait_until("the marker is seen in clear", Duration::from_secs(5), || capture.saw("marker-before"));
    capture.stop();

    let _ = lab.lab(&["label", "namespace", "shop", &format!("{LABEL}=ambient")]);
    assert!(lab.is_captured("shop/caller") && lab.is_captured("shop/web"));
    let capture = lab.capture();
    say(&lab, &web, "marker-inside");
    wait_until("the tunnel is seen", Duration::from_secs(5), || capture.count("port 15008") > 0);
    assert!(!capture.saw("marker-inside"), "the marker crossed the fabric in clear");
    assert_eq!(tunnelled(&lab, "web"), 2, "both ends record a tunnelled connection: {:#?}", lab.flows(&[]));
    let inside = hold(&lab, &echo);
    capture.stop();

    let _ = lab.lab(&["label", "namespace", "shop", &format!("{LABEL}-")]);
    wait_until("the pods are released", Duration::from_secs(5), || {
        !lab.is_captured("shop/caller") && !lab.is_captured("shop/web")
    });
    let capture: Capture = lab.capture();
    say(&lab, &web, "marker-after");
    wait_until("the marker is seen in clear again", Duration::from_secs(5), || capture.saw("marker-after"));
    capture.stop();

    all_completed(&summary(&held.stop()));
    let inside = summary(&inside.stop());
    println!("a connection opened inside, after the way back: {}", inside["failures"]);
    assert_eq!(
        pids,
        ["shop/caller", "shop/echo", "shop/web"].map(|p| pod_pid(&lab, p)),
        "no pod was restarted"
    );
}

/// Holds a connection that says something ten times a second.
fn hold(lab: &Lab, target: &str) -> Background {
    let args = ["--hold", "--connections", "1", "--duration", "80s", "--interval", "100ms"];
    let held = lab.client("shop/caller", target, &args);
    wait_until("the connection is held", Duration::from_secs(5), || held.stderr().contains("\"open\":1"));
    held
}

/// Sends a marker on a connection of its own and demands it back.
#[track_caller]
fn say(lab: &Lab, target: &str, marker: &str) {
    let script = "import sys,socket\nh,p=sys.argv[1].rsplit(':',1)\n\
                  s=socket.create_connection((h.strip('[]'),int(p)),5); s.sendall(sys.argv[2].encode())\n\
                  s.shutdown(1); b=b''\nwhile True:\n  d=s.recv(4096)\n  if not d: break\n  b+=d\nprint(b.decode())";
    let output = lab.exec("shop/caller", &["python3", "-c", script, target, marker]);
    assert_eq!(output.ok().trim(), marker);
}

fn tunnelled(lab: &Lab, workload: &str) -> usize {
    let mut count = 0;
    wait_until("both records are there", Duration::from_secs(5), || {
        let flows = lab.flows(&["--to-pod", &format!("shop/{workload}")]);
        count = flows.iter().filter(|f| f["path"] == "hbone" && f["verdict"] == "allowed").count();
        count >= 2
    });
    count
}

fn pod_pid(lab: &Lab, pod: &str) -> serde_json::Value {
    let (namespace, name) = crate::cast::split(pod);
    let text = lab.lab(&["status", "-o", "json"]);
    let status: serde_json::Value = serde_json::from_str(&text).expect("JSON from lab status");
    let pods = status["pods"].as_array().expect("pods").clone();
    pods.iter().find(|p| p["name"] == name && p["namespace"] == namespace).expect("the pod")["pid"].clone()
}
