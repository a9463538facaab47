//! What people and scripts read: `status`, `get`, `flows` and `why`, their columns and forms, also while a node is silent.

use std::time::Duration;

use ambit_tests::lab::{Background, Lab, Output, all_completed, wait_until};
use serde_json::{Value, json};

use crate::cast::{PORT, namespace, pod, security, server, service};

/// A namespace under STRICT with a caller and a server, and a stranger outside.
fn up(name: &str, settings: &[&str]) -> Option<Lab> {
    let cast = [
        namespace("shop", true),
        namespace("legacy", false),
        security("PeerAuthentication", "shop/strict", &json!({"mtls": {"mode": "STRICT"}})),
        security("AuthorizationPolicy", "shop/open", &json!({"rules": [{}]})),
        server("shop/echo", "node2"),
        pod("shop/caller", "node1", &[]),
        pod("legacy/stranger", "node1", &[]),
        service("shop/echo", "echo", 80, PORT),
    ];
    Lab::up(name, &cast, settings)
}

fn call(lab: &Lab, times: &str) {
    let target = lab.target("shop/echo", 4, PORT);
    let _ = all_completed(&lab.call("shop/caller", &target, &["--connections", times]));
}

/// The cells of the rows under a heading, which has to be exactly that.
#[track_caller]
fn rows(output: &str, heading: &str) -> Vec<Vec<String>> {
    let split = |line: &str| -> Vec<String> {
        line.split("   ").map(str::trim).filter(|c| !c.is_empty()).map(str::to_owned).collect()
    };
    let mut lines = output.lines();
    let first = split(lines.next().unwrap_or_default()).join(" | ");
    assert_eq!(first, heading, "{output}");
    lines.map(split).collect()
}

fn json_of(output: Output) -> Value {
    serde_json::from_str(&output.ok()).expect("JSON")
}

const FLOWS: &str = "TIMESTAMP | NODE | SOURCE | DESTINATION | PATH | VERDICT | CODE | ID | SUMMARY";
const CONNECTIONS: &str = "WORKLOAD | DIRECTION | LOCAL | REMOTE | REMOTE TARGET | PROTOCOL | ID";

#[test]
fn every_row_of_flows_and_connections_has_an_id_that_why_explains() {
    let Some(lab) = up("ids", &[]) else { return };
    call(&lab, "1");
    let target = lab.target("shop/echo", 4, PORT);
    assert_eq!(lab.call("legacy/stranger", &target, &["--connections", "1"])["ok"], false);
    wait_until("the refusal is recorded", Duration::from_secs(5), || {
        !lab.flows(&["--code", "AMB2301"]).is_empty()
    });
    let flows = lab.ambit(&["flows"]);
    assert!(flows.stderr.contains("oldest record") && flows.stderr.contains(" 0 lost"), "{}", flows.stderr);
    let rows_of_flows = rows(&flows.stdout, FLOWS);
    assert!(rows_of_flows.len() >= 3, "{}", flows.stdout);
    for row in rows_of_flows {
        let why = lab.ambit(&["why", &row[7]]).ok();
        assert!(row[6] == "-" || why.contains(&row[6]), "{row:?}: {why}");
    }
    let args = ["--hold", "--connections", "1", "--duration", "60s"];
    let held = lab.client("shop/caller", &target, &args);
    wait_until("the connection is held", Duration::from_secs(5), || held.stderr().contains("\"open\":1"));
    let open = rows(&lab.ambit(&["get", "connections"]).ok(), CONNECTIONS);
    assert_eq!(open.len(), 2, "both ends: {open:?}");
    for row in &open {
        let why = lab.ambit(&["why", &row[6]]).ok();
        assert!(why.contains("open") && why.contains("shop/caller"), "{why}");
    }
    for (direction, pod) in [("inbound", "echo.shop"), ("outbound", "caller.shop")] {
        let some = rows(&lab.ambit(&["get", "connections", "--direction", direction]).ok(), CONNECTIONS);
        assert!(some.len() == 1 && some[0][0] == pod, "{some:?}");
    }
    let unknown = lab.ambit(&["why", "0123456789abcdef0123456789abcdef"]);
    assert_eq!(unknown.code, Some(1), "{unknown:?}");
    assert_eq!(lab.ambit(&["why", "nonsense"]).code, Some(65));
    assert!(lab.ambit(&["why", "last"]).ok().contains("AMB2301"));
}

