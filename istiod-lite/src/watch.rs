//! Where objects come from: batches of events with the revision they belong to and everything that is wrong.
//!
//! The rest of the program does not know whether a folder or an API server is behind it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use ambit_control::Event;
use ambit_folder::{FolderError, FolderState};
use ambit_kube::watch::Scope;
use ambit_manifest::{Located, ObjectKey, Problem};
use ambit_runtime::clock;
use kube::Client;
use tokio::sync::mpsc;

use crate::ingest;
use crate::passes::{End, Passes};

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
pub struct Feed {
    inner: Inner,
    passes: Passes,
    /// How it stood at the last update, without events.
    last: Update,
}

#[derive(Debug)]
enum Inner {
    Folder(Folder),
    Kube(mpsc::Receiver<ambit_kube::watch::Batch<Taken>>, Passes),
}

/// An object of a folder, reduced as it was read: of tens of thousands nothing else is ever held.
#[derive(Debug)]
struct Reduced {
    key: ObjectKey,
    file: Arc<str>,
    end: End,
    read: Result<Option<Event>, Vec<Problem>>,
}

/// An object of an API server, reduced. Whether it is in force is judged when it is taken in, not when it was read: a
/// pass may end while it waits.
#[derive(Debug)]
struct Taken {
    key: ObjectKey,
    file: Arc<str>,
    end: End,
    event: Option<Event>,
}

impl Taken {
    fn event(self, passes: &Passes, now: SystemTime) -> Option<Event> {
        let is_in_force = passes.take(&self.key, &self.file, &self.end, now);
        // An object that was read before and now means nothing to the mesh is gone for it.
        self.event.filter(|_| is_in_force).or_else(|| ingest::remove(&self.key))
    }
}

#[derive(Debug)]
struct Folder {
    batches: mpsc::Receiver<ambit_folder::Batch<Reduced>>,
    passes: Passes,
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
            let (end, read) = (End::of(&object), ingest::put(&object));
            Reduced { key: object.key, file: object.location.file, end, read }
        };
        let (state, batches) = ambit_folder::watch_as(path, reduce)?;
        let passes = Passes::default();
        let mut folder = Folder { batches, passes: passes.clone(), unread: BTreeMap::new() };
        let FolderState { objects, problems, revision } = state;
        let mut first = folder.update(objects.into_values().collect(), Vec::new(), problems, revision);
        first.close_doubted(&passes);
        let last = first.without_events();
        Ok((Self { inner: Inner::Folder(folder), passes, last }, first))
    }

    /// Lists what an API server holds and follows it; the first update holds everything there is. Waits until every
    /// kind that is served has been listed.
    ///
    /// Objects are reduced as they are read: of tens of thousands nothing else is ever held.
    pub async fn kube(client: Client, root_namespace: &str) -> (Self, Update) {
        let passes = Passes::default();
        let make = |object: Located| {
            let event = ingest::put(&object)?;
            Ok(Taken { end: End::of(&object), key: object.key, file: object.location.file, event })
        };
        let (state, batches) =
            ambit_kube::watch::watch_as(client, Scope::everything(root_namespace), make).await;
        let ambit_kube::watch::State { objects, problems, revision } = state;
        let events = objects.into_iter().filter_map(|object| object.event(&passes, clock::wall())).collect();
        let mut first = Update { events, revision, problems, stale: Vec::new() };
        first.close_doubted(&passes);
        let last = first.without_events();
        (Self { inner: Inner::Kube(batches, passes.clone()), passes, last }, first)
    }

    /// The next update; none when the source is gone for good. May be dropped while it waits.
    pub async fn next(&mut self) -> Option<Update> {
        loop {
            let ends = self.passes.clone();
            tokio::select! {
                update = self.inner.next() => {
                    let mut update = update?;
                    update.close_doubted(&self.passes);
                    self.last = update.without_events();
                    return Some(update);
                }
                () = ends.wait() => {
                    let ended = self.passes.ended(clock::wall());
                    let events: Vec<Event> = ended.iter().filter_map(ingest::remove).collect();
                    if !events.is_empty() {
                        return Some(Update { events, ..self.last.without_events() });
                    }
                }
            }
        }
    }
}

impl Update {
    /// Takes passes out of force that may have been changed to something that cannot be read.
    fn close_doubted(&mut self, passes: &Passes) {
        self.events.extend(passes.doubted(&self.problems).iter().filter_map(ingest::remove));
    }

    fn without_events(&self) -> Self {
        let Self { events: _, revision, problems, stale } = self;
        Self { events: Vec::new(), revision: *revision, problems: problems.clone(), stale: stale.clone() }
    }
}

