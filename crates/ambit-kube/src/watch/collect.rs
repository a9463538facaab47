//! Gathers the news of all kinds: first the state, then batches.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ambit_manifest::{Location, ObjectKey, Problem, SERVED};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{error, info};

use super::{Batch, State};

/// Longest time the first piece of news waits for others.
pub const COALESCE_MAX: Duration = Duration::from_millis(50);
/// Most objects of a batch.
pub const BATCH_MAX: usize = 1000;
/// A batch is complete when nothing came for so long.
const QUIET: Duration = Duration::from_millis(5);
/// Pause between two remarks on what is waited for at the start.
const REMARK_PAUSE: Duration = Duration::from_secs(10);
/// Objects of a namespace, and problems of an object, that are listed.
const OBJECTS_MAX: usize = 1000;
const PROBLEMS_MAX: usize = 10;

/// News of a kind.
#[derive(Debug)]
pub(super) enum Note<T> {
    /// An object is there, as made of it, or cannot be read.
    Put { key: ObjectKey, made: Result<T, Vec<Problem>>, revision: u64 },
    /// An object is gone.
    Gone { key: ObjectKey, revision: u64 },
    /// All objects of a selection have been told.
    Listed { index: usize, revision: u64 },
    /// An object could not even be named.
    Unread { index: usize, words: String },
    /// A selection can no longer be followed.
    Lost { index: usize, words: String },
    /// It can again.
    Well { index: usize },
}

/// What has come and not been handed on, and what is wrong.
#[derive(Debug)]
pub(super) struct Gathered<T> {
    /// Plurals of the selections, for people.
    selections: Vec<String>,
    /// Selections of which not everything has been told.
    waiting: BTreeSet<usize>,
    /// The newest word on each object; none if it is gone.
    news: BTreeMap<ObjectKey, Option<T>>,
    problems: BTreeMap<ObjectKey, Vec<Problem>>,
    unread: BTreeMap<usize, String>,
    lost: BTreeMap<usize, String>,
    revision: u64,
    /// Something is to be handed on, even if no object is.
    told: bool,
}

impl<T> Gathered<T> {
    pub(super) fn new(selections: Vec<String>) -> Self {
        let waiting = (0..selections.len()).collect();
        Self {
            selections,
            waiting,
            news: BTreeMap::new(),
            problems: BTreeMap::new(),
            unread: BTreeMap::new(),
            lost: BTreeMap::new(),
            revision: 0,
            told: false,
        }
    }

    pub(super) fn take(&mut self, note: Note<T>) {
        match note {
            Note::Put { key, made, revision } => {
                self.reached(revision);
                match made {
                    Ok(made) => {
                        self.problems.remove(&key);
                        self.news.insert(key, Some(made));
                    }
                    // The version before stays in force.
                    Err(mut found) => {
                        found.truncate(PROBLEMS_MAX);
                        self.problems.insert(key, found);
                        self.told = true;
                    }
                }
            }
            Note::Gone { key, revision } => {
                self.reached(revision);
                self.problems.remove(&key);
                self.news.insert(key, None);
            }
            Note::Listed { index, revision } => {
                self.reached(revision);
                self.waiting.remove(&index);
                self.told |= self.unread.remove(&index).is_some();
            }
            Note::Unread { index, words } => {
                self.told |= self.unread.insert(index, words.clone()).as_ref() != Some(&words);
            }
            Note::Lost { index, words } => {
                self.told |= self.lost.insert(index, words.clone()).as_ref() != Some(&words);
            }
            Note::Well { index } => self.told |= self.lost.remove(&index).is_some(),
        }
    }

    fn reached(&mut self, revision: u64) {
        self.revision = self.revision.max(revision);
    }

