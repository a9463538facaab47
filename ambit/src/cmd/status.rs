//! `ambit status`: is every part there, in step with the control plane, and are the pods captured.

use std::time::Duration;

use ambit_lab::store::Kind;
use ambit_lab::{RunDir, manifests};
use ambit_runtime::clock;
use clap::Args as ClapArgs;
use serde_json::{Map, Value, json};

use super::form::{FORMS, Form, List};
use super::nodes::{Node, Where, ask_all, block_on, cell, json, read, text};
use super::waypoint::facts::pod_rows;
use super::waypoint::show::{POD_HEADING, pod_row};
use crate::out;

mod faults;
mod selftest;

use faults::Faults;

/// Pause between two looks while waiting.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Kind of the envelope.
const KIND: &str = "NodeList";
/// Bytes in a MiB.
const MIB: f64 = 1_048_576.0;

/// Shows versions, synchronisation, capture and certificates of every node, the pods of waypoints, and objects that
/// are not in force as written; exit code 1 while a node or a waypoint is amiss.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(flatten)]
    pub(super) at: Where,
    /// Wait until everything is as it should be
    #[arg(long, conflicts_with = "budget")]
    wait: bool,
    /// How long to wait
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration, requires = "wait")]
    timeout: Duration,
    /// Show what each ztunnel uses of what it may use
    #[arg(long)]
    budget: bool,
    #[arg(short, long, default_value = "table", help = FORMS)]
    output: Form,
}

/// Runs the command.
///
/// # Errors
/// When there is no lab of that name, or nobody answers.
pub fn run(args: &Args) -> anyhow::Result<i32> {
    if args.budget {
        let items = block_on(budgets(args))?;
        let list = List { kind: "BudgetList", items };
        list.print(&args.output, |items, _| table(BUDGET, &[], items, false), name);
        return Ok(out::OK);
    }
    let (found, healthy) = block_on(state(args))?;
    let more = found.beside();
    let State { nodes, waypoints, faults } = found;
    let list = List { kind: KIND, items: nodes };
    list.print_beside(more, &args.output, |items, wide| tables(items, &waypoints, &faults, wide), name);
    Ok(if healthy { out::OK } else { out::FAILED })
}

/// What one look found, a row each.
struct State {
    nodes: Vec<Value>,
    waypoints: Vec<Value>,
    faults: Faults,
}

impl State {
    /// What stands beside the nodes in the envelope.
    fn beside(&self) -> Map<String, Value> {
        let Self { nodes: _, waypoints, faults } = self;
        let beside = [("waypoints", waypoints), ("reports", &faults.reports), ("problems", &faults.problems)];
        beside.into_iter().map(|(member, rows)| (member.to_owned(), Value::from(rows.clone()))).collect()
    }
}

/// What `-o json` prints, of one look.
///
/// # Errors
/// When there is no lab of that name.
pub(super) async fn envelope(at: &Where) -> anyhow::Result<Value> {
    let (found, _) = look(at).await?;
    let more = found.beside();
    Ok(List { kind: KIND, items: found.nodes }.envelope(more))
}

