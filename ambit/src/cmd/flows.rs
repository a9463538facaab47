//! `ambit flows`: what happened, from the ring of records on every node.

use ambit_runtime::admin::client;
use ambit_types::Reason;
use clap::{Args as ClapArgs, ValueEnum};
use serde_json::Value;

use super::nodes::{Node, Where, block_on, text};
use crate::out;

/// Shows flow records: one a connection and end.
#[derive(Debug, Clone, ClapArgs)]
pub struct Args {
    #[command(flatten)]
    pub(super) at: Where,
    /// Go on as connections end
    #[arg(short, long)]
    follow: bool,
    /// How many records of each node, before filtering
    #[arg(long, default_value_t = 1000)]
    pub(super) last: usize,
    /// Only this namespace, at either end
    #[arg(short = 'n', long)]
    namespace: Option<String>,
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
    /// table or json (one object a line)
    #[arg(short, long, default_value = "table")]
    output: super::get::Output,
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
        let nodes = args.at.nodes()?;
        if args.follow {
            return follow(args, nodes).await;
        }
        let records = records(args, &nodes).await?;
        match args.output {
            super::get::Output::Json => records.iter().for_each(|record| out::data(&record.to_string())),
            super::get::Output::Table => {
                let rows: Vec<Vec<String>> = records.iter().map(cells).collect();
                out::data(&out::table(HEADING, &rows));
                out::say(&footer(&records));
            }
        }
        Ok(out::OK)
    })
}

const HEADING: &[&str] =
    &["TIMESTAMP", "NODE", "SOURCE", "DESTINATION", "PATH", "VERDICT", "CODE", "SUMMARY"];

/// The records of all nodes that pass the filters, oldest first.
///
/// # Errors
/// When a node does not answer.
pub(super) async fn records(args: &Args, nodes: &[Node]) -> anyhow::Result<Vec<Value>> {
    let mut records: Vec<Value> = Vec::new();
    for node in nodes {
        let answer = client::get(&node.socket, &format!("/flows?last={}", args.last)).await?;
        records.extend(lines(&answer.body).filter(|record| passes(args, record)));
    }
    records.sort_by_key(|record| text(record, "time"));
    Ok(records)
}

async fn follow(args: &Args, nodes: Vec<Node>) -> anyhow::Result<i32> {
    let (send, mut records) = tokio::sync::mpsc::channel::<Value>(256);
    for node in nodes {
        let mut stream = client::stream(&node.socket, &format!("/flows?last={}&follow", args.last)).await?;
        let send = send.clone();
        ambit_runtime::tasks::spawn("follow", async move {
            let mut rest = Vec::new();
            while let Ok(Some(bytes)) = stream.next().await {
                rest.extend_from_slice(&bytes);
                while let Some(end) = rest.iter().position(|b| *b == b'\n') {
                    let line: Vec<u8> = rest.drain(..=end).collect();
                    if let Ok(record) = serde_json::from_slice(&line)
                        && send.send(record).await.is_err()
                    {
                        return;
                    }
                }
            }
        });
    }
    drop(send);
    while let Some(record) = records.recv().await {
        if passes(args, &record) {
            match args.output {
                super::get::Output::Json => out::data(&record.to_string()),
                super::get::Output::Table => out::data(&cells(&record).join("  ")),
            }
        }
    }
    Ok(out::OK)
}

fn lines(body: &[u8]) -> impl Iterator<Item = Value> {
    body.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok())
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

fn cells(record: &Value) -> Vec<String> {
    let end = |end: &Value| match text(end, "workload") {
        name if name.is_empty() => text(end, "addr"),
        name => format!("{}/{name}", text(end, "namespace")),
    };
    let port = text(&record["dst"], "addr").rsplit(':').next().map(ToOwned::to_owned).unwrap_or_default();
    let port = text(record, "hbone_addr")
        .rsplit(':')
        .next()
        .filter(|p| !p.is_empty())
        .map_or(port, ToOwned::to_owned);
    let code = match text(record, "code") {
        code if code.is_empty() => "-".to_owned(),
        code => code,
    };
    vec![
        text(record, "time"),
        text(record, "node"),
        end(&record["src"]),
        format!("{}:{port}", end(&record["dst"])),
        text(record, "path"),
        text(record, "verdict"),
        code,
        summary(record),
    ]
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

fn footer(records: &[Value]) -> String {
    match records.first() {
        Some(oldest) => format!("{} records, the oldest of {}", records.len(), text(oldest, "time")),
        None => "no records; nothing has ended yet, or the filters exclude everything".to_owned(),
    }
}
