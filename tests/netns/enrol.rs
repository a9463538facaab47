//! Enrolment by label on running pods: open connections live on, new ones are tunnelled, and the same way back.

use std::time::Duration;

use ambit_tests::lab::{Background, Lab, all_completed, peer, summary, wait_until};
use serde_json::Value;

use crate::cast::{PORT, namespace, pod, server};

const LABEL: &str = "istio.io/dataplane-mode";
const PODS: [&str; 4] = ["shop/caller", "shop/echo", "shop/near", "shop/web"];
/// Across nodes, then on one node.
const SERVERS: [(&str, &str); 2] = [("shop/echo", "hbone"), ("shop/near", "local")];
/// How many connections each phase must see before the next change.
const AT_LEAST: usize = 20;
/// What begins a connection to the servers' own port.
const IN_CLEAR: &str = "(tcp[13] & 2 != 0 or ip6[53] & 2 != 0) and dst port 7000";
const IN_TUNNEL: &str = "(tcp[13] & 2 != 0 or ip6[53] & 2 != 0) and dst port 15008";

#[test]
fn a_label_moves_new_connections_into_the_mesh_ipv4() {
    check("enrol4", "ipv4", &[4]);
}

#[test]
fn a_label_moves_new_connections_into_the_mesh_ipv6() {
    check("enrol6", "ipv6", &[6]);
}

#[test]
fn a_label_moves_new_connections_into_the_mesh_dual_stack() {
    check("enrol46", "dual", &[4, 6]);
}

/// What was open before goes on in clear, and the records say so once at each end.
#[test]
fn connections_from_before_capture_are_told_and_go_on() {
    let cast = [namespace("shop", false), pod("shop/caller", "node1", &[]), server("shop/echo", "node2")];
    let Some(lab) = Lab::up("legacy", &cast, &[]) else { return };
    let target = lab.target("shop/echo", 4, PORT);
    let held = hold(&lab, &target);
    let told = || lab.flows(&["--code", "AMB1104"]);
    assert_eq!(told(), Vec::<Value>::new(), "nothing is captured");
    let _ = lab.lab(&["label", "namespace", "shop", &format!("{LABEL}=ambient")]);
    let is = |flow: &Value, direction: &str| {
        let ends = (&flow["src"]["workload"], &flow["dst"]["workload"]);
        flow["direction"] == direction && ends == (&"caller".into(), &"echo".into())
    };
    let at = |direction: &str| told().into_iter().filter(|flow| is(flow, direction)).collect::<Vec<_>>();
    for direction in ["outbound", "inbound"] {
        wait_until(&format!("the {direction} end is told"), Duration::from_secs(10), || {
            !at(direction).is_empty()
        });
        let records = at(direction);
        let [record] = &records[..] else { panic!("one connection, so one record: {records:#?}") };
        assert_eq!(
            (&record["verdict"], &record["path"]),
            (&"allowed".into(), &"plaintext".into()),
            "{record:#}"
        );
    }
    assert_eq!(all_completed(&lab.call("shop/caller", &target, &["--connections", "3"])), 3);
    let summary = summary(&held.stop());
    assert_eq!(summary["ok"], true, "it did not live on: {summary:#}");
}

