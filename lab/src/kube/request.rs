//! What the command line asks of the objects, asked of the API server: apply, delete, label, annotate.

use std::sync::Arc;
use std::time::Duration;

use ambit_manifest::{Kind, ObjectKey};
use ambit_runtime::clock;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::api::{self, Api, Patch, Refusal};
use super::images;
use super::kubectl::{Kubectl, Verb};
use super::mirror::{Mirror, uid_of};
use crate::error::LabError;
use crate::manifests;
use crate::store::Snapshot;

/// How long something may be refused because what it needs is only just being made by the cluster's controllers.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause before it is asked again.
const AGAIN: Duration = Duration::from_millis(50);
/// How long a pod that is replaced may take to end, beyond its own grace.
const REPLACED: Duration = Duration::from_secs(60);

/// The API server with the mirror of what it holds.
#[derive(Debug, Clone)]
pub struct Server {
    /// The API server.
    pub api: Api,
    /// What it holds.
    pub mirror: Arc<Mirror>,
    /// The objects as they are shown.
    pub objects: watch::Receiver<Arc<Snapshot>>,
    /// What changes objects instead of requests to the API server, if the lab was told so.
    pub kubectl: Option<Arc<Kubectl>>,
}

impl Server {
    /// Writes one object; what is answered.
    async fn put(&self, path: &str, object: &Value) -> Result<Value, Refusal> {
        match &self.kubectl {
            Some(kubectl) => Ok(kubectl.apply(std::slice::from_ref(object))?.pop().unwrap_or_default()),
            None => self.api.patch(path, Patch::Apply, object).await,
        }
    }

    /// Deletes one object; what it is while it ends.
    async fn remove(&self, key: &ObjectKey, uid: &str, foreground: bool) -> Result<Value, Refusal> {
        let path = api::path_of(key);
        if let Some(kubectl) = &self.kubectl {
            kubectl.name(Verb::Delete { foreground }, key, &[])?;
            return self.api.get(&path).await;
        }
        let mut options = api::deletion(uid, false);
        if foreground {
            options["propagationPolicy"] = json!("Foreground");
        }
        self.api.delete(&path, &options).await
    }
}

/// Applies objects in the order in which they need each other.
///
/// # Errors
/// What the server refused; what came before it is applied.
pub async fn apply(server: Server, mut objects: Vec<Value>) -> Result<(), LabError> {
    objects.sort_by_key(|object| manifests::key_of(object).map(|key| key.kind));
    if let Some(kubectl) = server.kubectl.clone().filter(|_| objects.len() > 1)
        && apply_all(&server, &kubectl, &mut objects).await
    {
        return Ok(());
    }
    for object in objects {
        let key = manifests::key_of(&object)
            .ok_or_else(|| LabError::Usage("an object has no kind or no name".to_owned()))?;
        apply_one(&server, &key, object).await?;
    }
    Ok(())
}

/// Applies all of them in one call; says whether all were taken. What is refused for good is told of one by one.
async fn apply_all(server: &Server, kubectl: &Kubectl, objects: &mut [Value]) -> bool {
    for object in &mut *objects {
        name_namespace(object);
        images::complete(object);
    }
    let until = clock::monotonic() + PATIENCE;
    loop {
        match kubectl.apply(objects) {
            Ok(answers) => {
                answers.into_iter().for_each(|answer| server.mirror.take_answer(answer));
                return true;
            }
            Err(refusal) if may_pass(&refusal) && clock::monotonic() < until => {
                tokio::time::sleep(AGAIN).await;
            }
            Err(_) => return false,
        }
    }
}

/// Writes the namespace into an object that leaves it to who applies it.
fn name_namespace(object: &mut Value) {
    if let Some(namespace) = manifests::key_of(object).and_then(|key| key.namespace) {
        object["metadata"]["namespace"] = json!(namespace);
    }
}

async fn apply_one(server: &Server, key: &ObjectKey, mut object: Value) -> Result<(), LabError> {
    let version = object.get("apiVersion").and_then(Value::as_str).unwrap_or("v1").to_owned();
    let path = api::path(&version, key.kind.plural(), key.namespace.as_deref(), &key.name);
    name_namespace(&mut object);
    images::complete(&mut object);
    let until = clock::monotonic() + PATIENCE;
    loop {
        match server.put(&path, &object).await {
            Ok(answer) => {
                server.mirror.take_answer(answer);
                return Ok(());
            }
            Err(Refusal::Refused { code: 422, message }) if key.kind == Kind::Pod && is_fixed(&message) => {
                replace(server, key).await?;
            }
            Err(refusal) if may_pass(&refusal) && clock::monotonic() < until => {
                tokio::time::sleep(AGAIN).await;
            }
            Err(refusal) => return Err(LabError::Failed(format!("{key}: {}", refusal.message()))),
        }
    }
}

