//! `ambit top`: who talks to whom most, counted as it happens; connections beside requests.
//!
//! On a terminal the table is drawn anew each second; elsewhere it is printed once, after a while.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args as ClapArgs;
use serde_json::{Value, json};

use super::flows::filters::Filters;
use super::flows::{end, followed};
use super::form::{FORMS, Form, List};
use super::interrupted;
use super::mesh::Mesh;
use super::nodes::{block_on, cell, or_dash, short_id, text};
use crate::out;

/// Rows that are told apart; what goes beyond is counted together.
const ROWS_MAX: usize = 10_000;
/// Rows that a terminal shows.
const ROWS_SHOWN: usize = 40;
const REDRAW: Duration = Duration::from_secs(1);
/// How long is counted where nobody watches.
const COUNTED: Duration = Duration::from_secs(10);

/// Counts what happens.
#[derive(Debug, Clone, ClapArgs)]
pub struct Args {
    #[command(flatten)]
    pub(super) at: Mesh,
    #[command(flatten)]
    filters: Filters,
    /// Do not tell sources apart
    #[arg(long)]
    hide_sources: bool,
    /// Tell routes apart instead of paths
    #[arg(long)]
    routes: bool,
    /// Count for so long, then print once [default: until interrupted on a terminal, else 10s]
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    #[arg(short, long, default_value = "table", help = FORMS)]
    output: Form,
}

