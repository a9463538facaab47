//! Row 3 of seeing: the console in a real browser, over the programs themselves.
//!
//! The script `tests/console/look.mjs` goes through every view in the namespace of the control plane and tells what it
//! saw; what that has to be stands here. Its pictures stay in `target/tmp/console`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ambit_tests::lab::{Background, Lab, not_run, wait_until};
use serde_json::{Value, json};

use crate::cast::{PORT, namespace, pod, security, server, service};

/// Where the lab serves the console, seen from the control plane's namespace.
const CONSOLE: &str = "http://127.0.0.1:7070";
/// Connections a second of the caller.
const RATE: f64 = 10.0;
/// From a refusal until the map shows it.
const SHOWN_WITHIN_MS: u64 = 2000;
/// Longest time of the whole script.
const PATIENCE: Duration = Duration::from_secs(180);
/// Views of the script, each with its command.
const VIEWS: [&str; 10] = [
    "map",
    "workloads",
    "flows",
    "explain",
    "policy",
    "incidents",
    "nodes",
    "certificates",
    "selftests",
    "checks",
];

fn scripts() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("console")
}

/// Whether there is a browser, node and the script's package; says so if not.
fn can_look() -> bool {
    let missing = ["chromium", "node"].into_iter().find(|program| {
        let found = Background::start(Command::new("sh").args(["-c", &format!("command -v {program}")]));
        found.finish(Duration::from_secs(10)).code != Some(0)
    });
    let package = scripts().join("node_modules/axe-core/axe.min.js");
    let missing = missing.or_else(|| (!package.exists()).then_some("tests/console/node_modules"));
    let Some(missing) = missing else { return true };
    not_run(&format!("{missing} is not there; install it with: xtask/need.sh test"));
    false
}

fn up() -> Option<Lab> {
    let cast = [
        namespace("shop", true),
        namespace("legacy", false),
        security("PeerAuthentication", "shop/strict", &json!({"mtls": {"mode": "STRICT"}})),
        server("shop/echo", "node2"),
        pod("shop/caller", "node1", &[]),
        pod("legacy/stranger", "node1", &[]),
        service("shop/echo", "echo", 80, PORT),
    ];
    Lab::up("console", &cast, &[])
}

/// Starts the script in the control plane's namespace.
fn look(lab: &Lab) -> Background {
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("console");
    let mut command = Command::new("ip");
    command
        .args(["netns", "exec", &format!("{}-fabric", lab.name()), "node"])
        .arg(scripts().join("look.mjs"));
    command.arg(CONSOLE).arg(pictures);
    Background::start(command.args(["shop/caller", "shop/echo", "legacy/stranger", "node1,node2"]))
}

/// What the script has told of a kind so far.
fn told(look: &Background, kind: &str) -> Option<Value> {
    let lines = look.stdout();
    let mut all = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    all.find(|line| line["kind"] == kind)
}

#[track_caller]
fn must(look: &Background, kind: &str) -> Value {
    told(look, kind).unwrap_or_else(|| panic!("nothing of {kind}: {}\n{}", look.stdout(), look.stderr()))
}

#[test]
fn a_browser_shows_the_mesh_as_it_is() {
    if !can_look() {
        return;
    }
    let Some(lab) = up() else { return };
    let target = lab.target("shop/echo", 4, PORT);
    let rate = RATE.to_string();
    let load = lab.client("shop/caller", &target, &["--rate", &rate, "--duration", "170s"]);
    let mut look = look(&lab);
    wait_until("the browser waits for a refusal", Duration::from_secs(60), || {
        assert!(look.is_running(), "it ended early: {}\n{}", look.stdout(), look.stderr());
        told(&look, "waiting").is_some()
    });
    assert_eq!(lab.call("legacy/stranger", &target, &["--connections", "1"])["ok"], false);
    wait_until("the browser has seen everything", PATIENCE, || !look.is_running());
    refusal_was_shown_at_once(&lab, &must(&look, "refused"));
    rate_is_right(&must(&look, "rate"));
    views_are_right(&look);
    end_is_clean(&must(&look, "end"));
    drop(load.stop());
}

/// The edge turned red soon after the node had refused, by the clock that both share.
#[track_caller]
fn refusal_was_shown_at_once(lab: &Lab, refused: &Value) {
    let records = lab.flows(&["--code", "AMB2301", "--from-pod", "legacy/stranger"]);
    let times = records.iter().filter_map(|record| humantime::parse_rfc3339(record["time"].as_str()?).ok());
    let first = times.min().expect("the refusal is recorded");
    let first = first.duration_since(std::time::UNIX_EPOCH).expect("a time after 1970").as_millis();
    let shown = u128::from(refused["at"].as_u64().expect("a time"));
    println!("a refusal was shown {} ms after it", shown.saturating_sub(first));
    assert!(shown <= first + u128::from(SHOWN_WITHIN_MS), "refused at {first}, shown at {shown}");
    let label = refused["label"].as_str().expect("a label");
    assert!(label.contains("refused AMB2301"), "{label}");
}

