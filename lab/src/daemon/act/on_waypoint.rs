//! Stopping, starting, restarting and killing a waypoint: all its pods, by what its Gateway says.

use std::sync::Arc;
use std::time::Duration;

use ambit_runtime::clock;
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Work, on_pod};
use crate::control::{Action, Line};
use crate::daemon::commands;
use crate::daemon::force::{Demand, Outlook};
use crate::daemon::nodes::{merge, new_uid};
use crate::daemon::owner::Owner;
use crate::daemon::wait::{Watch, in_force};
use crate::daemon::waypoints::key_of;
use crate::error::LabError;
use crate::name::LabName;
use crate::schedule::{self, ObjectName, waypoints};
use crate::store::{Snapshot, Store};

/// How long started and replaced pods may take until they are ready.
const READY_PATIENCE: Duration = Duration::from_secs(60);

/// Begins an action on a waypoint.
pub(super) fn begin(
    owner: &mut Owner,
    action: Action,
    waypoint: &ObjectName,
    lines: mpsc::Sender<Line>,
) -> Result<Work, LabError> {
    let snapshot = owner.store.snapshot();
    let gateway = snapshot.find(&key_of(waypoint)).filter(|gateway| waypoints::is_waypoint(gateway));
    let gateway = gateway.ok_or_else(|| absent(&snapshot, waypoint, &owner.home.lab))?;
    match action {
        Action::Stop => {
            mark_stopped(owner, waypoint, gateway)?;
            let (store, waypoint) = (Arc::clone(&owner.store), waypoint.clone());
            Ok(Box::pin(async move {
                gone(&store, &waypoint).await;
                Ok(())
            }))
        }
        Action::Start => {
            asks_for_pods(owner, waypoint, gateway)?;
            let outlook = owner.outlook.borrow().clone();
            unmark_stopped(owner, waypoint, gateway)?;
            let demand = Demand::of_change((&*snapshot, &outlook), &owner.store.snapshot());
            let watch = commands::watch(owner, demand);
            Ok(Box::pin(async move { in_force(&watch, READY_PATIENCE, &lines).await }))
        }
        Action::Restart => {
            asks_for_pods(owner, waypoint, gateway)?;
            is_started(owner, waypoint, gateway)?;
            annotate(owner, waypoint, waypoints::RESTARTED, Some(&new_uid()?))?;
            let watch = commands::watch(owner, Demand::default());
            Ok(Box::pin(replaced(watch, waypoint.clone(), lines)))
        }
        Action::Kill => {
            is_started(owner, waypoint, gateway)?;
            kill(owner, &snapshot, waypoint, &lines)
        }
    }
}

/// What to say of a waypoint that is not there; names those there are.
fn absent(objects: &Snapshot, waypoint: &ObjectName, lab: &LabName) -> LabError {
    let known: Vec<String> = waypoints::all(objects).map(|(name, _)| format!("waypoint/{name}")).collect();
    let known =
        if known.is_empty() { "it has none".to_owned() } else { format!("only {}", known.join(", ")) };
    let ObjectName { namespace, name } = waypoint;
    LabError::Failed(format!(
        "no waypoint/{waypoint} in lab {lab}, {known}; make one with: \
         ambit waypoint apply -n {namespace} --name {name} --lab {lab}"
    ))
}

/// Refuses what would have no effect on a waypoint that asks for no pods.
fn asks_for_pods(owner: &Owner, waypoint: &ObjectName, gateway: &Value) -> Result<(), LabError> {
    let is_put_aside = owner.home.kube.is_some() && annotation(gateway, waypoints::STOPPED).is_some();
    if is_put_aside || waypoints::replicas_asked(gateway) != Ok(0) {
        return Ok(());
    }
    let (namespace, name, key) = (&waypoint.namespace, &waypoint.name, waypoints::REPLICAS);
    let ask = owner.home.lab.command(&format!("annotate gateway {name} -n {namespace} {key}=1"));
    Err(LabError::Failed(format!("waypoint/{waypoint} asks for 0 pods by {key}; change that with: {ask}")))
}

/// Refuses what needs pods of a waypoint that was stopped.
fn is_started(owner: &Owner, waypoint: &ObjectName, gateway: &Value) -> Result<(), LabError> {
    if waypoints::replicas(gateway) > 0 {
        return Ok(());
    }
    let start = owner.home.lab.command(&format!("start waypoint/{waypoint}"));
    Err(LabError::Failed(format!("waypoint/{waypoint} does not run; start it with: {start}")))
}

/// What [`waypoints::STOPPED`] says of a Gateway that asked for no number of pods.
const NO_NUMBER: &str = "true";

