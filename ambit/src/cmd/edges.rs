//! `ambit edges`: who talks to whom, and whether it is secured; what the control plane has gathered of the proxies.

use std::time::Duration;

use clap::Args as ClapArgs;
use serde_json::Value;

use super::cluster::items;
use super::form::{FORMS, Form, List};
use super::mesh::Mesh;
use super::nodes::{Where, block_on, cell, json, or_dash, text};
use crate::out::{self, Failure};

/// Shows edges: one for each pair and port that was seen.
#[derive(Debug, Clone, ClapArgs)]
pub struct Args {
    #[command(flatten)]
    pub(super) seen: Seen,
    #[arg(short, long, default_value = "table", help = FORMS)]
    output: Form,
}

/// Which edges are meant.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Seen {
    #[command(flatten)]
    pub(crate) at: Mesh,
    /// Only this namespace, at either end
    #[arg(short = 'n', long)]
    namespace: Option<String>,
    /// All namespaces, which is the default here
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// How far back to look, at most 24h; rates of 5m and less are those of the last half minute
    #[arg(short = 't', long, default_value = "5m", value_parser = humantime::parse_duration)]
    window: Duration,
}

impl Seen {
    /// The edges that are meant.
    ///
    /// # Errors
    /// When the control plane does not answer.
    pub(crate) fn edges(&self) -> anyhow::Result<Vec<Value>> {
        let mut edges = match self.at.here() {
            Some(lab) => self.of_lab(&lab)?,
            None => block_on(async { self.at.cluster().await?.edges(self.window).await })?,
        };
        edges.retain(|edge| self.is_meant(edge));
        Ok(edges)
    }

    fn of_lab(&self, lab: &Where) -> anyhow::Result<Vec<Value>> {
        let what = format!("/api/v1/edges?window={}s", self.window.as_secs().max(1));
        let socket = lab.istiod();
        let answer = block_on(async { json(&socket, &what).await }).map_err(|error| {
            let words =
                format!("{error:#}; edges are gathered by the control plane, `ambit flows` asks the nodes");
            Failure::new(out::UNREACHABLE, words)
        })?;
        if let Some(count) = answer["left_out"].as_u64().filter(|count| *count > 0) {
            out::say(&format!("warning: {count} edges are left out, for which the answer had no room"));
        }
        Ok(items(answer))
    }

    fn is_meant(&self, edge: &Value) -> bool {
        let (source, destination) = (&edge["source"], &edge["destination"]);
        let in_namespace = |end: &Value, ns: &String| end["namespace"] == **ns;
        let on_node = |end: &Value, node: &String| end["node"] == **node;
        self.namespace.as_ref().is_none_or(|ns| in_namespace(source, ns) || in_namespace(destination, ns))
            && self.at.node.as_ref().is_none_or(|node| on_node(source, node) || on_node(destination, node))
    }
}

/// Runs the command.
///
/// # Errors
/// When there is no such lab, or the control plane does not answer.
pub fn run(args: &Args) -> anyhow::Result<i32> {
    let items = args.seen.edges()?;
    let (count, open) = (items.len(), items.iter().filter(|edge| edge["secured"] == false).count());
    List { kind: "EdgeList", items }.print(&args.output, table, |edge| format!("edge/{}", text(edge, "id")));
    if matches!(args.output, Form::Table | Form::Wide) {
        out::say(&format!("{count} edges, {open} of them not secured"));
    }
    Ok(out::OK)
}

pub(super) fn table(edges: &[Value], wide: bool) -> String {
    let mut heading = vec!["SRC", "DST", "SRC_NS", "DST_NS", "CLIENT_ID", "SERVER_ID", "SECURED", "WHY_NOT"];
    if wide {
        heading.extend(["PORT", "PATHS", "CONNS", "OPEN", "DENIED", "CODES", "LAST_SEEN", "ID"]);
    }
    let row = |edge: &Value| {
        let (source, destination) = (&edge["source"], &edge["destination"]);
        let mut row = vec![
            or_dash(name(source)),
            or_dash(name(destination)),
            cell(source, "namespace"),
            cell(destination, "namespace"),
            cell(source, "identity"),
            cell(destination, "identity"),
            if edge["secured"] == true { "yes" } else { "no" }.to_owned(),
            cell(edge, "why_not"),
        ];
        if wide {
            row.extend([cell(edge, "port"), or_dash(joined(&edge["paths"]))]);
            row.extend(["connections", "open", "denied"].map(|key| cell(edge, key)));
            row.extend([or_dash(codes(edge)), cell(edge, "last_seen"), cell(edge, "id")]);
        }
        row
    };
    out::table(&heading, &edges.iter().map(row).collect::<Vec<_>>())
}

/// What an end is called: its workload, else its service, else its address.
pub(crate) fn name(end: &Value) -> String {
    let named = ["workload", "service"].into_iter().map(|key| text(end, key)).find(|name| !name.is_empty());
    named.unwrap_or_else(|| {
        let address = text(end, "addr");
        address.rsplit_once(':').map_or_else(|| address.clone(), |(ip, _)| ip.to_owned())
    })
}

/// `AMB2104x3,AMB2301x1`.
pub(crate) fn codes(edge: &Value) -> String {
    let codes = edge["codes"].as_object().into_iter().flatten();
    codes.map(|(code, count)| format!("{code}x{count}")).collect::<Vec<_>>().join(",")
}

fn joined(list: &Value) -> String {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_columns_are_those_of_the_reference() {
        let edge = json!({
            "id": "shop/web>shop/db:5432", "port": 5432, "paths": ["hbone", "local"], "secured": true,
            "source": {"namespace": "shop", "workload": "web", "identity": "spiffe://m/ns/shop/sa/web"},
            "destination": {"namespace": "shop", "service": "db.shop.svc.cluster.local"},
            "connections": 7, "open": 1, "denied": 3, "codes": {"AMB2104": 3}, "last_seen": "2026-01-02T03:04:05Z",
        });
        let text = table(std::slice::from_ref(&edge), true);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            lines[0][..8],
            ["SRC", "DST", "SRC_NS", "DST_NS", "CLIENT_ID", "SERVER_ID", "SECURED", "WHY_NOT"]
        );
        assert_eq!(lines[1][..4], ["web", "db.shop.svc.cluster.local", "shop", "shop"]);
        assert_eq!(
            lines[1][6..],
            [
                "yes",
                "-",
                "5432",
                "hbone,local",
                "7",
                "1",
                "3",
                "AMB2104x3",
                "2026-01-02T03:04:05Z",
                "shop/web>shop/db:5432"
            ]
        );
    }
}
