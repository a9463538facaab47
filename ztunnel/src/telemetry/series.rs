//! The series of connections: one set of counters for each set of labels, looked up once a connection.
//!
//! Kept here and not in the process's registry, because they name pods: a set goes with the last pod that it tells
//! of, once nothing of it is open and a scrape had time to see its last values (G39). Two pods of one controller have
//! the same labels and share a set. Beyond a bound all further sets share one, marked as such.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ambit_runtime::metrics::{IDLE, Source, text::family};
use ambit_types::Uid;

use super::labels::{Key, Text};
use crate::flow::Flow;

#[cfg(test)]
mod tests;

/// How long the series of a pod that is gone stay after their last change: scrapes are up to a minute apart.
const LINGER: Duration = Duration::from_secs(60);

/// Pairs of ends known at once; every further one is counted together.
const PAIRS_MAX: usize = 10_000;

/// Of these, pairs with an end that discovery does not know and that is named by its own word: whoever makes up names
/// must not take the room of others.
const ASSERTED_MAX: usize = 500;

/// The counters of one set of labels.
#[derive(Debug, Default)]
pub(super) struct Counters {
    opened: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    /// Closed and failed connections, by flag.
    ended: Mutex<BTreeMap<&'static str, (u64, u64)>>,
}

impl Counters {
    /// A connection was opened.
    pub(super) fn open(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes were moved.
    pub(super) fn moved(&self, received: u64, sent: u64) {
        self.received.fetch_add(received, Ordering::Relaxed);
        self.sent.fetch_add(sent, Ordering::Relaxed);
    }

    /// A connection ended.
    pub(super) fn close(&self, flag: &'static str, failed: bool) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let (closed, failures) = ended.entry(flag).or_default();
        *closed += 1;
        *failures += u64::from(failed);
    }
}

/// The series between two ends; while somebody holds it, it stays.
#[derive(Debug)]
pub(super) struct Pair(Arc<Counters>);

impl std::ops::Deref for Pair {
    type Target = Counters;

    fn deref(&self) -> &Counters {
        &self.0
    }
}

#[derive(Debug)]
struct Known {
    pair: Arc<Pair>,
    used: Instant,
}

#[derive(Debug, Default)]
struct Sets {
    pairs: HashMap<Key, Known>,
    /// How many of them are named by an end's own word.
    asserted: usize,
    /// By the labels as they are written.
    counters: BTreeMap<Text, Arc<Counters>>,
}

/// All series of connections.
#[derive(Debug)]
pub(super) struct Series {
    sets: Mutex<Sets>,
    overflow: Arc<Pair>,
}

impl Default for Series {
    fn default() -> Self {
        Self { sets: Mutex::default(), overflow: Arc::new(Pair(Arc::default())) }
    }
}

impl Series {
    /// The series of a connection, used at `now`.
    pub(super) fn of(&self, flow: &Flow, now: Instant) -> Arc<Pair> {
        let key = Key::of(flow);
        let mut sets = self.lock();
        if let Some(known) = sets.pairs.get_mut(&key) {
            known.used = now;
            return known.pair.clone();
        }
        let is_asserted = key.is_asserted();
        if sets.pairs.len() >= PAIRS_MAX || (is_asserted && sets.asserted >= ASSERTED_MAX) {
            metrics::counter!("ambit_metrics_overflow_total", "family" => "istio_tcp").increment(1);
            return self.overflow.clone();
        }
        let counters = sets.counters.entry(Text::of(flow)).or_default().clone();
        let pair = Arc::new(Pair(counters));
        sets.pairs.insert(key, Known { pair: pair.clone(), used: now });
        sets.asserted += usize::from(is_asserted);
        pair
    }

    /// Forgets what nobody uses: of pods that are gone soon, of others after long.
    pub(super) fn sweep(&self, now: Instant, exists: impl Fn(&Uid) -> bool) {
        let mut sets = self.lock();
        sets.pairs.retain(|key, known| {
            let gone = key.workloads().any(|uid| !exists(uid));
            let limit = if gone { LINGER } else { IDLE };
            Arc::strong_count(&known.pair) > 1 || now.saturating_duration_since(known.used) < limit
        });
        sets.asserted = sets.pairs.keys().filter(|key| key.is_asserted()).count();
        // Every pair holds its counters.
        sets.counters.retain(|_, counters| Arc::strong_count(counters) > 1);
    }

    fn lock(&self) -> MutexGuard<'_, Sets> {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for Series {
    fn write(&self, text: &mut String) {
        let mut all: Vec<(Text, Arc<Counters>)> = self
            .lock()
            .counters
            .iter()
            .map(|(labels, counters)| (labels.clone(), counters.clone()))
            .collect();
        if self.overflow.opened.load(Ordering::Relaxed) > 0 {
            all.push((Text::overflow(), self.overflow.0.clone()));
        }
        if all.is_empty() {
            return;
        }
        type One = fn(&Counters) -> &AtomicU64;
        let families: [(&str, One); 3] = [
            ("istio_tcp_connections_opened_total", |c| &c.opened),
            ("istio_tcp_received_bytes_total", |c| &c.received),
            ("istio_tcp_sent_bytes_total", |c| &c.sent),
        ];
        for (name, value) in families {
            family(text, name, "counter");
            for (labels, counters) in &all {
                labels.write(text, name, "-", value(counters).load(Ordering::Relaxed));
            }
        }
        ended(text, "istio_tcp_connections_closed_total", &all, |(closed, _)| closed);
        ended(text, "istio_tcp_connections_failed_total", &all, |(_, failed)| failed);
    }
}

/// The lines of a family that has one series a flag; a flag that never came up has none.
fn ended(text: &mut String, name: &str, all: &[(Text, Arc<Counters>)], value: fn((u64, u64)) -> u64) {
    let mut begun = false;
    for (labels, counters) in all {
        let ended = counters.ended.lock().unwrap_or_else(PoisonError::into_inner);
        for (flag, count) in ended.iter().map(|(flag, counts)| (flag, value(*counts))).filter(|(_, n)| *n > 0)
        {
            if !std::mem::replace(&mut begun, true) {
                family(text, name, "counter");
            }
            labels.write(text, name, flag, count);
        }
    }
}
