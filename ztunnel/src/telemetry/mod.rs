//! What is told of connections: counters while they live, one log record and one flow record at their end.

mod held;
mod labels;
mod record;
mod ring;
mod series;
mod tallied;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ambit_runtime::access_log::{self, Record};
use ambit_runtime::metrics::Source;
use ambit_runtime::metrics::values::POLICIES;
use ambit_runtime::{clock, tasks};
use ambit_types::Reason;
use ambit_xds::observe::{Cell, Tally};

use crate::flow::{Flow, Outcome};
use crate::mesh::Mesh;

pub use held::Held;
pub(crate) use record::json_end;
pub use record::{FlowRecord, PlaintextMode};
pub use ring::{Memory, Ring};
pub use series::{LINGER, NAMES_MAX, PAIRS_MAX};
use series::{Pair, Series};

/// How often the bytes of live connections are added to the metrics.
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// Telemetry of a node's connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Telemetry {
    node: Arc<str>,
    ring: Arc<Ring>,
    series: Arc<Series>,
    tally: Arc<Tally>,
    live: Arc<Mutex<BTreeMap<u64, Live>>>,
    stale_since: Arc<dyn StaleFor>,
    /// Whether only those who follow the ring hear of connections.
    is_hidden: bool,
}

/// A connection that is counted while it lives; it keeps its series.
#[derive(Debug, Clone)]
struct Live {
    flow: Arc<Flow>,
    pair: Arc<Pair>,
    /// What summaries count of it; none beyond their bounds.
    cell: Option<Arc<Cell>>,
}

