//! One step for one pod, carried out: the only place that changes namespaces and tells ztunnel.
//!
//! Every step may be repeated and every one may be cut off by the end of the program: the next start finds out what is
//! there. Nothing here decides what comes next.

use std::sync::Arc;
use std::time::Duration;

use ambit_runtime::metrics::values::NAMESPACES;
use ambit_types::reason::Reason;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::plan::Failure;
use crate::datapath::{Datapath, DatapathError, Found, sockets};
use crate::handoff::roster::{Entry, Holding};
use crate::handoff::{Handoff, SharedNetNs};
use crate::pod::Pod;
use crate::rules::{self, Facts, Stage};
use crate::sandbox::{Sandbox, SandboxError, Sandboxes};

/// What steps work with.
#[derive(Debug, Clone)]
pub struct Tools {
    /// Programs namespaces.
    pub datapath: Arc<Datapath>,
    /// Finds and proves namespaces.
    pub sandboxes: Arc<Sandboxes>,
    /// Tells ztunnel.
    pub handoff: Handoff,
    /// Longest wait for a ztunnel's answer.
    pub patience: Duration,
    /// Whether the mesh is to leave this node.
    pub removal: watch::Receiver<Removal>,
}

/// How far the mesh is leaving this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It stays.
    Stay,
    /// No pod is in the mesh any more; what ztunnel carries goes on.
    Release,
    /// The last rules go, whatever ztunnel carries.
    Force,
}

/// What a step came to.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The rules that capture the pod are in force and proven.
    Captured { sandbox: Sandbox, stamp: String, generation: u32 },
    /// They were found as they should be, or are again.
    Verified { generation: u32 },
    /// Nothing of ours is inside.
    Nothing,
    /// The rules of a pod that has left are in force.
    Released { sandbox: Sandbox },
    /// Ztunnel has been told; so many connections still need the rules.
    Retired { carried: usize },
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum StepError {
    /// The pod's namespace cannot be used.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// Its rules could not be changed or read.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// It could not work with its rules, so they are gone again.
    #[error("capture was taken back, the pod is as it was before: {why}")]
    RolledBack {
        /// What did not work.
        why: String,
    },
}

impl StepError {
    /// Whether the namespace that was used until now is not the pod's any more.
    pub(super) fn loses_sandbox(&self) -> bool {
        matches!(self, Self::Sandbox(_))
    }
}

impl From<&StepError> for Failure {
    fn from(error: &StepError) -> Self {
        let reason = match error {
            StepError::Sandbox(e) => e.reason(),
            StepError::Datapath(e) => e.reason(),
            StepError::RolledBack { .. } => Reason::CaptureRolledBack,
        };
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(deeper) = cause {
            message = format!("{message}: {deeper}");
            cause = deeper.source();
        }
        Self { reason, message }
    }
}

/// What ztunnel is told of the pod.
pub(super) fn entry(pod: &Pod, netns: Option<SharedNetNs>) -> Entry<SharedNetNs> {
    Entry {
        name: pod.name.clone(),
        namespace: pod.namespace.clone(),
        service_account: pod.service_account.clone(),
        netns,
    }
}

/// Puts the rules in force and has a ztunnel serve the pod. Rules that are as they should be are not touched.
pub(super) async fn capture(
    tools: &Tools,
    pod: &Pod,
    facts: &Facts,
    ztunnel_first: bool,
) -> Result<Outcome, StepError> {
    let result = try_capture(tools, pod, facts, ztunnel_first).await;
    match &result {
        // What is not proven to be the pod's must not be served as the pod.
        Err(StepError::Sandbox(e)) if !e.is_missing() => tools.handoff.remove(&pod.uid),
        Ok(_) | Err(_) => {}
    }
    result
}

async fn try_capture(
    tools: &Tools,
    pod: &Pod,
    facts: &Facts,
    ztunnel_first: bool,
) -> Result<Outcome, StepError> {
    let sandbox = tools.sandboxes.claim(&pod.uid, &pod.addresses).await?;
    let (netns, wanted) = (&sandbox.netns.0, rules::capture(facts));
    let entry = entry(pod, Some(sandbox.netns.clone()));
    let found = tools.datapath.inspect(netns, &wanted, None).await?;
    let generation = match found {
        Found::Intact(generation) => generation,
        Found::Altered(found) => {
            debug!(uid = pod.uid, found, "the rules are to be put in force");
            // What has worked without the mesh until now is to work on if the mesh cannot carry it. One that has not
            // started, or is in the mesh already, stays closed instead.
            let was_in = pod.redirection() == Some("enabled") || tools.datapath.stage(netns).await?.is_some();
            let may_go_back = ztunnel_first && !was_in;
            if ztunnel_first {
                let holding = tools.handoff.offer(&pod.uid, entry.clone(), tools.patience).await;
                if holding != Holding::Held {
                    // Better refused than outside the mesh: the rules come all the same.
                    info!(
                        uid = pod.uid,
                        ?holding,
                        "no ztunnel serves the pod yet; its new connections are refused until one does"
                    );
                }
            }
            match tools.datapath.install(netns, &wanted).await {
                Ok(generation) if !may_go_back => generation,
                Ok(generation) => match hindrance(tools, pod, &sandbox).await? {
                    None => generation,
                    Some(why) => return Err(roll_back(tools, pod, &sandbox, why).await),
                },
                Err(error @ DatapathError::NotInForce { .. }) if may_go_back => {
                    return Err(roll_back(tools, pod, &sandbox, error.to_string()).await);
                }
                Err(error) => return Err(error.into()),
            }
        }
    };
    tools.sandboxes.confirm(&pod.uid, &sandbox)?;
    tools.handoff.set(&pod.uid, entry);
    Ok(Outcome::Captured { sandbox, stamp: wanted.stamp, generation })
}

