//! Taking the mesh off a node: afterwards nothing of ours is left on it.
//!
//! In order: the plugin leaves the node, so that new pods start without us; every pod is released, first for new
//! connections, then altogether; what the objects say of capture is withdrawn; our files go.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ambit_kube::KubeError;
use ambit_kube::write::{self, Target};
use ambit_runtime::admin::client;
use ambit_runtime::tasks;
use anyhow::{Context as _, bail};
use kube::Client;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::config::Config;
use crate::datapath::Datapath;
use crate::install::{Following, Installer};
use crate::nearby::file_beside;
use crate::reconcile::Pods;
use crate::reconcile::status::PodStatus;
use crate::reconcile::work::Removal;
use crate::sandbox::SandboxError;

#[cfg(test)]
mod tests;

/// How long the last rules may take to go after the deadline for open connections.
const FORCING: Duration = Duration::from_secs(5);
/// How long the objects may take to be told.
const TELLING: Duration = Duration::from_secs(3);
/// How often the agent is asked how far it is.
const POLL: Duration = Duration::from_millis(200);
/// How long the API server may take to say whether our DaemonSet is there.
const ASKING: Duration = Duration::from_secs(3);
/// Pause before it is asked again.
const ASKING_PAUSE: Duration = Duration::from_millis(500);
/// How long it is asked again if it does not say: what the releasing of pods leaves of the 45 s between SIGTERM and
/// SIGKILL. A plugin that stays behind without its agent refuses every pod of the node.
const ASKING_MAX: Duration = Duration::from_secs(20);

/// How far it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum Progress {
    /// Nobody has asked for it.
    #[default]
    Idle,
    /// Under way.
    Running,
    /// At its end.
    Done {
        /// What is left, in words; empty if nothing is.
        left: Vec<String>,
    },
}

/// Takes the mesh off this node.
#[derive(Debug)]
pub struct Remover {
    /// How far it is.
    pub progress: watch::Sender<Progress>,
    /// Where the plugin is installed, and who keeps it so, if it is.
    pub plugin: Option<(Installer, Arc<Following>)>,
    /// Tells the reconciler.
    pub removal: watch::Sender<Removal>,
    /// What the reconciler reports.
    pub status: watch::Receiver<Arc<Vec<PodStatus>>>,
    /// What the objects say.
    pub pods: watch::Receiver<Arc<Pods>>,
    /// How long open connections go on.
    pub deadline: Duration,
    /// Files to remove at the end.
    pub files: Vec<PathBuf>,
}

impl Remover {
    /// Begins, unless that has been done, and waits for the end. Returns what is left, in words: empty if nothing is.
    pub async fn run(self: Arc<Self>) -> Vec<String> {
        let mut progress = self.progress.subscribe();
        Arc::clone(&self).begin();
        let done = progress.wait_for(|progress| matches!(progress, Progress::Done { .. })).await;
        match done.as_deref() {
            Ok(Progress::Done { left }) => left.clone(),
            Ok(Progress::Idle | Progress::Running) | Err(_) => {
                vec!["everything: it was not carried out".to_owned()]
            }
        }
    }

    /// Begins, unless that has been done.
    pub fn begin(self: Arc<Self>) {
        let begun = self.progress.send_if_modified(|progress| {
            let idle = *progress == Progress::Idle;
            if idle {
                *progress = Progress::Running;
            }
            idle
        });
        if begun {
            tasks::spawn("removal", async move {
                let left = self.carry_out().await;
                match left.is_empty() {
                    true => info!("nothing of the mesh is left on this node"),
                    false => warn!(?left, "something of the mesh is left on this node"),
                }
                self.progress.send_replace(Progress::Done { left });
            });
        }
    }

    async fn carry_out(&self) -> Vec<String> {
        info!("taking the mesh off this node");
        let mut left = Vec::new();
        if let Some((installer, following)) = self.plugin.clone() {
            let removed = tokio::task::spawn_blocking(move || {
                following.stop();
                installer.remove()
            });
            let removed = removed.await.map_err(anyhow::Error::from);
            match removed.and_then(|removed| removed.map_err(anyhow::Error::from)) {
                Ok(()) => info!("the CNI plugin is off the node"),
                Err(error) => left.push(format!("the CNI plugin: {error:#}")),
            }
        }
        self.removal.send_replace(Removal::Release);
        if !self.are_out(self.deadline).await {
            warn!(
                "connections are still open after {:?}; the last rules are taken away all the same",
                self.deadline
            );
            self.removal.send_replace(Removal::Force);
            self.are_out(FORCING).await;
        }
        left.extend(self.remaining());
        if !self.is_withdrawn().await {
            left.push("the annotation or condition of some pods; is the API server reachable?".to_owned());
        }
        for file in &self.files {
            match std::fs::remove_file(file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    left.push(format!("{}: {error}", file.display()));
                }
                Ok(()) | Err(_) => {}
            }
        }
        left
    }

    async fn are_out(&self, within: Duration) -> bool {
        let mut status = self.status.clone();
        let out = status.wait_for(|list| list.iter().all(is_out));
        timeout(within, out).await.is_ok_and(|waited| waited.is_ok())
    }

    fn remaining(&self) -> Vec<String> {
        let list = self.status.borrow();
        let inside = list.iter().filter(|pod| !is_out(pod));
        inside.map(|pod| format!("rules of pod {}/{} ({})", pod.namespace, pod.name, pod.state)).collect()
    }

    async fn is_withdrawn(&self) -> bool {
        let mut pods = self.pods.clone();
        let silent = |pods: &Arc<Pods>| {
            pods.values().all(|pod| pod.finished || (pod.redirection().is_none() && pod.condition.is_none()))
        };
        timeout(TELLING, pods.wait_for(silent)).await.is_ok_and(|waited| waited.is_ok())
    }
}

