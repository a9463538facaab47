//! `ambit flows`: what happened, from the ring of records on every node; in a cluster through its control plane.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ambit_runtime::clock;
use ambit_runtime::flows::Filter;
use clap::Args as ClapArgs;
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::cluster::query;
use super::form::{FORMS, Form};
use super::interrupted;
use super::mesh::Mesh;
use super::nodes::{Node, ask_all, block_on, cell, or_dash, short_id, text};
use crate::out;
use filters::Filters;

pub(super) mod filters;
pub(super) mod follow;

/// Records asked for where all are meant: more than a ring holds.
pub(super) const ALL: usize = 1_000_000;

/// Shows flow records: one a connection and end.
#[derive(Debug, Clone, ClapArgs)]
pub struct Args {
    #[command(flatten)]
    pub(super) at: Mesh,
    /// Go on as connections end; a node whose ztunnel restarts is followed again
    #[arg(short, long, conflicts_with = "input_file")]
    follow: bool,
    /// How many records of each node, before filtering
    #[arg(long, default_value_t = 1000)]
    pub(super) last: usize,
    /// All records that are held
    #[arg(long, conflicts_with = "last")]
    all: bool,
    /// Of the records that are meant, the oldest so many
    #[arg(long, value_name = "N", conflicts_with = "follow")]
    first: Option<usize>,
    #[command(flatten)]
    filters: Filters,
    /// Read records from a file instead, one a line as -o json writes them; - is standard input
    #[arg(long, value_name = "FILE")]
    input_file: Option<PathBuf>,
    /// Of each record only these fields, such as time,src.workload,code; for -o json, yaml and jsonpath
    #[arg(long, value_name = "FIELDS", value_delimiter = ',')]
    field_mask: Vec<String>,
    #[arg(short, long, default_value = "table", help = format!("{FORMS}; json is one object a line"))]
    output: Form,
}

/// Runs the command.
///
/// # Errors
/// When no node answers, the input cannot be read, or a filter is none.
pub fn run(args: &Args) -> anyhow::Result<i32> {
    let filter = args.filters.filter()?;
    block_on(async {
        if args.follow {
            interrupted::ends_the_command()?;
            return follow::follow(args, &filter, followed(&args.at, &filter, args.last).await?).await;
        }
        let told = match (&args.input_file, args.at.here()) {
            (Some(path), _) => Records { records: read_file(path)?, ..Records::default() },
            (None, Some(lab)) => all_records(args, &lab.recorders()?).await?,
            (None, None) => {
                let query = query(&filter, args.at.node.as_deref());
                args.at.cluster().await?.flows(&query, args.most()).await?
            }
        };
        let Records { mut records, memory, .. } = told;
        records.retain(|record| filter.passes(record));
        records.sort_by_cached_key(|record| text(record, "time"));
        records.truncate(args.first.unwrap_or(usize::MAX));
        show(args, &records);
        if matches!(args.output, Form::Table | Form::Wide) && args.input_file.is_none() {
            out::say(&footer(records.len(), &memory));
        }
        Ok(out::OK)
    })
}

/// The last records of every proxy and those that follow, for as long as they are read.
///
/// # Errors
/// When there is no such lab or node, or the cluster's control plane does not answer.
pub(super) async fn followed(
    at: &Mesh,
    filter: &Filter,
    last: usize,
) -> anyhow::Result<mpsc::Receiver<Value>> {
    match at.here() {
        Some(lab) => Ok(follow::stream(lab.recorders()?, last)),
        None => at.cluster().await?.follow(query(filter, at.node.as_deref()), last).await,
    }
}

impl Args {
    /// How many records of each proxy are asked for.
    fn most(&self) -> usize {
        if self.all { ALL } else { self.last }
    }
}

fn show(args: &Args, records: &[Value]) {
    match &args.output {
        Form::Table | Form::Wide => {
            let wide = matches!(args.output, Form::Wide);
            let rows: Vec<Vec<String>> = records.iter().map(|r| cells(r, wide)).collect();
            out::data(&out::table(&heading(wide), &rows));
        }
        // A stream, so without an envelope.
        Form::Json | Form::Yaml | Form::Name | Form::JsonPath(_) => {
            records.iter().for_each(|record| line(args, record));
        }
    }
}

/// Records and what their nodes say of how much they remember.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// The records of all nodes.
    pub(super) records: Vec<Value>,
    /// Of each that told: since when it remembers, and what it lost.
    pub(super) memory: Vec<Value>,
    /// Replicas of a cluster's control plane that told nothing, by name.
    pub(super) missing: Vec<String>,
}

