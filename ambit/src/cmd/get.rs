//! `ambit get`: what the ztunnels know and hold, one row an object.

use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, ValueEnum};
use serde_json::Value;

use super::form::{FORMS, Form, List};
use super::mesh::Mesh;
use super::nodes::{Where, ask_all, block_on, read, text};
use crate::out::{self, Failure};

mod columns;

/// Shows workloads, services, policies, certificates or connections as the ztunnels have them.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// What to show
    kind: Kind,
    #[command(flatten)]
    pub(super) at: Mesh,
    /// Only this namespace
    #[arg(short = 'n', long, visible_alias = "workload-namespace")]
    namespace: Option<String>,
    /// All namespaces, which is the default here
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Only connections of this direction
    #[arg(long)]
    direction: Option<Direction>,
    /// Read what --raw wrote instead of asking a node
    #[arg(long, value_name = "FILE", conflicts_with_all = ["node", "raw"])]
    file: Option<PathBuf>,
    /// Print what each ztunnel answers as it is, one JSON document a node
    #[arg(long, conflicts_with = "output")]
    raw: bool,
    #[arg(short, long, default_value = "table", help = FORMS)]
    output: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    #[value(alias = "workload")]
    Workloads,
    #[value(alias = "service")]
    Services,
    #[value(alias = "policy")]
    Policies,
    #[value(alias = "certificate")]
    Certificates,
    #[value(alias = "connection")]
    Connections,
}

/// Seen from the workload of the node that tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Direction {
    Inbound,
    Outbound,
}

/// Runs the command.
///
/// # Errors
/// When no node answers, or a file is no dump.
pub fn run(args: &Args) -> anyhow::Result<i32> {
    if args.raw {
        let answers = block_on(async { ask_all(&lab(args)?.nodes()?, args.kind.path()).await })?;
        for (_, body) in answers {
            out::data(&String::from_utf8_lossy(&body));
        }
        return Ok(out::OK);
    }
    let told = match &args.file {
        Some(file) => from_file(file)?,
        None => block_on(async { from_nodes(args).await })?,
    };
    let items = chosen(args, told);
    let list = List { kind: args.kind.list(), items };
    list.print(
        &args.output,
        |items, wide| columns::table(args.kind, items, wide),
        |item| args.kind.name(item),
    );
    Ok(out::OK)
}

/// The headings of every kind, for the test that holds them.
#[cfg(test)]
pub(super) fn headings(wide: bool) -> Vec<(&'static str, String)> {
    Kind::value_variants().iter().map(|kind| (kind.key(), columns::table(*kind, &[], wide))).collect()
}

/// The lab whose nodes are asked.
fn lab(args: &Args) -> Result<Where, Failure> {
    args.at.here().ok_or_else(|| {
        let words = format!(
            "what the ztunnels of a cluster hold is told on sockets of its nodes alone; {}",
            args.kind.in_cluster()
        );
        Failure::new(out::FAILED, words)
    })
}

/// Who told, and what.
type Told = Vec<(String, Value)>;

async fn from_nodes(args: &Args) -> anyhow::Result<Told> {
    let answers = ask_all(&lab(args)?.nodes()?, args.kind.path()).await?;
    answers.into_iter().map(|(node, body)| Ok((node.name, read(&body, &node.socket)?))).collect()
}

fn from_file(file: &Path) -> anyhow::Result<Told> {
    let bad = |why: String| Failure::new(out::BAD_DATA, format!("{}: {why}", file.display()));
    let bytes = std::fs::read(file).map_err(|e| bad(e.to_string()))?;
    let documents = serde_json::Deserializer::from_slice(&bytes).into_iter::<Value>();
    let mut told = Vec::new();
    for document in documents {
        let document = document.map_err(|e| bad(format!("no dump of a ztunnel: {e}")))?;
        let node = text(&document["version"], "node");
        told.push((if node.is_empty() { file.display().to_string() } else { node }, document));
    }
    Ok(told)
}

