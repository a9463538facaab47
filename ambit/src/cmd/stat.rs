//! `ambit stat`: golden numbers of everything that is called, made of the edges to it.

use std::collections::BTreeMap;

use clap::{Args as ClapArgs, ValueEnum};
use serde_json::{Value, json};

use super::edges::{Seen, name};
use super::form::{FORMS, Form, List};
use super::nodes::{cell, or_dash, text};
use crate::out;

/// Shows numbers of what is called.
#[derive(Debug, Clone, ClapArgs)]
pub struct Args {
    /// What a row is
    #[arg(value_enum, default_value = "workload")]
    kind: Kind,
    #[command(flatten)]
    pub(super) seen: Seen,
    /// Only what this one calls (NAME or NS/NAME)
    #[arg(long)]
    from: Option<String>,
    /// Only calls of this one (NAME or NS/NAME)
    #[arg(long)]
    to: Option<String>,
    #[arg(short, long, default_value = "table", help = FORMS)]
    output: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    #[value(alias = "workloads", alias = "deploy", alias = "po")]
    Workload,
    #[value(alias = "services", alias = "svc")]
    Service,
    #[value(alias = "namespaces", alias = "ns")]
    Namespace,
    #[value(alias = "nodes", alias = "no")]
    Node,
}

/// Runs the command.
///
/// # Errors
/// When there is no such lab, or the control plane does not answer.
pub fn run(args: &Args) -> anyhow::Result<i32> {
    let edges = args.seen.edges()?;
    let is = |end: &Value, wanted: &Option<String>| {
        wanted.as_ref().is_none_or(|wanted| {
            let name = name(end);
            *wanted == name || *wanted == format!("{}/{name}", text(end, "namespace"))
        })
    };
    let meant = edges.iter().filter(|e| is(&e["source"], &args.from) && is(&e["destination"], &args.to));
    let mut groups: BTreeMap<(String, String), Vec<&Value>> = BTreeMap::new();
    for edge in meant {
        if let Some(key) = key(args.kind, edge) {
            groups.entry(key).or_default().push(edge);
        }
    }
    let items = groups.iter().map(|((namespace, name), edges)| row(namespace, name, edges)).collect();
    List { kind: "StatList", items }.print(&args.output, table, |item| {
        format!("{}/{}/{}", kind_name(args.kind), text(item, "namespace"), text(item, "name"))
    });
    Ok(out::OK)
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Workload => "workload",
        Kind::Service => "service",
        Kind::Namespace => "namespace",
        Kind::Node => "node",
    }
}

/// The row that an edge belongs to; none if it has no such thing.
fn key(kind: Kind, edge: &Value) -> Option<(String, String)> {
    let destination = &edge["destination"];
    let namespace = text(destination, "namespace");
    let (namespace, name) = match kind {
        Kind::Workload => (namespace, name(destination)),
        Kind::Service => (namespace, text(destination, "service")),
        Kind::Namespace => (String::new(), namespace),
        Kind::Node => (String::new(), text(destination, "node")),
    };
    (!name.is_empty()).then_some((namespace, name))
}

fn row(namespace: &str, name: &str, edges: &[&Value]) -> Value {
    let number = |edge: &Value, key: &str| edge[key].as_f64().unwrap_or(0.0);
    let sum = |key: &str| edges.iter().map(|edge| number(edge, key)).sum::<f64>();
    let requests = sum("requests_per_s");
    // A success is worth as much as it stands for: requests where there are any, else connections.
    let weight = |edge: &Value| match requests > 0.0 {
        true => number(edge, "requests_per_s"),
        false => number(edge, "connections") + number(edge, "denied"),
    };
    let weighed = edges.iter().filter(|edge| edge["success"].is_number());
    let (good, all) = weighed.fold((0.0, 0.0), |(good, all), edge| {
        (good + number(edge, "success") * weight(edge), all + weight(edge))
    });
    // Quantiles of several edges have no common one: the slowest stands.
    let slowest = |key: &str| edges.iter().filter_map(|edge| edge[key].as_f64()).reduce(f64::max);
    // The one to ask about: with the most refusals, else the busiest.
    let worth = |edge: &&&Value| (edge["denied"].as_u64(), edge["connections"].as_u64());
    let example = edges.iter().max_by_key(worth).map(|edge| text(edge, "id")).filter(|id| !id.is_empty());
    let meshed = edges.iter().filter(|edge| edge["secured"] == true).count();
    json!({
        "namespace": namespace,
        "name": name,
        "edges": edges.len(),
        "edges_secured": meshed,
        "success": (all > 0.0).then(|| rounded(good / all)),
        "requests_per_s": (requests > 0.0).then(|| rounded(requests)),
        "connections_per_s": rounded(sum("rate_per_s")),
        "latency_ms_p50": slowest("latency_ms_p50"),
        "latency_ms_p95": slowest("latency_ms_p95"),
        "latency_ms_p99": slowest("latency_ms_p99"),
        "connections_open": sum("open"),
        "denied": sum("denied"),
        "bytes_sent_per_s": rounded(sum("bytes_sent_per_s")),
        "bytes_received_per_s": rounded(sum("bytes_received_per_s")),
        "edge": example,
    })
}

fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

pub(super) fn table(items: &[Value], wide: bool) -> String {
    let mut heading =
        vec!["NAMESPACE", "NAME", "MESHED", "SUCCESS", "RPS", "P50", "P95", "P99", "TCP_CONN", "DENIED"];
    if wide {
        heading.extend(["CONN_PER_S", "SENT_B_PER_S", "RECEIVED_B_PER_S", "EDGE"]);
    }
    let row = |item: &Value| {
        let percent = item["success"].as_f64().map(|share| format!("{:.2}%", share * 100.0));
        let ms = |key: &str| or_dash(item[key].as_f64().map(|ms| format!("{ms:.1}ms")).unwrap_or_default());
        let whole = |key: &str| format!("{:.0}", item[key].as_f64().unwrap_or(0.0));
        let rate = |key: &str| or_dash(item[key].as_f64().map(|n| format!("{n:.1}")).unwrap_or_default());
        let mut row = vec![
            cell(item, "namespace"),
            cell(item, "name"),
            format!("{}/{}", text(item, "edges_secured"), text(item, "edges")),
            or_dash(percent.unwrap_or_default()),
            rate("requests_per_s"),
            ms("latency_ms_p50"),
            ms("latency_ms_p95"),
            ms("latency_ms_p99"),
            whole("connections_open"),
            whole("denied"),
        ];
        if wide {
            row.push(rate("connections_per_s"));
            row.extend(["bytes_sent_per_s", "bytes_received_per_s"].map(whole));
            row.push(cell(item, "edge"));
        }
        row
    };
    out::table(&heading, &items.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_add_up_and_success_is_weighed() {
        let edge = |requests: f64, success: f64, p99: f64, denied: u64| {
            json!({
                "requests_per_s": requests, "success": success, "latency_ms_p99": p99, "denied": denied,
                "id": format!("shop/web{denied}>shop/db:80"), "secured": true, "open": 1, "rate_per_s": 1.0, "bytes_sent_per_s": 5.0,
                "destination": {"namespace": "shop", "workload": "db", "node": "n1"},
            })
        };
        let (one, other) = (edge(90.0, 1.0, 10.0, 0), edge(10.0, 0.5, 30.0, 2));
        let row = row("shop", "db", &[&one, &other]);
        assert_eq!((&row["success"], &row["requests_per_s"]), (&json!(0.95), &json!(100.0)));
        assert_eq!((&row["latency_ms_p99"], &row["denied"]), (&json!(30.0), &json!(2.0)));
        assert_eq!((&row["latency_ms_p50"], &row["bytes_sent_per_s"]), (&Value::Null, &json!(10.0)));
        assert_eq!(row["edge"], "shop/web2>shop/db:80", "the one with refusals");
        let text = table(std::slice::from_ref(&row), false);
        let cells: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(cells, ["shop", "db", "2/2", "95.00%", "100.0", "-", "-", "30.0ms", "2", "2"]);
        assert_eq!(key(Kind::Node, &one), Some((String::new(), "n1".to_owned())));
        assert_eq!(key(Kind::Service, &one), None);
    }
}
