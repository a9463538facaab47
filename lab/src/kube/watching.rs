//! Follows the served objects, and how far the control plane can have come with them.
//!
//! Two watches: one of what the control plane follows, in exactly its words, so that both count the same versions as
//! the revision; and one of what only the lab has to see, among it the pods that have ended.

use std::collections::BTreeSet;
use std::sync::Arc;

use ambit_kube::watch::{Batch, Scope, Selection};
use ambit_manifest::{Kind, Located, ObjectKey};
use ambit_runtime::tasks;
use tokio::sync::{mpsc, watch};

use super::NAMESPACE;
use super::api::Api;
use super::mirror::{Mirror, version_of};
use super::writer;
use crate::store::Snapshot;

/// Kinds of which the control plane follows only some objects.
const IN_PART: [Kind; 2] = [Kind::Pod, Kind::ConfigMap];

/// Lists everything, then follows it; returns once the first lists are there.
pub(crate) async fn begin(api: &Api, current: watch::Sender<Arc<Snapshot>>) -> Arc<Mirror> {
    let counted = Scope::everything(NAMESPACE);
    let kinds: BTreeSet<Kind> = counted.kinds.iter().map(|selection| selection.kind).collect();
    let others = Kind::ALL.iter().copied().filter(|kind| IN_PART.contains(kind) || !kinds.contains(kind));
    let others = Scope { kinds: others.map(Selection::all).collect() };
    // The version of a ConfigMap says nothing: nearly all of them are none of the control plane's.
    let answers = kinds.into_iter().filter(|kind| *kind != Kind::ConfigMap).collect();
    let mirror = Arc::new(Mirror::new(current, answers));
    let (state, batches) = ambit_kube::watch::watch(api.client(), counted).await;
    let revision = newest(&state.objects);
    take(&mirror, state.objects, Vec::new(), Some(revision));
    tasks::spawn("counted objects", follow(Arc::clone(&mirror), batches, true));
    let (state, batches) = ambit_kube::watch::watch(api.client(), others).await;
    mirror.take_in(state.objects, Vec::new(), None);
    tasks::spawn("other objects", follow(Arc::clone(&mirror), batches, false));
    tasks::spawn("writes to the API server", writer::run(Arc::clone(&mirror), api.clone()));
    mirror
}

async fn follow(mirror: Arc<Mirror>, mut batches: mpsc::Receiver<Batch>, counts: bool) {
    let mut told: Vec<String> = Vec::new();
    while let Some(batch) = batches.recv().await {
        let mut now: Vec<String> = batch.problems.iter().map(ToString::to_string).collect();
        now.extend(batch.stale);
        for words in now.iter().filter(|words| !told.contains(words)) {
            tracing::warn!(words, "following the API server");
        }
        told = now;
        if counts {
            // A list has a version too, which no object has; only what is gone is known by nothing else.
            let gone = if batch.removed.is_empty() { 0 } else { batch.revision };
            let revision = newest(&batch.changed).max(gone);
            take(&mirror, batch.changed, batch.removed, Some(revision));
        } else {
            mirror.take_in(batch.changed, batch.removed, None);
        }
    }
}

/// Takes in what the counted watch says; of kinds that it shows in part, only how far it is.
fn take(mirror: &Mirror, mut changed: Vec<Located>, mut removed: Vec<ObjectKey>, revision: Option<u64>) {
    changed.retain(|object| !IN_PART.contains(&object.key.kind));
    removed.retain(|key| !IN_PART.contains(&key.kind));
    mirror.take_in(changed, removed, revision);
}

fn newest(objects: &[Located]) -> u64 {
    objects.iter().map(|object| version_of(&object.value)).max().unwrap_or(0)
}
