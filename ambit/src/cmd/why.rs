//! `ambit why`: what a code means, or why a connection was refused.

use ambit_lab::LabName;
use ambit_types::reason::{Entry, Kind};
use ambit_types::{Fault, Reason};
use clap::{Args as ClapArgs, Parser as _};
use serde_json::{Value, json};

use super::cluster::Query;
use super::form::{FORMS, Form, List};
use super::mesh::Mesh;
use super::nodes::{Where, ask_all, block_on, read, text};
use crate::out::{self, Failure};

mod edge;
mod runbooks;

use edge::Edge;
use runbooks::RUNBOOKS;

/// Records of each node that are searched: more than a ring holds.
const RECORDS: usize = 1_000_000;
/// The least of an id that is searched for.
const ID_CHARS_MIN: usize = 6;
/// The length of a whole id.
const ID_CHARS: usize = 32;

/// Explains a reason code, a connection by its id, an edge by its id, or the last refusal.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// A code (AMB2104), a reason (policy-denied), a connection's id or its beginning, an edge's id, or `last`
    what: String,
    #[command(flatten)]
    pub(super) at: Mesh,
    #[arg(short, long, default_value = "table", help = FORMS)]
    output: Form,
}

/// Runs the command.
///
/// # Errors
/// When there is no such thing, with what to type.
pub fn run(args: &Args) -> anyhow::Result<i32> {
    let lab = &args.at.lab().cloned().unwrap_or_default();
    let item = match args.what.parse::<Reason>() {
        Ok(reason) => item(Some(reason), About::Code, page(reason), lab),
        Err(_) => of_connection(args, lab)?,
    };
    let words =
        |items: &[Value], _: bool| -> String { items.iter().map(|item| text(item, "text")).collect() };
    List { kind: "WhyList", items: vec![item] }.print(&args.output, words, name);
    Ok(out::OK)
}

