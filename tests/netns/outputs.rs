//! What commands print for programs, of a mesh with traffic, a refusal and a waypoint: as the schemas say, and not empty.
//!
//! What needs no mesh stands in the loopback tests, and so does that every schema has its row. Here is also what only a
//! mesh can show: colour on a terminal, and how an interruption ends a command.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ambit_tests::lab::{Background, Lab, Output, all_completed, ambit, wait_until};
use ambit_tests::outputs::{INDEX, OF_LAB, TAP, TOP};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::bundle::unpacked;
use crate::cast::{PORT, namespace, security, server};
use crate::waypoint::shop::{CLIENT, OTHER, OUTSIDE, Shop};

const WAIT: Duration = Duration::from_secs(30);
/// Whom everybody may call in plaintext, but for one.
const ECHO: &str = "plain/echo";
/// A service behind the waypoint.
const SERVICE: &str = "web-v1.shop.svc.cluster.local:80";

fn up(name: &str) -> Option<(Shop, String)> {
    let other = json!({"principals": ["cluster.local/ns/other/sa/other"]});
    let refused = json!({"action": "DENY", "rules": [{"from": [{"source": other}]}]});
    let cast = [
        namespace("plain", true),
        server(ECHO, "node2"),
        security("AuthorizationPolicy", "plain/no-other", &refused),
    ];
    let shop = Shop::up(name, &cast)?;
    let target = shop.lab.target(ECHO, 4, PORT);
    assert_eq!(all_completed(&shop.lab.call(OUTSIDE, &target, &["--connections", "3"])), 3);
    assert_eq!(shop.lab.call(OTHER, &target, &["--connections", "1"])["ok"], false);
    wait_until("both are told of by everybody", WAIT, || {
        let edges = shop.lab.ambit(&["edges", "-o", "json"]);
        let edges: Value = serde_json::from_str(&edges.stdout).unwrap_or_default();
        let has = |key: &str| {
            edges["items"].as_array().into_iter().flatten().any(|edge| edge[key].as_u64() > Some(0))
        };
        has("connections") && has("denied") && !shop.lab.flows(&["--code", "AMB2103"]).is_empty()
    });
    drop(shop.lab.ambit(&["status", "--wait"]).ok());
    Some((shop, target))
}

#[test]
fn every_command_prints_what_its_schema_says() {
    let Some((shop, target)) = up("outputs") else { return };
    let lab = &shop.lab;
    let args = ["--hold", "--connections", "1", "--duration", "300s", "--interval", "200ms"];
    let held = lab.client(CLIENT, &target, &args);
    wait_until("a connection is held", WAIT, || held.stderr().contains("\"open\":1"));
    let reason = ["breakglass", "open", "-n", "plain", "--for", "1h", "--reason", "to be listed"];
    drop(lab.ambit(&reason).ok());
    drop(lab.ambit(&["status", "--wait"]).ok());
    let archive = format!("{}/bundle.tar.gz", lab.folder("bundles"));
    let change = json!({"selector": {"matchLabels": {"app": "echo"}}, "action": "DENY", "rules": [{}]});
    let change = security("AuthorizationPolicy", "plain/nobody", &change);
    let change = lab.file("change.json", &change.to_string());
    let open = open_connection(lab);
    let meant = [
        ("CALLER", CLIENT),
        ("SERVICE", SERVICE),
        ("NAMESPACE", "plain"),
        ("STRANGER", OUTSIDE),
        ("OPEN", open.as_str()),
        ("CHANGE", change.as_str()),
        ("ARCHIVE", archive.as_str()),
    ];
    for row in OF_LAB {
        let documents = row.check(&run(lab, &row.command(&meant)));
        if row.kind == "FlowRecord" {
            for (field, what) in
                [("/http/status", "request"), ("/policy", "refusal"), ("/src/identity", "identity")]
            {
                let told =
                    documents.iter().any(|one| one.pointer(field).is_some_and(|value| !value.is_null()));
                assert!(told, "no {what} among {} records", documents.len());
            }
        }
    }
    let _ = INDEX.check(&index(&archive));
    streams(lab, &target, &meant);
    drop(held.stop());
}