/// Whether a refusal says that a pod's specification cannot be changed.
fn is_fixed(message: &str) -> bool {
    message.contains("pod updates may not change fields") || message.contains("field is immutable")
}

/// Whether a refusal may only be about what controllers are making this moment.
fn may_pass(refusal: &Refusal) -> bool {
    match refusal {
        Refusal::Absent(_) | Refusal::Conflict(_) | Refusal::Away(_) => true,
        Refusal::Refused { code, message } => *code == 403 && message.contains("not found"),
    }
}

/// Ends a pod whose place another one is to take.
async fn replace(server: &Server, key: &ObjectKey) -> Result<(), LabError> {
    let Some(uid) = server.objects.borrow().find(key).map(uid_of) else { return Ok(()) };
    delete_one(server, key, &uid, false).await?;
    gone(server, key, &uid, REPLACED).await
}

/// Deletes objects, and waits until they are gone if there is time for that.
///
/// # Errors
/// If one does not exist although it has to, or the server refuses, or one is still there at the end.
pub async fn delete(
    server: Server,
    keys: Vec<ObjectKey>,
    ignore_missing: bool,
    wait: Option<Duration>,
) -> Result<(), LabError> {
    let mut ending = Vec::new();
    for key in keys {
        let known = server.objects.borrow().find(&key).map(uid_of);
        let Some(uid) = known else {
            if ignore_missing {
                continue;
            }
            return Err(LabError::Failed(format!("{key} does not exist")));
        };
        delete_one(&server, &key, &uid, key.kind == Kind::Deployment).await?;
        ending.push((key, uid));
    }
    let until = wait.map(|wait| clock::monotonic() + wait);
    for (key, uid) in ending {
        // What is told to end and does so by itself is waited for like every pod.
        if let Some(until) = until.filter(|_| key.kind != Kind::Pod) {
            gone(&server, &key, &uid, until.saturating_duration_since(clock::monotonic())).await?;
        }
    }
    Ok(())
}

/// Deletes one object; with what depends on it first, if that is asked.
async fn delete_one(server: &Server, key: &ObjectKey, uid: &str, foreground: bool) -> Result<(), LabError> {
    match server.remove(key, uid, foreground).await {
        Ok(answer) => {
            if answer.get("kind").and_then(Value::as_str) == Some(key.kind.as_str())
                && answer.pointer("/metadata/deletionTimestamp").is_some()
            {
                server.mirror.take_answer(answer);
            }
            Ok(())
        }
        Err(Refusal::Absent(_)) => Ok(()),
        Err(refusal) => Err(LabError::Failed(format!("{key}: {}", refusal.message()))),
    }
}

/// Waits until an object is gone.
async fn gone(server: &Server, key: &ObjectKey, uid: &str, limit: Duration) -> Result<(), LabError> {
    let mut objects = server.objects.clone();
    let is_gone = |objects: &Arc<Snapshot>| objects.find(key).is_none_or(|object| uid_of(object) != uid);
    match tokio::time::timeout(limit, objects.wait_for(is_gone)).await {
        // A lost sender is a lab that goes down.
        Ok(_) => Ok(()),
        Err(_) => {
            let missing = vec![format!("{key} is still ending")];
            Err(LabError::NotInForce { waited_seconds: limit.as_secs(), missing })
        }
    }
}

/// Changes labels or annotations of one object.
///
/// # Errors
/// If it does not exist, or the server refuses.
pub async fn mark(
    server: Server,
    key: ObjectKey,
    annotations: bool,
    changes: Vec<(String, Option<String>)>,
) -> Result<(), LabError> {
    if let Some(kubectl) = &server.kubectl {
        let verb = if annotations { Verb::Annotate } else { Verb::Label };
        let word = |(name, value): (String, Option<String>)| match value {
            Some(value) => format!("{name}={value}"),
            None => format!("{name}-"),
        };
        let changes: Vec<String> = changes.into_iter().map(word).collect();
        server.mirror.take_answer(kubectl.name(verb, &key, &changes)?);
        return Ok(());
    }
    let field = if annotations { "annotations" } else { "labels" };
    let values: Map<String, Value> = changes.into_iter().map(|(name, value)| (name, json!(value))).collect();
    let patch = json!({"metadata": {field: values}});
    match server.api.patch(&api::path_of(&key), Patch::Merge, &patch).await {
        Ok(answer) => {
            server.mirror.take_answer(answer);
            Ok(())
        }
        Err(Refusal::Absent(_)) => Err(LabError::Failed(format!("{key} does not exist"))),
        Err(refusal) => Err(LabError::Failed(format!("{key}: {}", refusal.message()))),
    }
}
