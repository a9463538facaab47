//! Carries the mirror's writes out: in order for one object, side by side for several, again while the server is away.

use std::sync::Arc;
use std::time::Duration;

use ambit_manifest::{Kind, ObjectKey};
use ambit_runtime::tasks;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::api::{self, Api, Patch, Refusal};
use super::mirror::{Job, Mirror, Outcome, What};

/// Objects that are written at the same time.
const WRITES_MAX: usize = 16;
/// First pause before a write is tried again.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Carries out what is written, until dropped.
pub(super) async fn run(mirror: Arc<Mirror>, api: Api) {
    let mut running = JoinSet::new();
    loop {
        while running.len() < WRITES_MAX {
            let Some(job) = mirror.next_job() else { break };
            let work = carry_out(Arc::clone(&mirror), api.clone(), job);
            running.spawn(tasks::guarded("write to the API server", work));
        }
        tokio::select! {
            () = mirror.woken(), if running.len() < WRITES_MAX => {}
            Some(_) = running.join_next(), if !running.is_empty() => {}
        }
    }
}

/// Sees to one object until nothing is left to be written to it.
async fn carry_out(mirror: Arc<Mirror>, api: Api, job: Job) {
    let (mut next, mut pause) = (Some(job), PAUSE_FIRST);
    while let Some(job) = next {
        let sent = match &job.what {
            What::Patch(patch) => send(&api, &job.key, &job.uid, patch).await,
            What::Remove => remove(&api, &job.key, &job.uid).await,
        };
        let outcome = match sent {
            Ok(outcome) => outcome,
            Err(Refusal::Away(why)) => {
                tracing::debug!(object = %job.key, why, "the API server is away; writing again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
                next = mirror.renewed(&job);
                continue;
            }
            Err(Refusal::Absent(_)) => Outcome::Dropped,
            Err(refusal) => {
                tracing::warn!(object = %job.key, why = refusal.message(), "the API server refused a write");
                Outcome::Dropped
            }
        };
        pause = PAUSE_FIRST;
        next = mirror.finish(&job, outcome);
    }
}

async fn remove(api: &Api, key: &ObjectKey, uid: &str) -> Result<Outcome, Refusal> {
    match api.delete(&api::path_of(key), &api::deletion(uid, true)).await {
        // Somebody was faster.
        Ok(_) | Err(Refusal::Absent(_) | Refusal::Conflict(_)) => Ok(Outcome::Done),
        Err(refusal) => Err(refusal),
    }
}

/// Sends each part of a patch to where it belongs; the last answer that shows the object counts.
async fn send(api: &Api, key: &ObjectKey, uid: &str, patch: &Value) -> Result<Outcome, Refusal> {
    let path = api::path_of(key);
    let mut outcome = Outcome::Done;
    if let Some(node) = node_of(key.kind, patch) {
        bind(api, key, uid, node).await?;
    }
    let main = main_part(key.kind, patch);
    if !main.is_null() {
        outcome = Outcome::Now(api.patch(&path, Patch::Merge, &with_uid(main, uid)).await?);
    }
    if let Some(status) = patch.get("status") {
        // Conditions of a kind of our own cannot be merged by the server.
        let how = if matches!(key.kind, Kind::Pod | Kind::Node) { Patch::Strategic } else { Patch::Merge };
        let body = with_uid(json!({"status": status}), uid);
        outcome = Outcome::Now(api.patch(&format!("{path}/status"), how, &body).await?);
    }
    if patch.pointer("/metadata/deletionTimestamp").is_some_and(|at| !at.is_null()) {
        let answer = api.delete(&path, &api::deletion(uid, false)).await?;
        if answer.get("kind").and_then(Value::as_str) == Some(key.kind.as_str()) {
            outcome = Outcome::Now(answer);
        }
    }
    Ok(outcome)
}

/// The node that a pod is bound to by a patch.
fn node_of(kind: Kind, patch: &Value) -> Option<&str> {
    patch.pointer("/spec/nodeName").and_then(Value::as_str).filter(|_| kind == Kind::Pod)
}

/// What of a patch is said of the object itself.
fn main_part(kind: Kind, patch: &Value) -> Value {
    let mut main = patch.clone();
    if let Some(main) = main.as_object_mut() {
        main.remove("status");
        if kind == Kind::Pod {
            // A pod's specification is fixed; its node is a binding.
            main.remove("spec");
        }
        if let Some(metadata) = main.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("deletionTimestamp");
        }
        main.retain(|_, part| part.as_object().is_none_or(|part| !part.is_empty()));
        if !main.is_empty() {
            return json!(main);
        }
    }
    Value::Null
}

/// The patch for no object but that one.
fn with_uid(mut patch: Value, uid: &str) -> Value {
    patch["metadata"]["uid"] = json!(uid);
    patch
}

async fn bind(api: &Api, key: &ObjectKey, uid: &str, node: &str) -> Result<(), Refusal> {
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": {"namespace": key.namespace, "name": key.name, "uid": uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    let path = api::path_of(key);
    match api.post(&format!("{path}/binding"), &binding).await {
        Err(Refusal::Conflict(why)) => {
            // It may be bound by an earlier try whose answer was lost.
            let pod = api.get(&path).await?;
            let bound = pod.pointer("/spec/nodeName").and_then(Value::as_str) == Some(node);
            if bound { Ok(()) } else { Err(Refusal::Conflict(why)) }
        }
        other => other.map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_is_taken_apart() {
        let rows = [
            (Kind::Pod, json!({"spec": {"nodeName": "one"}, "status": {"phase": "Pending"}}), Value::Null),
            (Kind::Pod, json!({"metadata": {"deletionTimestamp": "now"}}), Value::Null),
            (
                Kind::Pod,
                json!({"metadata": {"deletionTimestamp": "now", "labels": {"a": null}}, "status": {}}),
                json!({"metadata": {"labels": {"a": null}}}),
            ),
            (Kind::EndpointSlice, json!({"endpoints": []}), json!({"endpoints": []})),
        ];
        for (kind, patch, want) in rows {
            assert_eq!(main_part(kind, &patch), want, "row {patch}");
        }
        assert_eq!(node_of(Kind::Pod, &json!({"spec": {"nodeName": "one"}})), Some("one"));
        assert_eq!(node_of(Kind::Gateway, &json!({"spec": {"nodeName": "one"}})), None);
    }
}
