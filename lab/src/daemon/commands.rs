//! What each request of the command line does.
//!
//! Changes of the lab's state happen here, at once; waiting for their effect happens in a task beside the loop.

use std::sync::Arc;
use std::time::Duration;

use ambit_runtime::tasks;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::force::{Demand, Outlook};
use super::owner::Owner;
use super::wait::{Watch, in_force};
use super::{act, pods, report_status, served};
use crate::control::{Call, Line, Request, WaitMillis};
use crate::error::LabError;
use crate::manifests;
use crate::schedule::{ObjectName, waypoints};
use crate::store::{Kind, ObjectKey, Snapshot};

/// Annotations that belong to the mesh and the lab, not to who applies an object.
const OWN_ANNOTATIONS: [&str; 2] = ["ambient.istio.io/redirection", "ambit.internal/"];

/// One of them that is asked of the lab all the same: a new value counts.
const ASKED_ANNOTATION: &str = waypoints::REPLICAS;

/// Carries a request out; its end is told to the caller, now or by a task.
pub(super) fn take(owner: &mut Owner, call: Call) {
    let Some(call) = served::take(owner, call) else { return };
    let lines = call.lines;
    let before = (owner.store.snapshot(), owner.outlook.borrow().clone());
    let begun = match call.request {
        Request::Up { wait } => Ok(Then::Start(wait)),
        Request::Apply { objects, wait } => apply(owner, objects).map(|()| Then::Wait(wait)),
        Request::Delete { objects, ignore_missing, wait } => {
            delete(owner, &objects, ignore_missing).map(|()| Then::Wait(wait))
        }
        Request::Mark { object, annotations, changes, wait } => {
            mark(owner, &object, annotations, &changes).map(|()| Then::Wait(wait))
        }
        Request::Act { action, target } => act::begin(owner, action, &target, &lines).map(Then::Act),
        Request::Link { node, change } => act::link(owner, &node, &change).map(Then::Say),
        Request::Objects { kind } => {
            let snapshot = owner.store.snapshot();
            Ok(Then::Say(snapshot.of_kind(kind).map(|(_, object)| object.clone()).collect()))
        }
        Request::Status => Ok(Then::Say(report_status::status(owner))),
        Request::PodProcess { namespace, pod, container } => {
            process(owner, &namespace, &pod, container.as_deref()).map(Then::Say)
        }
    };
    match begun {
        Ok(Then::Say(value)) => end(&lines, Ok(value)),
        Ok(Then::Wait(wait)) => settle(owner, &before, wait, lines),
        Ok(Then::Start(wait)) => {
            let watch = watch(owner, Demand::Everything);
            tasks::spawn("start", async move {
                let result = match act::start_mesh(&watch, &lines).await {
                    Ok(()) => wait_for(&watch, wait, &lines).await,
                    Err(e) => Err(e),
                };
                end(&lines, result.map(|()| Value::Null));
            });
        }
        Ok(Then::Act(work)) => {
            tasks::spawn("act", async move { end(&lines, work.await.map(|()| Value::Null)) });
        }
        Err(error) => end(&lines, Err(error)),
    }
}

/// The objects and the outlook before a change.
pub(super) type Before = (Arc<Snapshot>, Outlook);

/// Begins what follows from a change, and waits beside the loop until it is in force.
pub(super) fn settle(owner: &mut Owner, before: &Before, wait: WaitMillis, lines: mpsc::Sender<Line>) {
    owner.reconcile();
    let watch = watch(owner, Demand::of_change((&*before.0, &before.1), &owner.store.snapshot()));
    tasks::spawn("wait", async move {
        let result = wait_for(&watch, wait, &lines).await;
        end(&lines, result.map(|()| Value::Null));
    });
}

/// What is left to do for a request.
enum Then {
    Say(Value),
    Wait(WaitMillis),
    Start(WaitMillis),
    Act(act::Work),
}

pub(super) fn watch(owner: &Owner, demand: Demand) -> Watch {
    Watch {
        demand,
        home: owner.home.clone(),
        store: owner.store.clone(),
        programs: owner.programs.clone(),
        outlook: owner.outlook.subscribe(),
    }
}

async fn wait_for(watch: &Watch, wait: WaitMillis, lines: &mpsc::Sender<Line>) -> Result<(), LabError> {
    match wait {
        Some(millis) => in_force(watch, Duration::from_millis(millis), lines).await,
        None => Ok(()),
    }
}

pub(super) fn end(lines: &mpsc::Sender<Line>, result: Result<Value, LabError>) {
    let line = match result {
        Ok(value) => Line::Done(value),
        Err(error) => Line::Failed { exit_code: error.exit_code(), message: error.full() },
    };
    let lines = lines.clone();
    tasks::spawn("answer", async move {
        // A caller that left needs no answer.
        let _ = lines.send(line).await;
    });
}

