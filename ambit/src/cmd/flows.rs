//! `ambit flows`: what happened, from the ring of records on every node.

use std::time::Duration;

use ambit_runtime::clock;
use ambit_types::Reason;
use clap::{Args as ClapArgs, ValueEnum};
use serde_json::Value;

use super::form::{FORMS, Form};
use super::nodes::{Node, Where, ask_all, block_on, cell, or_dash, short_id, text};
use crate::out;

mod follow;

/// Shows flow records: one a connection and end.
#[derive(Debug, Clone, ClapArgs)]
pub struct Args {
    #[command(flatten)]
    pub(super) at: Where,
    /// Go on as connections end; a node whose ztunnel restarts is followed again
    #[arg(short, long)]
    follow: bool,
    /// How many records of each node, before filtering
    #[arg(long, default_value_t = 1000)]
    pub(super) last: usize,
    /// Only this namespace, at either end
    #[arg(short = 'n', long)]
    namespace: Option<String>,
    /// All namespaces, which is the default here
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Only from this pod (POD or NS/POD)
    #[arg(long)]
    from_pod: Option<String>,
    /// Only to this pod (POD or NS/POD)
    #[arg(long)]
    to_pod: Option<String>,
    /// Only this verdict
    #[arg(long)]
    verdict: Option<Verdict>,
    /// Only this code or reason
    #[arg(long)]
    code: Option<Reason>,
    #[arg(short, long, default_value = "table", help = format!("{FORMS}; json is one object a line"))]
    output: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Verdict {
    Allowed,
    Denied,
}

/// Runs the command.
///
/// # Errors
/// When no node answers.
pub fn run(args: &Args) -> anyhow::Result<i32> {
    block_on(async {
        let nodes = args.at.recorders()?;
        if args.follow {
            return follow::follow(args, nodes).await;
        }
        let Records { records, memory } = records(args, &nodes).await?;
        match &args.output {
            Form::Table | Form::Wide => {
                let wide = matches!(args.output, Form::Wide);
                let rows: Vec<Vec<String>> = records.iter().map(|r| cells(r, wide)).collect();
                out::data(&out::table(&heading(wide), &rows));
                out::say(&footer(records.len(), &memory));
            }
            // A stream, so without an envelope.
            Form::Json | Form::Yaml | Form::Name | Form::JsonPath(_) => {
                records.iter().for_each(|record| line(&args.output, record));
            }
        }
        Ok(out::OK)
    })
}

/// Records and what their nodes say of how much they remember.
pub(super) struct Records {
    /// The records of all nodes, oldest first.
    pub(super) records: Vec<Value>,
    memory: Vec<Value>,
}

/// The records of all nodes that pass the filters, oldest first.
///
/// # Errors
/// When no node answers.
pub(super) async fn records(args: &Args, nodes: &[Node]) -> anyhow::Result<Records> {
    let mut told = Records { records: Vec::new(), memory: Vec::new() };
    for (_, body) in ask_all(nodes, &format!("/flows?last={}", args.last)).await? {
        for line in body.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok())
        {
            match line.get("footer") {
                Some(footer) => told.memory.push(footer.clone()),
                None if passes(args, &line) => told.records.push(line),
                None => {}
            }
        }
    }
    told.records.sort_by_cached_key(|record| text(record, "time"));
    Ok(told)
}

fn passes(args: &Args, record: &Value) -> bool {
    let (src, dst) = (&record["src"], &record["dst"]);
    let pod = |end: &Value, wanted: &Option<String>| {
        wanted.as_ref().is_none_or(|wanted| {
            let name = text(end, "workload");
            *wanted == name || *wanted == format!("{}/{name}", text(end, "namespace"))
        })
    };
    let in_namespace = |ns: &String| src["namespace"] == **ns || dst["namespace"] == **ns;
    let verdict = |v: Verdict| match v {
        Verdict::Allowed => record["verdict"] == "allowed",
        Verdict::Denied => record["verdict"] == "denied",
    };
    args.namespace.as_ref().is_none_or(in_namespace)
        && pod(src, &args.from_pod)
        && pod(dst, &args.to_pod)
        && args.verdict.is_none_or(verdict)
        && args.code.is_none_or(|code| record["code"] == code.code())
}

/// One record of a stream in a form other than a whole table.
fn line(form: &Form, record: &Value) {
    match form {
        Form::Table => out::data(&cells(record, false).join("  ")),
        Form::Wide => out::data(&cells(record, true).join("  ")),
        Form::Json => out::data(&record.to_string()),
        Form::Yaml => out::data(&format!("---\n{}", ambit_lab::manifests::to_yaml(record))),
        Form::Name => out::data(&format!("flow/{}", text(record, "conn_id"))),
        Form::JsonPath(template) => out::raw(&template.fill(record)),
    }
}

const HEADING: &[&str] =
    &["TIMESTAMP", "NODE", "SOURCE", "DESTINATION", "PATH", "VERDICT", "CODE", "ID", "SUMMARY"];
const HEADING_WIDE: &[&str] = &["SERVICE", "DURATION MS", "POLICY", "WHOLE ID"];

fn heading(wide: bool) -> Vec<&'static str> {
    HEADING.iter().chain(HEADING_WIDE.iter().filter(|_| wide)).copied().collect()
}

fn cells(record: &Value, wide: bool) -> Vec<String> {
    let port_of =
        |address: String| address.rsplit(':').next().map(ToOwned::to_owned).filter(|p| !p.is_empty());
    let port = port_of(text(record, "hbone_addr")).or_else(|| port_of(text(&record["dst"], "addr")));
    let mut cells = vec![
        cell(record, "time"),
        cell(record, "node"),
        or_dash(end(&record["src"])),
        format!("{}:{}", end(&record["dst"]), port.unwrap_or_default()),
        cell(record, "path"),
        cell(record, "verdict"),
        cell(record, "code"),
        short_id(record),
        or_dash(summary(record)),
    ];
    if wide {
        cells.extend(["service", "duration_ms", "policy", "conn_id"].map(|key| cell(record, key)));
    }
    cells
}

/// A workload by its name, anything else by its address without the port.
fn end(end: &Value) -> String {
    match text(end, "workload") {
        name if name.is_empty() => {
            let address = text(end, "addr");
            address.rsplit_once(':').map_or_else(|| address.clone(), |(host, _)| host.to_owned())
        }
        name => format!("{}/{name}", text(end, "namespace")),
    }
}

fn summary(record: &Value) -> String {
    let error = text(record, "error");
    if !error.is_empty() {
        return error;
    }
    let identity = text(&record["src"], "identity");
    let from = if identity.is_empty() { "no identity".to_owned() } else { identity };
    format!(
        "{} {from} sent {} received {}",
        text(record, "direction"),
        text(record, "bytes_sent"),
        text(record, "bytes_recv")
    )
}

/// How far back the nodes remember, and what they could not keep.
fn footer(shown: usize, memory: &[Value]) -> String {
    let lost: u64 = memory.iter().filter_map(|node| node["lost"].as_u64()).sum();
    let oldest = memory.iter().filter_map(|node| node["oldest"].as_str()).min();
    let age = oldest.and_then(|at| humantime::parse_rfc3339(at).ok()).map(|at| {
        let age = clock::wall().duration_since(at).unwrap_or_default();
        humantime::format_duration(Duration::from_secs(age.as_secs())).to_string().replace(' ', "")
    });
    match age {
        Some(age) => format!("{shown} records shown; oldest record {age} ago, {lost} lost"),
        None => format!("no connection has ended yet, {lost} lost"),
    }
}
