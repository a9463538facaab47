//! What the control plane itself knows, as items.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use ambit_control::Name;
use ambit_runtime::clock;
use ambit_xds::node::WaypointKey;
use serde_json::{Value, json};

use super::api::list;
use super::leaves::{self, LEAVES_MAX, Wanted};
use super::{Answers, Parts};
use crate::push::Rejected;
use crate::report;

/// A root that ends sooner than this is worth a warning.
const ROOT_SOON_SECONDS: u64 = 60 * 24 * 3600;

/// Workloads, as nodes get them.
pub(super) fn workloads(parts: &Parts) -> Value {
    let index = parts.world.index();
    list("WorkloadList", index.workloads().values().map(|one| report::workload(one)).collect())
}

/// Nodes and waypoints: how far they are, and whether they tell what they see.
pub(super) fn nodes(parts: &Parts) -> Value {
    let revision = parts.sources.standing().revision;
    let attached = parts.gathered.attached();
    let index = parts.world.index();
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for workload in index.workloads().values() {
        *counts.entry(&*workload.node).or_default() += 1;
    }
    let is_there = |gateway: &WaypointKey| {
        index.waypoints().contains_key(&Name::new(gateway.namespace.clone(), gateway.name.clone()))
    };
    let row = |kind: &str, name: &str, connected: bool, acked: u64, rejected: &[Rejected]| {
        let refused =
            rejected.first().map(|one| format!("refused {} {}: {}", one.kind, one.name, one.reason));
        let behind = (acked < revision).then(|| format!("has {acked} of {revision}"));
        json!({
            "name": name, "kind": kind, "connected": connected,
            "synced": connected && acked >= revision && rejected.is_empty(),
            "attached": attached.contains_key(name), "version": attached.get(name),
            "workloads": counts.get(name), "acked_revision": acked, "detail": refused.or(behind),
        })
    };
    let nodes = parts.publisher.sync(index.nodes().map(|node| &*node.name));
    let nodes = nodes.iter().map(|n| row("node", &n.node, n.connected, n.acked_revision, &n.rejected));
    let waypoints = parts.publisher.sync_waypoints(is_there);
    let waypoints = waypoints.iter().map(|w| {
        let namespace = w.gateway.split('/').next().unwrap_or_default();
        let name = format!("{namespace}/{}", w.pod);
        row("waypoint", &name, w.connected, w.acked_revision, &w.rejected)
    });
    list("NodeList", nodes.chain(waypoints).collect())
}

/// The roots and behind them the certificates of workloads, and how far a rotation is; without roots where something is
/// picked.
pub(super) fn certificates(parts: &Parts, wanted: &Wanted, answers: Answers) -> Value {
    let status = parts.keeper.status();
    let is_picked = wanted.identity.is_some() || wanted.of.is_some();
    let roots = status["roots"].as_array().into_iter().flatten().filter(|_| !is_picked);
    let root = |root: &Value| {
        json!({
            "name": root["subject"], "kind": "root", "state": root["role"],
            "serial": root["fingerprint"], "not_after": root["not_after"].as_u64().map(rfc3339),
        })
    };
    let silent = leaves::absent(&unattended(parts, wanted));
    let told = {
        let index = parts.world.index();
        let workloads = index.workloads().values().map(|one| &**one);
        leaves::leaves(workloads, answers, wanted, (clock::unix_seconds(), LEAVES_MAX))
    };
    let mut answer = list("CertificateList", roots.map(root).chain(told.items).collect());
    for key in ["trust_domain", "phase", "problem", "steps"] {
        answer[key] = status[key].clone();
    }
    answer["left_out"] = json!(told.left_out);
    answer["unexpected"] = json!(told.misfits);
    answer["incomplete"] = silent.into_iter().chain(told.incomplete).collect();
    answer
}

/// Nodes that are wanted and tell nothing here.
fn unattended(parts: &Parts, wanted: &Wanted) -> Vec<String> {
    let attached = parts.gathered.attached();
    let index = parts.world.index();
    let nodes = index.nodes().map(|node| &*node.name);
    let is_meant = |name: &str| wanted.of.as_ref().is_none_or(|of| of == name);
    nodes.filter(|name| is_meant(name) && !attached.contains_key(*name)).map(str::to_owned).collect()
}

/// A time as people read it, from seconds since 1970.
pub(super) fn rfc3339(seconds: u64) -> String {
    // Times of certificates lie far below the end of what can be written.
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}