fn apply(owner: &mut Owner, objects: Vec<Value>) -> Result<(), LabError> {
    let snapshot = owner.store.snapshot();
    let merged = objects.into_iter().map(|object| {
        let old = manifests::key_of(&object).and_then(|key| snapshot.find(&key));
        applied(old, object)
    });
    owner.store.put(&merged.collect::<Vec<_>>())
}

/// The new object, with what the lab and the mesh had written into the old one.
fn applied(old: Option<&Value>, mut new: Value) -> Value {
    let Some(old) = old else { return new };
    let keep = |new: &mut Value, pointer: &str, key: &str| {
        let kept = old.pointer(&format!("{pointer}/{key}")).cloned();
        if let (Some(kept), Some(Value::Object(place))) = (kept, new.pointer_mut(pointer)) {
            place.entry(key).or_insert(kept);
        }
    };
    for key in ["uid", "creationTimestamp", "deletionTimestamp", "ownerReferences"] {
        keep(&mut new, "/metadata", key);
    }
    keep(&mut new, "", "status");
    for key in ["nodeName", "clusterIP", "clusterIPs"] {
        keep(&mut new, "/spec", key);
    }
    let annotations = old.pointer("/metadata/annotations").and_then(Value::as_object);
    let asked = new.pointer("/metadata/annotations").is_some_and(|all| all.get(ASKED_ANNOTATION).is_some());
    for (name, value) in annotations.into_iter().flatten() {
        if asked && name == ASKED_ANNOTATION {
            continue;
        }
        if OWN_ANNOTATIONS.iter().any(|own| name.starts_with(own)) {
            super::nodes::merge(&mut new, "/metadata", json!({"annotations": {name: value}}));
        }
    }
    new
}

fn delete(owner: &mut Owner, objects: &[ObjectKey], ignore_missing: bool) -> Result<(), LabError> {
    let snapshot = owner.store.snapshot();
    for key in objects {
        if snapshot.find(key).is_none() {
            if ignore_missing {
                continue;
            }
            return Err(LabError::Failed(format!("{key} does not exist")));
        }
        if key.kind == Kind::Namespace {
            let inside = snapshot.objects.keys().filter(|k| k.namespace.as_deref() == Some(&key.name));
            for inner in inside {
                remove(owner, inner)?;
            }
        }
        remove(owner, key)?;
    }
    Ok(())
}

fn remove(owner: &Owner, key: &ObjectKey) -> Result<(), LabError> {
    match (key.kind, &key.namespace) {
        (Kind::Pod, Some(namespace)) => {
            pods::delete(owner, &ObjectName { namespace: namespace.clone(), name: key.name.clone() })
        }
        _ => owner.store.remove(key),
    }
}

fn mark(
    owner: &mut Owner,
    key: &ObjectKey,
    annotations: bool,
    changes: &[(String, Option<String>)],
) -> Result<(), LabError> {
    if owner.store.snapshot().find(key).is_none() {
        return Err(LabError::Failed(format!("{key} does not exist")));
    }
    let field = if annotations { "annotations" } else { "labels" };
    owner.store.change(key, |object| {
        super::nodes::merge(object, "/metadata", json!({field: {}}));
        let Some(Value::Object(map)) = object.pointer_mut(&format!("/metadata/{field}")) else { return };
        for (name, value) in changes {
            match value {
                Some(value) => _ = map.insert(name.clone(), json!(value)),
                None => _ = map.remove(name),
            }
        }
    })?;
    Ok(())
}

fn process(owner: &Owner, namespace: &str, pod: &str, container: Option<&str>) -> Result<Value, LabError> {
    let live = pods::find(owner, namespace, pod)?;
    let state = live.life.state.borrow().clone();
    match state.process(container) {
        Some(pid) => Ok(json!({"pid": pid})),
        None => {
            let known: Vec<&String> = state.containers.keys().collect();
            let why = match container {
                Some(name) if !state.containers.contains_key(name) => {
                    format!("it has no container {name}, only {known:?}")
                }
                _ if live.life.is_held() => "it was stopped".to_owned(),
                _ => state.blocked.unwrap_or_else(|| "none of its containers runs".to_owned()),
            };
            let next = if live.life.is_held() { "start" } else { "logs" };
            let next = owner.home.lab.command(&format!("{next} pod/{namespace}/{pod}"));
            Err(LabError::Failed(format!("no command can run in pod {namespace}/{pod}: {why}; see {next}")))
        }
    }
}
