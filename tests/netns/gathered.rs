//! What the control plane gathers of the proxies: edges with right numbers, records on demand, and what that costs the
//! nodes (rows 5 and 6 of seeing).

use std::process::Command;
use std::time::Duration;

use ambit_tests::lab::{Background, Lab, all_completed, kept_its_rate, soak, summary, wait_until};
use serde_json::{Value, json};

use crate::cast::{PORT, namespace, pod, security, server, service};

const WAIT: Duration = Duration::from_secs(20);
const NODES: [&str; 2] = ["node1", "node2"];
/// Share of the machine's CPU that watching may cost a node, and MiB that it may take.
const CPU_SHARE: f64 = 0.02;
const MEMORY: f64 = 40.0;

fn up(name: &str, settings: &[&str]) -> Option<Lab> {
    let cast = [
        namespace("shop", true),
        namespace("legacy", false),
        security("PeerAuthentication", "shop/strict", &json!({"mtls": {"mode": "STRICT"}})),
        server("shop/echo", "node2"),
        pod("shop/caller", "node1", &[]),
        pod("legacy/stranger", "node1", &[]),
        service("shop/echo", "echo", 80, PORT),
    ];
    Lab::up(name, &cast, settings)
}

/// What the control plane's API answers on its admin socket.
fn api(lab: &Lab, path: &str) -> Value {
    let answer = curl(lab, path).finish(WAIT).ok();
    serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{path}: {error} in {answer:?}"))
}

fn curl(lab: &Lab, path: &str) -> Background {
    let socket = lab.run_dir().join("istiod/admin.sock").display().to_string();
    let url = format!("http://localhost/api/v1/{path}");
    Background::start(Command::new("curl").args(["-sS", "-N", "--unix-socket", &socket, &url]))
}

/// The edge between two workloads, if there is one.
fn edge(lab: &Lab, source: &str, destination: &str) -> Option<Value> {
    let edges = api(lab, "edges?window=5m");
    let is = |end: &Value, name: &str| {
        let text = |key: &str| end[key].as_str().unwrap_or_default().to_owned();
        format!("{}/{}", text("namespace"), text("workload")) == name
    };
    let mut edges = edges["items"].as_array().expect("items").iter();
    edges.find(|edge| is(&edge["source"], source) && is(&edge["destination"], destination)).cloned()
}

fn attached(lab: &Lab) -> usize {
    let nodes = api(lab, "nodes");
    nodes["items"].as_array().expect("items").iter().filter(|node| node["attached"] == true).count()
}

#[test]
fn what_proxies_see_is_gathered_and_shown() {
    let Some(lab) = up("gathered", &[]) else { return };
    wait_until("both nodes attend", WAIT, || attached(&lab) == 2);
    let target = lab.target("shop/echo", 4, PORT);
    let _ = lab.call("shop/caller", &target, &["--connections", "25"]);
    let refused = lab.call("legacy/stranger", &target, &["--connections", "3", "--stall-timeout", "2s"]);
    assert_eq!(refused["ok"], false);
    let counted = |edge: Option<Value>, key: &str, count: u64| edge.is_some_and(|edge| edge[key] == count);
    wait_until("the allowed are counted", WAIT, || {
        counted(edge(&lab, "shop/caller", "shop/echo"), "connections", 25)
    });
    wait_until("the refused are counted", WAIT, || {
        counted(edge(&lab, "legacy/stranger", "shop/echo"), "denied", 3)
    });
    numbers(&lab);
    let more = commands(&lab);
    // A control plane that begins anew knows nothing, and hears of everything that happens from then on.
    let _ = lab.lab(&["restart", "istiod"]);
    wait_until("both nodes attend again", WAIT, || attached(&lab) == 2);
    let _ = lab.call("shop/caller", &target, &["--connections", "5"]);
    wait_until("the new ones are counted", WAIT, || {
        let edge = edge(&lab, "shop/caller", "shop/echo");
        // One of the two nodes may have told its part of the commands' connections only after the restart.
        edge.and_then(|edge| edge["connections"].as_u64())
            .is_some_and(|count| (5..=5 + more).contains(&count))
    });
}

