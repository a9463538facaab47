//! The proxies that attend, and the questions that are open with them.
//!
//! Nobody waits for anybody here: who asks and is slow loses records, which is counted and told, and holds up neither
//! the proxies nor others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ambit_control::{Delta, Name};
use ambit_runtime::clock;
use ambit_xds::proto::ambit::observe::v1::{Flows, Memory, Summary, ToProxy, to_proxy};
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::{Semaphore, broadcast, mpsc};
use tonic::Status;
use tracing::warn;

use super::aggregates::{Aggregates, cut};
use super::edges;
use super::incidents::{Cause, Incidents};
use super::places::{Misfit, Places};
use crate::console::Coverage;

mod asking;
mod attended;
#[cfg(test)]
mod tests;

pub(super) use asking::Asking;
pub(super) use attended::Attended;

/// Proxies of one name at once: one, the one that replaces it, and those not yet noticed dead.
const PER_NAME_MAX: usize = 4;
/// Proxies at once.
const ATTENDING_MAX: usize = 5_000;
/// Questions that are open at once.
const ASKED_MAX: usize = 256;
/// Messages that wait for a proxy, and answers that wait for who asked.
const TO_PROXY: usize = 64;
const ANSWERS: usize = 1024;
/// Bytes of the answers that wait for who asked once, and for who follows; where none waits, one message is taken.
const ANSWERS_BYTES_MAX: usize = 32 << 20;
const FOLLOWED_BYTES_MAX: usize = 4 << 20;
/// Bytes of the answers of all proxies to one question that is not about records.
const ANSWERED_BYTES_MAX: usize = 64 << 20;
/// Longest record that is passed on; proxies write no such ones.
pub(super) const RECORD_BYTES_MAX: usize = 32 << 10;
/// Instances of which the last summary is remembered.
const INSTANCES: usize = 20_000;
/// Refusals that a watcher may be behind.
const REFUSALS: usize = 1024;
/// Seconds within which those who attend have told what they saw: twice their pace.
const TOLD_WITHIN: u64 = 10;
/// Longest wait for answers.
pub(super) const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// Who attends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Who {
    /// Its node's name, or `NAMESPACE/POD` of a waypoint.
    pub(super) name: String,
    /// The node it is on.
    pub(super) node: String,
    /// The Gateway that it is of, if it is a waypoint.
    pub(super) gateway: Option<Name>,
    pub(super) version: String,
    pub(super) instance: u64,
}

/// Something to be asked of every proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// The connections that are open, the newest first; ztunnels know.
    Connections {
        /// At most so many.
        most: u32,
    },
    /// What would happen; the body of `POST /explain`.
    Explain(Bytes),
    /// What the last tests of itself came to; ztunnels know.
    SelfTests,
    /// The certificates that it holds.
    Certificates {
        /// Only of this identity; of all where it is none.
        identity: Option<String>,
    },
    /// What it uses of what it may use; ztunnels know.
    Budget,
}

/// Why a proxy gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// It does not answer such a question, or could not.
    #[error("{0}")]
    Refused(String),
    /// Too much waits for it.
    #[error("it takes no questions now")]
    Busy,
    /// It did not answer in time, or left.
    #[error("no answer within {ANSWER_WAIT:?}")]
    Silent,
    /// Those before it answered so much that there is no room for more.
    #[error("all answers together are longer than {ANSWERED_BYTES_MAX} bytes")]
    TooMuch,
    /// What it answered is no JSON, or not what was asked for.
    #[error("the answer cannot be read")]
    Garbled,
}

/// What one proxy said to a question.
#[derive(Debug)]
pub(super) enum Said {
    /// Flow records, and how many were lost before the next ones.
    Records(Vec<Bytes>, u64),
    Answer(Bytes),
    /// No more; why, if it is a failure, and what is held.
    Ended(Option<String>, Option<Memory>),
    Left,
}

impl Said {
    /// Bytes that wait with it; words without content count none.
    fn bytes(&self) -> usize {
        match self {
            Self::Records(records, _) => records.iter().map(Bytes::len).sum(),
            Self::Answer(json) => json.len(),
            Self::Ended(..) | Self::Left => 0,
        }
    }
}

