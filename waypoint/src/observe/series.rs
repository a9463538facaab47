//! Istio's standard metrics, as dashboards expect them; the waypoint reports each request once.
//!
//! Kept here rather than by name and label, because a request touches one entry of a map instead of building two
//! dozen labels. Entries are bounded; what does not fit is counted in one for all.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ambit_runtime::metrics::{Source, text};
use ambit_types::{Identity, ServiceKey, Uid, Workload};

use super::Record;

/// Series that are told apart.
const SERIES_MAX: usize = 10_000;

/// Upper bounds of durations, in milliseconds.
const MILLISECONDS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// What tells series apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    source: Option<Uid>,
    identity: Identity,
    service: Option<ServiceKey>,
    destination: Option<Uid>,
    protocol: &'static str,
    code: u16,
    grpc_status: Option<u32>,
    flag: &'static str,
}

/// Counts of one series.
#[derive(Debug)]
struct Counts {
    /// All labels, written once.
    labels: String,
    is_tcp: bool,
    requests: AtomicU64,
    milliseconds: Histogram,
    received: Histogram,
    sent: Histogram,
}

/// A distribution over [`MILLISECONDS`], which also serves for bytes.
#[derive(Debug, Default)]
struct Histogram {
    /// Samples of each bucket alone, those beyond the last bound at the end.
    buckets: [AtomicU64; MILLISECONDS.len() + 1],
    /// Thousandths.
    sum: AtomicU64,
}

/// What a family of distributions shows of a series.
type Distribution = fn(&Counts) -> &Histogram;

/// What a family of counters shows of a series.
type Value = fn(&Counts) -> u64;

/// All series.
#[derive(Debug, Default)]
pub struct Series {
    all: Mutex<HashMap<Key, Arc<Counts>>>,
}

impl Series {
    /// Counts a request or connection that is over.
    pub(super) fn count(&self, record: &Record<'_>) {
        let counts = self.of(record);
        counts.requests.fetch_add(1, Ordering::Relaxed);
        counts.milliseconds.add(record.duration.as_secs_f64() * 1000.0);
        counts.received.add(as_float(record.bytes_received));
        counts.sent.add(as_float(record.bytes_sent));
    }

    fn of(&self, record: &Record<'_>) -> Arc<Counts> {
        let key = Key {
            source: record.source.map(|workload| workload.uid.clone()),
            identity: record.source_identity.clone(),
            service: record.service.cloned(),
            destination: record.destination.map(|workload| workload.uid.clone()),
            protocol: record.protocol,
            code: record.code,
            grpc_status: record.grpc_status,
            flag: record.flag,
        };
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = all.len() >= SERIES_MAX;
        if let Some(known) = all.get(&key) {
            return known.clone();
        }
        if is_full {
            metrics::counter!("ambit_metrics_overflow_total", "family" => "istio_requests").increment(1);
            // Emptied rather than stuck: those in use come back at once, from zero, as after a restart.
            all.clear();
        }
        let counts = Arc::new(Counts::new(record));
        all.insert(key, counts.clone());
        counts
    }
}

#[expect(clippy::cast_precision_loss, reason = "a sample of a distribution")]
fn as_float(bytes: u64) -> f64 {
    bytes as f64
}

impl Histogram {
    fn add(&self, value: f64) {
        let at = MILLISECONDS.partition_point(|bound| *bound < value);
        self.buckets[at].fetch_add(1, Ordering::Relaxed);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "never negative, and capped"
        )]
        let thousandths = (value * 1000.0) as u64;
        self.sum.fetch_add(thousandths, Ordering::Relaxed);
    }

    fn write(&self, out: &mut String, name: &str, labels: &str) {
        let mut sum = 0;
        for (at, bucket) in self.buckets.iter().enumerate() {
            sum += bucket.load(Ordering::Relaxed);
            let bound = MILLISECONDS.get(at).map_or_else(|| "+Inf".to_owned(), ToString::to_string);
            text::series(out, &format!("{name}_bucket"), &format!("{labels},le=\"{bound}\""), sum);
        }
        let total = as_float(self.sum.load(Ordering::Relaxed)) / 1000.0;
        text::series(out, &format!("{name}_sum"), labels, total);
        text::series(out, &format!("{name}_count"), labels, sum);
    }
}

