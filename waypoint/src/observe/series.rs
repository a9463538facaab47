//! Istio's standard metrics, as dashboards expect them; the waypoint reports each request once.
//!
//! Kept here rather than by name and label in the process's registry, because a request then touches one entry of a
//! map instead of building two dozen labels, and because they name pods: a set goes with the last pod that it tells
//! of once a scrape had time to see its last values (G39). Pods of one controller have the same labels and share a
//! set. Beyond a bound all further sets share one, marked as such, so that the sum stays exact.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ambit_runtime::metrics::{IDLE, Source, text};
use ambit_types::{ServiceKey, Uid};

use super::Record;
use super::labels::{Key, Text, escaped};

mod histogram;
#[cfg(test)]
mod tests;

use histogram::Histogram;

/// How long the series of a pod that is gone stay after their last change: scrapes are up to a minute apart.
const LINGER: Duration = Duration::from_secs(60);

/// Keys of a family known at once; every further one is counted together.
const KEYS_MAX: usize = 10_000;

/// Counts of requests with one set of labels.
#[derive(Debug, Default)]
struct Requests {
    requests: AtomicU64,
    milliseconds: Histogram,
    received: Histogram,
    sent: Histogram,
    /// gRPC messages.
    messages_received: AtomicU64,
    messages_sent: AtomicU64,
    is_grpc: AtomicBool,
}

/// Counts of connections with one set of labels.
#[derive(Debug, Default)]
struct Connections {
    opened: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    /// By flag.
    closed: Mutex<BTreeMap<&'static str, u64>>,
}

/// Sets of counts by what tells them apart.
#[derive(Debug)]
struct Sets<C> {
    name: &'static str,
    known: Mutex<Known<C>>,
    overflow: Arc<C>,
}

#[derive(Debug)]
struct Known<C> {
    /// What was seen, and when last.
    keys: HashMap<Key, (Arc<C>, Instant)>,
    /// By the labels as they are written; flags of requests among them.
    counts: BTreeMap<(Text, &'static str), Arc<C>>,
}

/// Requests of one rule to one backend.
type Route = (String, Option<ServiceKey>);

/// All series.
#[derive(Debug)]
pub struct Series {
    requests: Sets<Requests>,
    connections: Sets<Connections>,
    routes: Mutex<BTreeMap<Route, (u64, Instant)>>,
    /// Of rules and backends that there are too many of.
    routes_overflow: AtomicU64,
    attempts: AtomicU64,
    retries: AtomicU64,
}

impl Default for Series {
    fn default() -> Self {
        Self {
            requests: Sets::new("istio_requests"),
            connections: Sets::new("istio_tcp"),
            routes: Mutex::default(),
            routes_overflow: AtomicU64::new(0),
            attempts: AtomicU64::new(0),
            retries: AtomicU64::new(0),
        }
    }
}

impl<C: Default> Sets<C> {
    fn new(name: &'static str) -> Self {
        let known = Known { keys: HashMap::new(), counts: BTreeMap::new() };
        Self { name, known: Mutex::new(known), overflow: Arc::default() }
    }

    /// The counts of a key, used at `now`.
    fn of(&self, key: Key, flag: &'static str, now: Instant, text: impl FnOnce() -> Text) -> Arc<C> {
        let mut known = lock(&self.known);
        if let Some((counts, used)) = known.keys.get_mut(&key) {
            *used = now;
            return counts.clone();
        }
        if known.keys.len() >= KEYS_MAX {
            metrics::counter!("ambit_metrics_overflow_total", "family" => self.name).increment(1);
            return self.overflow.clone();
        }
        let counts = known.counts.entry((text(), flag)).or_default().clone();
        known.keys.insert(key, (counts.clone(), now));
        counts
    }