fn is_out(pod: &PodStatus) -> bool {
    pod.state == "out"
}

/// Whether our own DaemonSet has been deleted; on doubt it has not, for then pods would start outside the mesh.
pub async fn is_orphaned(client: &Client, config: &Config) -> bool {
    let Some(namespace) = &config.removal.pod_namespace else { return false };
    let name = &config.removal.daemonset;
    let target = match Target::new("apps/v1", "DaemonSet", Some(namespace), name) {
        Ok(target) => target,
        Err(error) => {
            warn!(%error, "whether our DaemonSet is there cannot be told");
            return false;
        }
    };
    let ask = || async {
        match timeout(ASKING, write::get(client, &target)).await {
            Ok(answer) => word(answer),
            Err(_) => Word::Unsaid(format!("no answer within {ASKING:?}")),
        }
    };
    is_told_gone(ask, ASKING_MAX).await
}

/// What the API server says of our DaemonSet.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    /// It is deleted.
    Gone,
    /// It is there.
    There,
    /// We may not know, and asking again does not change that.
    Refused(String),
    /// Nothing, for now.
    Unsaid(String),
}

fn word(answer: Result<Option<Value>, KubeError>) -> Word {
    match answer {
        Ok(None) => Word::Gone,
        Ok(Some(set)) if set.pointer("/metadata/deletionTimestamp").is_some_and(Value::is_string) => {
            Word::Gone
        }
        Ok(Some(_)) => Word::There,
        Err(error) if matches!(error.status(), Some(401 | 403)) => Word::Refused(error.to_string()),
        Err(error) => Word::Unsaid(error.to_string()),
    }
}

/// Asks until there is a word, for `patience` at most; without one it is not gone.
async fn is_told_gone<F: Future<Output = Word>>(ask: impl Fn() -> F, patience: Duration) -> bool {
    let mut last = String::new();
    let asking = async {
        loop {
            match ask().await {
                Word::Gone => return true,
                Word::There => return false,
                Word::Refused(cause) => {
                    warn!(cause, "we may not see whether our DaemonSet is there; everything stays in place");
                    return false;
                }
                Word::Unsaid(cause) => {
                    debug!(cause, "whether our DaemonSet is there is asked again");
                    last = cause;
                }
            }
            tokio::time::sleep(ASKING_PAUSE).await;
        }
    };
    if let Ok(is_gone) = timeout(patience, asking).await {
        return is_gone;
    }
    warn!(
        cause = last,
        "the API server does not say whether our DaemonSet is there; everything stays in place. If the mesh was removed, \
         run `ambit-cni uninstall-node` on this node: its plugin refuses pods without an agent"
    );
    false
}

/// Has the agent take the mesh off this node, and waits for it. Without an agent that is done here and at once; then
/// open connections through ztunnel end, and what the objects say stays.
///
/// # Errors
/// What is left, in words.
pub async fn uninstall_node(config: &Config) -> anyhow::Result<()> {
    if let Err(error) = client::post(&config.admin_socket, "/uninstall").await {
        warn!(%error, "the agent does not answer; the mesh is taken off this node without it");
        config.remover().remove().context("taking the CNI plugin off the node")?;
        files_of(config).iter().for_each(|file| drop(std::fs::remove_file(file)));
        return strip_pods(config).await;
    }
    let patience = config.removal.release_deadline + FORCING + TELLING + client::TIMEOUT;
    let done = async {
        loop {
            let answer = client::get(&config.admin_socket, "/uninstall").await.context("asking the agent")?;
            let progress: Progress =
                serde_json::from_slice(&answer.body).context("reading the agent's answer")?;
            if let Progress::Done { left } = progress {
                return Ok(left);
            }
            // The agent says nothing by itself.
            tokio::time::sleep(POLL).await;
        }
    };
    let left: anyhow::Result<Vec<String>> =
        timeout(patience, done).await.context("the agent takes too long")?;
    match left?.as_slice() {
        [] => Ok(()),
        left => bail!("left on this node: {}", left.join("; ")),
    }
}

/// Takes our rules out of every pod that can be found.
async fn strip_pods(config: &Config) -> anyhow::Result<()> {
    let sandboxes = config.sandboxes().context("opening our own network namespace")?;
    let datapath = Datapath::default();
    let mut left = Vec::new();
    for uid in sandboxes.pods() {
        let netns = match sandboxes.open(&uid) {
            Ok(netns) => netns,
            // It has ended, or is in the node's network, where nothing of ours ever is.
            Err(SandboxError::Missing { .. } | SandboxError::Nodes { .. }) => continue,
            Err(error) => {
                left.push(format!("pod {uid}: {:#}", anyhow::Error::from(error)));
                continue;
            }
        };
        let stripped = match datapath.stage(&netns).await {
            Ok(None) => continue,
            Ok(Some(_)) => datapath.remove(&netns).await,
            Err(error) => Err(error),
        };
        if let Err(error) = stripped {
            left.push(format!("pod {uid}: {:#}", anyhow::Error::from(error)));
        }
    }
    if left.is_empty() { Ok(()) } else { bail!("left on this node: {}", left.join("; ")) }
}

/// The files that the agent leaves when it stops.
pub fn files_of(config: &Config) -> Vec<PathBuf> {
    let files = [&config.state_file, &config.removal.uninstall_flag].map(PathBuf::clone);
    let set: BTreeSet<PathBuf> = files.into_iter().chain([file_beside(&config.zds_socket)]).collect();
    set.into_iter().collect()
}
