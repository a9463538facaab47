//! Where objects come from: batches of events with the revision they belong to and everything that is wrong.
//!
//! The rest of the program does not know whether a folder or an API server is behind it.

use std::collections::BTreeMap;
use std::path::Path;

use ambit_control::Event;
use ambit_folder::{FolderError, FolderState};
use ambit_kube::watch::Scope;
use ambit_manifest::{Located, ObjectKey, Problem};
use kube::Client;
use tokio::sync::mpsc;

use crate::ingest;

/// What changed.
#[derive(Debug, Default)]
pub struct Update {
    /// Objects that changed.
    pub events: Vec<Event>,
    /// Every change up to this revision of the source is contained, in this update or an earlier one.
    pub revision: u64,
    /// Everything that is wrong now, the whole list, ordered.
    pub problems: Vec<Problem>,
    /// What of the source cannot be followed now, so that its last state stays in force, in words.
    pub stale: Vec<String>,
}

/// A source of updates.
#[derive(Debug)]
pub struct Feed(Inner);

#[derive(Debug)]
enum Inner {
    Folder(Folder),
    Kube(mpsc::Receiver<ambit_kube::watch::Batch<Option<Event>>>),
}

/// An object of a folder, reduced as it was read: of tens of thousands nothing else is ever held.
#[derive(Debug)]
struct Reduced {
    key: ObjectKey,
    read: Result<Option<Event>, Vec<Problem>>,
}

#[derive(Debug)]
struct Folder {
    batches: mpsc::Receiver<ambit_folder::Batch<Reduced>>,
    /// Objects whose manifests are well-formed, but which the mesh cannot read.
    unread: BTreeMap<ObjectKey, Vec<Problem>>,
}

impl Feed {
    /// Reads a folder of manifests and follows it; the first update holds everything there is.
    ///
    /// # Errors
    /// [`FolderError`] if it cannot be read or watched.
    pub fn folder(path: &Path) -> Result<(Self, Update), FolderError> {
        let reduce = |object: Located| {
            let read = ingest::put(&object);
            Reduced { key: object.key, read }
        };
        let (state, batches) = ambit_folder::watch_as(path, reduce)?;
        let mut folder = Folder { batches, unread: BTreeMap::new() };
        let FolderState { objects, problems, revision } = state;
        let first = folder.update(objects.into_values().collect(), Vec::new(), problems, revision);
        Ok((Self(Inner::Folder(folder)), first))
    }

    /// Lists what an API server holds and follows it; the first update holds everything there is. Waits until every
    /// kind that is served has been listed.
    ///
    /// Objects are reduced as they are read: of tens of thousands nothing else is ever held.
    pub async fn kube(client: Client, root_namespace: &str) -> (Self, Update) {
        let make = |object: Located| {
            // An object that was read before and now means nothing to the mesh is gone for it.
            ingest::put(&object).map(|event| event.or_else(|| ingest::remove(&object.key)))
        };
        let (state, batches) =
            ambit_kube::watch::watch_as(client, Scope::everything(root_namespace), make).await;
        let ambit_kube::watch::State { objects, problems, revision } = state;
        let events = objects.into_iter().flatten().collect();
        (Self(Inner::Kube(batches)), Update { events, revision, problems, stale: Vec::new() })
    }

    /// The next update; none when the source is gone for good.
    pub async fn next(&mut self) -> Option<Update> {
        match &mut self.0 {
            Inner::Folder(folder) => {
                let batch = folder.batches.recv().await?;
                Some(folder.update(batch.changed, batch.removed, batch.problems, batch.revision))
            }
            Inner::Kube(batches) => {
                let batch = batches.recv().await?;
                let removed = batch.removed.iter().filter_map(ingest::remove);
                Some(Update {
                    events: removed.chain(batch.changed.into_iter().flatten()).collect(),
                    revision: batch.revision,
                    problems: batch.problems,
                    stale: batch.stale,
                })
            }
        }
    }
}

impl Folder {
    fn update(
        &mut self,
        changed: Vec<Reduced>,
        removed: Vec<ObjectKey>,
        mut problems: Vec<Problem>,
        revision: u64,
    ) -> Update {
        let mut events = Vec::new();
        for key in removed {
            self.unread.remove(&key);
            events.extend(ingest::remove(&key));
        }
        for Reduced { key, read } in changed {
            match read {
                Ok(event) => {
                    self.unread.remove(&key);
                    // An object that was read before and now means nothing to the mesh is gone for it.
                    events.extend(event.or_else(|| ingest::remove(&key)));
                }
                Err(found) => {
                    self.unread.insert(key, found);
                }
            }
        }
        problems.extend(self.unread.values().flatten().cloned());
        problems.sort();
        Update { events, revision, problems, stale: Vec::new() }
    }
}