#[track_caller]
fn numbers(lab: &Lab) {
    let edge_of = |source: &str| edge(lab, source, "shop/echo").expect("the edge");
    let allowed = edge_of("shop/caller");
    assert_eq!((&allowed["secured"], &allowed["denied"]), (&json!(true), &json!(0)), "{allowed:#}");
    assert_eq!(allowed["paths"], json!(["hbone"]), "{allowed:#}");
    assert_eq!(allowed["source"]["identity"], "spiffe://cluster.local/ns/shop/sa/default", "{allowed:#}");
    assert_eq!(
        (&allowed["source"]["node"], &allowed["destination"]["node"]),
        (&json!("node1"), &json!("node2"))
    );
    let refused = edge_of("legacy/stranger");
    assert_eq!((&refused["secured"], &refused["connections"]), (&json!(false), &json!(0)), "{refused:#}");
    assert_eq!(refused["codes"], json!({"AMB2301": 3}), "{refused:#}");
    let flows = api(lab, "flows?verdict=denied&to-pod=shop/echo&direction=inbound");
    assert_eq!(flows["items"].as_array().map(Vec::len), Some(3), "{flows:#}");
    let incidents = api(lab, "incidents");
    let one = incidents["items"].as_array().expect("items").iter().find(|one| one["code"] == "AMB2301");
    assert_eq!(one.expect("an incident")["count"], 3, "{incidents:#}");
}

