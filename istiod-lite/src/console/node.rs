//! One node or waypoint: whom it serves, what it uses, its newest connections and its certificates.
//!
//! Most of it is the proxy's own word, asked for at that moment; it is cut to bounds, and what is no answer is named.

use std::collections::BTreeMap;

use ambit_control::Index;
use ambit_runtime::admin::{Call, Reply};
use ambit_runtime::clock;
use ambit_types::Workload;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::api::{bad, list, named};
use super::leaves::{self, Wanted};
use super::{Answers, Parts, facts, judge};

#[cfg(test)]
mod tests;

/// Connections, identities and certificates of one answer.
const CONNECTIONS_MAX: usize = 200;
const IDENTITIES_MAX: usize = 1000;
/// Bytes of one connection as it is told; longer ones are left out.
const CONNECTION_BYTES_MAX: usize = 8 << 10;
/// Numbers that are passed on of what a proxy uses.
const USED: [&str; 9] = [
    "resident_bytes",
    "cpu_seconds",
    "descriptors_open",
    "descriptors_max",
    "connections_open",
    "pod_connections_max",
    "flow_records",
    "flow_records_max",
    "flow_records_lost",
];

/// What a proxy answered to each question.
#[derive(Debug, Default)]
struct Told {
    connections: Answers,
    budget: Answers,
    certificates: Answers,
}

/// The node or waypoint that `?name=` says.
pub(super) async fn node(parts: Parts, call: Call) -> Reply {
    let Some(name) = named(&call.query, "name") else {
        return bad("say which: ?name=NODE, or NAMESPACE/POD of a waypoint");
    };
    let rows = facts::nodes(&parts);
    let row = rows["items"].as_array().into_iter().flatten().find(|row| row["name"] == *name).cloned();
    let Some(row) = row else {
        return Reply::text(StatusCode::NOT_FOUND, "no node or waypoint of this name is known now\n");
    };
    let turn = match parts.live.ask() {
        Ok(turn) => turn,
        Err(refused) => return refused,
    };
    let most = u32::try_from(CONNECTIONS_MAX).unwrap_or(u32::MAX);
    let (connections, budget, certificates) = tokio::join!(
        parts.gathered.connections(name.clone(), most),
        parts.gathered.budget(name.clone()),
        parts.gathered.certificates(None, Some(name.clone())),
    );
    let told = Told { connections, budget, certificates };
    // It looks at all workloads.
    judge::aside(move || {
        let item = item(&parts.world.index(), &name, row, told, clock::unix_seconds());
        drop(turn);
        Reply::json(&list("NodeDetailList", vec![item]))
    })
    .await
}

/// All that is known of it, beside its row among the nodes.
fn item(index: &Index, name: &str, row: Value, told: Told, now: u64) -> Value {
    let workloads = || index.workloads().values().map(|one| &**one);
    let (identities, more) = identities(workloads().filter(|one| is_at(one, name)));
    let wanted = Wanted { identity: None, of: Some(name.to_owned()) };
    let held = leaves::leaves(workloads(), told.certificates, &wanted, (now, leaves::LEAVES_MAX));
    let mut incomplete = held.incomplete;
    let connections = answered(told.connections, "connections", &mut incomplete).map(connections);
    let (connections, cut) = connections.unzip();
    let budget = answered(told.budget, "what it uses", &mut incomplete).map(|value| used(&value));
    if row["attached"] != true {
        incomplete.push("it does not attend, so that only what is configured is known".to_owned());
    }
    let mut item = row;
    item["identities"] = json!(identities);
    item["identities_left_out"] = json!(more);
    item["certificates"] = json!(held.items);
    item["certificates_left_out"] = json!(held.left_out);
    item["certificates_unexpected"] = json!(held.misfits);
    item["connections"] = json!(connections);
    item["connections_left_out"] = json!(cut);
    item["budget"] = json!(budget);
    item["incomplete"] = json!(incomplete);
    // When the numbers were read, so that two answers make a rate.
    item["at_seconds"] = json!(now);
    item
}

/// Whether a workload runs on the node, or is the waypoint's replica.
fn is_at(workload: &Workload, name: &str) -> bool {
    *workload.node == *name
        || name
            .split_once('/')
            .is_some_and(|(namespace, pod)| *workload.namespace == *namespace && *workload.name == *pod)
}

/// Identities with the number of their workloads, and how many there was no room for.
fn identities<'a>(workloads: impl Iterator<Item = &'a Workload>) -> (Vec<Value>, usize) {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for workload in workloads {
        *counts.entry(workload.identity().to_string()).or_default() += 1;
    }
    let more = counts.len().saturating_sub(IDENTITIES_MAX);
    let each = counts.into_iter().take(IDENTITIES_MAX);
    (each.map(|(identity, count)| json!({ "identity": identity, "workloads": count })).collect(), more)
}

/// The answer of the one who was asked; why there is none goes to `incomplete`. None of who was not asked.
fn answered(answers: Answers, about: &str, incomplete: &mut Vec<String>) -> Option<Value> {
    match answers.into_values().next()? {
        Ok(value) => Some(value),
        Err(why) => {
            incomplete.push(format!("{about}: {why}"));
            None
        }
    }
}

/// The first connections that are told, and how many of those that were told are left out.
fn connections(told: Value) -> (Vec<Value>, usize) {
    let Value::Array(all) = told else { return (Vec::new(), 0) };
    let count = all.len();
    let is_fit = |one: &Value| one.is_object() && one.to_string().len() <= CONNECTION_BYTES_MAX;
    let kept: Vec<Value> = all.into_iter().filter(is_fit).take(CONNECTIONS_MAX).collect();
    let left_out = count - kept.len();
    (kept, left_out)
}

/// The numbers among what a proxy tells of what it uses.
fn used(told: &Value) -> Map<String, Value> {
    let number = |key: &&str| Some(((*key).to_owned(), told.get(*key).filter(|v| v.is_number())?.clone()));
    USED.iter().filter_map(number).collect()
}
