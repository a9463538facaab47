//! Objects from an API server: the pods of this node and all namespaces, and the pods' status patched back.
//!
//! While the API server is away the last state stays in force. It is also kept in a file, so that a restart without
//! API server goes on with it: what is captured stays captured, and a ztunnel that connects is given its pods again.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ambit_kube::watch::{Batch, Scope, Selection, State, watch as follow_objects};
use ambit_kube::write;
use ambit_manifest::Kind;
use ambit_runtime::drain::Drain;
use ambit_runtime::readiness::Part;
use ambit_runtime::{clock, tasks};
use k8s_openapi::api::core::v1::Pod as PodObject;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::{debug, error, info, warn};

use super::events::{Event, Limiter};
use super::stored::Stored;
use super::{Known, Objects, Shown, Status};
use crate::pod::{Announce, AnnounceError, Announcement, CAPTURED, Pod, REDIRECTION};

#[cfg(test)]
mod tests;

/// Whose changes these are, in `managedFields`.
const MANAGER: &str = "ambit-cni";
/// How long the API server is waited for before a stored state is used.
const LISTING: Duration = Duration::from_secs(3);
/// Longest call that writes.
const CALL: Duration = Duration::from_secs(10);

/// Lists and follows the objects; returns when the first state is known, or when `drain` begins.
///
/// Without API server that is the state in `file`, if an earlier run on this boot of the node left one; without that
/// too it waits, and captured pods stay as they are. `ready` tells whether the API server's own state is known.
pub async fn open(client: Client, node: &str, file: PathBuf, ready: Part, drain: &Drain) -> Option<Objects> {
    let (shown, pods, namespaces) = Shown::new();
    let (first, known) = oneshot::channel();
    let follower = Follower {
        known: Known { node: node.to_owned(), ..Known::default() },
        shown,
        file,
        ready,
        first: Some(first),
        said: Vec::new(),
    };
    tasks::spawn("objects", follower.run(client.clone(), drain.clone()));
    tokio::select! {
        known = known => known.ok()?,
        () = drain.draining() => return None,
    }
    let announce = Arc::new(Status::Cluster(ClusterStatus::new(client, node)));
    Some(Objects { pods, namespaces, announce })
}

struct Follower {
    known: Known,
    shown: Shown,
    file: PathBuf,
    ready: Part,
    first: Option<oneshot::Sender<()>>,
    /// What was wrong the last time; only what is new is logged.
    said: Vec<String>,
}

impl Follower {
    async fn run(mut self, client: Client, drain: Drain) {
        let listed = tokio::select! {
            listed = self.list(client) => listed,
            () = drain.draining() => return,
        };
        let (state, mut batches) = listed;
        info!(objects = state.objects.len(), problems = state.problems.len(), "read the objects");
        self.say(state.problems.iter().map(ToString::to_string).collect());
        state.objects.iter().for_each(|object| self.known.take(object));
        self.show().await;
        self.ready.set(true);
        loop {
            let batch = tokio::select! {
                batch = batches.recv() => batch,
                () = drain.draining() => return,
            };
            let Some(batch) = batch else {
                error!(
                    "the objects are not followed any more; captured pods stay as they are until a restart"
                );
                self.ready.set(false);
                // What is known stays in force: ending the channel would end the repair of rules too.
                drain.draining().await;
                return;
            };
            let stale = batch.stale.iter().cloned();
            self.say(batch.problems.iter().map(ToString::to_string).chain(stale).collect());
            batch.removed.iter().for_each(|key| self.known.remove(key));
            batch.changed.iter().for_each(|object| self.known.take(object));
            self.show().await;
        }
    }

    /// The first listing. If it does not come soon, the stored state is shown meanwhile.
    async fn list(&mut self, client: Client) -> (State, mpsc::Receiver<Batch>) {
        let pods = Selection::all(Kind::Pod).fields(&format!("spec.nodeName={}", self.known.node));
        let scope = Scope { kinds: vec![pods, Selection::all(Kind::Namespace)] };
        let mut listing = std::pin::pin!(follow_objects(client, scope));
        if let Ok(listed) = timeout(LISTING, listing.as_mut()).await {
            return listed;
        }
        self.show_stored();
        listing.await
    }

    fn show_stored(&mut self) {
        match Stored::load(&self.file, &self.known.node) {
            Ok(Some(stored)) => {
                warn!(pods = stored.pods.len(), file = %self.file.display(),
                    "the API server does not answer; going on with the state of an earlier run");
                let (pods, namespaces) = stored.into_parts();
                self.shown.namespaces.send_replace(Arc::new(namespaces));
                self.shown.pods.send_replace(Arc::new(pods));
                self.told();
            }
            Ok(None) => warn!("the API server does not answer, and no earlier run left a state; waiting"),
            Err(error) => {
                warn!(error, file = %self.file.display(), "the state of an earlier run cannot be used; waiting")
            }
        }
    }

