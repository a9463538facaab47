//! `ambit status`: is every part there, in step with the control plane, and are the pods captured.
//!
//! A lab's programs are asked one by one; of a cluster, `cluster` asks the API server.

use std::time::Duration;

use ambit_lab::store::Kind;
use ambit_lab::{LabName, RunDir, manifests};
use ambit_runtime::clock;
use clap::Args as ClapArgs;
use serde_json::{Map, Value, json};

use super::form::{FORMS, Form, List};
use super::install::cluster::At;
use super::nodes::{Node, Where, ask_all, block_on, cell, json, read, text};
use super::place;
use super::waypoint::facts::pod_rows;
use super::waypoint::show::{POD_HEADING, pod_row};
use crate::out::{self, Failure};

mod cluster;
mod faults;
mod selftest;

use cluster::Cluster;
use faults::Faults;

/// Pause between two looks while waiting.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Kind of the envelope.
const KIND: &str = "NodeList";
/// The same of a cluster, whose every object is listed.
const LOOK_AT_CLUSTER: Duration = Duration::from_secs(2);
/// Bytes in a MiB.
const MIB: f64 = 1_048_576.0;

/// Shows versions, synchronisation, capture and certificates of every node, the pods of waypoints, and objects that
/// are not in force as written; exit code 1 while a node or a waypoint is amiss.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[arg(long, env = "AMBIT_LAB", help = place::LAB)]
    name: Option<LabName>,
    #[arg(skip)]
    usual: LabName,
    #[command(flatten)]
    at: At,
    /// Namespace of a cluster's control plane
    #[arg(short, long, env = "AMBIT_ROOT_NAMESPACE", default_value = "istio-system")]
    namespace: String,
    /// Only this node
    #[arg(long)]
    node: Option<String>,
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

impl Args {
    /// The lab that it is about; none if it is about a cluster.
    pub(super) fn lab(&self) -> Option<&LabName> {
        place::lab(self.name.as_ref(), &self.usual, &self.at)
    }
}

/// Who is asked.
enum Source {
    Lab(Where),
    Cluster(Cluster),
}

impl Source {
    async fn of(args: &Args) -> anyhow::Result<Self> {
        match args.lab() {
            Some(lab) => Ok(Self::Lab(Where { name: lab.clone(), node: args.node.clone() })),
            None => Ok(Self::Cluster(Cluster::new(args.at.connect().await?, args.namespace.clone()))),
        }
    }

    async fn look(&self, args: &Args) -> anyhow::Result<(State, bool)> {
        match self {
            Self::Lab(at) => look(at).await,
            Self::Cluster(cluster) => cluster.look(args.node.as_deref()).await,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// When there is no lab of that name, or nobody answers.
pub fn run(args: &Args) -> anyhow::Result<i32> {
    block_on(async {
        let source = Source::of(args).await?;
        if args.budget {
            return budget(args, &source).await;
        }
        let (found, healthy) = state(args, &source).await?;
        print(args, found, matches!(source, Source::Cluster(_)));
        Ok(if healthy { out::OK } else { out::FAILED })
    })
}

async fn budget(args: &Args, source: &Source) -> anyhow::Result<i32> {
    let Source::Lab(at) = source else {
        let words = "what a ztunnel uses of what it may use is not known to an API server: see its metrics";
        return Err(Failure::new(out::USAGE, words).into());
    };
    let list = List { kind: "BudgetList", items: budgets(at).await? };
    list.print(&args.output, |items, _| table(BUDGET, &[], items, false), name);
    Ok(out::OK)
}

fn print(args: &Args, found: State, of_cluster: bool) {
    let more = found.beside(of_cluster);
    let State { parts, nodes, waypoints, missing, faults } = found;
    let list = List { kind: KIND, items: nodes };
    let tables = |items: &[Value], wide: bool| {
        let mut all = Vec::new();
        if of_cluster {
            all.push(cluster::parts_table(&parts));
        }
        all.push(tables(items, &waypoints, &faults, wide));
        if !missing.is_empty() {
            all.push(cluster::missing_table(&missing));
        }
        all.join("\n")
    };
    list.print_beside(more, &args.output, tables, name);
    if of_cluster && matches!(args.output, Form::Table | Form::Wide) {
        out::say(cluster::UNTOLD);
    }
}

/// What one look found, a row each.
struct State {
    /// Workloads that the mesh is made of; of a cluster only.
    parts: Vec<Value>,
    nodes: Vec<Value>,
    waypoints: Vec<Value>,
    /// Pods that are to be captured and are not; of a cluster only.
    missing: Vec<Value>,
    faults: Faults,
}

impl State {
    /// What stands beside the nodes in the envelope.
    fn beside(&self, of_cluster: bool) -> Map<String, Value> {
        let Self { parts, nodes: _, waypoints, missing, faults } = self;
        let mut beside =
            vec![("waypoints", waypoints), ("reports", &faults.reports), ("problems", &faults.problems)];
        if of_cluster {
            beside.extend([("parts", parts), ("not_captured", missing)]);
        }
        beside.into_iter().map(|(member, rows)| (member.to_owned(), Value::from(rows.clone()))).collect()
    }
}

/// What `-o json` prints, of one look.
///
/// # Errors
/// When there is no lab of that name.
pub(super) async fn envelope(at: &Where) -> anyhow::Result<Value> {
    let (found, _) = look(at).await?;
    let more = found.beside(false);
    Ok(List { kind: KIND, items: found.nodes }.envelope(more))
}

/// Looks once, or until all is well or time is up; whether all is well.
async fn state(args: &Args, source: &Source) -> anyhow::Result<(State, bool)> {
    let begun = clock::monotonic();
    loop {
        let (found, healthy) = source.look(args).await?;
        let waited = clock::monotonic().saturating_duration_since(begun);
        if healthy || !args.wait || waited >= args.timeout {
            return Ok((found, healthy));
        }
        let pause = if matches!(source, Source::Lab(_)) { LOOK_AGAIN } else { LOOK_AT_CLUSTER };
        tokio::time::sleep(pause).await;
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
    let faults = Faults::of(&sync);
    Ok((State { parts: Vec::new(), nodes, waypoints, missing: Vec::new(), faults }, healthy))
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

async fn budgets(at: &Where) -> anyhow::Result<Vec<Value>> {
    let answers = ask_all(&at.nodes()?, "/budget").await?;
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