/// What an answer is about.
enum About<'a> {
    Code,
    Record(&'a Value),
    Connection(&'a Value),
}

/// An answer: what is known of its code if it has one, what was seen, and all of it in words.
fn item(reason: Option<Reason>, about: About<'_>, words: String, lab: &LabName) -> Value {
    let entry = reason.map(Reason::entry);
    let (record, connection) = match about {
        About::Code => (None, None),
        About::Record(record) => (Some(record), None),
        About::Connection(connection) => (None, Some(connection)),
    };
    json!({
        "code": reason.map(Reason::code),
        "name": reason.map(Reason::name),
        "what": entry.map(what),
        "who": entry.map(|entry| who(entry.fault)),
        "why": entry.map(|entry| entry.when),
        "shown": entry.map(shown),
        "response_flags": entry.map(|entry| entry.flag),
        "try": entry.map(|entry| for_lab(entry.try_next, lab)),
        "read": reason.map(link),
        "record": record,
        "connection": connection,
        "text": words,
    })
}

fn name(item: &Value) -> String {
    let seen = if item["record"].is_null() { &item["connection"] } else { &item["record"] };
    match text(seen, "conn_id") {
        none if none.is_empty() => format!("reason/{}", text(item, "code")),
        id => format!("flow/{id}"),
    }
}

/// The answer about a connection.
fn of_connection(args: &Args, lab: &LabName) -> anyhow::Result<Value> {
    // As `-o name` prints them.
    let what = ["flow/", "connection/", "edge/"].into_iter().find_map(|kind| args.what.strip_prefix(kind));
    let what = what.unwrap_or(&args.what);
    let edge = Edge::parse(what);
    let is_id = (ID_CHARS_MIN..=ID_CHARS).contains(&what.len())
        && what.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if what != "last" && !is_id && edge.is_none() {
        return Err(Failure::new(
            out::BAD_DATA,
            format!(
                "{what:?} is neither a code (AMB2104), a reason (policy-denied), a connection's id, an edge's id nor \
                 `last`; `ambit flows` shows codes and ids, `ambit edges -o wide` those of edges"
            ),
        )
        .into());
    }
    let known = block_on(async {
        match args.at.here() {
            Some(lab) => known(&lab).await,
            None => known_to_cluster(&args.at, what, edge.as_ref()).await,
        }
    })?;
    let found = match (edge, what) {
        (Some(edge), id) => of_edge(&known, &edge, id)?,
        (None, "last") => Found::Ended(last(&known.ended)?),
        (None, id) => found(&known, id)?,
    };
    Ok(match found {
        Found::Ended(record) => {
            let record = decided(&known.ended, record);
            item(text(record, "code").parse().ok(), About::Record(record), explain(record, lab), lab)
        }
        Found::Open(flow) => item(None, About::Connection(flow), live(flow), lab),
    })
}

/// What the nodes know of connections.
struct Known {
    /// Records, oldest first.
    ended: Vec<Value>,
    /// Connections that are open.
    open: Vec<Value>,
}

/// One connection.
#[derive(Debug)]
enum Found<'a> {
    Ended(&'a Value),
    Open(&'a Value),
}

async fn known(at: &Where) -> anyhow::Result<Known> {
    let nodes = at.recorders()?;
    let mut flows = FlowArgs::parse_from(["flows"]).flows;
    flows.last = RECORDS;
    let ended = super::flows::records(&flows, &nodes).await?.records;
    let mut open = Vec::new();
    for (node, body) in ask_all(&nodes, "/connections").await? {
        let list = read(&body, &node.socket)?;
        let of_node = |flow: &Value| {
            let mut flow = flow.clone();
            flow["node"] = Value::from(&*node.name);
            flow
        };
        open.extend(list.as_array().into_iter().flatten().map(of_node));
    }
    Ok(Known { ended, open })
}

/// The same of a cluster, whose open connections only the nodes know; no more is asked for than is meant.
async fn known_to_cluster(at: &Mesh, what: &str, edge: Option<&Edge<'_>>) -> anyhow::Result<Known> {
    let query = query(what, edge, at.node.as_deref());
    let ended = at.cluster().await?.flows(&query, RECORDS).await?.records;
    Ok(Known { ended, open: Vec::new() })
}

/// The query for the records that may be meant.
fn query(what: &str, edge: Option<&Edge<'_>>, node: Option<&str>) -> Query {
    let mut query = match (edge, what) {
        (Some(edge), _) => edge.query(),
        (None, "last") => Query::from([("verdict".to_owned(), "denied".to_owned())]),
        (None, id) => Query::from([("id".to_owned(), format!("{id}*"))]),
    };
    query.extend(node.map(|node| ("node".to_owned(), node.to_owned())));
    query
}

fn is_refused(record: &Value) -> bool {
    record["verdict"] == "denied"
}

/// The last refusal.
fn last(ended: &[Value]) -> Result<&Value, Failure> {
    let nothing = "nothing was refused, as far as the nodes remember; `ambit flows` shows what they do";
    ended.iter().rev().find(|r| is_refused(r)).ok_or_else(|| Failure::new(out::FAILED, nothing))
}

/// The last refusal of an edge, else its last connection that ended, else one that is open.
fn of_edge<'a>(known: &'a Known, edge: &Edge<'_>, id: &str) -> Result<Found<'a>, Failure> {
    let ended = edge.record(&known.ended).map(Found::Ended);
    ended.or_else(|| edge.record(&known.open).map(Found::Open)).ok_or_else(|| {
        Failure::new(
            out::FAILED,
            format!(
                "no record of {id} is held; the control plane remembers edges longer than nodes do their connections: \
                 `ambit flows` says how far back that goes"
            ),
        )
    })
}

/// The connection whose id begins like that; a refused end is preferred.
fn found<'a>(known: &'a Known, id: &str) -> Result<Found<'a>, Failure> {
    let mut ids: Vec<String> = known
        .ended
        .iter()
        .chain(&known.open)
        .map(|r| text(r, "conn_id"))
        .filter(|i| i.starts_with(id))
        .collect();
    ids.sort();
    ids.dedup();
    match ids.as_slice() {
        [] => Err(Failure::new(
            out::FAILED,
            format!(
                "no connection has the id {id}; its record may have left the ring: `ambit flows` says how far back that goes"
            ),
        )),
        [one] => {
            let same = |r: &&Value| r["conn_id"] == **one;
            let ended = || known.ended.iter().rev().filter(same);
            let record = ended().find(|r| is_refused(r)).or_else(|| ended().next());
            let open = known.open.iter().find(same);
            record
                .map(Found::Ended)
                .or_else(|| open.map(Found::Open))
                .ok_or_else(|| Failure::new(out::FAILED, "no record"))
        }
        several => Err(Failure::new(
            out::BAD_DATA,
            format!("{} connections have ids that begin with {id}: {}", several.len(), several.join(", ")),
        )),
    }
}

/// The record of the end that decided about a connection: the other one only knows that it was refused.
fn decided<'a>(ended: &'a [Value], record: &'a Value) -> &'a Value {
    let decided = |r: &&Value| r["conn_id"] == record["conn_id"] && !text(r, "policy").is_empty();
    ended.iter().rev().find(decided).unwrap_or(record)
}

#[derive(clap::Parser)]
struct FlowArgs {
    #[command(flatten)]
    flows: super::flows::Args,
}

/// What is known of a code: its five parts, and its page.
fn page(reason: Reason) -> String {
    let runbook = RUNBOOKS.iter().find(|(code, _)| *code == reason.code());
    let text = runbook.map_or("", |(_, page)| page.trim_start_matches(|c: char| c != '\n').trim_start());
    format!("{}\n{text}", facts(reason.entry()))
}

/// A code in five parts: what, why, where it shows, try, read.
fn facts(entry: Entry) -> String {
    let Entry { reason, when, try_next, flag, .. } = entry;
    let (what, who, shown) = (what(entry), who(entry.fault), shown(entry));
    format!(
        "{reason}\n  what        {what}; to be changed by: {who}\n  why         {when}\n  shown       {shown}; response_flags=\"{flag}\"\n  try         {try_next}\n  read        {}\n",
        link(reason),
    )
}