#[track_caller]
fn check(name: &str, families: &str, used: &[u8]) {
    let cast = [
        namespace("shop", false),
        pod("shop/caller", "node1", &[]),
        server("shop/echo", "node2"),
        server("shop/near", "node1"),
        pod("shop/web", "node2", &["python3", &peer("echo.py"), "8000"]),
    ];
    let Some(lab) = Lab::up(name, &cast, &[&format!("ip_families={families}")]) else { return };
    let of = |pod: &str, port| used.iter().map(|f| lab.target(pod, *f, port)).collect::<Vec<_>>();
    let servers: Vec<String> = SERVERS.iter().flat_map(|(pod, _)| of(pod, PORT)).collect();
    let webs = of("shop/web", 8000);
    let pids = PODS.map(|p| lab.pod_pid(p));
    let all =
        |begin: fn(&Lab, &str) -> Background| servers.iter().map(|s| begin(&lab, s)).collect::<Vec<_>>();
    let (held, load) = (all(hold), all(load));

    on_the_fabric_in_clear(&lab, &webs, "marker-before");
    let _ = lab.lab(&["label", "namespace", "shop", &format!("{LABEL}=ambient")]);
    wait_until("the pods are captured", Duration::from_secs(5), || PODS.iter().all(|p| lab.is_captured(p)));
    let inside = on_the_fabric_in_tls(&lab, &webs, "marker-inside", || all(hold));

    let _ = lab.lab(&["label", "namespace", "shop", &format!("{LABEL}-")]);
    wait_until("the pods are released", Duration::from_secs(5), || PODS.iter().all(|p| !lab.is_captured(p)));
    on_the_fabric_in_clear(&lab, &webs, "marker-after");

    for (when, connections) in [("before", held), ("inside", inside)] {
        for connection in connections {
            let summary = summary(&connection.stop());
            assert_eq!(summary["ok"], true, "a connection opened {when} did not live on: {summary:#}");
        }
    }
    for load in load {
        let count = all_completed(&summary(&load.stop()));
        let least = u64::try_from(AT_LEAST).expect("a small number");
        assert!(count >= least, "only {count} connections were opened across the changes");
    }
    assert_eq!(pids, PODS.map(|p| lab.pod_pid(p)), "a pod was restarted");
}

/// Outside the mesh: the marker and every new connection cross the fabric as they are.
#[track_caller]
fn on_the_fabric_in_clear(lab: &Lab, webs: &[String], marker: &str) {
    let capture = lab.capture();
    for web in webs {
        say(lab, web, marker);
    }
    wait_until("the marker and connections are seen in clear", Duration::from_secs(10), || {
        capture.saw(marker) && capture.count(IN_CLEAR) >= AT_LEAST
    });
    assert_eq!(capture.count(IN_TUNNEL), 0, "a tunnel was begun outside the mesh");
    capture.stop();
}

/// Inside the mesh: no marker and no new connection crosses the fabric in clear, and the records say how they went.
#[track_caller]
fn on_the_fabric_in_tls(
    lab: &Lab,
    webs: &[String],
    marker: &str,
    begin: impl Fn() -> Vec<Background>,
) -> Vec<Background> {
    let capture = lab.capture();
    for web in webs {
        say(lab, web, marker);
    }
    let begun = begin();
    wait_until("the tunnel is seen", Duration::from_secs(5), || capture.count("port 15008") > 0);
    recorded_at_both_ends(lab, "shop/web", "hbone", webs.len());
    for (server, path) in SERVERS {
        recorded_at_both_ends(lab, server, path, AT_LEAST);
    }
    assert!(!capture.saw(marker), "the marker crossed the fabric in clear");
    assert_eq!(capture.count(IN_CLEAR), 0, "a new connection crossed the fabric in clear");
    capture.stop();
    begun
}

/// Holds a connection that says something ten times a second.
fn hold(lab: &Lab, target: &str) -> Background {
    let args = ["--hold", "--connections", "1", "--duration", "80s", "--interval", "100ms"];
    let held = lab.client("shop/caller", target, &args);
    wait_until("the connection is held", Duration::from_secs(5), || held.stderr().contains("\"open\":1"));
    held
}

/// Opens connections until it is stopped.
fn load(lab: &Lab, target: &str) -> Background {
    lab.client("shop/caller", target, &["--rate", "80", "--duration", "80s"])
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

/// Waits until so many connections of the caller to a pod went by that path, at each end.
#[track_caller]
fn recorded_at_both_ends(lab: &Lab, pod: &str, path: &str, count: usize) {
    wait_until(&format!("{pod} is reached by {path}"), Duration::from_secs(10), || {
        let flows = lab.flows(&["--from-pod", "shop/caller", "--to-pod", pod, "--verdict", "allowed"]);
        let at = |end: &str| flows.iter().filter(|f| f["path"] == path && f["direction"] == end).count();
        at("outbound") >= count && at("inbound") >= count
    });
}