/// Runs the command.
///
/// # Errors
/// When there is no such lab, or a filter is none.
pub fn run(args: &Args) -> anyhow::Result<i32> {
    let filter = args.filters.filter()?;
    let is_table = matches!(args.output, Form::Table | Form::Wide);
    let is_live = is_table && args.duration.is_none() && std::io::stdout().is_terminal();
    let is_wide = matches!(args.output, Form::Wide);
    let mut rows = Rows::default();
    interrupted::ends_the_command()?;
    block_on(async {
        let mut records = followed(&args.at, &filter, 0).await?;
        let ends = tokio::time::sleep(args.duration.unwrap_or(if is_live { Duration::MAX } else { COUNTED }));
        tokio::pin!(ends);
        let mut redraw = tokio::time::interval(REDRAW);
        loop {
            tokio::select! {
                record = records.recv() => match record {
                    Some(record) if filter.passes(&record) => rows.count(args, &record),
                    Some(_) => {}
                    None => return Ok(()),
                },
                _ = redraw.tick(), if is_live => {
                    out::raw(&format!("\x1b[H\x1b[2J{}", table(&rows.shown(ROWS_SHOWN), is_wide)));
                }
                () = &mut ends => return anyhow::Ok(()),
            }
        }
    })?;
    if !is_live {
        let items = rows.shown(usize::MAX);
        List { kind: "TopList", items }.print(&args.output, table, |item| {
            format!("pair/{}>{}", text(item, "source"), text(item, "destination"))
        });
    }
    Ok(out::OK)
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Name {
    source: String,
    destination: String,
    method: String,
    path: String,
}

#[derive(Debug, Default)]
struct Row {
    count: u64,
    best: u64,
    worst: u64,
    last: u64,
    good: u64,
    /// Id of the last refusal, else of the last record.
    example: String,
    is_refused: bool,
}

#[derive(Debug, Default)]
struct Rows(BTreeMap<Name, Row>);

impl Rows {
    fn count(&mut self, args: &Args, record: &Value) {
        if is_told_elsewhere(record) {
            return;
        }
        let Self(rows) = self;
        let mut name = name(args, record);
        if rows.len() >= ROWS_MAX && !rows.contains_key(&name) {
            name = Name { source: "(others)".to_owned(), ..Name::default() };
        }
        let took = record["duration_ms"].as_u64().unwrap_or(0);
        let row = rows.entry(name).or_default();
        row.best = if row.count == 0 { took } else { row.best.min(took) };
        row.worst = row.worst.max(took);
        row.last = took;
        row.count += 1;
        row.good += u64::from(is_good(record));
        let is_refused = record["verdict"] == "denied";
        if is_refused || !row.is_refused {
            (row.example, row.is_refused) = (text(record, "conn_id"), is_refused);
        }
    }

    /// Rows, the busiest first.
    fn shown(&self, most: usize) -> Vec<Value> {
        let Self(rows) = self;
        let mut rows: Vec<_> = rows.iter().collect();
        rows.sort_by_key(|(_, row)| std::cmp::Reverse(row.count));
        rows.into_iter().take(most).map(|(name, row)| row.shown(name)).collect()
    }
}

impl Row {
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    fn shown(&self, name: &Name) -> Value {
        json!({
            "source": name.source, "destination": name.destination, "method": name.method, "path": name.path,
            "count": self.count, "best_ms": self.best, "worst_ms": self.worst, "last_ms": self.last,
            "success": self.good as f64 / self.count as f64,
            "conn_id": Some(&self.example).filter(|id| !id.is_empty()),
        })
    }
}

fn name(args: &Args, record: &Value) -> Name {
    let http = &record["http"];
    let is_http = http.is_object();
    let path = match (is_http, args.routes) {
        (false, _) => text(record, "path"),
        (true, true) => or_dash(text(http, "route")),
        (true, false) => text(http, "path"),
    };
    Name {
        source: if args.hide_sources { String::new() } else { or_dash(end(&record["src"])) },
        destination: or_dash(end(&record["dst"])),
        method: if is_http { text(http, "method") } else { "TCP".to_owned() },
        path,
    }
}

/// Whether another record tells of the same: the other end's, or the waypoint's.
fn is_told_elsewhere(record: &Value) -> bool {
    if record["http"].is_object() {
        return false;
    }
    match record["direction"].as_str() {
        // A waypoint's request on behalf of somebody.
        Some("inbound") => record["client"].is_string(),
        // The other end tells of what reached it.
        Some("outbound") => {
            let reached = matches!(record["path"].as_str(), Some("hbone" | "local" | "waypoint"));
            reached && (record["verdict"] == "allowed" || record["code"] == "AMB4006")
        }
        Some(_) | None => false,
    }
}

fn is_good(record: &Value) -> bool {
    record["verdict"] == "allowed"
        && record["http"]["status"].as_u64().is_none_or(|code| (1..500).contains(&code))
}

pub(super) fn table(items: &[Value], wide: bool) -> String {
    let mut heading =
        vec!["SOURCE", "DESTINATION", "METHOD", "PATH", "COUNT", "BEST", "WORST", "LAST", "SUCCESS"];
    heading.extend(wide.then_some("ID"));
    let row = |item: &Value| {
        let ms = |key: &str| format!("{}ms", text(item, key));
        let success = item["success"].as_f64().unwrap_or(0.0) * 100.0;
        let mut row: Vec<String> =
            ["source", "destination", "method", "path", "count"].map(|key| cell(item, key)).to_vec();
        row.extend([ms("best_ms"), ms("worst_ms"), ms("last_ms"), format!("{success:.2}%")]);
        row.extend(wide.then(|| short_id(item)));
        row
    };
    out::table(&heading, &items.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn record(direction: &str, verdict: &str, ms: u64) -> Value {
        json!({
            "direction": direction, "verdict": verdict, "path": "hbone", "duration_ms": ms,
            "src": {"workload": "web", "namespace": "shop"}, "dst": {"workload": "db", "namespace": "shop"},
        })
    }

    #[test]
    fn both_ends_of_a_connection_count_once_and_rows_sum_up() {
        let Line { args } = Line::parse_from(["top"]);
        let mut rows = Rows::default();
        for (verdict, ms) in [("allowed", 5), ("allowed", 1), ("denied", 9)] {
            rows.count(&args, &record("inbound", verdict, ms));
            rows.count(&args, &record("outbound", "allowed", ms));
        }
        let shown = rows.shown(10);
        assert_eq!(shown.len(), 1);
        let row = &shown[0];
        assert_eq!(
            (&row["count"], &row["best_ms"], &row["worst_ms"], &row["last_ms"]),
            (&json!(3), &json!(1), &json!(9), &json!(9))
        );
        let cells = table(&shown, false);
        let cells: Vec<&str> = cells.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(cells, ["shop/web", "shop/db", "TCP", "hbone", "3", "1ms", "9ms", "9ms", "66.67%"]);
    }

    #[test]
    fn a_row_has_the_id_of_its_last_refusal_else_of_its_last_record() {
        let Line { args } = Line::parse_from(["top"]);
        let mut rows = Rows::default();
        assert_eq!(rows.shown(1).len(), 0);
        for (id, verdict, want) in [("a1", "allowed", "a1"), ("b2", "denied", "b2"), ("c3", "allowed", "b2")]
        {
            let mut one = record("inbound", verdict, 1);
            one["conn_id"] = json!(id);
            rows.count(&args, &one);
            assert_eq!(rows.shown(1)[0]["conn_id"], want);
        }
        let wide = table(&rows.shown(1), true);
        assert_eq!(wide.lines().nth(1).and_then(|line| line.split_whitespace().next_back()), Some("b2"));
    }

    #[test]
    fn requests_are_told_apart_by_path_or_by_route() {
        let mut request = record("inbound", "allowed", 1);
        request["http"] = json!({"method": "GET", "path": "/a", "route": "shop/main", "status": 503});
        let Line { args } = Line::parse_from(["top", "--routes", "--hide-sources"]);
        let found = name(&args, &request);
        assert_eq!((&*found.path, &*found.source, &*found.method), ("shop/main", "", "GET"));
        assert!(!is_good(&request));
    }
}