/// What keeps a pod from working with the rules that were just put in force, if something does: a ztunnel that says
/// that it serves the pod and listens nowhere. Without a ztunnel the pod waits for one.
async fn hindrance(tools: &Tools, pod: &Pod, sandbox: &Sandbox) -> Result<Option<String>, StepError> {
    let is_held = || tools.handoff.holding(&pod.uid) == Holding::Held;
    if !is_held() {
        return Ok(None);
    }
    let netns = Arc::clone(&sandbox.netns.0);
    let read = tokio::task::spawn_blocking(move || sockets::unserved(&netns)).await;
    let missing = read.map_err(|e| DatapathError::Sockets(std::io::Error::other(e)))??;
    // One that went away meanwhile took its listeners along.
    let hindered = !missing.is_empty() && is_held();
    Ok(hindered.then(|| {
        format!(
            "ztunnel says that it serves the pod, and nothing listens at {missing:?} in the pod's namespace"
        )
    }))
}

/// Takes the rules of a first capture away again and has ztunnel let go of the pod; what the step came to.
async fn roll_back(tools: &Tools, pod: &Pod, sandbox: &Sandbox, why: String) -> StepError {
    if let Err(error) = tools.datapath.remove(&sandbox.netns.0).await {
        return error.into();
    }
    tools.handoff.withdraw(&pod.uid, tools.patience).await;
    StepError::RolledBack { why }
}

/// Compares a captured pod's namespace with what it should be, and repairs it.
pub(super) async fn verify(
    tools: &Tools,
    pod: &Pod,
    facts: &Facts,
    sandbox: &Sandbox,
    generation: Option<u32>,
) -> Result<Outcome, StepError> {
    if let Err(error) = tools.sandboxes.confirm(&pod.uid, sandbox) {
        if !error.is_missing() {
            tools.handoff.remove(&pod.uid);
        }
        return Err(error.into());
    }
    let wanted = rules::capture(facts);
    let netns = &sandbox.netns.0;
    let generation = match tools.datapath.inspect(netns, &wanted, generation).await? {
        Found::Intact(generation) => generation,
        Found::Altered(found) => {
            metrics::counter!("ambit_capture_repairs_total",
                "namespace" => NAMESPACES.of(&*pod.namespace), "cause" => Reason::RulesAltered.name())
            .increment(1);
            warn!(reason = %Reason::RulesAltered, pod = %format_args!("{}/{}", pod.namespace, pod.name), uid = pod.uid,
                found, "somebody changed the pod's rules; they are put back");
            tools.datapath.install(netns, &wanted).await?
        }
    };
    if matches!(tools.handoff.holding(&pod.uid), Holding::Refused(_)) {
        tools.handoff.set(&pod.uid, entry(pod, Some(sandbox.netns.clone())));
    }
    Ok(Outcome::Verified { generation })
}

/// Looks whether a pod that is not enrolled has rules of ours, and if so lets go of it.
pub(super) async fn discover(tools: &Tools, pod: &Pod) -> Result<Outcome, StepError> {
    let netns = match tools.sandboxes.open(&pod.uid) {
        Ok(netns) => netns,
        // Without a namespace of its own there is nothing of ours; whose it is matters only when it is to be captured.
        Err(error) => {
            debug!(uid = pod.uid, %error, "no namespace to look into");
            return Ok(Outcome::Nothing);
        }
    };
    match tools.datapath.stage(&netns).await? {
        None => Ok(Outcome::Nothing),
        Some((Stage::Capture | Stage::Residue, _)) => {
            let sandbox = tools.sandboxes.claim(&pod.uid, &pod.addresses).await?;
            release(tools, pod, &sandbox).await
        }
    }
}

/// Redirects nothing new any more; what ztunnel carries goes on.
pub(super) async fn release(tools: &Tools, pod: &Pod, sandbox: &Sandbox) -> Result<Outcome, StepError> {
    tools.sandboxes.confirm(&pod.uid, sandbox)?;
    tools.datapath.install(&sandbox.netns.0, &rules::residue()).await?;
    Ok(Outcome::Released { sandbox: sandbox.clone() })
}

/// Has every ztunnel stop serving the pod; takes the rules away once no connection needs them.
pub(super) async fn retire(tools: &Tools, pod: &Pod, sandbox: &Sandbox) -> Result<Outcome, StepError> {
    tools.handoff.withdraw(&pod.uid, tools.patience).await;
    let (netns, own) = (Arc::clone(&sandbox.netns.0), sandbox.addresses.clone());
    let counted = tokio::task::spawn_blocking(move || sockets::carried(&netns, &own)).await;
    let mut carried = counted.map_err(|e| DatapathError::Sockets(std::io::Error::other(e)))??;
    if carried > 0 && *tools.removal.borrow() == Removal::Force {
        warn!(uid = pod.uid, carried, "connections that ztunnel carries end with the pod's rules");
        carried = 0;
    }
    if carried == 0 {
        tools.datapath.remove(&sandbox.netns.0).await?;
        tools.sandboxes.release(&pod.uid);
    }
    Ok(Outcome::Retired { carried })
}