/// What a code is about: most are about connections.
fn what(entry: Entry) -> &'static str {
    match (subject(entry.number), entry.kind) {
        (Subject::Pod, _) => "a pod is not captured",
        (Subject::Certificate, _) => "a certificate was not issued",
        (Subject::Object, _) => "an object has no effect",
        (Subject::State, _) => "configuration or state was not taken",
        (Subject::Connection, Kind::Refusal) => "a connection was refused or cut",
        (Subject::Connection, Kind::Info) => "a connection went through",
    }
}

/// What carries a code.
enum Subject {
    Pod,
    Certificate,
    Object,
    State,
    Connection,
}

fn subject(number: u16) -> Subject {
    match number {
        1001..=1103 | 1105 => Subject::Pod,
        2002 => Subject::Certificate,
        3006 | 3103 => Subject::Object,
        6003..=6005 => Subject::State,
        _ => Subject::Connection,
    }
}

/// Where what was measured is seen.
fn shown(entry: Entry) -> String {
    match subject(entry.number) {
        Subject::Pod => {
            "the pod's condition `ambit.internal/captured` (`kubectl describe pod POD`)".to_owned()
        }
        Subject::Certificate => "`ambit get certificates`".to_owned(),
        Subject::Object => "the object's conditions: `ambit status`".to_owned(),
        Subject::State => "`ambit status -o wide`".to_owned(),
        Subject::Connection => format!("`ambit flows --code {}`", entry.reason.code()),
    }
}

/// Who has to act, in words.
fn who(fault: Fault) -> &'static str {
    match fault {
        Fault::Peer => "the peer",
        Fault::Local => "this node",
        Fault::ControlPlane => "the control plane",
        Fault::Configuration => "the configuration",
        Fault::Application => "the application",
    }
}

/// The page of a code, in the repository.
fn link(reason: Reason) -> String {
    format!("docs/runbooks/{}.md", reason.code())
}

/// A workload with its address.
fn end(end: &Value) -> String {
    match text(end, "workload") {
        name if name.is_empty() => text(end, "addr"),
        name => format!("{}/{name} ({})", text(end, "namespace"), text(end, "addr")),
    }
}

/// Who the caller proved to be.
fn saw(record: &Value) -> String {
    match text(&record["src"], "identity") {
        none if none.is_empty() => "no identity (plaintext)".to_owned(),
        identity => format!("{identity} by {}", text(record, "path")),
    }
}

/// A connection that is open.
fn live(flow: &Value) -> String {
    format!(
        "open   {} -> {} {}\n  saw         {}\n  moved       {} bytes sent, {} received in {} ms\n  connection  {}, {} at {}\n",
        end(&flow["src"]),
        end(&flow["dst"]),
        text(flow, "hbone_addr"),
        saw(flow),
        text(flow, "bytes_sent"),
        text(flow, "bytes_recv"),
        text(flow, "age_ms"),
        text(flow, "conn_id"),
        text(flow, "direction"),
        text(flow, "node"),
    )
}

/// One record in five parts: what, decided by, saw, try, read.
fn explain(record: &Value, lab: &LabName) -> String {
    let reason: Option<Reason> = text(record, "code").parse().ok();
    let verdict = if is_refused(record) { "refused" } else { "allowed" };
    let head = reason.map_or_else(|| verdict.to_owned(), |r| r.to_string());
    let policy = match (text(record, "policy"), text(record, "rule")) {
        (none, _) if none.is_empty() => nobody(reason).to_owned(),
        (key, rule) if rule.is_empty() => format!("policy {key}"),
        (key, rule) => format!("policy {key}, rule {rule}"),
    };
    let decided = [policy, text(record, "error")].into_iter().filter(|part| !part.is_empty());
    let mut lines = vec![
        format!("{head}   {} -> {} {}", end(&record["src"]), end(&record["dst"]), text(record, "hbone_addr")),
        format!("  decided by  {}", decided.collect::<Vec<_>>().join(": ")),
        format!("  saw         {}", saw(record)),
    ];
    let nearest = text(record, "nearest");
    lines.extend((!nearest.is_empty()).then(|| format!("  nearest     {nearest}")));
    let (id, at, node) = (text(record, "conn_id"), text(record, "time"), text(record, "node"));
    lines.push(format!("  connection  {id} at {at} on {node}"));
    if let Some(reason) = reason {
        lines.push(format!("  try         {}", for_lab(reason.entry().try_next, lab)));
        lines.push(format!("  read        {}", link(reason)));
    }
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// What decided where no policy is named.
fn nobody(reason: Option<Reason>) -> &'static str {
    match reason {
        Some(Reason::PolicyDenied | Reason::HttpPolicyDenied) => "no ALLOW policy that applies matched",
        Some(_) | None => "no policy",
    }
}

/// A hint whose commands name the lab, so that they can be typed as they stand.
fn for_lab(hint: &str, lab: &LabName) -> String {
    if *lab == LabName::default() {
        return hint.to_owned();
    }
    let named = |(at, part): (usize, &str)| {
        let is_command = at % 2 == 1 && part.starts_with("ambit ");
        if is_command { format!("{part} --name {lab}") } else { part.to_owned() }
    };
    hint.split('`').enumerate().map(named).collect::<Vec<_>>().join("`")
}

#[cfg(test)]
mod tests;
