//! `ambit map`: the mesh as a drawing of lines, or the web console in a browser.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::IsTerminal as _;

use clap::Args as ClapArgs;
use serde_json::Value;

use super::edges::{Seen, codes, name};
use super::form::{Form, List};
use super::nodes::{or_dash, text};
use crate::out;

mod open;

/// Shows the map.
#[derive(Debug, Clone, ClapArgs)]
pub struct Args {
    #[command(flatten)]
    pub(super) seen: Seen,
    /// Make the web console reachable on this machine, and say where, until interrupted
    #[arg(long)]
    open: bool,
    /// Port of the console on this machine
    #[arg(long, default_value_t = 7070, requires = "open")]
    port: u16,
    /// table, json, yaml or jsonpath=TEMPLATE
    #[arg(short, long, default_value = "table")]
    output: Form,
}

/// Runs the command.
///
/// # Errors
/// When there is no such lab, the control plane does not answer, or the port is taken.
pub fn run(args: &Args) -> anyhow::Result<i32> {
    if args.open {
        return match args.seen.at.here() {
            Some(lab) => open::open(&lab, args.port),
            None => Err(open::in_cluster(args.seen.at.root_namespace(), args.port).into()),
        };
    }
    let items = args.seen.edges()?;
    let colour = std::io::stdout().is_terminal() && !no_colour();
    let refused: u64 = items.iter().filter_map(|edge| edge["denied"].as_u64()).sum();
    List { kind: "EdgeList", items }.print(
        &args.output,
        |edges, _| drawn(edges, colour),
        |edge| format!("edge/{}", text(edge, "id")),
    );
    if matches!(args.output, Form::Table | Form::Wide) {
        let next = if refused > 0 { "next: ambit why last" } else { "next: ambit map --open" };
        out::say(&format!("[=] secured  [ ] not secured  [x] refused; {next}"));
    }
    Ok(out::OK)
}

/// Whether somebody does not want colour (no-color.org).
fn no_colour() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Boxes of namespaces, in them who calls, and below each whom.
fn drawn(edges: &[Value], colour: bool) -> String {
    let mut namespaces: BTreeMap<String, BTreeMap<String, Vec<&Value>>> = BTreeMap::new();
    for edge in edges {
        let source = &edge["source"];
        let namespace = or_dash(text(source, "namespace"));
        let name = match name(source) {
            name if name.is_empty() => "outside the mesh".to_owned(),
            name => name,
        };
        namespaces.entry(namespace).or_default().entry(name).or_default().push(edge);
    }
    let mut text = String::new();
    for (namespace, sources) in &namespaces {
        let mut lines = Vec::new();
        for (source, edges) in sources {
            lines.push((source.clone(), false));
            lines.extend(edges.iter().map(|edge| line(namespace, edge)));
        }
        boxed(&mut text, namespace, &lines, colour);
    }
    text
}

/// One edge, and whether anything of it was refused.
fn line(namespace: &str, edge: &Value) -> (String, bool) {
    let destination = &edge["destination"];
    let there = text(destination, "namespace");
    let named = or_dash(name(destination));
    let named = if there.is_empty() || there == namespace { named } else { format!("{there}/{named}") };
    let number = |key: &str| edge[key].as_f64();
    let denied = edge["denied"].as_u64().unwrap_or(0);
    let mark = match (denied > 0, edge["secured"] == true) {
        (true, _) => "x",
        (false, true) => "=",
        (false, false) => " ",
    };
    let mut text =
        format!("  -[{mark}]-> {named}:{}  {:.1}/s", edge["port"], number("rate_per_s").unwrap_or(0.0));
    if let Some(requests) = number("requests_per_s") {
        // Writing to a string cannot fail.
        let _ = write!(text, "  {requests:.1} req/s");
    }
    if let (Some(p50), Some(p99)) = (number("latency_ms_p50"), number("latency_ms_p99")) {
        let _ = write!(text, "  p50 {p50:.1}ms p99 {p99:.1}ms");
    }
    if let Some(success) = number("success").filter(|success| *success < 1.0) {
        let _ = write!(text, "  {:.1}% ok", success * 100.0);
    }
    if denied > 0 {
        let _ = write!(text, "  refused {}", or_dash(codes(edge)));
    }
    if let Some(why) = edge["why_not"].as_str() {
        let _ = write!(text, "  ({why})");
    }
    (text, denied > 0)
}

fn boxed(text: &mut String, title: &str, lines: &[(String, bool)], colour: bool) {
    let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0);
    let width = width.max(title.chars().count() + 2);
    let rest = "-".repeat(width - title.chars().count() - 1);
    // Writing to a string cannot fail.
    let _ = writeln!(text, "+- {title} {rest}+");
    for (line, is_refused) in lines {
        let padded = format!("{line:<width$}");
        let shown = if colour && *is_refused { format!("\x1b[31m{padded}\x1b[0m") } else { padded };
        let _ = writeln!(text, "| {shown} |");
    }
    let _ = writeln!(text, "+{}+", "-".repeat(width + 2));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_box_holds_its_callers_with_rates_locks_and_refusals() {
        let edge = |to: &str, secured: bool, denied: u64| {
            json!({
                "source": {"namespace": "shop", "workload": "web"}, "port": 80, "secured": secured,
                "destination": {"namespace": "data", "workload": to}, "rate_per_s": 2.5, "denied": denied,
                "codes": if denied > 0 { json!({"AMB2104": denied}) } else { json!({}) },
                "why_not": if secured { Value::Null } else { json!("plaintext") },
            })
        };
        let text = drawn(&[edge("db", true, 0), edge("old", false, 0), edge("safe", true, 3)], false);
        let wanted = [
            "+- shop ------------------------------------------------+",
            "| web                                                   |",
            "|   -[=]-> data/db:80  2.5/s                            |",
            "|   -[ ]-> data/old:80  2.5/s  (plaintext)              |",
            "|   -[x]-> data/safe:80  2.5/s  refused AMB2104x3       |",
        ];
        let shown: Vec<String> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        for (shown, wanted) in shown.iter().zip(wanted).skip(1) {
            assert_eq!(*shown, wanted.split_whitespace().collect::<Vec<_>>().join(" "));
        }
        let widths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
        assert!(widths.windows(2).all(|pair| pair[0] == pair[1]), "{text}");
    }
}