    /// Forgets what nobody uses: of pods that are gone soon, of others after long.
    fn sweep(&self, now: Instant, exists: impl Fn(&Uid) -> bool) {
        let mut known = lock(&self.known);
        known.keys.retain(|key, (_, used)| {
            let is_gone = key.workloads().any(|uid| !exists(uid));
            now.saturating_duration_since(*used) < if is_gone { LINGER } else { IDLE }
        });
        // A key holds its counts, and so does who counts at this moment.
        known.counts.retain(|_, counts| Arc::strong_count(counts) > 1);
    }

    /// All sets, by their labels.
    fn all(&self, has_overflow: impl Fn(&C) -> bool) -> Vec<(Text, &'static str, Arc<C>)> {
        let known = lock(&self.known);
        let mut all: Vec<_> =
            known.counts.iter().map(|((text, flag), counts)| (text.clone(), *flag, counts.clone())).collect();
        if has_overflow(&self.overflow) {
            all.push((Text::overflow(), "-", self.overflow.clone()));
        }
        all
    }
}

impl Series {
    /// Counts a request that is over at `now`: once, however often it was sent.
    pub(super) fn request(&self, record: &Record<'_>, now: Instant) {
        let key = Key::of_request(record);
        let counts = self.requests.of(key, record.flag, now, || Text::of_request(record));
        counts.requests.fetch_add(1, Ordering::Relaxed);
        counts.milliseconds.add(record.duration.as_secs_f64() * 1000.0);
        counts.received.add_whole(record.bytes_received);
        counts.sent.add_whole(record.bytes_sent);
        if let Some((received, sent)) = record.messages {
            counts.is_grpc.store(true, Ordering::Relaxed);
            counts.messages_received.fetch_add(received, Ordering::Relaxed);
            counts.messages_sent.fetch_add(sent, Ordering::Relaxed);
        }
        self.attempts.fetch_add(record.attempts.into(), Ordering::Relaxed);
        self.retries.fetch_add(record.attempts.saturating_sub(1).into(), Ordering::Relaxed);
        if let Some(route) = record.route {
            self.routed(route, record.backend, now);
        }
    }