fn run(lab: &Lab, words: &[String]) -> Output {
    lab.ambit(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Id of a connection that is open.
#[track_caller]
fn open_connection(lab: &Lab) -> String {
    let open: Value =
        serde_json::from_str(&lab.ambit(&["get", "connections", "-o", "json"]).ok()).expect("JSON");
    let held = open["items"].as_array().into_iter().flatten().find(|one| one["src"]["workload"] == "client");
    held.and_then(|one| one["conn_id"].as_str()).unwrap_or_else(|| panic!("{open:#}")).to_owned()
}

/// The index of an archive, as if a command had printed it.
#[track_caller]
fn index(archive: &str) -> Output {
    let files = unpacked(Path::new(archive));
    let stdout = String::from_utf8_lossy(&files["index.json"]).into_owned();
    Output { code: Some(0), stdout, stderr: String::new(), took: Duration::ZERO }
}

/// What is counted and told while something happens.
#[track_caller]
fn streams(lab: &Lab, target: &str, meant: &[(&str, &str)]) {
    let busy = |mut command: Background| {
        wait_until("it has seen enough", WAIT, || {
            let args = ["--hold", "--connections", "1", "--duration", "1500ms", "--interval", "100ms"];
            let _ = lab.call(OUTSIDE, target, &args);
            !command.is_running()
        });
        command.finish(WAIT + WAIT)
    };
    let start = |words: Vec<String>| lab.start(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let _ = TOP.check(&busy(start(TOP.command(meant))));
    let happened = TAP.check(&busy(start(TAP.command(meant))));
    for event in ["open", "data", "end"] {
        assert!(happened.iter().any(|one| one["event"] == event), "no {event}: {happened:#?}");
    }
}

#[test]
fn colour_is_for_terminals_and_an_interruption_has_its_code() {
    let Some((shop, _)) = up("terminal") else { return };
    let lab = &shop.lab;
    let coloured = |output: &str| output.contains("\u{1b}[31m");
    assert!(coloured(&on_a_terminal(lab, "map", None)), "a refused edge is not red on a terminal");
    assert!(coloured(&on_a_terminal(lab, "map", Some(""))), "NO_COLOR without a value says nothing");
    let plain = [on_a_terminal(lab, "map", Some("1")), lab.ambit(&["map"]).ok()];
    for text in plain {
        assert!(text.contains("[x]") && !text.contains('\u{1b}'), "{text:?}");
    }
    for view in ["status", "flows", "edges", "stat", "get workloads", "why last"] {
        let text = on_a_terminal(lab, view, None);
        assert!(!text.is_empty() && !text.contains('\u{1b}'), "{view}: {text:?}");
    }
    let streams: [&[&str]; 4] = [&["flows", "-f"], &["tap"], &["top"], &["top", "-o", "json"]];
    for words in streams {
        let stream = lab.start(words);
        wait_until("it listens for SIGINT", WAIT, || listens_for_sigint(stream.pid()));
        stream.signal(Signal::SIGINT);
        let ended = stream.finish(WAIT);
        assert_eq!(ended.code, Some(130), "{words:?}: {ended:?}");
    }
}

/// What a command prints on a terminal of its own.
#[track_caller]
fn on_a_terminal(lab: &Lab, words: &str, no_color: Option<&str>) -> String {
    let mut command = Command::new("script");
    command.args(["-qefc", &format!("\"$AMBIT\" {words}"), "/dev/null"]);
    command.env("AMBIT", ambit()).env("AMBIT_LAB", lab.name()).env_remove("NO_COLOR");
    command.envs(no_color.map(|value| ("NO_COLOR", value)));
    Background::start(&mut command).finish(WAIT).ok()
}

/// Whether a process has a handler of its own for SIGINT.
fn listens_for_sigint(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    // The first bit is that of signal 1.
    caught & 0b10 != 0
}
