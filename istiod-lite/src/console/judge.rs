//! Questions about decisions: answered by the engine that all programs share, on what is configured now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ambit_control::input::Labels;
use ambit_control::{Event, Index};
use ambit_explain::suggest::{InForce, Known, Member, Suggestion};
use ambit_explain::{Compiled, Question, Source};
use ambit_policy::model::{Policy, Scope};
use ambit_runtime::admin::{Call, Reply};
use ambit_runtime::clock;
use ambit_types::{Str, Workload};
use http::StatusCode;
use serde_json::json;
use tokio::sync::Semaphore;
use tracing::warn;

use super::api::{bad, list};
use super::{Parts, live};

#[cfg(test)]
mod tests;

/// Questions that are answered at once; most compile the mesh anew, each on a thread of its own.
const ANSWERED_MAX: usize = 2;
/// Questions that wait for their turn; each holds what was posted.
const WAITING_MAX: usize = 16;
/// How far back flows are looked at.
const SEEN: Duration = Duration::from_secs(24 * 3600);
/// Name of what was posted, in problems.
const POSTED: &str = "posted.yaml";

static ROOM: LazyLock<Room> = LazyLock::new(|| Room::new(ANSWERED_MAX, WAITING_MAX));

/// Where questions are answered, so many at once, whether or not those who asked are still there.
#[derive(Debug)]
struct Room {
    turns: Arc<Semaphore>,
    /// For those who are answered and those who wait.
    seats: Arc<Semaphore>,
}

impl Room {
    fn new(answered_max: usize, waiting_max: usize) -> Self {
        let seats = Arc::new(Semaphore::new(answered_max + waiting_max));
        Self { turns: Arc::new(Semaphore::new(answered_max)), seats }
    }

    /// Answers on a thread where it keeps nobody waiting. Dropped before its turn, nothing is done; dropped later, the
    /// work goes on to its end and keeps its turn until then.
    async fn answer(&self, answer: impl FnOnce() -> Reply + Send + 'static) -> Reply {
        let Ok(seat) = self.seats.clone().try_acquire_owned() else {
            return live::refused("too many questions wait for an answer; ask again");
        };
        // The semaphore is never closed; a turn that cannot be had is no reason not to answer.
        let turn = self.turns.clone().acquire_owned().await.ok();
        let work = move || {
            let reply = answer();
            drop((turn, seat));
            reply
        };
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|cause| {
            warn!(%cause, "answering a question failed");
            let words = "answering failed; see the log of istiod-lite\n";
            Reply::text(StatusCode::INTERNAL_SERVER_ERROR, words)
        })
    }
}

/// Answers in the room that all share.
pub(super) async fn aside(answer: impl FnOnce() -> Reply + Send + 'static) -> Reply {
    ROOM.answer(answer).await
}

/// What happens if A calls B.
pub(super) async fn explain(parts: Parts, call: Call) -> Reply {
    let question: Question = match serde_json::from_slice(&call.body) {
        Ok(question) => question,
        Err(cause) => return bad(cause),
    };
    if let Err(cause) = question.check() {
        return bad(cause);
    }
    aside(move || {
        let index = parts.world.index().clone();
        let compiled = Compiled::of(&index, node_of(&index, &question.source), now());
        let explanation = ambit_explain::explain(&compiled.view(), &question);
        Reply::json(&list("Explanation", vec![json!(explanation)]))
    })
    .await
}

/// Wall time since 1970.
fn now() -> Duration {
    Duration::from_secs(clock::unix_seconds())
}

/// The node of whoever calls, since pods of one node are joined without a tunnel; empty if nobody knows.
fn node_of<'a>(index: &'a Index, source: &Source) -> &'a str {
    let is_it = |workload: &Workload| match source {
        Source::Uid(uid) => workload.uid == *uid,
        Source::Named { namespace, name } => workload.namespace == *namespace && workload.name == *name,
        Source::Address(address) => workload.addresses.contains(address),
    };
    index.workloads().values().find(|workload| is_it(workload)).map_or("", |workload| &*workload.node)
}

/// What posted manifests would change for what was seen in the last day; or `problems`, if they cannot be read.
pub(super) async fn diff(parts: Parts, call: Call) -> Reply {
    aside(move || {
        let text = match std::str::from_utf8(&call.body) {
            Ok(text) => text,
            Err(cause) => return bad(cause),
        };
        let events = match events(text) {
            Ok(events) => events,
            // An editor asks while somebody types: what cannot be read is an answer, not a failure.
            Err(problems) => {
                let mut answer = list("PolicyDiff", Vec::new());
                answer["problems"] = json!(problems);
                return Reply::json(&answer);
            }
        };
        let mut index = parts.world.index().clone();
        let now = now();
        let before = Compiled::of(&index, "", now);
        drop(index.apply(events));
        let after = Compiled::of(&index, "", now);
        let seen = parts.gathered.seen(SEEN);
        let diff = ambit_explain::diff::diff(&before.view(), &after.view(), &seen);
        let changes = diff.changes.iter().map(|change| json!(change)).collect();
        let mut answer = list("PolicyDiff", changes);
        answer["problems"] = json!([]);
        answer["compared"] = json!(diff.compared);
        answer["unclear"] = json!(diff.unclear);
        answer["unclear_flows"] = json!(diff.unclear_flows);
        Reply::json(&answer)
    })
    .await
}