impl Counts {
    fn new(record: &Record<'_>) -> Self {
        Self {
            labels: labels(record),
            is_tcp: record.protocol == "tcp",
            requests: AtomicU64::new(0),
            milliseconds: Histogram::default(),
            received: Histogram::default(),
            sent: Histogram::default(),
        }
    }
}

/// The standard labels, in their usual order.
fn labels(record: &Record<'_>) -> String {
    let mut out = String::with_capacity(1024);
    let mut label = |name: &str, value: &str| {
        let value = if value.is_empty() { "unknown" } else { value };
        let comma = if out.is_empty() { "" } else { "," };
        let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        // Writing to a string cannot fail.
        let _ = write!(out, "{comma}{name}=\"{escaped}\"");
    };
    let identity = record.source_identity.to_string();
    let destination = record.destination.map(|workload| workload.identity().to_string()).unwrap_or_default();
    let service = record.service.map(|key| &*key.hostname).unwrap_or_default();
    label("reporter", "waypoint");
    workload_labels("source", record.source, &identity, &mut label);
    workload_labels("destination", record.destination, &destination, &mut label);
    label("destination_service", service);
    label("destination_service_name", service.split('.').next().unwrap_or_default());
    label("destination_service_namespace", record.service.map(|key| &*key.namespace).unwrap_or_default());
    label("request_protocol", if record.protocol == "http2" { "http" } else { record.protocol });
    if record.protocol != "tcp" {
        label("response_code", &record.code.to_string());
        label(
            "grpc_response_status",
            &record.grpc_status.map(|status| status.to_string()).unwrap_or_default(),
        );
    }
    label("response_flags", record.flag);
    let security = match (record.destination, record.is_encrypted) {
        (None, _) => "unknown",
        (Some(_), true) => "mutual_tls",
        (Some(_), false) => "none",
    };
    label("connection_security_policy", security);
    out
}

fn workload_labels(
    side: &str,
    workload: Option<&Workload>,
    principal: &str,
    label: &mut impl FnMut(&str, &str),
) {
    let of = |part: fn(&Workload) -> &str| workload.map(part).unwrap_or_default();
    let revision = of(|w| &w.canonical_revision);
    let revision = if revision.is_empty() && workload.is_some() { "latest" } else { revision };
    label(&format!("{side}_workload"), of(|w| &w.workload_name));
    label(&format!("{side}_canonical_service"), of(|w| &w.canonical_name));
    label(&format!("{side}_canonical_revision"), revision);
    label(&format!("{side}_workload_namespace"), of(|w| &w.namespace));
    label(&format!("{side}_principal"), principal);
    label(&format!("{side}_app"), of(|w| &w.canonical_name));
    label(&format!("{side}_version"), revision);
    label(&format!("{side}_cluster"), of(|w| &w.cluster_id));
}

impl Source for Series {
    fn write(&self, out: &mut String) {
        let all: Vec<Arc<Counts>> =
            self.all.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let http = || all.iter().filter(|counts| !counts.is_tcp);
        let tcp = || all.iter().filter(|counts| counts.is_tcp);
        text::family(out, "istio_requests_total", "counter");
        for counts in http() {
            text::series(
                out,
                "istio_requests_total",
                &counts.labels,
                counts.requests.load(Ordering::Relaxed),
            );
        }
        let families: [(&str, Distribution); 3] = [
            ("istio_request_duration_milliseconds", |counts| &counts.milliseconds),
            ("istio_request_bytes", |counts| &counts.received),
            ("istio_response_bytes", |counts| &counts.sent),
        ];
        for (name, histogram) in families {
            text::family(out, name, "histogram");
            http().for_each(|counts| histogram(counts).write(out, name, &counts.labels));
        }
        let families: [(&str, Value); 3] = [
            ("istio_tcp_connections_closed_total", |counts| counts.requests.load(Ordering::Relaxed)),
            ("istio_tcp_received_bytes_total", |counts| counts.received.sum.load(Ordering::Relaxed) / 1000),
            ("istio_tcp_sent_bytes_total", |counts| counts.sent.sum.load(Ordering::Relaxed) / 1000),
        ];
        for (name, value) in families {
            text::family(out, name, "counter");
            tcp().for_each(|counts| text::series(out, name, &counts.labels, value(counts)));
        }
    }
}
