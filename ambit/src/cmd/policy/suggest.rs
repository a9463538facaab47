//! `ambit policy suggest`: the fewest ALLOW rules that let in what was seen, as manifests with their coverage.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use ambit_control::Index;
use ambit_explain::Flow;
use ambit_explain::suggest::{InForce, Known, Member, Suggestion, seen, suggest};
use ambit_manifest::{Kind, to_yaml};
use ambit_policy::model::Scope;
use ambit_types::{Str, TunnelProtocol, Workload};
use serde_json::{Value, json};

use super::{seen as records, typed};
use crate::cmd::mesh::Mesh;
use crate::cmd::objects::Objects;
use crate::out::{self, Failure};

/// Label of a waypoint's own pods, which no policy of nodes is about.
const GATEWAY: &str = "gateway.networking.k8s.io/gateway-name";
/// The least of an id that is searched for.
const ID_CHARS_MIN: usize = 6;

/// Makes rules of what was seen.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The namespace whose workloads are called; that of --allow's destination if unset
    #[arg(short, long, required_unless_present = "allow")]
    namespace: Option<String>,
    /// Also let in what was refused, or let in by a break-glass only: a connection's id or its beginning, or `last`
    #[arg(long, value_name = "ID")]
    allow: Vec<String>,
    /// How far back to look
    #[arg(long, default_value = "24h", value_parser = humantime::parse_duration)]
    since: Duration,
    /// Write the policies to this file instead of the standard output
    #[arg(short, long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Form of what is printed
    #[arg(short, long, value_enum, default_value = "yaml", conflicts_with = "write")]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// Manifests, with the coverage as comments
    Yaml,
    /// The manifests in an envelope with everything else
    Json,
}

/// Runs the command.
///
/// # Errors
/// When no node answers, there is no such connection, or the file cannot be written.
pub(super) fn run(at: &Mesh, args: &Args) -> anyhow::Result<i32> {
    let objects = super::objects(at)?;
    let index = objects.index()?;
    let seen_here = records::of(at, args.since)?;
    let also = also(args, &seen_here.flows)?;
    let namespace = namespace(args, &also)?;
    let ids: BTreeSet<&str> = also.iter().map(|flow| flow.conn_id.as_str()).collect();
    let members = members(&objects, &index, &namespace);
    if members.is_empty() {
        return Err(Failure::new(
            out::FAILED,
            format!("no workload of namespace {namespace} is in the mesh"),
        )
        .into());
    }
    let wanted = |flow: &Flow| flow.is_let_in_by_rules() || ids.contains(flow.conn_id.as_str());
    let known = Known::of(index.workloads().values());
    let gathered = seen(&namespace, &seen_here.flows, &members, &known, wanted);
    let mut suggestion = suggest(&namespace, &members, &gathered.seen, &in_force(&index, &members));
    suggestion.notes.extend(gathered.notes);
    let text = match args.output {
        Output::Yaml => yaml(&suggestion),
        Output::Json => envelope(&suggestion).to_string(),
    };
    match &args.write {
        None => out::data(&text),
        Some(file) => {
            std::fs::write(file, text)
                .map_err(|e| Failure::new(out::FAILED, format!("writing {}: {e}", file.display())))?;
            out::say(&format!("{} policies written to {}", suggestion.policies.len(), file.display()));
        }
    }
    seen_here.tell();
    let file = args.write.as_ref().map_or_else(|| "FILE".to_owned(), |file| file.display().to_string());
    out::say(&format!("next: {}", typed(at, &format!("policy diff {file}"))));
    Ok(out::OK)
}

/// The refused connections that are to be let in.
fn also<'f>(args: &Args, flows: &'f [Flow]) -> Result<Vec<&'f Flow>, Failure> {
    args.allow.iter().map(|id| refused(id, flows)).collect()
}

fn refused<'f>(id: &str, flows: &'f [Flow]) -> Result<&'f Flow, Failure> {
    // Only the destination's node knows whom the rules of nodes refuse; pairs that were counted have no id.
    let of_node = |flow: &&Flow| {
        !flow.is_let_in_by_rules()
            && !flow.conn_id.is_empty()
            && flow.direction.as_deref() == Some("inbound")
            && flow.path != "waypoint"
    };
    let id = id.trim_start_matches("flow/");
    // The last refusal is meant, not whoever a break-glass has let in since.
    let is_last = |flow: &Flow| id == "last" && !flow.is_let_in();
    let is_meant = |flow: &&Flow| is_last(flow) || (id.len() >= ID_CHARS_MIN && flow.conn_id.starts_with(id));
    let found = flows.iter().rev().filter(of_node).find(is_meant);
    found.ok_or_else(|| {
        let hint = "`ambit flows --verdict denied` shows what there is";
        Failure::new(out::FAILED, format!("no node refused a connection {id}; {hint}"))
    })
}

