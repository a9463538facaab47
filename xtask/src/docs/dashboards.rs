//! Boards for Grafana, printed from one list of panels, and rules for Prometheus in the form that its operator takes.
//!
//! What boards and rules ask is held against the metrics that the code has.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};

use super::{Page, Place, surface};
use crate::tidy::Finding;

mod parts;
mod programs;
#[cfg(test)]
mod tests;
mod traffic;

/// The rules, written by hand.
const RULES: &str = "deploy/alerts/ambit.rules.yaml";
/// The same for the Prometheus Operator.
const OPERATED: &str = "deploy/alerts/prometheusrule.yaml";
/// Where each alert is told of.
const RUNBOOK: &str = "docs/runbooks/alerts.md";
/// The folder of the panels, for findings.
const OWN: &str = "xtask/src/docs/dashboards";
/// How names begin that only our programs serve.
const OWN_METRICS: &[&str] = &["ambit_", "istio_", "workload_manager_", "process_", "tokio_"];
/// What is added to the name of a histogram.
const OF_HISTOGRAMS: &[&str] = &["_bucket", "_count", "_sum"];
/// Panels beside each other, and what each takes of the board's grid.
const COLUMNS: usize = 3;
const WIDTH: usize = 8;
const HEIGHT: usize = 8;

/// A board.
struct Board {
    path: &'static str,
    uid: &'static str,
    title: &'static str,
    about: &'static str,
    variables: Vec<Variable>,
    rows: Vec<(&'static str, Vec<Panel>)>,
}

/// What somebody may choose on a board; everything at first.
struct Variable {
    name: &'static str,
    label: &'static str,
    query: &'static str,
}

/// One picture.
struct Panel {
    title: &'static str,
    kind: Kind,
    /// As Grafana names it.
    unit: &'static str,
    /// What is asked, and how each answer is called.
    asks: Vec<(String, &'static str)>,
}

/// How a picture looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Graph,
    Stat,
    Table,
    Heat,
}

/// Every board.
fn boards() -> Vec<Board> {
    vec![
        programs::node(),
        traffic::mesh(),
        traffic::workload(),
        programs::waypoint(),
        programs::control_plane(),
        traffic::certificates(),
    ]
}

/// The boards and the operator's rules.
///
/// # Errors
/// When the rules cannot be read.
pub(super) fn pages(root: &Path) -> anyhow::Result<Vec<Page>> {
    let mut pages: Vec<Page> = boards()
        .iter()
        .map(|board| Page { path: board.path, place: Place::Whole, text: format!("{:#}\n", board.json()) })
        .collect();
    let rules = fs::read_to_string(root.join(RULES)).with_context(|| format!("reading {RULES}"))?;
    pages.push(Page { path: OPERATED, place: Place::Whole, text: operated(&rules) });
    Ok(pages)
}

/// Names that boards and rules ask for and no program serves, and alerts that nobody tells of.
pub(super) fn check(root: &Path) -> Vec<Finding> {
    let served = surface::names(root).unwrap_or_default();
    let mut findings = Vec::new();
    let mut held = |file: &str, text: &str, known: &BTreeSet<String>| {
        for name in asked(text).into_iter().filter(|name| !is_served(name, known)) {
            let what = format!("{name} is asked for, and no program serves it");
            findings.push(Finding::error(file, 1, what, "correct the name, or add the metric"));
        }
    };
    for board in boards() {
        board.queries().for_each(|query| held(OWN, &query, &served));
    }
    let rules = fs::read_to_string(root.join(RULES)).unwrap_or_default();
    held(RULES, &rules, &served);
    let runbook = fs::read_to_string(root.join(RUNBOOK)).unwrap_or_default();
    findings.extend(untold(&rules, &runbook));
    findings
}

/// Alerts without a section of the runbook, or with a link to another one.
fn untold(rules: &str, runbook: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in rules.lines().enumerate() {
        let Some(alert) = line.trim().strip_prefix("- alert: ") else { continue };
        let mut own = rules.lines().skip(index + 1).take_while(|line| !line.trim().starts_with("- alert: "));
        let link = format!("runbook_url: {RUNBOOK}#{}", alert.to_lowercase());
        if !runbook.lines().any(|line| line == format!("## {alert}")) {
            let what = format!("the alert {alert} has no section in {RUNBOOK}");
            findings.push(Finding::error(RULES, index + 1, what, "say what it tells and what to do"));
        }
        if !own.any(|line| line.trim() == link) {
            let what = format!("the alert {alert} does not lead to its section");
            findings.push(Finding::error(RULES, index + 1, what, format!("annotate it with `{link}`")));
        }
    }
    findings
}

/// Whether a program has it, as a family or as a part of a histogram.
fn is_served(name: &str, served: &BTreeSet<String>) -> bool {
    let mut of_histogram = OF_HISTOGRAMS.iter().filter_map(|part| name.strip_suffix(part));
    served.contains(name) || of_histogram.any(|family| served.contains(family))
}

/// Metrics of our programs that a text names; what a rule records has a colon in it and is none.
fn asked(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    words
        .filter(|word| !word.contains(':') && OWN_METRICS.iter().any(|begin| word.starts_with(begin)))
        .collect()
}

/// The rules as an object of the Prometheus Operator.
fn operated(rules: &str) -> String {
    let head = "# The rules of ambit.rules.yaml for the Prometheus Operator; generated by `cargo xtask docs`.\n\
                apiVersion: monitoring.coreos.com/v1\n\
                kind: PrometheusRule\n\
                metadata:\n\
                \x20 name: ambit\n\
                \x20 namespace: istio-system\n\
                \x20 labels:\n\
                \x20   app.kubernetes.io/name: ambit\n\
                \x20   app.kubernetes.io/part-of: ambit\n\
                \x20   app.kubernetes.io/component: monitoring\n\
                spec:\n";
    let groups = rules.lines().skip_while(|line| !line.starts_with("groups:"));
    groups.fold(head.to_owned(), |text, line| format!("{text}  {line}\n"))
}

impl Board {
    /// Everything that it asks.
    fn queries(&self) -> impl Iterator<Item = String> {
        let panels = self.rows.iter().flat_map(|(_, panels)| panels);
        let asks = panels.flat_map(|panel| panel.asks.iter().map(|(query, _)| query.clone()));
        asks.chain(self.variables.iter().map(|variable| variable.query.to_owned()))
    }

