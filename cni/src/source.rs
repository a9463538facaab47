//! Where objects come from: the pods of this node as they change, and their status written back.
//!
//! A folder of manifests or an API server, with the same two ends; everything behind them is the same.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ambit_folder::{Batch, Folder, FolderError};
use ambit_manifest::{Kind, Located, Object, ObjectKey};
use ambit_runtime::drain::Drain;
use ambit_runtime::readiness::Part;
use ambit_runtime::{clock, tasks};
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, watch};
use tracing::{error, info};

use crate::attend::Namespaces;
use crate::pod::{Announce, AnnounceError, Announcement, CAPTURED, Pod, REDIRECTION};
use crate::reconcile::Pods;
use crate::view::{labels_of, pods_of_node};

pub mod cluster;
mod events;
mod stored;

#[cfg(test)]
mod tests;

/// Both ends of a source.
#[derive(Debug)]
pub struct Objects {
    /// The pods of this node, the newest state.
    pub pods: watch::Receiver<Arc<Pods>>,
    /// All namespaces, the newest state.
    pub namespaces: watch::Receiver<Arc<Namespaces>>,
    /// Where the pods' status goes.
    pub announce: Arc<Status>,
}

/// Where the status of pods goes.
#[derive(Debug)]
pub enum Status {
    /// Into their files.
    Folder(FolderStatus),
    /// To the API server.
    Cluster(cluster::ClusterStatus),
}

impl Announce for Status {
    async fn announce(&self, pod: &Pod, announcement: &Announcement) -> Result<(), AnnounceError> {
        match self {
            Self::Folder(folder) => folder.announce(pod, announcement).await,
            Self::Cluster(cluster) => cluster.announce(pod, announcement).await,
        }
    }
}

/// The newest state, as it is shown to the rest of the program.
struct Shown {
    pods: watch::Sender<Arc<Pods>>,
    namespaces: watch::Sender<Arc<Namespaces>>,
}

impl Shown {
    fn new() -> (Self, watch::Receiver<Arc<Pods>>, watch::Receiver<Arc<Namespaces>>) {
        let (pods, of_node) = watch::channel(Arc::default());
        let (namespaces, all) = watch::channel(Arc::default());
        (Self { pods, namespaces }, of_node, all)
    }

    /// Shows what is known; returns whether the pods changed.
    fn show(&self, known: &Known) -> bool {
        self.namespaces.send_if_modified(|shown| replace(shown, known.namespaces()));
        self.pods.send_if_modified(|shown| replace(shown, known.of_node()))
    }
}

fn replace<T: PartialEq>(shown: &mut T, current: T) -> bool {
    let changed = *shown != current;
    if changed {
        *shown = current;
    }
    changed
}

/// Reads the folder and follows it until `drain` begins; `ready` tells whether it is followed.
///
/// # Errors
/// [`FolderError`] if the folder cannot be read or watched.
pub fn open(root: &Path, node: &str, ready: Part, drain: &Drain) -> Result<Objects, FolderError> {
    let folder = Folder::open(root)?;
    let (state, batches) = ambit_folder::watch(root)?;
    let mut known = Known { node: node.to_owned(), ..Known::default() };
    state.objects.values().for_each(|object| known.take(object));
    info!(
        pods = known.pods.len(),
        problems = state.problems.len(),
        revision = state.revision,
        "read the objects"
    );
    let (shown, pods, namespaces) = Shown::new();
    shown.show(&known);
    ready.set(true);
    tasks::spawn("objects", follow(known, batches, shown, ready, drain.clone()));
    Ok(Objects { pods, namespaces, announce: Arc::new(Status::Folder(FolderStatus { folder })) })
}

async fn follow(
    mut known: Known,
    mut batches: mpsc::Receiver<Batch>,
    shown: Shown,
    ready: Part,
    drain: Drain,
) {
    loop {
        let batch = tokio::select! {
            batch = batches.recv() => batch,
            () = drain.draining() => return,
        };
        let Some(batch) = batch else {
            error!("the objects are not followed any more; captured pods stay as they are until a restart");
            ready.set(false);
            // What is known stays in force: ending the channel would end the repair of rules too.
            drain.draining().await;
            return;
        };
        batch.removed.iter().for_each(|key| known.remove(key));
        batch.changed.iter().for_each(|object| known.take(object));
        shown.show(&known);
    }
}

