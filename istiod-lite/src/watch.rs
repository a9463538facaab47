//! Where objects come from: batches of events with the revision they belong to and everything that is wrong.
//!
//! The rest of the program does not know whether a folder or an API server is behind it.

use std::collections::BTreeMap;
use std::path::Path;

use ambit_control::Event;
use ambit_folder::{Batch, FolderError, FolderState};
use ambit_manifest::{Located, ObjectKey, Problem};
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
}

/// A source of updates.
#[derive(Debug)]
pub struct Feed {
    batches: mpsc::Receiver<Batch>,
    /// Objects whose manifests are well-formed, but which the mesh cannot read.
    unread: BTreeMap<ObjectKey, Vec<Problem>>,
}

impl Feed {
    /// Reads a folder of manifests and follows it; the first update holds everything there is.
    ///
    /// # Errors
    /// [`FolderError`] if it cannot be read or watched.
    pub fn folder(path: &Path) -> Result<(Self, Update), FolderError> {
        let (state, batches) = ambit_folder::watch(path)?;
        let mut feed = Self { batches, unread: BTreeMap::new() };
        let FolderState { objects, problems, revision } = state;
        let first = feed.update(objects.into_values().collect(), Vec::new(), problems, revision);
        Ok((feed, first))
    }

    /// The next update; none when the source is gone for good.
    pub async fn next(&mut self) -> Option<Update> {
        let batch = self.batches.recv().await?;
        Some(self.update(batch.changed, batch.removed, batch.problems, batch.revision))
    }

    fn update(
        &mut self,
        changed: Vec<Located>,
        removed: Vec<ObjectKey>,
        mut problems: Vec<Problem>,
        revision: u64,
    ) -> Update {
        let mut events = Vec::new();
        for key in removed {
            self.unread.remove(&key);
            events.extend(ingest::remove(&key));
        }
        for object in changed {
            match ingest::put(&object) {
                Ok(event) => {
                    self.unread.remove(&object.key);
                    // An object that was read before and now means nothing to the mesh is gone for it.
                    events.extend(event.or_else(|| ingest::remove(&object.key)));
                }
                Err(found) => {
                    self.unread.insert(object.key.clone(), found);
                }
            }
        }
        problems.extend(self.unread.values().flatten().cloned());
        problems.sort();
        Update { events, revision, problems }
    }
}
