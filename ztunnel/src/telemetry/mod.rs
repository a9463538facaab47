//! What is told of connections: counters while they live, one log record and one flow record at their end.

mod labels;
mod record;
mod ring;
mod series;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ambit_runtime::access_log::{self, Direction};
use ambit_runtime::tasks;
use ambit_types::Reason;

use crate::flow::{Flow, Outcome};

pub use record::FlowRecord;
pub(crate) use record::json_end;
pub use ring::{Memory, Ring};
use series::SeriesCache;

/// How often the bytes of live connections are added to the metrics.
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// Telemetry of a node's connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Telemetry {
    node: Arc<str>,
    ring: Arc<Ring>,
    series: Arc<SeriesCache>,
    live: Arc<Mutex<BTreeMap<u64, Arc<Flow>>>>,
    stale_since: Arc<dyn StaleFor>,
}

/// Says for how many seconds the control plane has been away.
pub trait StaleFor: Send + Sync + std::fmt::Debug {
    /// `None` while it is there.
    fn stale_for(&self) -> Option<u64>;
}

impl Telemetry {
    /// Telemetry for `node`, remembering at most `records` flow records.
    pub fn new(node: &str, records: usize, stale_since: Arc<dyn StaleFor>) -> Self {
        let telemetry = Self {
            node: Arc::from(node),
            ring: Arc::new(Ring::new(records)),
            series: Arc::default(),
            live: Arc::default(),
            stale_since,
        };
        let counting = telemetry.clone();
        tasks::spawn("telemetry-count", async move {
            loop {
                tokio::time::sleep(COUNT_EVERY).await;
                counting.count_live();
            }
        });
        telemetry
    }

    /// The flow records.
    pub fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// A connection begins: it is counted as opened and followed until [`Telemetry::ended`].
    pub fn opened(&self, number: u64, flow: &Arc<Flow>) {
        self.series.of(flow).opened.increment(1);
        metrics::gauge!("ambit_connections_open", "path" => flow.path.as_str()).increment(1.0);
        self.live.lock().unwrap_or_else(PoisonError::into_inner).insert(number, flow.clone());
    }

    /// A connection that was opened has ended.
    pub fn ended(&self, number: u64, flow: &Arc<Flow>, outcome: Outcome) {
        flow.end(outcome);
        self.live.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
        metrics::gauge!("ambit_connections_open", "path" => flow.path.as_str()).decrement(1.0);
        self.count(flow);
        self.finish(flow, true);
    }

    /// A connection was refused before it was opened.
    pub fn refused(&self, flow: &Arc<Flow>, outcome: Outcome) {
        flow.end(outcome);
        self.finish(flow, false);
    }

    fn finish(&self, flow: &Arc<Flow>, was_open: bool) {
        let Some((_, outcome)) = flow.ended() else { return };
        let flag = outcome.reason.map_or("-", Reason::flag);
        let failed = outcome.is_failure();
        self.series.close(flow, flag, failed);
        if let (true, Some(reason)) = (failed, outcome.reason) {
            let policy = outcome.policy.as_ref().map(ToString::to_string).unwrap_or_default();
            metrics::counter!("ambit_connections_refused_total", "code" => reason.code(), "policy" => policy)
                .increment(1);
        }
        let admitted_plain =
            matches!(outcome.reason, Some(Reason::PlaintextAccepted | Reason::ProbeAdmitted));
        if admitted_plain && flow.direction == Direction::Inbound {
            record::count_plaintext(flow, outcome.reason);
        }
        record::with_access_record(flow, self.stale_since.stale_for(), |record| {
            if was_open || !failed {
                access_log::complete(record);
            } else {
                access_log::refused(record);
            }
        });
        self.ring.push(FlowRecord::new(&self.node, flow.clone()));
    }

    fn count_live(&self) {
        let live: Vec<Arc<Flow>> =
            self.live.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for flow in live {
            self.count(&flow);
        }
        self.series.sweep();
    }

    fn count(&self, flow: &Flow) {
        let (received, sent) = flow.uncounted();
        if received + sent > 0 {
            let series = self.series.of(flow);
            series.received.increment(received);
            series.sent.increment(sent);
        }
    }
}
