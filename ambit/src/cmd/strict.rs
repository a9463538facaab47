//! `ambit strict report`: who would be refused if plaintext were refused, why it is not in the mesh, and what to do.
//!
//! Only what was seen counts: connections that PERMISSIVE let in without an identity, by workload and caller, however they
//! ended. Those that a change of policy has cut (AMB2107) are told apart: they are refused already.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ambit_explain::{Flow, FlowEnd};
use ambit_manifest::{Kind, Located};
use clap::{Args as ClapArgs, Subcommand};
use serde_json::{Value, json};

use super::form::{FORMS, Form, List};
use super::nodes::{Where, cell, short_id, text};
use super::objects::Objects;
use super::policy::seen;
use crate::out;

const MODE: &str = "istio.io/dataplane-mode";
const REDIRECTION: &str = "ambient.istio.io/redirection";

#[cfg(test)]
mod tests;

/// Tells who is in the way of STRICT.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(flatten)]
    pub(super) at: Where,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Who connects without an identity, why, and how to mend it
    Report(Report),
}

#[derive(Debug, ClapArgs)]
struct Report {
    /// Only workloads of this namespace
    #[arg(short = 'n', long)]
    namespace: Option<String>,
    /// How far back to look
    #[arg(long, default_value = "24h", value_parser = humantime::parse_duration)]
    window: Duration,
    /// Make the exit code 79 if anybody would be refused
    #[arg(long)]
    fail: bool,
    #[arg(short, long, default_value = "table", help = FORMS)]
    output: Form,
}

/// Runs the command.
///
/// # Errors
/// When there is no such lab, or no node answers.
pub fn run(args: &Args) -> anyhow::Result<i32> {
    let Command::Report(report) = &args.command;
    let seen = seen::ask(&args.at, report.window)?;
    let objects = Objects::of_lab(&args.at.name)?;
    let items: Vec<Value> = callers(report, &seen.flows)
        .into_iter()
        .map(|((workload, from), caller)| row(&objects, workload, from, &caller))
        .collect();
    let (count, cut) = (items.len(), cut(report, &seen.flows));
    List { kind: "StrictReportList", items }
        .print(&report.output, table, |item| format!("workload/{}", text(item, "workload")));
    seen.tell();
    out::say(&match count {
        0 => "nobody was seen who would be refused by STRICT; what was not seen is not known".to_owned(),
        count => format!("{count} callers would be refused by STRICT"),
    });
    if cut > 0 {
        out::say(&format!(
            "{cut} more plaintext connections were cut by a change of policy (AMB2107): they are refused already"
        ));
    }
    Ok(if report.fail && count > 0 { out::FINDINGS } else { out::OK })
}

/// What was seen of a caller.
struct Caller<'f> {
    end: &'f FlowEnd,
    connections: u64,
    last_seen: &'f str,
    /// Id of one of the connections, the last of those that have one.
    example: Option<&'f str>,
}

/// Callers without an identity, by the workload they call and their own name.
fn callers<'f>(report: &Report, flows: &'f [Flow]) -> BTreeMap<(String, String), Caller<'f>> {
    let mut callers: BTreeMap<(String, String), Caller<'_>> = BTreeMap::new();
    for flow in flows.iter().filter(|flow| flow.is_let_in() && is_plaintext(report, flow)) {
        let fresh = || Caller { end: &flow.src, connections: 0, last_seen: "", example: None };
        let caller = callers.entry((name_of(&flow.dst), name_of(&flow.src))).or_insert_with(fresh);
        caller.connections = caller.connections.saturating_add(flow.connections);
        caller.last_seen = caller.last_seen.max(flow.time.as_str());
        caller.example = Some(flow.conn_id.as_str()).filter(|id| !id.is_empty()).or(caller.example);
    }
    callers
}

/// How many connections without an identity a change of policy has cut.
fn cut(report: &Report, flows: &[Flow]) -> u64 {
    let of_policy = flows.iter().filter(|flow| flow.is_cut_by_policy() && is_plaintext(report, flow));
    of_policy.fold(0, |sum, flow| sum.saturating_add(flow.connections))
}

