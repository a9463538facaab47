//! What the API server holds, as the lab sees it: the served objects with the lab's own writes laid over them until
//! they come back.
//!
//! A write is in force here at once, so that a decision is never taken twice; it is carried out beside ([`super::writer`])
//! and outlasts an API server that is away. What the server refuses is dropped again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ambit_manifest::{Kind, Located, ObjectKey};
use ambit_runtime::clock;
use serde_json::Value;
use tokio::sync::{Notify, watch};

mod write;

use write::Write;
pub(super) use write::{Job, Outcome, What};

use super::delta::{combine, difference, overlay};
use crate::store::{Snapshot, Stored};

/// How many removed objects are remembered, so that no late answer brings one back.
const GONE_MAX: usize = 4096;
/// Pause before a write is repeated that the server refused, or took and that changed nothing.
const AGAIN: Duration = Duration::from_secs(1);

/// An object as it is served.
#[derive(Debug, Clone)]
struct Served {
    version: u64,
    uid: String,
    stored: Stored,
}

#[derive(Debug, Default)]
struct Inner {
    served: BTreeMap<ObjectKey, Served>,
    writes: BTreeMap<ObjectKey, Write>,
    /// The last patch of an object that the server was sent, and when it had answered.
    taken: BTreeMap<ObjectKey, (Value, Instant)>,
    gone: VecDeque<String>,
}

/// The served objects under the lab's writes.
#[derive(Debug)]
pub struct Mirror {
    current: watch::Sender<Arc<Snapshot>>,
    /// Kinds whose versions count as the revision of the objects: those that the control plane reads.
    counted: BTreeSet<Kind>,
    inner: Mutex<Inner>,
    wake: Notify,
}

impl Mirror {
    /// An empty mirror that shows itself there.
    pub(super) fn new(current: watch::Sender<Arc<Snapshot>>, counted: BTreeSet<Kind>) -> Self {
        Self { current, counted, inner: Mutex::default(), wake: Notify::new() }
    }

    /// Takes in what a watch says; `revision` only of one whose kinds are counted.
    pub(super) fn take_in(&self, changed: Vec<Located>, removed: Vec<ObjectKey>, revision: Option<u64>) {
        let mut inner = self.lock();
        let mut keys = BTreeSet::new();
        for located in changed {
            let key = located.key.clone();
            if inner.take(located) {
                keys.insert(key);
            }
        }
        for key in removed {
            if let Some(served) = inner.served.remove(&key) {
                inner.forget(served.uid);
            }
            inner.writes.remove(&key);
            inner.taken.remove(&key);
            keys.insert(key);
        }
        self.show(&inner, &keys, revision);
    }

    /// Takes in one object as a request of the lab was answered with it.
    pub(super) fn take_answer(&self, value: Value) {
        let mut inner = self.lock();
        self.answered(&mut inner, value);
    }

    fn answered(&self, inner: &mut Inner, value: Value) {
        let Ok(located) = ambit_kube::served::read(value) else { return };
        let (key, version) = (located.key.clone(), version_of(&located.value));
        let phase = located.value.pointer("/status/phase").and_then(Value::as_str);
        // The control plane does not follow pods that have ended.
        let ended = key.kind == Kind::Pod && matches!(phase, Some("Succeeded" | "Failed"));
        if inner.gone.contains(&uid_of(&located.value)) || !inner.take(located) {
            return;
        }
        let revision = (self.counted.contains(&key.kind) && !ended).then_some(version);
        self.show(inner, &BTreeSet::from([key]), revision);
    }

    /// Changes one object in place; a missing one is left missing, and one that says so already costs nothing.
    pub fn change(&self, key: &ObjectKey, change: impl Fn(&mut Value)) {
        let mut inner = self.lock();
        let Some(shown) = inner.shown(key) else { return };
        let mut changed = (*shown.value).clone();
        change(&mut changed);
        let Some(patch) = difference(&shown.value, &changed) else { return };
        let recent = |(last, at): &(Value, Instant)| *last == patch && clock::monotonic() - *at < AGAIN;
        if inner.taken.get(key).is_some_and(recent) {
            return;
        }
        let uid = uid_of(&shown.value);
        let write = inner.write(key, uid);
        match &mut write.waiting {
            Some(waiting) => combine(waiting, &patch),
            None => write.waiting = Some(patch),
        }
        self.show(&inner, &BTreeSet::from([key.clone()]), None);
        self.wake.notify_one();
    }

    /// Removes one object at once; a missing one is no error.
    pub fn remove(&self, key: &ObjectKey) {
        let mut inner = self.lock();
        let Some(served) = inner.served.get(key) else { return };
        let uid = served.uid.clone();
        inner.write(key, uid).remove = true;
        self.show(&inner, &BTreeSet::from([key.clone()]), None);
        self.wake.notify_one();
    }

    /// Whether an object has a field as it is served, whatever is being written to it.
    pub fn serves(&self, key: &ObjectKey, pointer: &str) -> bool {
        let inner = self.lock();
        let served = inner.served.get(key).and_then(|served| served.stored.value.pointer(pointer));
        served.is_some_and(|value| !value.is_null())
    }