/// Manifests as the index takes them, or every problem.
fn events(text: &str) -> Result<Vec<Event>, Vec<String>> {
    let parsed = ambit_manifest::parse(POSTED, text);
    let mut problems: Vec<String> = parsed.problems.iter().map(ToString::to_string).collect();
    let mut events = Vec::new();
    for object in &parsed.objects {
        match ambit_ingest::put(object) {
            Ok(event) => events.extend(event),
            Err(more) => problems.extend(more.iter().map(ToString::to_string)),
        }
    }
    if problems.is_empty() { Ok(events) } else { Err(problems) }
}

/// The smallest rules that let in what was seen, as manifests. `namespace` is asked for; `denied=1` also lets in what
/// was refused.
pub(super) async fn suggest(parts: Parts, call: Call) -> Reply {
    let Some(namespace) = call.query.get("namespace").filter(|name| !name.is_empty()).cloned() else {
        return bad("say which: ?namespace=NAME");
    };
    let denied_too = call.query.get("denied").is_some_and(|value| value == "1");
    aside(move || {
        let index = parts.world.index().clone();
        let members = members(&index, &namespace);
        let flows = parts.gathered.seen(SEEN);
        let known = Known::of(index.workloads().values());
        let is_wanted = |flow: &ambit_explain::Flow| match flow.is_let_in() {
            true => flow.is_let_in_by_rules(),
            false => denied_too,
        };
        let gathered = ambit_explain::suggest::seen(&namespace, &flows, &members, &known, is_wanted);
        let in_force = in_force(&index, &members);
        let mut suggestion = ambit_explain::suggest::suggest(&namespace, &members, &gathered.seen, &in_force);
        suggestion.notes.extend(gathered.notes);
        Reply::text(StatusCode::OK, manifests(&suggestion))
    })
    .await
}

/// Workloads of a namespace with their pods' labels.
fn members(index: &Index, namespace: &str) -> Vec<Member> {
    let own = || index.workloads().values().filter(|workload| *workload.namespace == *namespace);
    let nodes: BTreeSet<&str> = own().map(|workload| &*workload.node).collect();
    let pods = nodes.into_iter().flat_map(|node| index.pods_on(node));
    let pods = pods.filter(|pod| *pod.name.namespace == *namespace);
    let labels: BTreeMap<&Str, &Labels> = pods.map(|pod| (&pod.name.name, &pod.labels)).collect();
    let member = |workload: &Arc<Workload>| {
        Some(Member {
            uid: workload.uid.clone(),
            name: workload.name.clone(),
            controller: workload.workload_name.clone(),
            labels: labels.get(&workload.name).map(|labels| labels.to_map()).unwrap_or_default(),
            address: *workload.addresses.first()?,
        })
    };
    own().filter_map(member).collect()
}

/// Policies in force, each with the members it covers.
fn in_force(index: &Index, members: &[Member]) -> Vec<InForce> {
    let covers = |policy: &Policy, member: &Member| match policy.scope {
        Scope::Global => true,
        Scope::Namespace => index
            .workloads()
            .get(&member.uid)
            .is_some_and(|workload| workload.namespace == policy.key.namespace),
        Scope::WorkloadSelector => {
            index.workloads().get(&member.uid).is_some_and(|workload| workload.policies.contains(&policy.key))
        }
    };
    let one = |policy: &Arc<Policy>| InForce {
        policy: policy.clone(),
        covers: members.iter().filter(|m| covers(policy, m)).map(|m| m.uid.clone()).collect(),
    };
    index.policies().values().map(one).filter(|one| !one.covers.is_empty()).collect()
}

/// The suggestion as YAML, with what a person should know above it.
fn manifests(suggestion: &Suggestion) -> String {
    let coverage = suggestion.coverage;
    let mut text = format!(
        "# Lets in {} of {} pairs seen in the last day ({} of {} connections), and nothing else.\n",
        coverage.pairs_covered, coverage.pairs, coverage.connections_covered, coverage.connections
    );
    let unseen = suggestion
        .unseen
        .iter()
        .map(|one| format!("declared and not seen: {} in {}", one.principal, one.policy));
    let superseded = suggestion.superseded.iter().map(|name| format!("remove with it: {name}"));
    for line in suggestion.notes.iter().cloned().chain(unseen).chain(superseded) {
        // What is told of others' names must not end the comment.
        text.push_str(&format!("# {}\n", line.replace(['\n', '\r'], " ")));
    }
    let each =
        suggestion.policies.iter().map(|one| ambit_manifest::to_yaml(&one.manifest(&suggestion.namespace)));
    text + &each.collect::<Vec<_>>().join("---\n")
}