/// Every command shows what happened; how many connections that took.
#[track_caller]
fn commands(lab: &Lab) -> u64 {
    let edges = lab.ambit(&["edges"]).ok();
    let heading: Vec<&str> = edges.lines().next().expect("a heading").split_whitespace().collect();
    assert_eq!(heading, ["SRC", "DST", "SRC_NS", "DST_NS", "CLIENT_ID", "SERVER_ID", "SECURED", "WHY_NOT"]);
    let stat = lab.ambit(&["stat", "-n", "shop", "-o", "json"]).ok();
    let stat: Value = serde_json::from_str(&stat).expect("JSON");
    let echo = stat["items"].as_array().expect("items").iter().find(|item| item["name"] == "echo");
    assert_eq!(echo.expect("a row")["denied"], 3.0, "{stat:#}");
    let map = lab.ambit(&["map"]).ok();
    assert!(map.contains("-[x]-> shop/echo") && map.contains("AMB2301x3"), "{map}");
    let first = lab.ambit(&[
        "flows",
        "-o",
        "json",
        "--first",
        "1",
        "--field-mask",
        "code,src.workload",
        "--code",
        "AMB2301",
    ]);
    let first = first.ok();
    assert_eq!(first.lines().collect::<Vec<_>>(), [r#"{"code":"AMB2301","src":{"workload":"stranger"}}"#]);
    let saved = lab.file("flows.json", &lab.ambit(&["flows", "-o", "json"]).ok());
    let offline =
        ["flows", "-o", "json", "--input-file", &saved, "--verdict", "denied", "--direction", "inbound"];
    assert_eq!(lab.ambit(&offline).ok().lines().count(), 3);
    assert_eq!(lab.ambit(&["flows", "--to-port", "http"]).code, Some(64));
    let tap = lab.start(&["tap", "--from-pod", "shop/caller", "-o", "wide"]);
    let target = lab.target("shop/echo", 4, PORT);
    let mut made = 0;
    wait_until("tap shows a connection's end", WAIT, || {
        made += 1;
        let _ = lab.call("shop/caller", &target, &["--connections", "1"]);
        let lines = tap.stdout();
        lines.lines().any(|l| {
            l.starts_with("end ") && l.contains("src.identity=spiffe://") && l.contains("verdict=allowed")
        })
    });
    drop(tap.stop());
    made
}

#[test]
fn watching_costs_the_nodes_little_and_every_connection_is_counted() {
    // The ring is small, so that records are lost, and said so.
    let Some(lab) = up("watched", &["ztunnel.AMBIT_FLOW_RECORDS=1000"]) else { return };
    wait_until("both nodes attend", WAIT, || attached(&lab) == 2);
    let target = lab.target("shop/echo", 4, PORT);
    let _ = lab.call("shop/caller", &target, &["--connections", "10"]);
    let (tried, reached) = if soak() { within_reach(&lab, &target) } else { (0, 500) };
    let (rate, seconds) = (reached, if soak() { 30 } else { 6 });
    let memory = NODES.map(|node| resident(&lab, node));
    let (alone, first) = load(&lab, &target, rate, seconds);
    let events = curl(&lab, "events");
    let follow = curl(&lab, "flows?follow=1&verdict=denied");
    wait_until("somebody watches", WAIT, || events.stdout().contains("event: edges"));
    let (watched, second) = load(&lab, &target, rate, seconds);
    let total = 10 + tried + first + second;
    let mut counted = 0;
    wait_until("every connection is counted", WAIT, || {
        let edge = edge(&lab, "shop/caller", "shop/echo");
        counted = edge.and_then(|edge| edge["connections"].as_u64()).unwrap_or(0);
        counted >= total
    });
    assert_eq!(counted, total, "counted by the control plane, and made");
    drop((events.stop(), follow.stop()));
    let after = NODES.map(|node| resident(&lab, node));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    #[expect(clippy::cast_precision_loss, reason = "a few cores")]
    let share = |seconds: f64, wall: f64| seconds / (wall * cores as f64);
    for (at, node) in NODES.iter().enumerate() {
        let more = share(watched.0[at] - alone.0[at], f64::from(seconds));
        println!(
            "{node}: {rate}/s for {seconds} s take {:.2} s of CPU, watched {:.2} s ({:.2} % of the machine more); {:.1} to {:.1} MiB",
            alone.0[at],
            watched.0[at],
            100.0 * more,
            memory[at],
            after[at]
        );
        assert!(after[at] < memory[at] + MEMORY, "{node}: {:.1} MiB, before {:.1}", after[at], memory[at]);
        // A short run measures its machine's other work.
        assert!(!soak() || more < CPU_SHARE, "{node}: watching costs {:.1} % of the machine", 100.0 * more);
    }
    lost_is_counted(&lab);
    a_change_is_compared_with_the_day(&lab, total);
}

/// The proxies remember the last thousand connections, the control plane all of them; without it the proxies are asked.
#[track_caller]
fn a_change_is_compared_with_the_day(lab: &Lab, total: u64) {
    let nobody = security("AuthorizationPolicy", "shop/nobody", &json!({}));
    let file = lab.file("nobody.json", &nobody.to_string());
    let diff = || lab.ambit(&["policy", "diff", &file, "-o", "json"]);
    let connections = |answer: &str| {
        let answer: Value = serde_json::from_str(answer).expect("JSON");
        let mut items = answer["items"].as_array().expect("items").iter();
        let of_caller = items.find(|item| item["source"] == "shop/caller").cloned();
        of_caller.and_then(|item| item["connections"].as_u64()).expect("a change for the caller")
    };
    let whole = diff();
    assert!(whole.stderr.contains("counted by the control plane"), "{}", whole.stderr);
    let footing = whole.stderr.clone();
    let refused = connections(&whole.ok());
    // Records and counts are asked one after the other: a few may be in both.
    let near = total - total / 100..=total + total / 100;
    assert!(near.contains(&refused), "{refused} would be refused, {total} were made: {footing}");
    let of_pair = edge(lab, "shop/caller", "shop/echo").expect("the edge");
    let id = of_pair["id"].as_str().expect("its id");
    let why = lab.ambit(&["why", id]).ok();
    assert!(why.contains("shop/caller") && why.contains("shop/echo"), "{id}: {why}");
    let target = lab.target("shop/echo", 4, PORT);
    let told = lab.ambit(&["explain", "shop/caller", &target, "--as-of", "0s", "-o", "json"]).ok();
    let told: Value = serde_json::from_str(&told).expect("JSON");
    let then = &told["as_of"];
    assert_eq!(
        (&then["before"]["verdict"], &then["differs"]),
        (&json!("allowed"), &json!(false)),
        "{then:#}"
    );
    assert!(then["changes"].is_array(), "{then:#}");
    let _ = lab.lab(&["stop", "istiod"]);
    let rest = diff();
    assert!(rest.stderr.contains("the control plane does not answer"), "{}", rest.stderr);
    let remembered = connections(&rest.ok());
    assert!((1..total).contains(&remembered), "{remembered} of {total} are remembered");
}

/// The rate of the long form: what is asked for, or half of what this machine makes at most, if that is less. An open load
/// beyond it measures a queue. How many connections that took, and the rate.
fn within_reach(lab: &Lab, target: &str) -> (u64, u64) {
    const ASKED: u64 = 5000;
    let args = ["--rate", "5000", "--duration", "5s", "--payload-bytes", "64", "--stall-timeout", "30s"];
    let made = summary(&lab.client("shop/caller", target, &args).finish(Duration::from_secs(120)));
    let (completed, ran_ms) = (all_completed(&made), made["duration_ms"].as_u64().expect("milliseconds"));
    let most = completed * 1000 / ran_ms.max(1);
    let rate = ASKED.min(most / 2);
    println!("this machine makes {most} connections a second at most; watched at {rate} a second");
    (completed, rate)
}

/// CPU seconds of both nodes.
struct Cpu([f64; 2]);

/// Makes a load; what it took of the CPU, and how many connections there were.
fn load(lab: &Lab, target: &str, rate: u64, seconds: u32) -> (Cpu, u64) {
    let before = NODES.map(|node| cpu(lab, node));
    let (rate_text, duration) = (rate.to_string(), format!("{seconds}s"));
    let args =
        ["--rate", &rate_text, "--duration", &duration, "--payload-bytes", "64", "--stall-timeout", "30s"];
    let summary = summary(&lab.client("shop/caller", target, &args).finish(Duration::from_secs(120)));
    let completed = kept_its_rate(&summary, rate);
    assert_eq!(summary["ok"], true, "{summary:#}");
    let after = NODES.map(|node| cpu(lab, node));
    (Cpu([after[0] - before[0], after[1] - before[1]]), completed)
}

/// What the ring has pushed out is in the answer, and is what the nodes' metrics say.
#[track_caller]
fn lost_is_counted(lab: &Lab) {
    let metric = |node: &&str| -> u64 {
        let metrics = lab.on_node(node, &["curl", "-s", "http://127.0.0.1:15020/metrics"]).ok();
        let line =
            metrics.lines().find_map(|l| l.strip_prefix(r#"ambit_flow_records_lost_total{cause="ring"} "#));
        line.and_then(|count| count.parse().ok()).unwrap_or(0)
    };
    // Probes go on, so what is told lies between two looks at the metrics.
    let before: u64 = NODES.iter().map(metric).sum();
    let flows = api(lab, "flows?from-pod=shop/caller");
    let after: u64 = NODES.iter().map(metric).sum();
    let lost = flows["lost"].as_u64().expect("a count");
    assert!(
        before > 0 && (before..=after).contains(&lost),
        "{lost} told, {before} to {after} in the metrics"
    );
    assert!(flows["oldest"].is_string(), "{flows:#}");
}

/// CPU seconds of a node's ztunnel.
fn cpu(lab: &Lab, node: &str) -> f64 {
    let pid = lab.pid(&format!("ztunnel/{node}"));
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|n| n.parse::<f64>().ok()).expect("a number of ticks");
    // utime and stime, fields 14 and 15 of the line; Linux shows 100 ticks a second.
    (ticks(11) + ticks(12)) / 100.0
}

/// Resident memory of a node's ztunnel in MiB.
fn resident(lab: &Lab, node: &str) -> f64 {
    let pid = lab.pid(&format!("ztunnel/{node}"));
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = text.lines().find(|l| l.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).expect("kB") / 1024.0
}