/// One item a test, from the reports of nodes.
pub(super) fn self_tests(reports: &BTreeMap<String, Value>) -> Vec<Value> {
    let row = |node: &str, report: &Value, one: &Value| {
        let passed = match one["result"].as_str() {
            Some("passed") => Some(true),
            Some("failed" | "breached") => Some(false),
            Some(_) | None => None,
        };
        json!({
            "node": node, "test": one["test"], "passed": passed, "result": one["result"],
            "at": report["time"], "code": one["code"], "detail": one["detail"],
        })
    };
    let tests = |report: &Value| report["tests"].as_array().cloned().unwrap_or_default();
    let each = reports.iter().flat_map(|(node, report)| {
        tests(report).iter().map(|one| row(node, report, one)).collect::<Vec<_>>()
    });
    each.collect()
}

/// One thing that was looked at.
struct Check {
    category: &'static str,
    description: String,
    /// Severity, cause and what to do; none if all is well.
    amiss: Option<(&'static str, String, &'static str)>,
}

/// What is right and what is not, by category.
pub(super) fn checks(parts: &Parts) -> Value {
    let checks = configuration(parts).into_iter().chain(of_nodes(parts)).chain(of_authority(parts));
    let item = |check: Check| match check.amiss {
        None => json!({ "category": check.category, "description": check.description, "result": "success" }),
        Some((result, error, hint)) => json!({
            "category": check.category, "description": check.description,
            "result": result, "error": error, "hint": hint,
        }),
    };
    list("CheckList", checks.map(item).collect())
}

fn configuration(parts: &Parts) -> Vec<Check> {
    let standing = parts.sources.standing();
    let rows = [
        (
            "every object can be read",
            "error",
            standing.problems,
            "mend the object; its last good version stays in force",
        ),
        (
            "the source of objects is followed",
            "error",
            standing.stale,
            "the last state stays in force; see the log of istiod-lite",
        ),
        ("every object is in force as written", "warning", standing.faults, "ambit lint"),
    ];
    let check =
        |(description, severity, faults, hint): (&str, &'static str, Vec<String>, &'static str)| Check {
            category: "Configuration",
            description: description.to_owned(),
            amiss: (!faults.is_empty()).then(|| (severity, faults.join("\n"), hint)),
        };
    rows.into_iter().map(check).collect()
}

fn of_nodes(parts: &Parts) -> Vec<Check> {
    let nodes = nodes(parts);
    let all = nodes["items"].as_array().into_iter().flatten();
    let check = |node: &Value| {
        let name = node["name"].as_str().unwrap_or_default();
        let is = |key: &str| node[key].as_bool().unwrap_or(false);
        let detail = || node["detail"].as_str().unwrap_or("configuration is on its way").to_owned();
        let amiss = match (is("connected"), is("synced"), is("attached")) {
            (false, _, _) => Some((
                "error",
                "AMB6001: it has no connection to the control plane".to_owned(),
                "ambit status",
            )),
            (true, false, _) => Some(("warning", detail(), "ambit status")),
            (true, true, false) => {
                Some(("warning", "it does not tell what it sees".to_owned(), "ambit flows asks it directly"))
            }
            (true, true, true) => None,
        };
        Check { category: "Proxies", description: format!("{name} is up to date"), amiss }
    };
    all.map(check).collect()
}

fn of_authority(parts: &Parts) -> Vec<Check> {
    let status = parts.keeper.status();
    let now = clock::unix_seconds();
    let problem = status["problem"].as_str().map(|text| ("error", text.to_owned(), "ambit ca status"));
    let sound =
        Check { category: "Certificates", description: "the authority is sound".to_owned(), amiss: problem };
    let roots = status["roots"].as_array().into_iter().flatten();
    let root = |root: &Value| {
        let ends = root["not_after"].as_u64().unwrap_or(0);
        let is_soon = ends < now.saturating_add(ROOT_SOON_SECONDS);
        Check {
            category: "Certificates",
            description: format!(
                "the root {} is valid for long",
                root["fingerprint"].as_str().unwrap_or_default()
            ),
            amiss: is_soon.then(|| ("warning", format!("it ends at {}", rfc3339(ends)), "ambit ca rotate")),
        }
    };
    std::iter::once(sound).chain(roots.map(root)).collect()
}