/// Whether somebody without an identity called a workload that is meant; probes of the node get in under STRICT too.
fn is_plaintext(report: &Report, flow: &Flow) -> bool {
    let is_meant = report.namespace.is_none() || flow.dst.namespace == report.namespace;
    is_meant
        && flow.direction.as_deref() == Some("inbound")
        && flow.path == "plaintext"
        && flow.src.identity.is_none()
}

fn name_of(end: &FlowEnd) -> String {
    match (&end.namespace, &end.workload) {
        (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
        _ => address(end).map_or_else(|| "?".to_owned(), |ip| ip.to_string()),
    }
}

fn address(end: &FlowEnd) -> Option<IpAddr> {
    let address: SocketAddr = end.addr.as_deref()?.parse().ok()?;
    Some(address.ip().to_canonical())
}

fn row(objects: &Objects, workload: String, from: String, caller: &Caller<'_>) -> Value {
    let (why, fix) = why(objects, caller.end);
    json!({
        "workload": workload,
        "plaintext_from": from,
        "connections": caller.connections,
        "last_seen": caller.last_seen,
        "why_not_meshed": why,
        "fix": fix,
        "conn_id": caller.example,
    })
}

/// Why a caller has no identity, and what gives it one.
fn why(objects: &Objects, end: &FlowEnd) -> (String, String) {
    let Some(pod) = pod(objects, end) else {
        let fix = "let it in through a gateway, or except the port in a PeerAuthentication";
        return ("it is no pod of the mesh".to_owned(), fix.to_owned());
    };
    let namespace = pod.key.namespace.as_deref().unwrap_or_default();
    let own = pod.value["metadata"]["labels"][MODE].as_str();
    let of_namespace = objects
        .of_kind(Kind::Namespace)
        .find(|object| object.key.name == namespace)
        .and_then(|object| object.value["metadata"]["labels"][MODE].as_str());
    if pod.value["spec"]["hostNetwork"] == true {
        let fix = "except the port in a PeerAuthentication, or take the pod off the node's network";
        return ("it has the node's network".to_owned(), fix.to_owned());
    }
    match (own, of_namespace) {
        (Some("ambient"), _) | (None, Some("ambient")) => captured(pod),
        (Some(mode), _) => (
            format!("its label {MODE} is {mode}"),
            format!("take the label {MODE} off pod {namespace}/{}", pod.key.name),
        ),
        (None, _) => {
            (format!("namespace {namespace} is not in the mesh"), format!("ambit enroll ns {namespace}"))
        }
    }
}

/// Of a pod that is to be in the mesh.
fn captured(pod: &Located) -> (String, String) {
    let node = pod.value["spec"]["nodeName"].as_str().unwrap_or("N");
    if pod.value["metadata"]["annotations"][REDIRECTION] == "enabled" {
        let why = "it is captured now: the connection is older, or went past the rules (AMB2303)";
        return (why.to_owned(), "ambit why AMB2303".to_owned());
    }
    ("it is labelled but not captured (AMB1101)".to_owned(), format!("ambit status --node {node}"))
}

fn pod<'o>(objects: &'o Objects, end: &FlowEnd) -> Option<&'o Located> {
    let by_name = |pod: &&Located| {
        pod.key.namespace == end.namespace && end.workload.as_deref() == Some(pod.key.name.as_str())
    };
    let at = address(end).map(|ip| ip.to_string());
    let by_address = |pod: &&Located| at.is_some() && pod.value["status"]["podIP"].as_str() == at.as_deref();
    let mut pods = objects.of_kind(Kind::Pod);
    let named = pods.find(by_name);
    named.or_else(|| objects.of_kind(Kind::Pod).find(by_address))
}

pub(super) fn table(items: &[Value], wide: bool) -> String {
    const KEYS: [&str; 6] =
        ["workload", "plaintext_from", "connections", "last_seen", "why_not_meshed", "fix"];
    let mut heading = vec!["WORKLOAD", "PLAINTEXT FROM", "CONNS", "LAST SEEN", "WHY NOT MESHED", "FIX"];
    heading.extend(wide.then_some("ID"));
    let row = |item: &Value| {
        let id = wide.then(|| short_id(item));
        KEYS.iter().map(|key| cell(item, key)).chain(id).collect()
    };
    out::table(&heading, &items.iter().map(row).collect::<Vec<Vec<String>>>())
}
