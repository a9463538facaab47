//! The paths of the API: each reads, or answers a question.

use std::collections::BTreeMap;
use std::future::ready;
use std::time::Duration;

use ambit_explain::FlowEnd;
use ambit_runtime::admin::{Call, Reply, Routes};
use ambit_runtime::tasks;
use ambit_types::Identity;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::leaves::Wanted;
use super::live::{self, TAKEN_WITHIN};
use super::looks::{EDGES_BYTES_MAX, newest_within};
use super::places::Place;
use super::{Parts, events, facts, judge, node, policies};

#[cfg(test)]
mod tests;

/// Of the envelope around every answer.
const API_VERSION: &str = "cli.ambit.internal/v1";
/// What edges are told of when nothing is asked for, and the longest that pairs are kept.
const WINDOW: Duration = Duration::from_secs(300);
const WINDOW_MAX: Duration = Duration::from_secs(24 * 3600);
/// Pairs of one answer, and bytes of them.
const SEEN_MAX: usize = 20_000;
const SEEN_BYTES_MAX: usize = 16 << 20;
/// Records of each proxy, when nothing is asked for, and at most.
const LAST: usize = 1000;
const LAST_MAX: usize = 100_000;
/// What is said to who names no workload.
const WORKLOAD: &str = "say which workload: ?workload=NAMESPACE/NAME";
/// Lines that wait for a reader of a stream.
const WAITING: usize = 64;

/// The API.
pub fn routes(parts: &Parts) -> Routes {
    let routes = Routes::new()
        .get("/api/v1/workloads", reading(parts, facts::workloads))
        .get("/api/v1/nodes", reading(parts, facts::nodes))
        .get("/api/v1/checks", reading(parts, facts::checks))
        .get("/api/v1/incidents", reading(parts, |parts| list("IncidentList", parts.gathered.incidents())));
    let routes = with_flows(routes, parts);
    let (explained, differed, suggested) = (parts.clone(), parts.clone(), parts.clone());
    routes
        .post("/api/v1/explain", move |call| judge::explain(explained.clone(), call))
        .post("/api/v1/policy/diff", move |call| judge::diff(differed.clone(), call))
        .get("/api/v1/policy/suggest", move |call| judge::suggest(suggested.clone(), call))
}

fn with_flows(routes: Routes, parts: &Parts) -> Routes {
    let (held, covered, one) = (parts.clone(), parts.clone(), parts.clone());
    let (edged, flowed, tested, followed) = (parts.clone(), parts.clone(), parts.clone(), parts.clone());
    let paired = parts.clone();
    routes
        .get("/api/v1/node", move |call| node::node(one.clone(), call))
        .get("/api/v1/policies", move |call| ready(policies_of(&covered, &call)))
        .get("/api/v1/certificates", move |call| certificates(held.clone(), call))
        .get("/api/v1/edges", move |call| edges(edged.clone(), call))
        .get("/api/v1/seen", move |call| seen(paired.clone(), call))
        .get("/api/v1/flows", move |call| flows(flowed.clone(), call))
        .get("/api/v1/selftests", move |_| self_tests(tested.clone()))
        .get("/api/v1/events", move |call| ready(events::stream(&followed, &call)))
}

/// A route that tells facts.
fn reading(
    parts: &Parts,
    read: fn(&Parts) -> Value,
) -> impl Fn(Call) -> std::future::Ready<Reply> + Send + Sync + 'static + use<> {
    let parts = parts.clone();
    move |_| ready(Reply::json(&read(&parts)))
}

/// Items in their envelope.
pub(super) fn list(kind: &str, items: Vec<Value>) -> Value {
    json!({ "apiVersion": API_VERSION, "kind": kind, "items": items })
}

/// A refusal of what was asked.
pub(super) fn bad(words: impl std::fmt::Display) -> Reply {
    Reply::text(StatusCode::BAD_REQUEST, format!("{words}\n"))
}