/// Looks once, or until all is well or time is up; whether all is well.
async fn state(args: &Args) -> anyhow::Result<(State, bool)> {
    let begun = clock::monotonic();
    loop {
        let (found, healthy) = look(&args.at).await?;
        let waited = clock::monotonic().saturating_duration_since(begun);
        if healthy || !args.wait || waited >= args.timeout {
            return Ok((found, healthy));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn look(at: &Where) -> anyhow::Result<(State, bool)> {
    // A control plane that is away is a finding, not a failure of the question.
    let sync = json(&at.istiod(), "/sync").await.unwrap_or(Value::Null);
    let mut nodes = Vec::new();
    for node in at.nodes()? {
        nodes.push(row(&node, &sync).await);
    }
    let pods = manifests::stored(&RunDir::of(&at.name), Kind::Pod)?;
    let mut waypoints = pod_rows(&pods, &sync);
    waypoints.retain(|pod| at.node.as_ref().is_none_or(|node| pod["node"] == **node));
    // What nobody could tell is not well.
    let captured = |row: &Value| !row["expected"].is_null() && row["captured"] == row["expected"];
    let well = |row: &Value| {
        row["ready"] == true
            && row["synced"] == true
            && captured(row)
            && !selftest::is_amiss(&row["selftest"])
    };
    // A control plane that says nothing of waypoints gives them nothing to lack; an old one that drains needs nothing.
    let serves = |pod: &Value| pod["ending"] == true || (pod["ready"] == true && pod["synced"] != false);
    let healthy = !sync.is_null() && nodes.iter().all(well) && waypoints.iter().all(serves);
    // What somebody wrote is no fault of the mesh: it is shown, and all is well all the same.
    Ok((State { nodes, waypoints, faults: Faults::of(&sync) }, healthy))
}

async fn row(node: &Node, sync: &Value) -> Value {
    let told = sync["nodes"].as_array().into_iter().flatten().find(|n| n["node"] == *node.name);
    let connected = told.is_some_and(|n| n["connected"] == true);
    let synced = connected && told.is_some_and(|n| n["acked_revision"].as_u64() >= sync["revision"].as_u64());
    let (dump, health) =
        (json(&node.socket, "/config_dump").await, json(&node.socket, "/healthz/ready?verbose").await);
    let ready = health
        .as_ref()
        .is_ok_and(|parts| parts.as_object().is_some_and(|parts| parts.values().all(|ready| *ready == true)));
    let version = dump.as_ref().map_or(Value::Null, |dump| dump["version"]["version"].clone());
    let certificates =
        dump.as_ref().ok().and_then(|dump| dump["certificates"].as_array()).cloned().unwrap_or_default();
    let selftest = json(&node.socket, "/selftest").await.unwrap_or(Value::Null);
    // Only the node agent knows which pods are meant to be captured.
    let pods = json(&node.agent, "/pods").await;
    let pods = pods.as_ref().ok().and_then(Value::as_array);
    let count = |wanted: fn(&Value) -> bool| pods.map(|pods| pods.iter().filter(|p| wanted(p)).count());
    json!({
        "node": node.name,
        "version": version,
        "ready": ready,
        "synced": synced,
        "state": dump.as_ref().map_or(Value::Null, |dump| Value::from(freshness(&dump["state"]))),
        "captured": count(|pod| pod["state"] == "captured"),
        "expected": count(|pod| pod["enrolled"] == true),
        "certificates_valid": dump.is_ok().then(|| certificates.iter().filter(|c| c["valid"] == true).count()),
        "certificates": dump.is_ok().then_some(certificates.len()),
        "selftest": selftest,
        "rejected": told.map_or_else(|| json!([]), |n| n["rejected"].clone()),
    })
}

async fn budgets(args: &Args) -> anyhow::Result<Vec<Value>> {
    let answers = ask_all(&args.at.nodes()?, "/budget").await?;
    let mut rows = Vec::new();
    for (node, body) in answers {
        let mut row = read(&body, &node.socket)?;
        row["node"] = Value::from(node.name);
        rows.push(row);
    }
    Ok(rows)
}

type Column = (&'static str, fn(&Value) -> String);

const COLUMNS: &[Column] = &[
    ("NODE", |v| text(v, "node")),
    ("VERSION", |v| cell(v, "version")),
    ("SYNCED", |v| cell(v, "synced")),
    ("CAPTURED", |v| share(v, "captured", "expected")),
    ("CERTS", |v| share(v, "certificates_valid", "certificates")),
    ("SELFTEST", |v| selftest::cell(&v["selftest"])),
];

const WIDE: &[Column] =
    &[("READY", |v| cell(v, "ready")), ("STATE", |v| cell(v, "state")), ("REJECTED", rejected)];

const BUDGET: &[Column] = &[
    ("NODE", |v| text(v, "node")),
    ("MEMORY MIB", |v| format!("{:.1}", v["resident_bytes"].as_f64().unwrap_or(0.0) / MIB)),
    ("DESCRIPTORS", |v| share(v, "descriptors_open", "descriptors_max")),
    ("CONNECTIONS", |v| cell(v, "connections_open")),
    ("FLOW RECORDS", |v| share(v, "flow_records", "flow_records_max")),
];

fn table(columns: &[Column], more: &[Column], rows: &[Value], wide: bool) -> String {
    let columns: Vec<&Column> = columns.iter().chain(more.iter().filter(|_| wide)).collect();
    let heading: Vec<&str> = columns.iter().map(|(title, _)| *title).collect();
    let cells = |row: &Value| -> Vec<String> { columns.iter().map(|(_, cell)| cell(row)).collect() };
    out::table(&heading, &rows.iter().map(cells).collect::<Vec<_>>())
}

/// The nodes, and below them the pods of waypoints and what is wrong with objects, if there are any.
fn tables(nodes: &[Value], waypoints: &[Value], faults: &Faults, wide: bool) -> String {
    let mut all = vec![table(COLUMNS, WIDE, nodes, wide)];
    if !waypoints.is_empty() {
        let rows: Vec<Vec<String>> = waypoints.iter().map(pod_row).collect();
        all.push(out::table(POD_HEADING, &rows));
    }
    all.extend(faults.tables());
    all.join("\n")
}

/// The headings of every table, for the test that holds them.
#[cfg(test)]
pub(super) fn headings(wide: bool) -> String {
    let reports = vec![json!({"conditions": [{"status": "False"}]})];
    let faults = Faults { reports, problems: vec![json!({"text": "-"})] };
    tables(&[], &[Value::Null], &faults, wide)
}

/// The heading of `--budget`, for the same test.
#[cfg(test)]
pub(super) fn budget_heading() -> String {
    table(BUDGET, &[], &[], false)
}

/// So many of so many; a dash where nobody could say.
fn share(v: &Value, part: &str, whole: &str) -> String {
    match (&v[part], &v[whole]) {
        (Value::Null, _) | (_, Value::Null) => "-".to_owned(),
        (part, whole) => format!("{part}/{whole}"),
    }
}

/// What the node refuses of its configuration, and why.
fn rejected(v: &Value) -> String {
    let one = |r: &Value| format!("{} {}: {}", text(r, "kind"), text(r, "name"), text(r, "reason"));
    let all: Vec<String> = v["rejected"].as_array().into_iter().flatten().map(one).collect();
    if all.is_empty() { "-".to_owned() } else { all.join("; ") }
}

fn name(v: &Value) -> String {
    format!("node/{}", text(v, "node"))
}

/// Where a node's knowledge comes from and how old it is: `live`, `stale 12 s`, `sealed 12 s`.
fn freshness(state: &Value) -> String {
    let is_sealed = state["source"] == "sealed";
    match state["staleFor"].as_u64() {
        None => "live".to_owned(),
        Some(seconds) => format!("{} {seconds} s", if is_sealed { "sealed" } else { "stale" }),
    }
}