    /// Counts a connection as opened.
    pub(super) fn opened(&self, record: &Record<'_>, now: Instant) {
        self.connection(record, now).opened.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection as over, with what it moved.
    pub(super) fn closed(&self, record: &Record<'_>, now: Instant) {
        let counts = self.connection(record, now);
        counts.received.fetch_add(record.bytes_received, Ordering::Relaxed);
        counts.sent.fetch_add(record.bytes_sent, Ordering::Relaxed);
        *lock(&counts.closed).entry(record.flag).or_default() += 1;
    }

    fn connection(&self, record: &Record<'_>, now: Instant) -> Arc<Connections> {
        self.connections.of(Key::of_connection(record), "-", now, || Text::of_connection(record))
    }

    fn routed(&self, route: &str, backend: Option<&ServiceKey>, now: Instant) {
        let mut routes = lock(&self.routes);
        let key = (route.to_owned(), backend.cloned());
        if !routes.contains_key(&key) && routes.len() >= KEYS_MAX {
            metrics::counter!("ambit_metrics_overflow_total", "family" => "ambit_waypoint_route_requests")
                .increment(1);
            self.routes_overflow.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let (count, used) = routes.entry(key).or_insert((0, now));
        *count += 1;
        *used = now;
    }

    /// Forgets series of workloads that do not exist any more, and of what has not been called for long.
    pub fn sweep(&self, now: Instant, exists: impl Fn(&Uid) -> bool) {
        self.requests.sweep(now, &exists);
        self.connections.sweep(now, &exists);
        lock(&self.routes).retain(|_, (_, used)| now.saturating_duration_since(*used) < IDLE);
    }

    fn write_requests(&self, out: &mut String) {
        type Distribution = fn(&Requests) -> &Histogram;
        let all = self.requests.all(|counts| counts.requests.load(Ordering::Relaxed) > 0);
        if all.is_empty() {
            return;
        }
        let all: Vec<(String, Arc<Requests>)> =
            all.into_iter().map(|(text, flag, counts)| (text.with(flag), counts)).collect();
        text::family(out, "istio_requests_total", "counter");
        for (labels, counts) in &all {
            text::series(out, "istio_requests_total", labels, counts.requests.load(Ordering::Relaxed));
        }
        let families: [(&str, Distribution); 3] = [
            ("istio_request_duration_milliseconds", |counts| &counts.milliseconds),
            ("istio_request_bytes", |counts| &counts.received),
            ("istio_response_bytes", |counts| &counts.sent),
        ];
        for (name, histogram) in families {
            text::family(out, name, "histogram");
            all.iter().for_each(|(labels, counts)| histogram(counts).write(out, name, labels));
        }
        Self::write_messages(out, &all);
    }

    /// Only of sets that gRPC calls are counted in.
    fn write_messages(out: &mut String, all: &[(String, Arc<Requests>)]) {
        type One = fn(&Requests) -> &AtomicU64;
        let calls = || all.iter().filter(|(_, counts)| counts.is_grpc.load(Ordering::Relaxed));
        if calls().next().is_none() {
            return;
        }
        let families: [(&str, One); 2] = [
            ("istio_request_messages_total", |counts| &counts.messages_received),
            ("istio_response_messages_total", |counts| &counts.messages_sent),
        ];
        for (name, value) in families {
            text::family(out, name, "counter");
            for (labels, counts) in calls() {
                text::series(out, name, labels, value(counts).load(Ordering::Relaxed));
            }
        }
    }

    fn write_connections(&self, out: &mut String) {
        type One = fn(&Connections) -> &AtomicU64;
        let all = self.connections.all(|counts| counts.opened.load(Ordering::Relaxed) > 0);
        if all.is_empty() {
            return;
        }
        let families: [(&str, One); 3] = [
            ("istio_tcp_connections_opened_total", |counts| &counts.opened),
            ("istio_tcp_received_bytes_total", |counts| &counts.received),
            ("istio_tcp_sent_bytes_total", |counts| &counts.sent),
        ];
        for (name, value) in families {
            text::family(out, name, "counter");
            for (labels, flag, counts) in &all {
                text::series(out, name, &labels.with(flag), value(counts).load(Ordering::Relaxed));
            }
        }
        text::family(out, "istio_tcp_connections_closed_total", "counter");
        for (labels, _, counts) in &all {
            for (flag, closed) in lock(&counts.closed).iter() {
                text::series(out, "istio_tcp_connections_closed_total", &labels.with(flag), closed);
            }
        }
    }

    fn write_own(&self, out: &mut String) {
        const ROUTES: &str = "ambit_waypoint_route_requests_total";
        let attempts = self.attempts.load(Ordering::Relaxed);
        text::single(out, "ambit_waypoint_attempts_total", "counter", attempts);
        let retries = self.retries.load(Ordering::Relaxed);
        text::single(out, "ambit_waypoint_retries_total", "counter", retries);
        let routes = lock(&self.routes);
        let overflow = self.routes_overflow.load(Ordering::Relaxed);
        if routes.is_empty() && overflow == 0 {
            return;
        }
        text::family(out, ROUTES, "counter");
        if overflow > 0 {
            text::series(out, ROUTES, "overflow=\"true\"", overflow);
        }
        for ((route, backend), (count, _)) in routes.iter() {
            // As `ambit_route::RuleId` writes itself.
            let (route, rule) = route.split_once(" rule ").unwrap_or((route, ""));
            let backend = backend.as_ref().map(|key| &*key.hostname).unwrap_or_default();
            let labels = format!(
                "route=\"{}\",rule=\"{}\",backend=\"{}\"",
                escaped(route),
                escaped(rule),
                escaped(backend)
            );
            text::series(out, ROUTES, &labels, count);
        }
    }
}

impl Source for Series {
    fn write(&self, out: &mut String) {
        self.write_requests(out);
        self.write_connections(out);
        self.write_own(out);
    }
}

fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}