    /// The next thing to send, which nobody sends yet.
    pub(super) fn next_job(&self) -> Option<Job> {
        let mut inner = self.lock();
        let due = |(_, write): &(&ObjectKey, &mut Write)| !write.busy;
        let (key, write) = inner.writes.iter_mut().find(due)?;
        write.busy = true;
        Some(write.job(key))
    }

    /// The job with all that was asked meanwhile; none if the object is gone.
    pub(super) fn renewed(&self, job: &Job) -> Option<Job> {
        let mut inner = self.lock();
        let write = inner.writes.get_mut(&job.key).filter(|w| w.uid == job.uid)?;
        Some(write.job(&job.key))
    }

    /// Takes in what became of a job; says what is to be sent next of that object.
    pub(super) fn finish(&self, job: &Job, outcome: Outcome) -> Option<Job> {
        let mut inner = self.lock();
        // Taken or refused, the same again at once would come to the same.
        if let What::Patch(patch) = &job.what {
            inner.taken.insert(job.key.clone(), (patch.clone(), clock::monotonic()));
        }
        let mut next = None;
        if let Some(write) = inner.writes.get_mut(&job.key).filter(|w| w.uid == job.uid) {
            write.sent = None;
            let removed = write.remove && matches!(job.what, What::Remove);
            if write.waiting.is_some() || (write.remove && !removed) {
                next = Some(write.job(&job.key));
            } else if !(removed && matches!(outcome, Outcome::Now(_) | Outcome::Done)) {
                inner.writes.remove(&job.key);
            }
            // What was removed stays hidden until the watch says so too.
        }
        match outcome {
            Outcome::Now(value) if matches!(job.what, What::Patch(_)) => self.answered(&mut inner, value),
            Outcome::Now(_) | Outcome::Done | Outcome::Dropped => {}
        }
        self.show(&inner, &BTreeSet::from([job.key.clone()]), None);
        next
    }

    /// Resolves when there may be something to send.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is made whole before anything can panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows some objects as they are now.
    fn show(&self, inner: &Inner, keys: &BTreeSet<ObjectKey>, revision: Option<u64>) {
        self.current.send_if_modified(|current| {
            let newer = revision.filter(|r| *r > current.revision);
            let mut fresh: Vec<(&ObjectKey, Option<Stored>)> =
                keys.iter().map(|key| (key, inner.shown(key))).collect();
            fresh.retain(|(key, stored)| {
                let old = current.objects.get(*key);
                old.map(|o| &o.value) != stored.as_ref().map(|s| &s.value)
            });
            if newer.is_none() && fresh.is_empty() {
                return false;
            }
            let snapshot = Arc::make_mut(current);
            snapshot.revision = newer.unwrap_or(snapshot.revision);
            for (key, stored) in fresh {
                match stored {
                    Some(stored) => _ = snapshot.objects.insert(key.clone(), stored),
                    None => _ = snapshot.objects.remove(key),
                }
            }
            true
        });
    }
}

impl Inner {
    /// Takes an object in unless it is known to be newer; a new one of its name ends what was meant for the old.
    fn take(&mut self, located: Located) -> bool {
        let (version, uid) = (version_of(&located.value), uid_of(&located.value));
        let key = located.key.clone();
        if let Some(known) = self.served.get(&key) {
            if known.uid == uid && known.version >= version {
                return false;
            }
            if known.uid != uid {
                self.writes.remove(&key);
                self.taken.remove(&key);
            }
        }
        self.served.insert(key, Served { version, uid, stored: located.into() });
        true
    }

    fn forget(&mut self, uid: String) {
        if self.gone.len() == GONE_MAX {
            self.gone.pop_front();
        }
        self.gone.push_back(uid);
    }

    fn write(&mut self, key: &ObjectKey, uid: String) -> &mut Write {
        let write = self.writes.entry(key.clone()).or_default();
        if write.uid != uid {
            *write = Write { uid, ..Write::default() };
        }
        write
    }

    /// An object with what is written to it.
    fn shown(&self, key: &ObjectKey) -> Option<Stored> {
        let served = self.served.get(key)?;
        let Some(write) = self.writes.get(key).filter(|w| w.uid == served.uid) else {
            return Some(served.stored.clone());
        };
        if write.remove {
            return None;
        }
        let mut value = (*served.stored.value).clone();
        for patch in write.sent.iter().chain(&write.waiting) {
            overlay(&mut value, patch);
        }
        match ambit_kube::served::read(value) {
            Ok(located) => Some(located.into()),
            Err(problems) => {
                let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
                tracing::error!(object = %key, problems = problems.join("; "), "a write makes no valid object");
                Some(served.stored.clone())
            }
        }
    }
}

/// The version of a served object; 0 if it is no number.
pub(super) fn version_of(object: &Value) -> u64 {
    let text = object.pointer("/metadata/resourceVersion").and_then(Value::as_str);
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The uid of an object.
pub(super) fn uid_of(object: &Value) -> String {
    object.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
