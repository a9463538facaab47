//! `ambit get`: what the ztunnels know and hold, one row an object.

use clap::{Args as ClapArgs, ValueEnum};
use serde_json::{Value, json};

use super::nodes::{Where, block_on, json, text};
use crate::out;

/// Shows workloads, services, policies, certificates or connections as the ztunnels have them.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// What to show
    kind: Kind,
    #[command(flatten)]
    at: Where,
    /// Only this namespace
    #[arg(short = 'n', long)]
    namespace: Option<String>,
    /// table or json
    #[arg(short, long, default_value = "table")]
    output: Output,
}

/// How it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Columns.
    Table,
    /// A versioned envelope.
    Json,
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

/// One object and the node that told of it.
struct Row {
    node: String,
    value: Value,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<i32> {
    let rows = block_on(collect(args))?;
    match args.output {
        Output::Json => {
            let items: Vec<Value> = rows.into_iter().map(|row| with_node(row.value, &row.node)).collect();
            let envelope =
                json!({"apiVersion": "cli.ambit.internal/v1", "kind": args.kind.list(), "items": items});
            out::data(&envelope.to_string());
        }
        Output::Table => {
            let lines: Vec<Vec<String>> = rows.iter().map(|row| args.kind.cells(row)).collect();
            out::data(&out::table(args.kind.heading(), &lines));
        }
    }
    Ok(out::OK)
}

async fn collect(args: &Args) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for node in args.at.nodes()? {
        let path = match args.kind {
            Kind::Certificates => "/certificates",
            Kind::Connections => "/connections",
            Kind::Workloads | Kind::Services | Kind::Policies => "/config_dump",
        };
        let answer = json(&node.socket, path).await?;
        let list = match args.kind {
            Kind::Workloads => &answer["workloads"],
            Kind::Services => &answer["services"],
            Kind::Policies => &answer["policies"],
            Kind::Certificates | Kind::Connections => &answer,
        };
        for value in list.as_array().into_iter().flatten() {
            if args.namespace.as_ref().is_none_or(|ns| args.kind.is_in(value, ns)) {
                rows.push(Row { node: node.name.clone(), value: value.clone() });
            }
        }
    }
    // Every node knows the whole mesh: shown once, unless somebody asks one node.
    if args.at.node.is_none() && args.kind.is_mesh_wide() {
        rows.sort_by_key(|row| row.value.to_string());
        rows.dedup_by(|a, b| a.value == b.value);
    }
    Ok(rows)
}

fn with_node(mut value: Value, node: &str) -> Value {
    if let Some(object) = value.as_object_mut() {
        object.insert("reportedBy".to_owned(), Value::from(node));
    }
    value
}

impl Kind {
    fn list(self) -> &'static str {
        match self {
            Self::Workloads => "WorkloadList",
            Self::Services => "ServiceList",
            Self::Policies => "PolicyList",
            Self::Certificates => "CertificateList",
            Self::Connections => "ConnectionList",
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

    fn heading(self) -> &'static [&'static str] {
        match self {
            Self::Workloads => &["NAMESPACE", "POD NAME", "ADDRESS", "NODE", "WAYPOINT", "PROTOCOL"],
            Self::Services => &["NAMESPACE", "SERVICE NAME", "SERVICE VIP", "WAYPOINT", "ENDPOINTS"],
            Self::Policies => &["NAMESPACE", "POLICY NAME", "ACTION", "SCOPE"],
            Self::Certificates => &[
                "CERTIFICATE NAME",
                "TYPE",
                "STATUS",
                "VALID CERT",
                "SERIAL NUMBER",
                "NOT AFTER",
                "NOT BEFORE",
            ],
            Self::Connections => &["WORKLOAD", "DIRECTION", "LOCAL", "REMOTE", "REMOTE TARGET", "PROTOCOL"],
        }
    }

    fn cells(self, row: &Row) -> Vec<String> {
        let v = &row.value;
        let joined = |key: &str| {
            let all = v[key].as_array().into_iter().flatten().filter_map(Value::as_str);
            all.map(|a| a.rsplit('/').next().unwrap_or(a)).collect::<Vec<_>>().join(",")
        };
        match self {
            Self::Workloads => vec![
                text(v, "namespace"),
                text(v, "name"),
                joined("workloadIps"),
                text(v, "node"),
                or_none(text(v, "waypoint")),
                text(v, "protocol"),
            ],
            Self::Services => {
                vec![
                    text(v, "namespace"),
                    text(v, "name"),
                    joined("vips"),
                    or_none(text(v, "waypoint")),
                    endpoints(v),
                ]
            }
            Self::Policies => {
                vec![text(v, "namespace"), text(v, "name"), text(v, "action"), text(v, "scope")]
            }
            Self::Certificates => {
                let leaf = &v["certChain"][0];
                vec![
                    text(v, "identity"),
                    "Leaf".to_owned(),
                    text(v, "state"),
                    text(v, "valid"),
                    text(leaf, "serialNumber"),
                    text(leaf, "expirationTime"),
                    text(leaf, "validFrom"),
                ]
            }
            Self::Connections => connection(v),
        }
    }
}

fn connection(v: &Value) -> Vec<String> {
    let inbound = v["direction"] == "inbound";
    let (own, other) = if inbound { (&v["dst"], &v["src"]) } else { (&v["src"], &v["dst"]) };
    let name = |end: &Value| match (text(end, "namespace"), text(end, "workload")) {
        (ns, name) if !name.is_empty() => format!("{name}.{ns}"),
        (_, _) => text(end, "addr"),
    };
    vec![
        name(own),
        text(v, "direction"),
        text(own, "addr"),
        text(other, "addr"),
        format!("{} {}", name(other), text(v, "hbone_addr")).trim().to_owned(),
        text(v, "path").to_uppercase(),
    ]
}

fn endpoints(v: &Value) -> String {
    let all = v["endpoints"].as_object().map_or(0, serde_json::Map::len);
    let healthy =
        v["endpoints"].as_object().into_iter().flatten().filter(|(_, e)| e["status"] == "Healthy").count();
    format!("{healthy}/{all}")
}

fn or_none(text: String) -> String {
    if text.is_empty() { "None".to_owned() } else { text }
}