fn namespace(args: &Args, also: &[&Flow]) -> Result<String, Failure> {
    let of_flow = also.first().and_then(|flow| flow.dst.namespace.clone());
    let named = args.namespace.clone().or(of_flow);
    named.ok_or_else(|| Failure::new(out::USAGE, "name a namespace with -n"))
}

/// The workloads of the namespace that its policies reach, with the labels of their pods.
fn members(objects: &Objects, index: &Index, namespace: &str) -> Vec<Member> {
    let labels: BTreeMap<&str, &Value> = objects
        .of_kind(Kind::Pod)
        .filter(|pod| pod.key.namespace.as_deref() == Some(namespace))
        .map(|pod| (pod.key.name.as_str(), &pod.value["metadata"]["labels"]))
        .collect();
    let is_member = |workload: &&std::sync::Arc<Workload>| {
        *workload.namespace == *namespace
            && workload.tunnel == TunnelProtocol::Hbone
            && !workload.native_tunnel
    };
    let member = |workload: &std::sync::Arc<Workload>| {
        let labels = labels_of(labels.get(&*workload.name)?);
        let is_waypoint = labels.contains_key(GATEWAY);
        let address = *workload.addresses.first()?;
        let (uid, name) = (workload.uid.clone(), workload.name.clone());
        let controller = workload.workload_name.clone();
        (!is_waypoint).then_some(Member { uid, name, controller, labels, address })
    };
    index.workloads().values().filter(is_member).filter_map(member).collect()
}

fn labels_of(labels: &Value) -> BTreeMap<Str, Str> {
    let all = labels.as_object().into_iter().flatten();
    all.filter_map(|(name, value)| Some((Str::from(name.as_str()), Str::from(value.as_str()?)))).collect()
}

/// The policies in force, each with the members that it covers.
fn in_force(index: &Index, members: &[Member]) -> Vec<InForce> {
    let covers = |policy: &ambit_policy::model::Policy, member: &Member| match policy.scope {
        Scope::Global => true,
        Scope::Namespace => index
            .workloads()
            .get(&member.uid)
            .is_some_and(|workload| workload.namespace == policy.key.namespace),
        Scope::WorkloadSelector => {
            index.workloads().get(&member.uid).is_some_and(|workload| workload.policies.contains(&policy.key))
        }
    };
    let one = |policy: &std::sync::Arc<ambit_policy::model::Policy>| {
        let covers = members.iter().filter(|member| covers(policy, member)).map(|member| member.uid.clone());
        InForce { covers: covers.collect(), policy: policy.clone() }
    };
    index.policies().values().map(one).filter(|one| !one.covers.is_empty()).collect()
}

/// The manifests, with everything else as comments before them.
fn yaml(suggestion: &Suggestion) -> String {
    let mut text = String::new();
    for line in header(suggestion) {
        // What is told of others' names must not end the comment.
        let _ = writeln!(text, "# {}", line.replace(['\n', '\r'], " "));
    }
    let manifests = suggestion.policies.iter().map(|allow| to_yaml(&allow.manifest(&suggestion.namespace)));
    let manifests: Vec<String> = manifests.collect();
    text.push_str(&manifests.join("---\n"));
    text
}

fn header(suggestion: &Suggestion) -> Vec<String> {
    let Suggestion { namespace, policies, coverage, unseen, superseded, notes } = suggestion;
    let mut lines = vec![
        format!(
            "{} policies of namespace {namespace}, made of what was seen; all else is refused.",
            policies.len()
        ),
        format!(
            "coverage: {} of {} connections, {} of {} callers and ports",
            coverage.connections_covered, coverage.connections, coverage.pairs_covered, coverage.pairs
        ),
    ];
    lines.extend(unseen.iter().map(|one| format!("declared, not seen: {} in {}", one.principal, one.policy)));
    lines.extend(
        superseded
            .iter()
            .map(|policy| format!("replaces {policy}, which may allow more: remove it with this")),
    );
    lines.extend(notes.iter().map(|note| format!("note: {note}")));
    lines
}

fn envelope(suggestion: &Suggestion) -> Value {
    let Suggestion { namespace, policies, coverage, unseen, superseded, notes } = suggestion;
    let items: Vec<Value> = policies.iter().map(|allow| allow.manifest(namespace)).collect();
    json!({
        "apiVersion": "cli.ambit.internal/v1",
        "kind": "PolicySuggestion",
        "namespace": &**namespace,
        "items": items,
        "coverage": coverage,
        "unseen": unseen,
        "superseded": superseded,
        "notes": notes,
    })
}