    fn json(&self) -> Value {
        let source = json!({
            "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus",
        });
        let variables: Vec<Value> =
            std::iter::once(source).chain(self.variables.iter().map(Variable::json)).collect();
        let others = json!({
            "type": "dashboards", "title": "Ambit", "tags": ["ambit"], "asDropdown": true,
            "includeVars": false, "keepTime": true,
        });
        json!({
            "uid": self.uid, "title": self.title, "description": self.about, "tags": ["ambit"],
            "schemaVersion": 38, "version": 1, "editable": true, "graphTooltip": 1, "refresh": "30s",
            "time": {"from": "now-1h", "to": "now"}, "timezone": "", "annotations": {"list": []},
            "links": [others], "templating": {"list": variables}, "panels": self.panels(),
        })
    }

    /// Rows of panels from top to bottom.
    fn panels(&self) -> Vec<Value> {
        let (mut panels, mut top) = (Vec::new(), 0);
        for (heading, own) in &self.rows {
            panels.push(json!({
                "id": panels.len() + 1, "type": "row", "title": heading, "collapsed": false, "panels": [],
                "gridPos": {"h": 1, "w": COLUMNS * WIDTH, "x": 0, "y": top},
            }));
            top += 1;
            for (n, panel) in own.iter().enumerate() {
                let place = (n % COLUMNS * WIDTH, top + n / COLUMNS * HEIGHT);
                panels.push(panel.json(panels.len() + 1, place));
            }
            top += own.len().div_ceil(COLUMNS) * HEIGHT;
        }
        panels
    }
}

impl Variable {
    fn json(&self) -> Value {
        json!({
            "name": self.name, "label": self.label, "type": "query", "datasource": source(),
            "definition": self.query, "query": {"query": self.query, "refId": "values"},
            "refresh": 2, "sort": 1, "includeAll": true, "multi": true, "allValue": ".*",
            "current": {"selected": true, "text": ["All"], "value": ["$__all"]},
        })
    }
}

impl Panel {
    fn json(&self, id: usize, (x, y): (usize, usize)) -> Value {
        let at_once = self.kind == Kind::Table;
        let targets = self.asks.iter().zip('A'..).map(|((query, legend), letter)| {
            json!({
                "datasource": source(), "editorMode": "code", "expr": query, "legendFormat": legend,
                "range": !at_once, "instant": at_once, "refId": letter, "format": self.kind.format(),
            })
        });
        json!({
            "id": id, "type": self.kind.name(), "title": self.title, "datasource": source(),
            "gridPos": {"h": HEIGHT, "w": WIDTH, "x": x, "y": y},
            "fieldConfig": {"defaults": {"unit": self.unit}, "overrides": []},
            "options": self.kind.options(), "targets": targets.collect::<Vec<_>>(),
        })
    }
}

impl Kind {
    /// As Grafana names it.
    fn name(self) -> &'static str {
        match self {
            Self::Graph => "timeseries",
            Self::Stat => "stat",
            Self::Table => "table",
            Self::Heat => "heatmap",
        }
    }

    fn format(self) -> &'static str {
        match self {
            Self::Graph | Self::Stat => "time_series",
            Self::Table => "table",
            Self::Heat => "heatmap",
        }
    }

    fn options(self) -> Value {
        match self {
            Self::Graph => json!({
                "legend": {
                    "calcs": ["lastNotNull"], "displayMode": "table", "placement": "bottom", "showLegend": true,
                },
                "tooltip": {"mode": "multi", "sort": "desc"},
            }),
            Self::Stat => json!({
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false}, "textMode": "auto",
            }),
            Self::Table => json!({"showHeader": true}),
            Self::Heat => json!({"calculate": false, "yAxis": {"unit": "s"}}),
        }
    }
}

/// The Prometheus that is chosen at the top of the board.
fn source() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}