#[test]
fn a_silent_node_is_told_and_hides_no_other() {
    let Some(lab) = up("silent", &[]) else { return };
    call(&lab, "1");
    let _ = lab.lab(&["stop", "ztunnel/node1"]);
    let views: [&[&str]; 5] = [
        &["flows"],
        &["get", "workloads"],
        &["get", "certificates"],
        &["get", "connections"],
        &["get", "policies", "-o", "json"],
    ];
    for view in views {
        let output = lab.ambit(view);
        assert_eq!(output.code, Some(0), "{view:?}: {output:?}");
        assert!(output.stderr.contains("node1 does not answer"), "{view:?}: {output:?}");
    }
    assert!(lab.ambit(&["flows"]).ok().contains("node2"));
    assert!(lab.ambit(&["get", "certificates"]).ok().contains("/ns/shop/sa/default"));
    for view in views {
        let alone = lab.ambit(&[view, &["--node", "node1"]].concat());
        assert_eq!(alone.code, Some(69), "{view:?}: {alone:?}");
    }
    let status = lab.ambit(&["status"]);
    assert_eq!(status.code, Some(1), "{status:?}");
    assert!(status.stdout.contains("node1") && status.stdout.contains("node2"), "{status:?}");
    let waiting = lab.start(&["status", "--wait", "--timeout", "60s"]);
    let _ = lab.lab(&["start", "ztunnel/node1"]);
    let waited = waiting.finish(Duration::from_secs(60));
    assert_eq!(waited.code, Some(0), "{waited:?}");
}

/// How many records of a node a follower has shown.
fn seen(follow: &Background, node: &str) -> usize {
    follow.stdout().lines().filter(|l| l.contains(&format!("\"node\":\"{node}\""))).count()
}

#[test]
fn following_goes_on_across_restarts() {
    let Some(lab) = up("follow", &[]) else { return };
    // Without the node's own probes, which are told too.
    let follow = lab.start(&["flows", "-f", "-o", "json", "--from-pod", "shop/caller"]);
    let both = |what: &str| {
        let before = (seen(&follow, "node1"), seen(&follow, "node2"));
        call(&lab, "1");
        wait_until(what, Duration::from_secs(10), || {
            seen(&follow, "node1") > before.0 && seen(&follow, "node2") > before.1
        });
    };
    both("records of both nodes");
    let _ = lab.lab(&["restart", "ztunnel/node2"]);
    both("records after a graceful restart");
    let _ = lab.lab(&["stop", "ztunnel/node1"]);
    wait_until("the silence is told", Duration::from_secs(10), || follow.stderr().contains("node1"));
    let _ = lab.lab(&["start", "ztunnel/node1"]);
    wait_until("it is captured again", Duration::from_secs(10), || lab.is_captured("shop/caller"));
    both("records after a stop and a start");
    let lines = follow.stdout();
    let mut all: Vec<&str> = lines.lines().collect();
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count, "a record was shown twice");
    drop(follow.stop());
}

#[test]
fn records_pushed_out_of_the_ring_are_counted() {
    let Some(lab) = up("ring", &["ztunnel.AMBIT_FLOW_RECORDS=10"]) else { return };
    call(&lab, "25");
    // Probes are recorded too, so there may be more.
    let lost = |told: &str| -> u64 {
        let words: Vec<&str> = told.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "lost").expect("a count of the lost");
        words[at - 1].parse().expect("a number")
    };
    let mut flows = lab.ambit(&["flows", "--node", "node2"]);
    wait_until("fifteen are lost", Duration::from_secs(5), || {
        flows = lab.ambit(&["flows", "--node", "node2"]);
        lost(&flows.stderr) >= 15
    });
    assert_eq!(rows(&flows.stdout, FLOWS).len(), 10, "{flows:?}");
    let metrics = lab.on_node("node2", &["curl", "-s", "http://127.0.0.1:15020/metrics"]).ok();
    let pushed_out = r#"ambit_flow_records_lost_total{cause="ring"} "#;
    let counted = metrics.lines().find_map(|l| l.strip_prefix(pushed_out));
    let counted: u64 = counted.and_then(|n| n.parse().ok()).expect("the metric");
    assert!(counted >= lost(&flows.stderr), "{counted} in the metric, but {}", flows.stderr);
}

#[test]
fn views_have_the_columns_and_forms_that_scripts_rely_on() {
    let Some(lab) = up("forms", &[]) else { return };
    call(&lab, "1");
    columns(&lab);
    forms(&lab);
    offline(&lab);
    let status = rows(&lab.ambit(&["status"]).ok(), "NODE | VERSION | SYNCED | CAPTURED | CERTS | SELFTEST");
    // The stranger is on node1 and was never asked into the mesh.
    assert_eq!((&*status[0][0], &*status[0][3]), ("node1", "1/1"), "{status:?}");
    let budget = lab.ambit(&["status", "--budget"]).ok();
    let heading = "NODE | MEMORY MIB | DESCRIPTORS | CONNECTIONS | FLOW RECORDS";
    assert_eq!(rows(&budget, heading).len(), 2, "{budget}");
}