/// The records of all nodes that pass the filters, oldest first.
///
/// # Errors
/// When no node answers, or a filter is none.
pub(super) async fn records(args: &Args, nodes: &[Node]) -> anyhow::Result<Records> {
    let filter = args.filters.filter()?;
    let mut told = all_records(args, nodes).await?;
    told.records.retain(|record| filter.passes(record));
    told.records.sort_by_cached_key(|record| text(record, "time"));
    Ok(told)
}

async fn all_records(args: &Args, nodes: &[Node]) -> anyhow::Result<Records> {
    let mut told = Records::default();
    let last = args.most();
    for (_, body) in ask_all(nodes, &format!("/flows?last={last}")).await? {
        for line in lines(&body) {
            match line.get("footer") {
                Some(footer) => told.memory.push(footer.clone()),
                None => told.records.push(line),
            }
        }
    }
    Ok(told)
}

/// Objects, one a line; a line that is none is left out.
fn lines(body: &[u8]) -> impl Iterator<Item = Value> {
    body.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok())
}

fn read_file(path: &Path) -> anyhow::Result<Vec<Value>> {
    let mut body = Vec::new();
    let read = match path.as_os_str() == "-" {
        true => std::io::stdin().lock().read_to_end(&mut body).map(|_| ()),
        false => std::fs::read(path).map(|bytes| body = bytes),
    };
    read.map_err(|error| {
        out::Failure::new(out::BAD_DATA, format!("reading records from {}: {error}", path.display()))
    })?;
    let records: Vec<Value> = lines(&body).filter(|line| line.get("conn_id").is_some()).collect();
    if records.is_empty() && !body.is_empty() {
        let text = format!("{} has no records, one a line as -o json writes them", path.display());
        return Err(out::Failure::new(out::BAD_DATA, text).into());
    }
    Ok(records)
}

/// A record with only some of its fields, where some are asked for.
fn masked(record: &Value, mask: &[String]) -> Value {
    if mask.is_empty() {
        return record.clone();
    }
    let mut kept = Value::Object(Map::new());
    for field in mask {
        let path = format!("/{}", field.replace('.', "/"));
        let Some(value) = record.pointer(&path) else { continue };
        let mut at = &mut kept;
        for key in field.split('.') {
            at = &mut at[key];
        }
        *at = value.clone();
    }
    kept
}

/// One record of a stream in a form other than a whole table.
fn line(args: &Args, record: &Value) {
    match &args.output {
        Form::Table => out::data(&cells(record, false).join("  ")),
        Form::Wide => out::data(&cells(record, true).join("  ")),
        Form::Json => out::data(&masked(record, &args.field_mask).to_string()),
        Form::Yaml => {
            let yaml = ambit_lab::manifests::to_yaml(&masked(record, &args.field_mask));
            out::data(&format!("---\n{yaml}"));
        }
        Form::Name => out::data(&format!("flow/{}", text(record, "conn_id"))),
        Form::JsonPath(template) => out::raw(&template.fill(&masked(record, &args.field_mask))),
    }
}

const HEADING: &[&str] =
    &["TIMESTAMP", "NODE", "SOURCE", "DESTINATION", "PATH", "VERDICT", "CODE", "ID", "SUMMARY"];
const HEADING_WIDE: &[&str] = &["SERVICE", "DURATION MS", "POLICY", "WHOLE ID"];

pub(super) fn heading(wide: bool) -> Vec<&'static str> {
    HEADING.iter().chain(HEADING_WIDE.iter().filter(|_| wide)).copied().collect()
}

pub(super) fn cells(record: &Value, wide: bool) -> Vec<String> {
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
pub(super) fn end(end: &Value) -> String {
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
    if let Some(http) = record.get("http").filter(|http| http.is_object()) {
        return format!("{} {} {}", text(http, "method"), text(http, "path"), text(http, "status"));
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_mask_keeps_what_it_names_and_nothing_else() {
        let record = json!({"time": "t", "src": {"workload": "web", "addr": "a"}, "code": null});
        let mask = ["time", "src.workload", "dst.workload"].map(str::to_owned);
        assert_eq!(masked(&record, &mask), json!({"time": "t", "src": {"workload": "web"}}));
        assert_eq!(masked(&record, &[]), record);
    }

    #[test]
    fn a_request_is_summed_up_as_one() {
        let http = json!({"method": "GET", "path": "/a", "status": 200});
        assert_eq!(summary(&json!({ "http": http })), "GET /a 200");
        assert!(summary(&json!({"http": null, "direction": "inbound"})).starts_with("inbound"));
    }
}
