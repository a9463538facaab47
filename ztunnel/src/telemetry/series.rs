//! The counters of each set of labels, looked up once a connection instead of hashed at every write.
//!
//! Sets that nothing used for a while are forgotten here before the registry forgets their series, so that a
//! counter in use is always one that a scrape shows. Beyond a bound all further sets share one, marked as such.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ambit_runtime::clock;
use metrics::{Counter, Label};

use super::labels::{self, Key};
use crate::flow::Flow;

/// Unused sets are forgotten after this; less than the registry's own idle time.
const FORGET_AFTER: Duration = Duration::from_secs(25 * 60);

/// Sets kept at once; every further one is counted together.
const SETS_MAX: usize = 10_000;

/// The counters of one set of labels.
#[derive(Clone)]
pub(super) struct Series {
    pub(super) opened: Counter,
    pub(super) received: Counter,
    pub(super) sent: Counter,
    labels: Arc<Vec<Label>>,
}

#[derive(Default)]
pub(super) struct SeriesCache {
    sets: Mutex<HashMap<Key, (Series, Instant)>>,
}

impl std::fmt::Debug for SeriesCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SeriesCache")
    }
}

impl SeriesCache {
    /// The counters of a connection.
    pub(super) fn of(&self, flow: &Flow) -> Series {
        let key = Key::of(flow);
        let now = clock::monotonic();
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((series, used)) = sets.get_mut(&key) {
            *used = now;
            return series.clone();
        }
        if sets.len() >= SETS_MAX {
            metrics::counter!("ambit_metrics_overflow_total", "family" => "istio_tcp").increment(1);
            return Series::new(vec![Label::new("overflow", "true")]);
        }
        let series = Series::new(labels::labels(flow));
        sets.insert(key, (series.clone(), now));
        series
    }

    /// Counts a connection as closed, and as failed where it was.
    pub(super) fn close(&self, flow: &Flow, flag: &'static str, failed: bool) {
        let mut labels = (*self.of(flow).labels).clone();
        labels.push(Label::new("response_flags", flag));
        metrics::counter!("istio_tcp_connections_closed_total", labels.iter()).increment(1);
        if failed {
            metrics::counter!("istio_tcp_connections_failed_total", labels.iter()).increment(1);
        }
    }

    /// Forgets sets that have not been used for a while.
    pub(super) fn sweep(&self) {
        let now = clock::monotonic();
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        sets.retain(|_, (_, used)| now.saturating_duration_since(*used) < FORGET_AFTER);
    }
}

impl Series {
    fn new(labels: Vec<Label>) -> Self {
        let mut open = labels.clone();
        open.push(Label::new("response_flags", "-"));
        Self {
            opened: metrics::counter!("istio_tcp_connections_opened_total", open.iter()),
            received: metrics::counter!("istio_tcp_received_bytes_total", open.iter()),
            sent: metrics::counter!("istio_tcp_sent_bytes_total", open.iter()),
            labels: Arc::new(labels),
        }
    }
}