    async fn show(&mut self) {
        let changed = self.shown.show(&self.known);
        if changed || self.first.is_some() {
            let stored =
                Stored::new(&self.known.node, &self.shown.pods.borrow(), &self.shown.namespaces.borrow());
            let file = self.file.clone();
            let saved = tokio::task::spawn_blocking(move || stored.save(&file)).await;
            if let Err(error) =
                saved.map_err(|e| e.to_string()).and_then(|saved| saved.map_err(|e| e.to_string()))
            {
                warn!(error, file = %self.file.display(), "the state could not be kept; a restart needs the API server");
            }
        }
        self.told();
    }

    fn say(&mut self, wrong: Vec<String>) {
        for what in wrong.iter().filter(|what| !self.said.contains(what)) {
            warn!(what, "some objects cannot be used or followed");
        }
        self.said = wrong;
    }

    fn told(&mut self) {
        if let Some(first) = self.first.take() {
            // Nobody waits any more if the program is ending.
            let _ = first.send(());
        }
    }
}

/// Patches the status of pods, and tells about it in Events.
pub struct ClusterStatus {
    client: Client,
    node: String,
    limiter: Mutex<Limiter>,
}

impl std::fmt::Debug for ClusterStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterStatus").field("node", &self.node).finish_non_exhaustive()
    }
}

impl ClusterStatus {
    /// Writes as the agent of `node`.
    pub fn new(client: Client, node: &str) -> Self {
        let limiter = Mutex::new(Limiter::new(clock::monotonic()));
        Self { client, node: node.to_owned(), limiter }
    }

    fn tell(&self, pod: &Pod, announcement: &Announcement) {
        let Some(event) = Event::of(pod, announcement) else { return };
        let now = clock::monotonic();
        if !self.limiter.lock().unwrap_or_else(PoisonError::into_inner).admits(&pod.uid, &event, now) {
            metrics::counter!("ambit_events_suppressed_total").increment(1);
            return;
        }
        let (client, object) = (self.client.clone(), event.object(pod, &self.node, clock::wall()));
        tasks::spawn("event", async move {
            if let Err(error) = write::create(&client, MANAGER, &object).await {
                debug!(%error, "an Event could not be written");
            }
        });
    }
}

impl Announce for ClusterStatus {
    async fn announce(&self, pod: &Pod, announcement: &Announcement) -> Result<(), AnnounceError> {
        let now = humantime::format_rfc3339_seconds(clock::wall()).to_string();
        let patch = Patch::Strategic(patch(pod, announcement, &now));
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let pods: Api<PodObject> = Api::namespaced(self.client.clone(), &pod.namespace);
        let fail = |cause: Box<dyn std::error::Error + Send + Sync>| AnnounceError {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            cause,
        };
        match timeout(CALL, pods.patch_status(&pod.name, &params, &patch)).await {
            Err(_) => Err(fail(format!("no answer within {CALL:?}").into())),
            Ok(Ok(_)) => {
                self.tell(pod, announcement);
                Ok(())
            }
            // Gone, or another pod by now: nobody is left to be told.
            Ok(Err(kube::Error::Api(status))) if is_another(status.code, &status.message) => Ok(()),
            Ok(Err(error)) => Err(fail(error.into())),
        }
    }
}

/// Whether an answer means that the pod of our uid is gone; the patch names the uid, which nobody can change.
fn is_another(code: u16, message: &str) -> bool {
    code == 404 || (matches!(code, 409 | 422) && message.to_lowercase().contains("uid"))
}

/// The change of a pod's object, by way of its status: that right also covers annotations, and is the smallest.
fn patch(pod: &Pod, announcement: &Announcement, now: &str) -> Value {
    let mut patch = json!({
        "metadata": {"uid": pod.uid, "annotations": {REDIRECTION: announcement.redirection}},
    });
    let Some(condition) = &announcement.condition else { return patch };
    let said = if condition.is_withdrawn() {
        json!({"$patch": "delete", "type": CAPTURED})
    } else {
        let status = if condition.status { "True" } else { "False" };
        let mut said = json!({
            "type": CAPTURED, "status": status, "reason": condition.reason, "message": condition.message,
        });
        // The time is that of the last change of status; what is not named stays.
        if pod.condition.as_ref().is_none_or(|old| old.status != condition.status) {
            said["lastTransitionTime"] = json!(now);
        }
        said
    };
    patch["status"] = json!({"conditions": [said]});
    patch
}
