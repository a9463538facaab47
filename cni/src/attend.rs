//! Answers the CNI plugin: a pod of the mesh starts only after its rules are in force and a ztunnel serves it.
//!
//! Nothing is decided or changed here that the reconciler does not also do. A new sandbox's namespace is handed to it,
//! and the pod's start waits until it reports the pod as captured in that very namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ambit_net::linux::netns::NetNs;
use ambit_net::seqpacket::{SeqpacketConn, SeqpacketListener};
use ambit_runtime::drain::Drain;
use ambit_runtime::tasks;
use ambit_types::reason::Reason;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::enrolment::{DATAPLANE_MODE, Decision, decide, is_settled_by_pod};
use crate::handoff::{HandoffError, is_permitted, prepare_directory};
use crate::plugin::wire::{self, Answer, Ask, Question, Verdict};
use crate::pod::Pod;
use crate::reconcile::Pods;
use crate::reconcile::status::PodStatus;
use crate::reconcile::work::Removal;
use crate::sandbox::Sandboxes;

#[cfg(test)]
mod tests;

/// Calls at once; a node starts at most a few hundred pods.
const CALLS_MAX: usize = 256;
/// Longest wait for a caller's question.
const ASKING: Duration = Duration::from_secs(2);
/// Longest wait for the objects to show a pod that the kubelet knows already.
const KNOWING: Duration = Duration::from_secs(5);
/// Longest wait for a pod to be captured and served.
const CAPTURING: Duration = Duration::from_secs(10);
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Annotation of a static pod's object with the hash of its file.
const FILE_HASH: &str = "kubernetes.io/config.hash";

/// Labels of namespaces by name.
pub type Namespaces = BTreeMap<String, BTreeMap<String, String>>;

/// Time limits of one call.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Longest wait for the objects to show the pod.
    pub knowing: Duration,
    /// Longest wait for it to be captured and served.
    pub capturing: Duration,
}

impl Default for Limits {
    /// 5 s and 10 s.
    fn default() -> Self {
        Self { knowing: KNOWING, capturing: CAPTURING }
    }
}

/// What answers are made from.
#[derive(Debug, Clone)]
pub struct Attendant {
    /// The pods of this node.
    pub pods: watch::Receiver<Arc<Pods>>,
    /// Namespaces and their labels.
    pub namespaces: watch::Receiver<Arc<Namespaces>>,
    /// What the reconciler reports.
    pub status: watch::Receiver<Arc<Vec<PodStatus>>>,
    /// Takes the namespaces of new sandboxes.
    pub sandboxes: Arc<Sandboxes>,
    /// Namespaces that are never enrolled.
    pub excluded: Arc<BTreeSet<String>>,
    /// Whether the mesh is leaving this node.
    pub removal: watch::Receiver<Removal>,
    /// Time limits.
    pub limits: Limits,
}

impl Attendant {
    /// Listens at `path` (mode 0600 in a directory of mode 0700) until `drain` begins.
    ///
    /// # Errors
    /// [`HandoffError`] if the socket cannot be opened.
    pub fn serve(self, path: &Path, drain: &Drain) -> Result<(), HandoffError> {
        prepare_directory(path)?;
        let listener = SeqpacketListener::bind(path, 0o600)?;
        tasks::spawn("plugin-calls", self.run(listener, drain.clone()));
        Ok(())
    }