/// The objects that were asked for, in order, each with who told of it.
fn chosen(args: &Args, told: Told) -> Vec<Value> {
    let kind = args.kind;
    let mut items: Vec<(String, Value)> = Vec::new();
    for (node, document) in told {
        let list = if document.is_array() { &document } else { &document[kind.key()] };
        let wanted = |value: &&Value| {
            args.namespace.as_ref().is_none_or(|namespace| kind.is_in(value, namespace))
                && args.direction.is_none_or(|direction| is_of(value, direction))
        };
        items.extend(list.as_array().into_iter().flatten().filter(wanted).map(|v| (node.clone(), v.clone())));
    }
    items.sort_by_cached_key(|(node, value)| {
        let mesh_wide = [text(value, "namespace"), text(value, "name"), value.to_string()];
        if kind.is_mesh_wide() { (String::new(), mesh_wide) } else { (node.clone(), mesh_wide) }
    });
    // Every node knows the whole mesh, which is shown once.
    if kind.is_mesh_wide() {
        items.dedup_by(|a, b| a.1 == b.1);
    }
    items.into_iter().map(|(node, value)| with_node(value, &node)).collect()
}

fn is_of(value: &Value, direction: Direction) -> bool {
    match direction {
        Direction::Inbound => value["direction"] == "inbound",
        Direction::Outbound => value["direction"] == "outbound",
    }
}

fn with_node(mut value: Value, node: &str) -> Value {
    if let Some(object) = value.as_object_mut() {
        object.insert("reportedBy".to_owned(), Value::from(node));
    }
    value
}

impl Kind {
    /// Kind of the envelope.
    fn list(self) -> &'static str {
        match self {
            Self::Workloads => "WorkloadList",
            Self::Services => "ServiceList",
            Self::Policies => "PolicyList",
            Self::Certificates => "CertificateList",
            Self::Connections => "ConnectionList",
        }
    }

    /// Where something like it is to be had in a cluster.
    fn in_cluster(self) -> &'static str {
        match self {
            Self::Workloads => "see: ambit status, and the condition ambit.internal/captured of each pod",
            Self::Services | Self::Policies => {
                "see: ambit status for what is not in force as written, and istioctl ztunnel-config"
            }
            Self::Certificates => {
                "see: ambit ca status for the roots, and the metric ambit_certificate_remaining_seconds"
            }
            Self::Connections => "see: ambit edges (OPEN with -o wide), and ambit flows for those that ended",
        }
    }

    /// What a ztunnel is asked.
    fn path(self) -> &'static str {
        match self {
            Self::Certificates => "/certificates",
            Self::Connections => "/connections",
            Self::Workloads | Self::Services | Self::Policies => "/config_dump",
        }
    }

    /// Where a whole dump holds the list.
    fn key(self) -> &'static str {
        match self {
            Self::Workloads => "workloads",
            Self::Services => "services",
            Self::Policies => "policies",
            Self::Certificates => "certificates",
            Self::Connections => "connections",
        }
    }

    fn is_mesh_wide(self) -> bool {
        match self {
            Self::Workloads | Self::Services | Self::Policies => true,
            Self::Certificates | Self::Connections => false,
        }
    }

    fn is_in(self, value: &Value, namespace: &str) -> bool {
        match self {
            Self::Workloads | Self::Services | Self::Policies => value["namespace"] == namespace,
            Self::Certificates => text(value, "identity").contains(&format!("/ns/{namespace}/sa/")),
            Self::Connections => {
                value["src"]["namespace"] == namespace || value["dst"]["namespace"] == namespace
            }
        }
    }

    /// `KIND/NAME`, as `-o name` has it.
    fn name(self, value: &Value) -> String {
        let of = |kind: &str| format!("{kind}/{}/{}", text(value, "namespace"), text(value, "name"));
        match self {
            Self::Workloads => of("workload"),
            Self::Services => of("service"),
            Self::Policies => of("policy"),
            Self::Certificates => format!("certificate/{}", text(value, "identity")),
            Self::Connections => format!("connection/{}", text(value, "conn_id")),
        }
    }
}