/// Says for how many seconds the control plane has been away.
pub trait StaleFor: Send + Sync + Debug {
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
            tally: Arc::default(),
            live: Arc::default(),
            stale_since,
            is_hidden: false,
        }
    }

    /// The same, telling of connections only to those who follow the ring: no metric, no log, nothing is kept.
    #[must_use]
    pub fn hidden(self) -> Self {
        Self { is_hidden: true, ..self }
    }

    /// Whether only those who follow the ring hear of connections.
    pub fn is_hidden(&self) -> bool {
        self.is_hidden
    }

    /// Counts the bytes of live connections, and forgets series of workloads that `mesh` no longer knows, until the
    /// process ends.
    pub fn watch(&self, mesh: Mesh) {
        let counting = self.clone();
        tasks::spawn("telemetry-count", async move {
            loop {
                tokio::time::sleep(COUNT_EVERY).await;
                counting.count_live();
                counting.sweep(&mesh, clock::monotonic());
            }
        });
    }

    /// Forgets series as of `now`: of workloads that `mesh` no longer knows [`LINGER`] after their last connection, of
    /// others after [`ambit_runtime::metrics::IDLE`].
    pub fn sweep(&self, mesh: &Mesh, now: Instant) {
        let snapshot = mesh.snapshot();
        self.series.sweep(now, |uid| snapshot.workload(uid).is_some());
    }

    /// The series of connections, for a scrape.
    pub fn source(&self) -> Arc<dyn Source> {
        self.series.clone()
    }

    /// What summaries are made of.
    pub fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// The flow records.
    pub fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// A connection begins: it is counted as opened and followed until [`Telemetry::ended`]. It counts under what it
    /// was let in with, so that one which only a break-glass let in (AMB2305) is no other's.
    pub fn opened(&self, number: u64, flow: &Arc<Flow>, admitted: Option<&Outcome>) {
        flow.open();
        if self.is_hidden {
            return;
        }
        let pair = self.series.of(flow, clock::monotonic());
        pair.open();
        metrics::gauge!("ambit_connections_open", "path" => flow.path.as_str()).increment(1.0);
        let cell = self.tally.cell(tallied::key(flow, admitted), || tallied::ends(flow));
        if let Some(cell) = &cell {
            cell.open();
        }
        self.lock().insert(number, Live { flow: flow.clone(), pair, cell });
        if access_log::wants_opened() {
            record::with_access_record(flow, self.stale_since.stale_for(), access_log::opened);
        }
    }

    /// A connection to a pod of this node was let in for `reason`; `plaintext` is what its port asks of that, if it is
    /// some. Counted at the beginning: what is cut, or lasts for days, was let in all the same.
    pub fn let_in(&self, flow: &Flow, reason: Option<Reason>, plaintext: Option<PlaintextMode>) {
        if !self.is_hidden {
            record::count_let_in(flow, reason, plaintext);
        }
    }

    /// A connection that was opened has ended.
    pub fn ended(&self, number: u64, flow: &Arc<Flow>, outcome: Outcome) {
        flow.end(outcome);
        if self.is_hidden {
            return self.ring.pass(FlowRecord::new(&self.node, flow.clone()));
        }
        let live = self.lock().remove(&number);
        metrics::gauge!("ambit_connections_open", "path" => flow.path.as_str()).decrement(1.0);
        let pair = match live {
            Some(live) => {
                live.count();
                if let Some(cell) = &live.cell {
                    cell.close();
                }
                live.pair
            }
            None => self.series.of(flow, clock::monotonic()),
        };
        self.finish(flow, &pair, access_log::complete);
    }

    /// A connection came to nothing once it was decided about: policy refused it, or its end was not reached. It counts
    /// as opened too, so that opened less closed is what lives.
    pub fn failed(&self, flow: &Arc<Flow>, outcome: Outcome) {
        self.unopened(flow, outcome, access_log::complete);
    }

    /// A connection was refused before there was anything to decide; it counts as [`Telemetry::failed`] does.
    pub fn refused(&self, flow: &Arc<Flow>, outcome: Outcome) {
        self.unopened(flow, outcome, access_log::refused);
    }

    /// A connection that is not carried here was seen: there is a record of it, and it is counted nowhere.
    pub fn noticed(&self, flow: &Arc<Flow>, outcome: Outcome) {
        flow.end(outcome);
        let record = FlowRecord::new(&self.node, flow.clone());
        if self.is_hidden { self.ring.pass(record) } else { self.ring.push(record) }
    }

    fn unopened(&self, flow: &Arc<Flow>, outcome: Outcome, log: fn(&Record<'_>)) {
        flow.end(outcome);
        if self.is_hidden {
            return self.ring.pass(FlowRecord::new(&self.node, flow.clone()));
        }
        let pair = self.series.of(flow, clock::monotonic());
        pair.open();
        self.finish(flow, &pair, log);
    }

    fn finish(&self, flow: &Arc<Flow>, pair: &Pair, log: fn(&Record<'_>)) {
        let Some((_, outcome)) = flow.ended() else { return };
        let flag = outcome.reason.map_or("-", Reason::flag);
        let failed = outcome.is_failure();
        pair.close(flag, failed);
        // Its last values are to be seen by a scrape, however long it lived.
        pair.touch(clock::monotonic());
        if let Some(cell) = self.tally.cell(tallied::key(flow, Some(outcome)), || tallied::ends(flow)) {
            match failed && flow.was_opened() {
                true => cell.cut(),
                false => cell.end(),
            }
        }
        if let (true, Some(reason)) = (failed, outcome.reason) {
            let policy = outcome.policy.as_ref().map(ToString::to_string).unwrap_or_default();
            metrics::counter!(
                "ambit_connections_refused_total",
                "code" => reason.code(), "policy" => POLICIES.of(policy)
            )
            .increment(1);
        }
        record::count_shadow_denied(outcome);
        record::with_access_record(flow, self.stale_since.stale_for(), log);
        self.ring.push(FlowRecord::new(&self.node, flow.clone()));
    }

    /// Adds what live connections have moved to the metrics and to what summaries are made of.
    pub fn count_live(&self) {
        let live: Vec<Live> = self.lock().values().cloned().collect();
        for one in live {
            one.count();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes how long a tunnel's handshake that `began` then took, by our role in it and the key exchange it agreed on.
pub(crate) fn note_handshake(role: &'static str, group: Option<impl Debug>, began: Instant) {
    let group = group.map_or_else(|| "unknown".to_owned(), |group| format!("{group:?}"));
    let took = clock::monotonic().saturating_duration_since(began);
    metrics::histogram!("ambit_handshake_seconds", "role" => role, "group" => group)
        .record(took.as_secs_f64());
}

impl Live {
    /// Adds what was moved since this was last asked.
    fn count(&self) {
        let (received, sent) = self.flow.uncounted();
        if received + sent > 0 {
            self.pair.moved(received, sent);
            if let Some(cell) = &self.cell {
                // The metric is named from the server's side: what it received, the client sent.
                cell.moved(received, sent);
            }
        }
    }
}