/// An answer, and whose it is.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) number: u64,
    pub(super) who: Arc<Who>,
    pub(super) said: Said,
}

#[derive(Debug)]
struct Proxy {
    who: Arc<Who>,
    send: mpsc::Sender<Result<ToProxy, Status>>,
}

#[derive(Debug)]
struct Asked {
    to: mpsc::Sender<Heard>,
    /// Asked of those too that come later.
    follow: Option<Flows>,
    /// Records that found no room since the last that did.
    lost: u64,
    /// Bytes of the answers that wait.
    queued: Arc<AtomicUsize>,
}

impl Asked {
    /// Whether an answer of so many bytes may wait. Words without content always may.
    fn has_room(&self, bytes: usize) -> bool {
        let most = if self.follow.is_some() { FOLLOWED_BYTES_MAX } else { ANSWERS_BYTES_MAX };
        let queued = self.queued.load(Ordering::Relaxed);
        bytes == 0 || queued == 0 || queued.saturating_add(bytes) <= most
    }

    /// Passes on an answer if there is room; whether there was.
    fn pass(&self, heard: Heard) -> bool {
        let bytes = heard.said.bytes();
        if !self.has_room(bytes) {
            return false;
        }
        // Counted first: the other end takes it off as soon as it has the answer.
        self.queued.fetch_add(bytes, Ordering::Relaxed);
        let passed = self.to.try_send(heard).is_ok();
        if !passed {
            self.queued.fetch_sub(bytes, Ordering::Relaxed);
        }
        passed
    }
}

/// What is remembered of an instance.
#[derive(Debug, Clone, Copy, Default)]
struct Counted {
    /// The last summary that was counted, and when.
    number: u64,
    at: u64,
    /// Whether it was said that it tells of what it may not.
    is_warned: bool,
}

#[derive(Debug)]
struct Inner {
    next: AtomicU64,
    proxies: Mutex<BTreeMap<u64, Proxy>>,
    asked: Mutex<BTreeMap<u64, Asked>>,
    aggregates: Mutex<Aggregates>,
    incidents: Mutex<Incidents>,
    places: Mutex<Places>,
    counted: Mutex<BTreeMap<u64, Counted>>,
    refusals: broadcast::Sender<Arc<str>>,
    /// Whose turn it is to ask everybody for certificates.
    certificates: Semaphore,
}

/// The proxies that attend, and what they told. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