    async fn run(self, listener: SeqpacketListener, drain: Drain) {
        let places = Arc::new(Semaphore::new(CALLS_MAX));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = drain.draining() => return,
            };
            let (conn, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "accepting a call of the CNI plugin failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if !is_permitted(peer, nix::unistd::geteuid().as_raw()) {
                warn!(pid = peer.pid, uid = peer.uid, "refused a stranger at the CNI plugin's socket");
                continue;
            }
            // Whoever finds no place is closed, and the plugin comes again.
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let attendant = self.clone();
            tasks::spawn("plugin-call", async move {
                if let Err(error) = attendant.attend(&conn).await {
                    debug!(error, "a call of the CNI plugin came to nothing");
                }
                drop(place);
            });
        }
    }

    async fn attend(&self, conn: &SeqpacketConn) -> Result<(), String> {
        let mut buffer = vec![0; wire::PACKET_MAX];
        let received = timeout(ASKING, conn.recv(&mut buffer)).await.map_err(|_| "it asked nothing")?;
        let received = received.map_err(|e| e.to_string())?;
        if received.is_end() || received.truncated {
            return Err("its question is missing or too long".to_owned());
        }
        let packet = buffer.get(..received.len).unwrap_or_default();
        let question: Question = wire::read(packet)?;
        let netns = received.fds.into_iter().next();
        let answer = match question.version {
            wire::VERSION => self.answer(&question, netns).await,
            other => later(None, format!("the plugin speaks version {other}, the agent {}", wire::VERSION)),
        };
        let (ask, verdict) = (question.ask.as_str(), answer.verdict.as_str());
        metrics::counter!("ambit_cni_plugin_requests_total", "command" => ask, "verdict" => verdict)
            .increment(1);
        if answer.verdict != Verdict::Proceed {
            let pod = format!("{}/{}", question.pod.namespace, question.pod.name);
            warn!(pod, reason = answer.reason, message = answer.message, "the pod may not start yet");
        }
        conn.send(&wire::write(&answer)?, None).await.map_err(|e| e.to_string())
    }

    /// The answer to one question. Ends within the limits.
    pub async fn answer(&self, question: &Question, netns: Option<OwnedFd>) -> Answer {
        let namespace = &question.pod.namespace;
        match question.ask {
            Ask::Del => {
                if let Some(uid) = self.uid_of(question) {
                    self.sandboxes.take_back(&uid, &question.container);
                }
                proceed("")
            }
            Ask::Add | Ask::Check if *self.removal.borrow() != Removal::Stay => {
                proceed("the mesh leaves this node")
            }
            Ask::Add | Ask::Check if self.excluded.contains(namespace) => {
                proceed("its namespace is excluded")
            }
            Ask::Add => match netns {
                Some(netns) => self.add(question, netns).await,
                None => refused(Reason::NetnsMismatch, "the plugin named no namespace".to_owned()),
            },
            Ask::Check => self.check(question),
        }
    }

    async fn add(&self, question: &Question, netns: OwnedFd) -> Answer {
        let Some(pod) = self.pod(question).await else { return self.unknown(question) };
        match decide(&pod.facts(), pod.namespace_labels.as_ref(), &self.excluded) {
            Decision::Not(why) => return proceed(why.why()),
            Decision::Enrol { .. } => {}
        }
        let netns = match NetNs::from_fd(netns) {
            Ok(netns) => netns,
            Err(error) => return refused(Reason::NetnsMismatch, error.to_string()),
        };
        let given = self.sandboxes.give(&pod.uid, netns, question.addresses.clone(), &question.container);
        let id = match given {
            Ok(id) => id,
            Err(error) => return refused(error.reason(), error.to_string()),
        };
        let mut status = self.status.clone();
        let captured =
            |one: &PodStatus| one.uid == pod.uid && one.state == "captured" && one.netns == Some(id.inode);
        let wait = status.wait_for(|list| list.iter().any(captured));
        if timeout(self.limits.capturing, wait).await.is_ok_and(|waited| waited.is_ok()) {
            info!(uid = pod.uid, netns = id.inode, "the pod is captured and may start");
            return proceed("captured");
        }
        self.verdict_of(&pod.uid)
    }

    fn check(&self, question: &Question) -> Answer {
        let Some(uid) = self.uid_of(question) else { return self.unknown(question) };
        let enrolled = self.status.borrow().iter().any(|pod| pod.uid == uid && pod.enrolled);
        if enrolled { self.verdict_of(&uid) } else { proceed("not in the mesh") }
    }

    /// From what the reconciler reports of a pod that is to be captured.
    fn verdict_of(&self, uid: &str) -> Answer {
        let list = Arc::clone(&self.status.borrow());
        let Some(pod) = list.iter().find(|pod| pod.uid == uid) else {
            return later(Some(Reason::NotCaptured), "the pod is not known any more".to_owned());
        };
        let message = pod.message.clone().unwrap_or_default();
        match pod.state {
            "captured" => proceed("captured"),
            "failed" => Answer { verdict: Verdict::Refused, reason: pod.reason.map(str::to_owned), message },
            _ if pod.ztunnel != "held" => later(
                Some(Reason::NotCaptured),
                format!("no ztunnel on this node serves the pod ({}); is it running?", pod.ztunnel),
            ),
            _ => later(Some(Reason::NotCaptured), message),
        }
    }

    /// The pod's object, waited for: the kubelet may have seen it first. So is its namespace, which comes by a watch of
    /// its own and possibly later; without it "not asked for" cannot be told from "not seen yet".
    async fn pod(&self, question: &Question) -> Option<Pod> {
        let mut pods = self.pods.clone();
        let decidable = |pods: &Arc<Pods>| find(pods, question).is_some_and(is_decidable);
        let shown = timeout(self.limits.knowing, pods.wait_for(decidable)).await;
        let pods = shown.ok()?.ok()?;
        find(&pods, question).cloned()
    }

    fn uid_of(&self, question: &Question) -> Option<String> {
        let pods = self.pods.borrow();
        find(&pods, question).map(|pod| pod.uid.clone()).or_else(|| question.pod.uid.clone())
    }

    /// A pod that the objects do not show, or whose namespace they do not. Only its namespace can tell, and only a
    /// namespace in the mesh holds it back: should the pod itself ask for the mesh, it is captured once its object is
    /// seen.
    fn unknown(&self, question: &Question) -> Answer {
        let name = &question.pod.namespace;
        let mode = match self.namespaces.borrow().get(name) {
            Some(labels) => labels.get(DATAPLANE_MODE).cloned(),
            None => {
                let message =
                    format!("the pod's namespace {name} is not known yet; is the API server reachable?");
                return later(Some(Reason::NotCaptured), message);
            }
        };
        if mode.as_deref() == Some("ambient") {
            let message = "the API server has not shown all of the pod yet, and its namespace is in the mesh"
                .to_owned();
            return later(Some(Reason::NotCaptured), message);
        }
        warn!(pod = %format_args!("{name}/{}", question.pod.name),
            "a pod starts that the API server has not shown yet; its namespace is not in the mesh");
        proceed("its namespace is not in the mesh")
    }
}

/// Whether what is known of a pod tells if it is in the mesh.
fn is_decidable(pod: &Pod) -> bool {
    pod.namespace_labels.is_some() || is_settled_by_pod(&pod.facts())
}

fn find<'p>(pods: &'p Pods, question: &Question) -> Option<&'p Pod> {
    let asked = &question.pod;
    match &asked.uid {
        // The kubelet calls a static pod by the hash of its file; its object has another uid.
        Some(uid) => {
            pods.get(uid).or_else(|| pods.values().find(|pod| pod.annotations.get(FILE_HASH) == Some(uid)))
        }
        None => pods.values().find(|pod| pod.namespace == asked.namespace && pod.name == asked.name),
    }
}

fn proceed(why: &str) -> Answer {
    Answer { verdict: Verdict::Proceed, reason: None, message: why.to_owned() }
}

fn later(reason: Option<Reason>, message: String) -> Answer {
    Answer { verdict: Verdict::Later, reason: reason.map(|reason| reason.code().to_owned()), message }
}

fn refused(reason: Reason, message: String) -> Answer {
    Answer { verdict: Verdict::Refused, reason: Some(reason.code().to_owned()), message }
}
