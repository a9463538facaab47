//! The series of connections: one set of counters for each set of labels, looked up once a connection.
//!
//! Kept here and not in the process's registry, because they name pods: a set goes with the last pod that it tells
//! of, once nothing of it is open and a scrape had time to see its last values (G39). Two pods of one controller have
//! the same labels and share a set. Beyond a bound all further sets share one, marked as such.
//!
//! Who is not in discovery is named by its own word, and may say anything: of that each identity has a few
//! ([`asserted`]), and is `unknown` beyond them. Its identity is proven and stays, so what it does is still told.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ambit_runtime::metrics::{IDLE, Source, text::family};
use ambit_types::Uid;

use super::labels::{Key, Text};
use crate::flow::Flow;
use asserted::Asserted;
pub use asserted::NAMES_MAX;

mod asserted;
#[cfg(test)]
mod tests;

/// How long the series of a pod that is gone stay after its last connection: scrapes are up to a minute apart.
pub const LINGER: Duration = Duration::from_secs(60);

/// Pairs of ends known at once; every further one is counted together.
pub const PAIRS_MAX: usize = 10_000;

/// Of these, pairs with an end that has an identity and that discovery does not know: how many identities there are
/// elsewhere is not for this mesh to say, and they must not take the room of its own pods.
const STRANGERS_MAX: usize = 2000;

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
#[derive(Debug, Default)]
pub(super) struct Pair {
    counters: Arc<Counters>,
    /// When a connection last began or ended.
    used: Mutex<Option<Instant>>,
}

impl Pair {
    /// A connection begins or ends at `now`: from then on it is kept for the time that a scrape may take.
    pub(super) fn touch(&self, now: Instant) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// Whether nothing has begun or ended for so long.
    fn is_idle(&self, now: Instant, limit: Duration) -> bool {
        let used = *self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.is_none_or(|used| now.saturating_duration_since(used) >= limit)
    }
}

impl std::ops::Deref for Pair {
    type Target = Counters;

    fn deref(&self) -> &Counters {
        &self.counters
    }
}

#[derive(Debug, Default)]
struct Sets {
    pairs: HashMap<Key, Arc<Pair>>,
    /// How many of them have an end that discovery does not know.
    strangers: usize,
    /// What those call themselves.
    asserted: Asserted,
    /// By the labels as they are written.
    counters: BTreeMap<Text, Arc<Counters>>,
}

impl Sets {
    /// The pair of a key, if it is known.
    fn find(&self, key: &Key, now: Instant) -> Option<Arc<Pair>> {
        let pair = self.pairs.get(key)?;
        pair.touch(now);
        Some(pair.clone())
    }

    /// Whether another pair may be told apart.
    fn has_room(&self, key: &Key) -> bool {
        self.pairs.len() < PAIRS_MAX && (!key.is_of_a_stranger() || self.strangers < STRANGERS_MAX)
    }

    fn insert(&mut self, key: Key, text: Text, now: Instant) -> Arc<Pair> {
        let counters = self.counters.entry(text).or_default().clone();
        let pair = Arc::new(Pair { counters, used: Mutex::new(Some(now)) });
        self.asserted.add(&key);
        self.strangers += usize::from(key.is_of_a_stranger());
        self.pairs.insert(key, pair.clone());
        pair
    }
}

/// All series of connections.
#[derive(Debug, Default)]
pub(super) struct Series {
    sets: Mutex<Sets>,
    overflow: Arc<Pair>,
}

impl Series {
    /// The series of a connection, used at `now`.
    pub(super) fn of(&self, flow: &Flow, now: Instant) -> Arc<Pair> {
        let mut key = Key::of(flow);
        let mut sets = self.lock();
        if let Some(known) = sets.find(&key, now) {
            return known;
        }
        let is_named = sets.asserted.has_room(&key);
        if !is_named {
            key = key.without_asserted();
            if let Some(known) = sets.find(&key, now) {
                return known;
            }
        }
        if !sets.has_room(&key) {
            metrics::counter!("ambit_metrics_overflow_total", "family" => "istio_tcp").increment(1);
            return self.overflow.clone();
        }
        let text = if is_named { Text::of(flow) } else { Text::without_asserted(flow) };
        sets.insert(key, text, now)
    }

    /// Forgets what nobody uses: of pods that are gone soon, of others after long.
    pub(super) fn sweep(&self, now: Instant, exists: impl Fn(&Uid) -> bool) {
        let mut sets = self.lock();
        let Sets { pairs, strangers, asserted, counters } = &mut *sets;
        pairs.retain(|key, pair| {
            let gone = key.workloads().any(|uid| !exists(uid));
            let limit = if gone { LINGER } else { IDLE };
            Arc::strong_count(pair) > 1 || !pair.is_idle(now, limit)
        });
        *strangers = pairs.keys().filter(|key| key.is_of_a_stranger()).count();
        *asserted = Asserted::default();
        pairs.keys().for_each(|key| asserted.add(key));
        // Every pair holds its counters.
        counters.retain(|_, counters| Arc::strong_count(counters) > 1);
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
            all.push((Text::overflow(), self.overflow.counters.clone()));
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