/// The objects that matter here.
#[derive(Debug, Default)]
struct Known {
    node: String,
    pods: BTreeMap<ObjectKey, Arc<Object>>,
    namespaces: BTreeMap<ObjectKey, Arc<Object>>,
}

impl Known {
    fn take(&mut self, object: &Located) {
        if let Some(table) = self.table(object.key.kind) {
            table.insert(object.key.clone(), Arc::clone(&object.object));
        }
    }

    fn remove(&mut self, key: &ObjectKey) {
        if let Some(table) = self.table(key.kind) {
            table.remove(key);
        }
    }

    fn table(&mut self, kind: Kind) -> Option<&mut BTreeMap<ObjectKey, Arc<Object>>> {
        if kind == Kind::Pod {
            return Some(&mut self.pods);
        }
        (kind == Kind::Namespace).then_some(&mut self.namespaces)
    }

    fn of_node(&self) -> Arc<Pods> {
        let pods =
            self.pods.values().filter_map(|o| if let Object::Pod(pod) = &**o { Some(&**pod) } else { None });
        let namespaces = self
            .namespaces
            .values()
            .filter_map(|o| if let Object::Namespace(ns) = &**o { Some(&**ns) } else { None });
        pods_of_node(&self.node, pods, namespaces)
    }

    fn namespaces(&self) -> Arc<Namespaces> {
        let all = self.namespaces.values();
        labels_of(all.filter_map(|o| if let Object::Namespace(ns) = &**o { Some(&**ns) } else { None }))
    }
}

/// Writes the status of pods into their files.
#[derive(Debug)]
pub struct FolderStatus {
    folder: Folder,
}

impl Announce for FolderStatus {
    async fn announce(&self, pod: &Pod, announcement: &Announcement) -> Result<(), AnnounceError> {
        let (folder, uid, announcement) = (self.folder.clone(), pod.uid.clone(), announcement.clone());
        let key = ObjectKey::new(Kind::Pod, Some(&pod.namespace), &pod.name);
        let now = humantime::format_rfc3339_seconds(clock::wall()).to_string();
        let fail = |cause: Box<dyn std::error::Error + Send + Sync>| AnnounceError {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            cause,
        };
        let write = move || folder.patch(&key, Some(&uid), |object| say(object, &announcement, &now));
        match tokio::task::spawn_blocking(write).await.map_err(|e| fail(e.into()))? {
            // Gone, or another pod by now: nobody is left to be told.
            Ok(_) | Err(FolderError::Absent { .. } | FolderError::Replaced { .. }) => Ok(()),
            Err(error) => Err(fail(error.into())),
        }
    }
}

/// Makes a pod's document say it; the time is that of the condition's last change of status.
fn say(object: &mut Value, announcement: &Announcement, now: &str) {
    match announcement.redirection {
        Some(word) => {
            member(member(object, "metadata"), "annotations")[REDIRECTION] = json!(word);
        }
        None => {
            let annotations = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut);
            if let Some(annotations) = annotations {
                annotations.remove(REDIRECTION);
            }
        }
    }
    let Some(condition) = &announcement.condition else { return };
    if condition.is_withdrawn() {
        let list = object.pointer_mut("/status/conditions").and_then(Value::as_array_mut);
        if let Some(list) = list {
            list.retain(|c| c["type"] != CAPTURED);
        }
        return;
    }
    let status = if condition.status { "True" } else { "False" };
    let mut said = json!({
        "type": CAPTURED,
        "status": status,
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": now,
    });
    let list = &mut member(object, "status")["conditions"];
    if !list.is_array() {
        *list = json!([]);
    }
    let Some(list) = list.as_array_mut() else { return };
    match list.iter_mut().find(|c| c["type"] == CAPTURED) {
        Some(old) => {
            if old["status"] == status && old["lastTransitionTime"].is_string() {
                said["lastTransitionTime"] = old["lastTransitionTime"].take();
            }
            *old = said;
        }
        None => list.push(said),
    }
}

/// The object below `name`, made if it is missing or null.
fn member<'a>(of: &'a mut Value, name: &str) -> &'a mut Value {
    let below = &mut of[name];
    if !below.is_object() {
        *below = Value::Object(Map::new());
    }
    below
}