impl Default for Hub {
    fn default() -> Self {
        let inner = Inner {
            next: AtomicU64::new(1),
            proxies: Mutex::default(),
            asked: Mutex::default(),
            aggregates: Mutex::default(),
            incidents: Mutex::default(),
            places: Mutex::default(),
            counted: Mutex::default(),
            refusals: broadcast::Sender::new(REFUSALS),
            certificates: Semaphore::new(1),
        };
        Self { inner: Arc::new(inner) }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    fn next(&self) -> u64 {
        self.inner.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes in a proxy; messages for it go to `send`, which has room for [`Hub::QUEUE`].
    ///
    /// # Errors
    /// A status, if there are too many.
    pub(super) fn attend(
        &self,
        who: Who,
        send: mpsc::Sender<Result<ToProxy, Status>>,
    ) -> Result<Attended, Status> {
        let (number, who) = (self.next(), Arc::new(who));
        {
            let mut proxies = lock(&self.inner.proxies);
            let same = proxies.values().filter(|proxy| proxy.who.name == who.name).count();
            if same >= PER_NAME_MAX || proxies.len() >= ATTENDING_MAX {
                return Err(Status::resource_exhausted(
                    "too many attend; the connections of dead ones end soon",
                ));
            }
            proxies.insert(number, Proxy { who: who.clone(), send: send.clone() });
        }
        for (id, asked) in lock(&self.inner.asked).iter() {
            if let Some(flows) = &asked.follow {
                let flows = Flows { last: 0, ..flows.clone() };
                // Its queue is empty.
                let _ = send.try_send(Ok(message(*id, to_proxy::Content::Flows(flows))));
            }
        }
        metrics::gauge!("ambit_observe_attending").increment(1.0);
        Ok(Attended { hub: self.clone(), number, who })
    }

    /// Messages that a proxy's queue has to have room for.
    pub(super) const QUEUE: usize = TO_PROXY;

    /// Whether somebody wants to hear of refusals at once.
    pub(super) fn is_watched(&self) -> bool {
        self.inner.refusals.receiver_count() > 0
    }

    /// Refusals as they come; while anybody listens, proxies tell more often.
    pub fn watch_refusals(&self) -> broadcast::Receiver<Arc<str>> {
        self.inner.refusals.subscribe()
    }

    /// The proxies that attend, by name, with their versions.
    pub fn versions(&self) -> BTreeMap<String, String> {
        let proxies = lock(&self.inner.proxies);
        proxies.values().map(|proxy| (proxy.who.name.clone(), proxy.who.version.clone())).collect()
    }

    /// Workloads and services have changed: what proxies tell is held against them. To be called before proxies hear
    /// of it.
    pub fn placed(&self, delta: &Delta) {
        lock(&self.inner.places).take(delta, clock::unix_seconds());
    }

    /// The configuration has changed: what, in words.
    pub fn changed(&self, revision: u64, text: String) {
        lock(&self.inner.incidents).changed(revision, cut(text), clock::unix_seconds());
    }

    /// Incidents and changes, newest first.
    pub fn items_of_incidents(&self) -> Vec<Value> {
        lock(&self.inner.incidents).items()
    }

    /// Edges of a window, as the API has them.
    pub fn edges(&self, window: Duration) -> Vec<Value> {
        edges::edges(&lock(&self.inner.aggregates), window.as_secs(), clock::unix_seconds())
    }

    /// The same with what each side of them told.
    pub fn reported(&self, window: Duration) -> Vec<Value> {
        edges::reported(&lock(&self.inner.aggregates), window.as_secs(), clock::unix_seconds())
    }

    /// Pairs of a window, as records to be decided again.
    pub fn seen(&self, window: Duration) -> Vec<ambit_explain::Flow> {
        edges::flows(&lock(&self.inner.aggregates), window.as_secs(), clock::unix_seconds())
    }

    /// How much of what happened the counts of pairs hold.
    pub fn coverage(&self) -> Coverage {
        let is_attended = !lock(&self.inner.proxies).is_empty();
        let until = is_attended.then(|| clock::unix_seconds().saturating_sub(TOLD_WITHIN));
        let until = until.map(edges::rfc3339_millis);
        let aggregates = lock(&self.inner.aggregates);
        let since = aggregates.began.map(edges::rfc3339_millis);
        Coverage { since, until, lost: aggregates.lost, forgotten: aggregates.forgotten }
    }

    /// Asks for flow records; none if too much is asked at once.
    pub(super) fn ask_flows(&self, flows: Flows) -> Option<Asking> {
        let follow = flows.follow.then(|| flows.clone());
        self.open(&to_proxy::Content::Flows(flows), follow, |_| true)
    }

    fn open(
        &self,
        content: &to_proxy::Content,
        follow: Option<Flows>,
        is_meant: impl Fn(&Who) -> bool,
    ) -> Option<Asking> {
        let id = self.next();
        let (to, answers) = mpsc::channel(ANSWERS);
        let queued = Arc::new(AtomicUsize::new(0));
        {
            let mut asked = lock(&self.inner.asked);
            if asked.len() >= ASKED_MAX {
                return None;
            }
            asked.insert(id, Asked { to, follow, lost: 0, queued: queued.clone() });
        }
        let (waiting, unasked) = (BTreeSet::new(), Vec::new());
        let mut asking = Asking { hub: self.clone(), id, answers, queued, waiting, unasked };
        for (number, proxy) in lock(&self.inner.proxies).iter().filter(|(_, proxy)| is_meant(&proxy.who)) {
            match proxy.send.try_send(Ok(message(id, content.clone()))) {
                Ok(()) => {
                    asking.waiting.insert(*number);
                }
                Err(_) => asking.unasked.push(proxy.who.name.clone()),
            }
        }
        Some(asking)
    }

    fn answered(&self, number: u64, who: &Arc<Who>, id: u64, said: Said) {
        let mut asked = lock(&self.inner.asked);
        let Some(asked) = asked.get_mut(&id) else { return };
        let is_records = matches!(said, Said::Records(..));
        let (said, before) = match said {
            Said::Records(records, lost) => {
                let count = records.len() as u64;
                (Said::Records(records, lost + asked.lost), lost + count)
            }
            said => (said, 0),
        };
        match asked.pass(Heard { number, who: who.clone(), said }) {
            true if is_records => asked.lost = 0,
            true => {}
            // Whoever asked is slow, or gone.
            false => {
                asked.lost += before;
                metrics::counter!("ambit_flow_records_lost_total", "cause" => "asker").increment(before);
            }
        }
    }

    /// Counts a summary, unless it was counted before. What its teller may not tell of is left out.
    fn summary(&self, number: u64, who: &Who, mut summary: Summary) {
        let now = clock::unix_seconds();
        if !self.is_new(who.instance, summary.number, now) {
            return;
        }
        let dropped = self.drop_misfits(who, &mut summary, now);
        let refused: Vec<(Cause, u64)> = summary.pairs.iter().filter_map(attended::refusal).collect();
        metrics::counter!("ambit_observe_pairs_lost_total").increment(summary.lost);
        {
            let mut aggregates = lock(&self.inner.aggregates);
            aggregates.lose(dropped);
            aggregates.take(number, summary, now);
        }
        let mut incidents = lock(&self.inner.incidents);
        refused.into_iter().for_each(|(cause, count)| incidents.refused(cause, count, now));
    }

    /// Whether a summary was not counted before; from now on it was.
    fn is_new(&self, instance: u64, number: u64, now: u64) -> bool {
        let mut counted = lock(&self.inner.counted);
        let before = counted.get(&instance).copied().unwrap_or_default();
        if number <= before.number {
            return false;
        }
        if counted.len() >= INSTANCES
            && let Some(oldest) = counted.iter().min_by_key(|(_, one)| one.at).map(|(id, _)| *id)
        {
            counted.remove(&oldest);
        }
        counted.insert(instance, Counted { number, at: now, ..before });
        true
    }

    /// Takes out pairs that their teller may not tell of; how many connections and requests that were.
    fn drop_misfits(&self, who: &Who, summary: &mut Summary, now: u64) -> u64 {
        let mut dropped: BTreeMap<Misfit, u64> = BTreeMap::new();
        let mut first = None;
        {
            let places = lock(&self.inner.places);
            summary.pairs.retain_mut(|pair| {
                let Err(misfit) = places.check(who, pair, now) else { return true };
                let count = dropped.entry(misfit).or_default();
                *count = count.saturating_add(pair.opened.max(pair.ended).saturating_add(pair.requests));
                first.get_or_insert_with(|| (misfit, attended::named(pair)));
                false
            });
        }
        for (misfit, count) in &dropped {
            metrics::counter!("ambit_observe_pairs_dropped_total", "cause" => misfit.cause())
                .increment(*count);
        }
        if let Some((misfit, pair)) = first {
            self.warn(who, misfit, &pair);
        }
        dropped.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Says once of a proxy that it tells of what it may not.
    fn warn(&self, who: &Who, misfit: Misfit, pair: &str) {
        let mut counted = lock(&self.inner.counted);
        let Some(one) = counted.get_mut(&who.instance).filter(|one| !one.is_warned) else { return };
        one.is_warned = true;
        drop(counted);
        let (name, node, cause) = (&who.name, &who.node, misfit.cause());
        warn!(name, node, cause, pair, "a proxy tells of what is not its own; it is not counted");
    }

    /// Tells watchers of refusals.
    fn refused(&self, records: &[Bytes]) {
        if !self.is_watched() {
            return;
        }
        for record in records.iter().filter(|record| is_passed_on(record)) {
            let Ok(record) = serde_json::from_slice::<Value>(record) else { continue };
            // Written anew, so that it holds no line break. Nobody watching any more is normal.
            let _ = self.inner.refusals.send(record.to_string().into());
        }
    }
}

/// Whether a record is short enough to be passed on; counts those that are not.
pub(super) fn is_passed_on(record: &Bytes) -> bool {
    let is_short = record.len() <= RECORD_BYTES_MAX;
    if !is_short {
        metrics::counter!("ambit_flow_records_lost_total", "cause" => "size").increment(1);
    }
    is_short
}

pub(super) fn message(id: u64, content: to_proxy::Content) -> ToProxy {
    ToProxy { id, content: Some(content) }
}