impl Inner {
    async fn next(&mut self) -> Option<Update> {
        match self {
            Self::Folder(folder) => {
                let batch = folder.batches.recv().await?;
                Some(folder.update(batch.changed, batch.removed, batch.problems, batch.revision))
            }
            Self::Kube(batches, passes) => {
                let batch = batches.recv().await?;
                batch.removed.iter().for_each(|key| passes.forget(key));
                let removed = batch.removed.iter().filter_map(ingest::remove);
                let now = clock::wall();
                let changed = batch.changed.into_iter().filter_map(|object| object.event(passes, now));
                Some(Update {
                    events: removed.chain(changed).collect(),
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
            self.passes.forget(&key);
            events.extend(ingest::remove(&key));
        }
        for Reduced { key, file, end, read } in changed {
            let is_in_force = self.passes.take(&key, &file, &end, clock::wall());
            match read {
                Ok(event) => {
                    self.unread.remove(&key);
                    // An object that was read before and now means nothing to the mesh is gone for it.
                    events.extend(event.filter(|_| is_in_force).or_else(|| ingest::remove(&key)));
                }
                Err(found) => {
                    if !is_in_force {
                        events.extend(ingest::remove(&key));
                    }
                    self.unread.insert(key, found);
                }
            }
        }
        problems.extend(self.unread.values().flatten().cloned());
        problems.sort();
        Update { events, revision, problems, stale: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A pass that was opened at noon.
    fn pass(until: &str) -> Located {
        let text = format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: ambit-breakglass, \
             namespace: shop, annotations: {{ambit.internal/breakglass-opened: \"2026-01-01T12:00:00Z\", \
             ambit.internal/breakglass-until: \"{until}\"}}}}\nspec: {{action: ALLOW, rules: [{{}}]}}\n"
        );
        ambit_manifest::parse("m.yaml", &text).objects.remove(0)
    }

    fn time(text: &str) -> SystemTime {
        humantime::parse_rfc3339(text).expect("a time")
    }

    fn taken(object: &Located) -> Taken {
        let event = ingest::put(object).expect("a policy");
        let file = object.location.file.clone();
        Taken { key: object.key.clone(), file, end: End::of(object), event }
    }

    #[test]
    fn a_pass_whose_end_comes_while_it_waits_to_be_taken_in_is_not_in_force() {
        let (object, end) = (pass("2026-01-01T12:30:00Z"), time("2026-01-01T12:30:00Z"));
        let (passes, minute) = (Passes::default(), Duration::from_secs(60));
        let event = |now| taken(&object).event(&passes, now);
        assert!(matches!(event(end - minute), Some(Event::Put(_))));
        assert!(matches!(event(end + minute), Some(Event::Remove(_))));
        assert!(passes.ended(end + minute).is_empty(), "nothing of it is open");
    }

    #[test]
    fn an_edit_that_cannot_be_read_closes_a_pass() {
        let (object, noon) = (pass("2026-01-01T12:30:00Z"), time("2026-01-01T12:00:00Z"));
        let passes = Passes::default();
        assert!(matches!(taken(&object).event(&passes, noon), Some(Event::Put(_))));
        let problems = vec![object.problem("spec.rules", "it cannot be read")];
        let mut update = Update { problems, ..Update::default() };
        update.close_doubted(&passes);
        assert!(matches!(update.events.as_slice(), [Event::Remove(_)]), "{:?}", update.events);
        // It is told once, and the version before does not come back with the next listing.
        let mut next = Update { problems: update.problems, ..Update::default() };
        next.close_doubted(&passes);
        assert!(next.events.is_empty());
        assert!(matches!(taken(&object).event(&passes, noon), Some(Event::Remove(_))));
    }

    #[test]
    fn a_file_whose_pass_cannot_be_reduced_does_not_prolong_the_one_before() {
        let now = clock::wall();
        let until = |minutes: u64| {
            let end = now + Duration::from_secs(minutes * 60);
            humantime::format_rfc3339_seconds(end).to_string()
        };
        let opened = humantime::format_rfc3339_seconds(now).to_string();
        let written = |minutes| {
            let text = format!(
                "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: ambit-breakglass, \
                 namespace: shop, annotations: {{ambit.internal/breakglass-opened: \"{opened}\", \
                 ambit.internal/breakglass-until: \"{}\"}}}}\nspec: {{action: ALLOW, rules: [{{}}]}}\n",
                until(minutes)
            );
            ambit_manifest::parse("m.yaml", &text).objects.remove(0)
        };
        let reduced = |object: &Located, read| {
            let (key, file) = (object.key.clone(), object.location.file.clone());
            Reduced { key, file, end: End::of(object), read }
        };
        let (_sender, batches) = mpsc::channel(1);
        let passes = Passes::default();
        let mut folder = Folder { batches, passes: passes.clone(), unread: BTreeMap::new() };
        let good = written(10);
        let first = folder.update(vec![reduced(&good, ingest::put(&good))], Vec::new(), Vec::new(), 1);
        assert!(matches!(first.events.as_slice(), [Event::Put(_)]), "{:?}", first.events);
        let longer = written(60);
        let wrong = Err(vec![longer.problem("spec.rules", "it cannot be read")]);
        let mut second = folder.update(vec![reduced(&longer, wrong)], Vec::new(), Vec::new(), 2);
        second.close_doubted(&passes);
        assert!(matches!(second.events.as_slice(), [Event::Remove(_)]), "{:?}", second.events);
        assert!(passes.ended(now + Duration::from_secs(3600)).is_empty(), "nothing of it is open");
    }
}