/// Marks a waypoint as stopped. Over an API server the control plane makes its pods and knows only how many are asked
/// for: none now, and what was asked is put aside in the mark.
fn mark_stopped(owner: &mut Owner, waypoint: &ObjectName, gateway: &Value) -> Result<(), LabError> {
    if owner.home.kube.is_none() {
        return annotate(owner, waypoint, waypoints::STOPPED, Some(NO_NUMBER));
    }
    if annotation(gateway, waypoints::STOPPED).is_some() {
        return Ok(());
    }
    let asked = annotation(gateway, waypoints::REPLICAS).unwrap_or(NO_NUMBER);
    annotate(owner, waypoint, waypoints::STOPPED, Some(asked))?;
    annotate(owner, waypoint, waypoints::REPLICAS, Some("0"))
}

/// Takes the mark off, and asks again for what was asked for before.
fn unmark_stopped(owner: &mut Owner, waypoint: &ObjectName, gateway: &Value) -> Result<(), LabError> {
    let kept = annotation(gateway, waypoints::STOPPED).filter(|_| owner.home.kube.is_some());
    if let Some(kept) = kept {
        let asked = Some(kept).filter(|kept| *kept != NO_NUMBER);
        annotate(owner, waypoint, waypoints::REPLICAS, asked)?;
    }
    annotate(owner, waypoint, waypoints::STOPPED, None)
}

fn annotation<'a>(gateway: &'a Value, name: &str) -> Option<&'a str> {
    gateway.pointer("/metadata/annotations")?.get(name)?.as_str()
}

/// Sets or removes an annotation of the Gateway, and begins what follows from it.
fn annotate(
    owner: &mut Owner,
    waypoint: &ObjectName,
    name: &str,
    value: Option<&str>,
) -> Result<(), LabError> {
    owner.store.change(&key_of(waypoint), |gateway| match value {
        Some(value) => merge(gateway, "/metadata", json!({"annotations": {name: value}})),
        None => {
            if let Some(all) = gateway.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
                all.remove(name);
            }
        }
    })?;
    owner.reconcile();
    Ok(())
}

/// Waits until the waypoint has no pods. Their grace period and SIGKILL bound that.
async fn gone(store: &Store, waypoint: &ObjectName) {
    let mut objects = store.subscribe();
    // A lost sender is a lab that goes down.
    let _ = objects.wait_for(|objects| waypoints::pods_of(objects, waypoint).next().is_none()).await;
}

/// Waits until new pods serve and the old ones have been told to end; those drain on.
async fn replaced(mut watch: Watch, waypoint: ObjectName, lines: mpsc::Sender<Line>) -> Result<(), LabError> {
    let begun = clock::monotonic();
    let mut objects = watch.store.subscribe();
    let done = objects.wait_for(|objects| is_replaced(objects, &waypoint));
    if tokio::time::timeout(READY_PATIENCE, done).await.is_err() {
        let logs = watch.home.lab.command(&format!("logs waypoint/{waypoint}"));
        return Err(LabError::NotInForce {
            waited_seconds: (clock::monotonic() - begun).as_secs(),
            missing: vec![format!(
                "waypoint/{waypoint} has no new pod that is ready, so the old one serves on; see {logs}"
            )],
        });
    }
    // Nothing was asked but the new pods, and those are there: what is left is that they know everything.
    let (now, outlook) = (watch.store.snapshot(), Outlook::default());
    watch.demand = Demand::of_change((&*now, &outlook), &now);
    in_force(&watch, READY_PATIENCE, &lines).await
}

fn is_replaced(objects: &Snapshot, waypoint: &ObjectName) -> bool {
    let deployments = objects.deployments();
    let own = deployments.iter().find(|d| ObjectName::of(&d.metadata) == *waypoint);
    own.is_some_and(|own| schedule::is_replaced(own, &objects.pods()))
}

/// Kills every pod's processes and waits until they have ended; they come back by themselves.
fn kill(
    owner: &Owner,
    objects: &Snapshot,
    waypoint: &ObjectName,
    lines: &mpsc::Sender<Line>,
) -> Result<Work, LabError> {
    let mut works = Vec::new();
    for (key, _) in waypoints::pods_of(objects, waypoint) {
        let pod = ObjectName { namespace: waypoint.namespace.clone(), name: key.name.clone() };
        // A pod that is being made or ending has nothing to kill; another one may.
        if owner.lives.get(&pod).is_some_and(|live| !live.life.state.borrow().running().is_empty()) {
            works.push(on_pod::begin(owner, Action::Kill, &pod, lines.clone())?);
        }
    }
    if works.is_empty() {
        let status = owner.home.lab.command("status");
        return Err(LabError::Failed(format!(
            "no pod of waypoint/{waypoint} runs at this moment; see {status}"
        )));
    }
    Ok(Box::pin(async move { try_join_all(works).await.map(|_| ()) }))
}