/// The map tells the caller's rate, give or take a quarter: its window is longer than the load has run.
#[track_caller]
fn rate_is_right(rate: &Value) {
    let label = rate["label"].as_str().expect("a label");
    let number = label.split_once(": ").and_then(|(_, rest)| rest.split_once("/s")).map(|(number, _)| number);
    let shown: f64 = number.and_then(|number| number.parse().ok()).expect("a rate");
    assert!((shown - RATE).abs() <= RATE / 4.0, "{label}, called {RATE} times a second");
    assert!(label.contains("mutual TLS"), "{label}");
}

#[track_caller]
fn views_are_right(look: &Background) {
    let boxes = must(look, "map")["workloads"].clone();
    for name in ["shop/caller", "shop/echo"] {
        assert!(boxes.as_array().is_some_and(|all| all.contains(&json!(name))), "{name} in {boxes}");
    }
    let nodes = must(look, "nodes")["text"].to_string();
    assert!(nodes.contains("node1") && nodes.contains("node2"), "{nodes}");
    let policy = must(look, "policy")["text"].to_string();
    assert!(policy.contains("shop/caller") && policy.contains("AMB2103"), "{policy}");
    let verdicts = must(look, "explain")["verdicts"].clone();
    let verdict = |of: &str| verdicts[of].as_str().unwrap_or_default().to_owned();
    assert!(verdict("shop/caller").contains("allowed"), "{verdicts}");
    assert!(verdict("legacy/stranger").contains("AMB2301"), "{verdicts}");
    leaves_are_right(&must(look, "leaves"));
    let refusals = must(look, "refusals");
    let any = |of: &str, part: &str| refusals[of].to_string().contains(part);
    for of in ["recent", "day"] {
        assert!(any(of, "legacy/stranger") && any(of, "AMB2301"), "{of}: {refusals}");
    }
    assert!(any("policies", "ztunnel"), "the namespace is STRICT: {refusals}");
    node_is_right(&must(look, "node"));
}

/// The caller's node lists connections, its identity with a certificate, and says what it uses.
#[track_caller]
fn node_is_right(node: &Value) {
    let has = |of: &str, part: &str| node[of].to_string().contains(part);
    for (of, part) in [
        ("text", "The newest "),
        ("certificates", "/ns/shop/"),
        ("identities", "/ns/shop/"),
        ("text", "Memory"),
        ("text", "since it started"),
    ] {
        assert!(has(of, part), "{part} in {of}: {node}");
    }
}

/// Each meshed workload's certificate is there, held by its node, valid and for how long.
#[track_caller]
fn leaves_are_right(leaves: &Value) {
    let rows = |of: &str| leaves[of].as_array().cloned().unwrap_or_default();
    let is_of = |row: &Value, parts: &[&str]| {
        row.as_str().is_some_and(|text| parts.iter().all(|part| text.contains(part)))
    };
    for node in ["node1", "node2"] {
        assert!(rows("all").iter().any(|row| is_of(row, &["spiffe://", node, "valid"])), "{node}: {leaves}");
    }
    let own = rows("own");
    assert!(own.len() == 1 && is_of(&own[0], &["/ns/shop/", "node1", "valid", " h"]), "{leaves}");
}

/// No error, nothing asked of others, nothing that axe finds, and a command on every view.
#[track_caller]
fn end_is_clean(end: &Value) {
    for key in ["errors", "foreign", "accessibility"] {
        assert_eq!(end[key], json!([]), "{key}: {:#}", end[key]);
    }
    for view in VIEWS {
        let command = end["commands"][view].as_str().unwrap_or_default();
        assert!(command.starts_with("ambit "), "{view}: {command:?}");
    }
}

/// What `curl` in the control plane's namespace is answered: status and headers.
fn asked(lab: &Lab, args: &[&str]) -> String {
    let mut command = Command::new("ip");
    command.args([
        "netns",
        "exec",
        &format!("{}-fabric", lab.name()),
        "curl",
        "-s",
        "-i",
        "--max-time",
        "10",
    ]);
    Background::start(command.args(args)).finish(Duration::from_secs(20)).ok()
}

#[test]
fn other_sites_and_other_names_are_refused() {
    let Some(lab) = Lab::up("console-guard", &[namespace("shop", true)], &[]) else { return };
    let nodes = format!("{CONSOLE}/api/v1/nodes");
    let explain = format!("{CONSOLE}/api/v1/explain");
    let rows: [(&[&str], &str); 6] = [
        (&[&nodes], "200"),
        (&["-H", "Origin: https://evil.example", &nodes], "403"),
        (&["-H", "Host: evil.example", &nodes], "421"),
        (&["-X", "DELETE", &nodes], "405"),
        (&["-d", "{}", &explain], "403"),
        // It may ask, but this is no question.
        (&["-d", "{}", "-H", "x-ambit-console: 1", &explain], "400"),
    ];
    for (args, status) in rows {
        let answer = asked(&lab, args);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{args:?}: {answer}");
        let lower = answer.to_lowercase();
        for header in ["content-security-policy: default-src 'none'", "x-content-type-options: nosniff"] {
            assert!(lower.contains(header), "{args:?}: {header} is missing: {answer}");
        }
        assert!(!lower.contains("access-control-allow"), "{args:?}: {answer}");
    }
}
