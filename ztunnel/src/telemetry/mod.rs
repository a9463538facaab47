//! What is told of connections: counters while they live, one log record and one flow record at their end.

mod labels;
mod record;
mod ring;
mod series;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ambit_runtime::access_log::{self, Direction};
use ambit_runtime::metrics::Source;
use ambit_runtime::{clock, tasks};
use ambit_types::Reason;

use crate::flow::{Flow, Outcome};
use crate::mesh::Mesh;

pub use record::FlowRecord;
pub(crate) use record::json_end;
pub use ring::{Memory, Ring};
use series::{Pair, Series};

/// How often the bytes of live connections are added to the metrics.
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// Telemetry of a node's connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Telemetry {
    node: Arc<str>,
    ring: Arc<Ring>,
    series: Arc<Series>,
    live: Arc<Mutex<BTreeMap<u64, Live>>>,
    stale_since: Arc<dyn StaleFor>,
}

/// A connection that is counted while it lives; it keeps its series.
#[derive(Debug, Clone)]
struct Live {
    flow: Arc<Flow>,
    pair: Arc<Pair>,
}

/// Says for how many seconds the control plane has been away.
pub trait StaleFor: Send + Sync + std::fmt::Debug {
    /// `None` while it is there.
    fn stale_for(&self) -> Option<u64>;
}

impl Telemetry {
    /// Telemetry for `node`, remembering at most `records` flow records.
    pub fn new(node: &str, records: usize, stale_since: Arc<dyn StaleFor>) -> Self {
        Self {
            node: Arc::from(node),
            ring: Arc::new(Ring::new(records)),
            series: Arc::default(),
            live: Arc::default(),
            stale_since,
        }
    }

    /// Counts the bytes of live connections, and forgets series of workloads that `mesh` no longer knows, until the
    /// process ends.
    pub fn watch(&self, mesh: Mesh) {
        let counting = self.clone();
        tasks::spawn("telemetry-count", async move {
            loop {
                tokio::time::sleep(COUNT_EVERY).await;
                counting.count_live();
                let snapshot = mesh.snapshot();
                counting.series.sweep(clock::monotonic(), |uid| snapshot.workload(uid).is_some());
            }
        });
    }

    /// The series of connections, for a scrape.
    pub fn source(&self) -> Arc<dyn Source> {
        self.series.clone()
    }

    /// The flow records.
    pub fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// A connection begins: it is counted as opened and followed until [`Telemetry::ended`].
    pub fn opened(&self, number: u64, flow: &Arc<Flow>) {
        let pair = self.series.of(flow, clock::monotonic());
        pair.open();
        metrics::gauge!("ambit_connections_open", "path" => flow.path.as_str()).increment(1.0);
        self.lock().insert(number, Live { flow: flow.clone(), pair });
    }

    /// A connection that was opened has ended.
    pub fn ended(&self, number: u64, flow: &Arc<Flow>, outcome: Outcome) {
        flow.end(outcome);
        let live = self.lock().remove(&number);
        metrics::gauge!("ambit_connections_open", "path" => flow.path.as_str()).decrement(1.0);
        let pair = match live {
            Some(live) => {
                live.count();
                live.pair
            }
            None => self.series.of(flow, clock::monotonic()),
        };
        self.finish(flow, &pair, true);
    }

    /// A connection was refused before it was opened; it counts as opened too, so that opened less closed is what lives.
    pub fn refused(&self, flow: &Arc<Flow>, outcome: Outcome) {
        flow.end(outcome);
        let pair = self.series.of(flow, clock::monotonic());
        pair.open();
        self.finish(flow, &pair, false);
    }

    fn finish(&self, flow: &Arc<Flow>, pair: &Pair, was_open: bool) {
        let Some((_, outcome)) = flow.ended() else { return };
        let flag = outcome.reason.map_or("-", Reason::flag);
        let failed = outcome.is_failure();
        pair.close(flag, failed);
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
        let live: Vec<Live> = self.lock().values().cloned().collect();
        for one in live {
            one.count();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    /// Adds what was moved since this was last asked.
    fn count(&self) {
        let (received, sent) = self.flow.uncounted();
        if received + sent > 0 {
            self.pair.moved(received, sent);
        }
    }
}