/// The span of time that a query asks for by a name.
fn span(query: &BTreeMap<String, String>, name: &str, default: Duration) -> Result<Duration, String> {
    let Some(text) = query.get(name) else { return Ok(default) };
    let asked = humantime::parse_duration(text).map_err(|e| format!("{name}: {e}; write it like 5m"))?;
    match (Duration::from_secs(1)..=WINDOW_MAX).contains(&asked) {
        true => Ok(asked),
        false => Err(format!("{name}: from 1s to 24h")),
    }
}

async fn edges(parts: Parts, call: Call) -> Reply {
    let window = match span(&call.query, "window", WINDOW) {
        Ok(window) => window,
        Err(words) => return bad(words),
    };
    let is_by_side = call.query.get("by").is_some_and(|by| by == "side");
    // It looks at all pairs.
    judge::aside(move || {
        let mut edges = match is_by_side {
            true => parts.gathered.reported(window),
            false => parts.gathered.edges(window),
        };
        let left_out = newest_within(&mut edges, EDGES_BYTES_MAX);
        let mut answer = list("EdgeList", edges);
        answer["left_out"] = json!(left_out);
        Reply::json(&answer)
    })
    .await
}

/// Pairs as records, the newest first, with how much of what happened they tell.
async fn seen(parts: Parts, call: Call) -> Reply {
    let since = match span(&call.query, "since", WINDOW_MAX) {
        Ok(since) => since,
        Err(words) => return bad(words),
    };
    let namespace = named(&call.query, "namespace");
    let verdict = named(&call.query, "verdict");
    let workload = match named(&call.query, "workload").as_deref().map(workload_name) {
        None => None,
        Some(Some(name)) => Some(name),
        Some(None) => return bad(WORKLOAD),
    };
    judge::aside(move || {
        let coverage = parts.gathered.coverage();
        let is_in = |end: &FlowEnd| namespace.is_none() || end.namespace == namespace;
        let one = workload.map(|(namespace, name)| One::of(&parts, namespace, name));
        let is_one = |end: &FlowEnd| one.as_ref().is_none_or(|one| one.is_at(end));
        let mut flows = parts.gathered.seen(since);
        flows.retain(|flow| {
            (is_in(&flow.src) || is_in(&flow.dst))
                && (is_one(&flow.src) || is_one(&flow.dst))
                && verdict.as_ref().is_none_or(|verdict| *verdict == flow.verdict)
        });
        // Times of one form compare as texts.
        flows.sort_by(|one, other| other.time.cmp(&one.time));
        let items = first_within(flows.iter().map(|flow| json!(flow)), SEEN_MAX, SEEN_BYTES_MAX);
        let left_out = flows.len() - items.len();
        let mut answer = list("SeenList", items);
        answer["since"] = json!(coverage.since);
        answer["until"] = json!(coverage.until);
        answer["lost"] = json!(coverage.lost);
        answer["forgotten"] = json!(coverage.forgotten);
        answer["left_out"] = json!(left_out);
        Reply::json(&answer)
    })
    .await
}

/// `NAMESPACE/NAME`, in its parts.
fn workload_name(text: &str) -> Option<(String, String)> {
    let (namespace, name) = text.split_once('/')?;
    let is_name = !namespace.is_empty() && !name.is_empty() && !name.contains('/');
    is_name.then(|| (namespace.to_owned(), name.to_owned()))
}

/// A workload as pairs call it: by its controller, if it has one.
#[derive(Debug)]
struct One {
    namespace: String,
    names: [String; 2],
}

impl One {
    fn of(parts: &Parts, namespace: String, name: String) -> Self {
        let index = parts.world.index();
        let known = policies::find(&index, &namespace, &name);
        let controller = known.map(|one| one.workload_name.to_string()).filter(|name| !name.is_empty());
        Self { namespace, names: [controller.unwrap_or_else(|| name.clone()), name] }
    }

    /// Whether an end is of it. Pairs are of all pods of a controller.
    fn is_at(&self, end: &FlowEnd) -> bool {
        let name = end.controller.as_ref().or(end.workload.as_ref());
        end.namespace.as_ref() == Some(&self.namespace) && name.is_some_and(|name| self.names.contains(name))
    }
}