#[track_caller]
fn columns(lab: &Lab) {
    let views = [
        ("workloads", "NAMESPACE | POD NAME | ADDRESS | NODE | WAYPOINT | PROTOCOL"),
        ("services", "NAMESPACE | SERVICE NAME | SERVICE VIP | WAYPOINT | ENDPOINTS"),
        ("policies", "NAMESPACE | POLICY NAME | ACTION | SCOPE"),
        (
            "certificates",
            "CERTIFICATE NAME | TYPE | STATUS | VALID CERT | SERIAL NUMBER | NOT AFTER | NOT BEFORE",
        ),
        ("connections", CONNECTIONS),
    ];
    for (view, heading) in views {
        let shown = rows(&lab.ambit(&["get", view]).ok(), heading);
        let wanted = heading.split(" | ").count();
        assert!(shown.iter().all(|row| row.len() == wanted), "{view}: {shown:?}");
        let wide = lab.ambit(&["get", view, "-o", "wide"]).ok();
        let first: Vec<&str> = heading.split(" | ").collect();
        let told: Vec<&str> = wide.lines().next().unwrap_or_default().split("   ").map(str::trim).collect();
        let told: Vec<&str> = told.into_iter().filter(|c| !c.is_empty()).collect();
        assert!(told.len() > first.len(), "{view}: wide adds nothing: {told:?}");
        assert_eq!(told[..first.len()], first[..], "{view}");
    }
    let types: Vec<String> = rows(&lab.ambit(&["get", "certificates"]).ok(), views[3].1)
        .into_iter()
        .map(|row| row[1].clone())
        .collect();
    for kind in ["Leaf", "Intermediate", "Root"] {
        assert!(types.iter().any(|t| t == kind), "no {kind} in {types:?}");
    }
}

#[track_caller]
fn forms(lab: &Lab) {
    let list = json_of(lab.ambit(&["get", "workloads", "-o", "json"]));
    assert_eq!(
        (&list["apiVersion"], &list["kind"]),
        (&json!("cli.ambit.internal/v1"), &json!("WorkloadList"))
    );
    let yaml = lab.ambit(&["get", "workloads", "-o", "yaml"]).ok();
    assert!(yaml.contains("kind: WorkloadList"), "{yaml}");
    let names = lab.ambit(&["get", "workloads", "-n", "shop", "-o", "name"]).ok();
    assert_eq!(names, "workload/shop/caller\nworkload/shop/echo\n");
    assert_eq!(lab.ambit(&["get", "workloads", "--workload-namespace", "shop", "-o", "name"]).ok(), names);
    assert!(lab.ambit(&["get", "workloads", "-A", "-o", "name"]).ok().contains("workload/legacy/stranger"));
    let path = "jsonpath={range .items[*]}{.namespace}/{.name}{\"\\n\"}{end}";
    assert_eq!(lab.ambit(&["get", "workloads", "-n", "shop", "-o", path]).ok(), "shop/caller\nshop/echo\n");
    let path = "jsonpath={.items[0].name}";
    assert_eq!(lab.ambit(&["get", "workloads", "-n", "shop", "-o", path]).ok().trim(), "caller");
    for bad in ["xml", "jsonpath={.items[", "jsonpath="] {
        let refused = lab.ambit(&["get", "workloads", "-o", bad]);
        assert_eq!(refused.code, Some(64), "{bad}: {refused:?}");
    }
    let nodes = json_of(lab.ambit(&["status", "-o", "json"]));
    assert_eq!((&nodes["kind"], nodes["items"].as_array().map(Vec::len)), (&json!("NodeList"), Some(2)));
    assert!(lab.ambit(&["flows", "-o", "yaml"]).ok().contains("verdict: allowed"));
    let ids = lab.ambit(&["flows", "-o", "name"]).ok();
    assert!(ids.lines().count() >= 2 && ids.lines().all(|l| l.starts_with("flow/")), "{ids}");
    let codes = lab.ambit(&["flows", "-o", "jsonpath={.verdict}{\"\\n\"}"]).ok();
    assert!(codes.lines().any(|l| l == "allowed"), "{codes}");
}

/// What was dumped earlier reads like the node it came from.
#[track_caller]
fn offline(lab: &Lab) {
    for view in ["workloads", "services", "policies", "certificates", "connections"] {
        let raw = lab.ambit(&["get", view, "--raw", "--node", "node1"]).ok();
        let file = lab.file("dump.json", &raw);
        let live = lab.ambit(&["get", view, "--node", "node1", "-o", "name"]).ok();
        let read = lab.ambit(&["get", view, "--file", &file, "-o", "name"]).ok();
        assert_eq!(live, read, "{view}");
    }
    let both = lab.file("both.json", &lab.ambit(&["get", "workloads", "--raw"]).ok());
    let merged = lab.ambit(&["get", "workloads", "--file", &both, "-o", "name"]).ok();
    assert_eq!(merged, lab.ambit(&["get", "workloads", "-o", "name"]).ok());
    let broken = lab.file("broken.json", "{");
    assert_eq!(lab.ambit(&["get", "workloads", "--file", &broken]).code, Some(65));
}