    /// Whether every selection has been told of once.
    pub(super) fn is_complete(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether there is nothing to hand on.
    pub(super) fn is_idle(&self) -> bool {
        self.news.is_empty() && !self.told
    }

    fn is_full(&self) -> bool {
        self.news.len() >= BATCH_MAX
    }

    /// What is there, once.
    pub(super) fn state(&mut self) -> State<T> {
        self.told = !self.lost.is_empty();
        let objects = std::mem::take(&mut self.news).into_values().flatten().collect();
        State { objects, problems: self.problems(), revision: self.revision }
    }

    /// What has come since.
    pub(super) fn batch(&mut self) -> Batch<T> {
        self.told = false;
        let (mut changed, mut removed) = (Vec::new(), Vec::new());
        for (key, made) in std::mem::take(&mut self.news) {
            match made {
                Some(made) => changed.push(made),
                None => removed.push(key),
            }
        }
        let stale =
            self.lost.iter().map(|(index, words)| format!("{}: {words}", self.plural(*index))).collect();
        Batch { changed, removed, problems: self.problems(), revision: self.revision, stale }
    }

    fn plural(&self, index: usize) -> &str {
        self.selections.get(index).map_or("objects", String::as_str)
    }

    fn problems(&self) -> Vec<Problem> {
        let mut listed: BTreeMap<Option<&str>, usize> = BTreeMap::new();
        let mut all = Vec::new();
        for (key, found) in &self.problems {
            let count = listed.entry(key.namespace.as_deref()).or_default();
            *count += 1;
            if *count <= OBJECTS_MAX {
                all.extend(found.iter().cloned());
            }
        }
        for (namespace, count) in listed.into_iter().filter(|(_, count)| *count > OBJECTS_MAX) {
            let more = count - OBJECTS_MAX;
            let place =
                namespace.map_or_else(|| "outside namespaces".to_owned(), |n| format!("in namespace {n}"));
            all.push(problem(format!("{more} more objects {place} have problems that are not listed")));
        }
        let unread = self.unread.iter();
        all.extend(unread.map(|(index, words)| {
            problem(format!("one of the {} cannot be read: {words}", self.plural(*index)))
        }));
        all.sort();
        all
    }

    fn remark(&self) {
        let waiting: Vec<&str> = self.waiting.iter().map(|index| self.plural(*index)).collect();
        let lost: Vec<&str> = self.lost.values().map(String::as_str).collect();
        info!(kinds = %waiting.join(" "), causes = %lost.join("; "), "objects are still being listed");
    }
}

/// A problem of no object in particular.
fn problem(message: String) -> Problem {
    let location = Location { file: SERVED.into(), line: 1, column: 1 };
    Problem { location, object: None, field: String::new(), message, nearest: None, other: None }
}

/// Gathers until nobody listens, or until a follower has ended, which none does while somebody listens.
pub(super) async fn gather<T: Send + 'static>(
    selections: Vec<String>,
    mut notes: mpsc::Receiver<Note<T>>,
    followers: Vec<JoinHandle<()>>,
    mut first: oneshot::Sender<State<T>>,
    batches: mpsc::Sender<Batch<T>>,
) {
    let mut gathered = Gathered::new(selections);
    let mut followers: FuturesUnordered<JoinHandle<()>> = followers.into_iter().collect();
    while !gathered.is_complete() {
        tokio::select! {
            () = first.closed() => return,
            _ = followers.next(), if !followers.is_empty() => return fell(),
            () = sleep(REMARK_PAUSE) => gathered.remark(),
            note = notes.recv() => match note {
                Some(note) => gathered.take(note),
                None => return,
            },
        }
    }
    if first.send(gathered.state()).is_err() {
        return;
    }
    loop {
        if gathered.is_idle() {
            let note = tokio::select! {
                () = batches.closed() => return,
                _ = followers.next(), if !followers.is_empty() => return fell(),
                note = notes.recv() => note,
            };
            match note {
                Some(note) => gathered.take(note),
                None => return,
            }
        }
        if !gathered.is_idle() {
            // An end of the notes shows again with the next one.
            let _ = timeout(COALESCE_MAX, fill(&mut gathered, &mut notes)).await;
            if batches.send(gathered.batch()).await.is_err() {
                return;
            }
        }
    }
}

/// Takes what comes until it is quiet, or the batch is full.
async fn fill<T>(gathered: &mut Gathered<T>, notes: &mut mpsc::Receiver<Note<T>>) {
    while !gathered.is_full() {
        match timeout(QUIET, notes.recv()).await {
            Ok(Some(note)) => gathered.take(note),
            Ok(None) | Err(_) => return,
        }
    }
}

fn fell() {
    error!("a watch has ended although somebody listens; objects are no longer followed");
}