/// Policies that apply to the workload that is named.
fn policies_of(parts: &Parts, call: &Call) -> Reply {
    let Some((namespace, name)) = named(&call.query, "workload").as_deref().and_then(workload_name) else {
        return bad(WORKLOAD);
    };
    let index = parts.world.index();
    match policies::find(&index, &namespace, &name) {
        Some(workload) => Reply::json(&list("PolicyList", policies::of(&index, workload))),
        None => Reply::text(StatusCode::NOT_FOUND, "no workload of this name is known now\n"),
    }
}

/// The first items, as many as are permitted in number and in bytes of JSON.
fn first_within(items: impl Iterator<Item = Value>, items_max: usize, bytes_max: usize) -> Vec<Value> {
    let mut bytes = 0;
    let fits = |item: &Value| {
        bytes += item.to_string().len() + 1;
        bytes <= bytes_max
    };
    items.take(items_max).take_while(fits).collect()
}

async fn self_tests(parts: Parts) -> Reply {
    let _turn = match parts.live.ask() {
        Ok(turn) => turn,
        Err(refused) => return refused,
    };
    let reports = parts.gathered.self_tests().await;
    Reply::json(&list("SelfTestList", facts::self_tests(&reports)))
}

/// What a query names; nothing where it is empty.
pub(super) fn named(query: &BTreeMap<String, String>, name: &str) -> Option<String> {
    query.get(name).filter(|text| !text.is_empty()).cloned()
}

/// Roots, and what proxies hold: of one `identity`, of one `node`, or all.
async fn certificates(parts: Parts, call: Call) -> Reply {
    let wanted = Wanted { identity: named(&call.query, "identity"), of: named(&call.query, "node") };
    if let Some(Err(cause)) = wanted.identity.as_deref().map(Identity::parse) {
        return bad(format_args!("identity: {cause}"));
    }
    let turn = match parts.live.ask() {
        Ok(turn) => turn,
        Err(refused) => return refused,
    };
    let answers = parts.gathered.certificates(wanted.identity.clone(), wanted.of.clone()).await;
    // It looks at all workloads.
    judge::aside(move || {
        let reply = Reply::json(&facts::certificates(&parts, &wanted, answers));
        drop(turn);
        reply
    })
    .await
}

async fn flows(parts: Parts, call: Call) -> Reply {
    let mut filter = call.query;
    let last = match filter.remove("last").map(|text| text.parse::<usize>()) {
        None => LAST,
        Some(Ok(last)) if last <= LAST_MAX => last,
        Some(Ok(_) | Err(_)) => return bad(format!("last: a number up to {LAST_MAX}")),
    };
    let follow = filter.remove("follow").is_some_and(|value| value != "0" && value != "false");
    if follow {
        return match parts.live.followers.take(call.peer) {
            Ok(place) => followed(parts.gathered.follow(filter), place),
            Err(crowded) => live::refused(format_args!("too many readers: {crowded}")),
        };
    }
    let _turn = match parts.live.ask() {
        Ok(turn) => turn,
        Err(refused) => return refused,
    };
    let told = parts.gathered.flows(filter, last).await;
    let mut answer = list("FlowList", told.records);
    answer["oldest"] = json!(told.oldest);
    answer["lost"] = json!(told.lost);
    answer["left_out"] = json!(told.left_out);
    answer["incomplete"] = json!(told.incomplete);
    Reply::json(&answer)
}

/// Records as lines, until the reader goes away or takes none any more.
fn followed(mut records: mpsc::Receiver<Value>, place: Place) -> Reply {
    let (send, lines) = mpsc::channel(WAITING);
    drop(tasks::spawn("console-flows", async move {
        loop {
            let record = tokio::select! {
                record = records.recv() => record,
                () = send.closed() => break,
            };
            let Some(record) = record else { break };
            if !live::told(&send, Bytes::from(format!("{record}\n")), TAKEN_WITHIN).await {
                break;
            }
        }
        drop(place);
    }));
    Reply::stream(lines)
}
