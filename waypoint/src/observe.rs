//! What is told of requests and connections: one record each, written once at the end, and what follows from it: a
//! line of the log, the metrics that dashboards of this field know, a flow record, and spans.
//!
//! It decides nothing. A client's words are escaped and cut before they get into a record, and never become a label.

mod connection;
mod exchange;
pub mod export;
#[cfg(test)]
mod fixture;
pub mod flows;
mod labels;
pub mod otel;
mod otlp;
mod record;
mod series;
mod spans;
mod tallied;
pub mod trace;

use std::sync::Arc;
use std::time::Duration;

use ambit_runtime::metrics::values::POLICIES;
use ambit_runtime::{clock, tasks};
use ambit_types::Reason;
use ambit_xds::observe::Tally;
use http::HeaderMap;

pub(crate) use connection::Connection;
pub(crate) use exchange::Exchange;
pub use record::Record;
pub use series::Series;

use crate::terminate::Call;
use crate::{Waypoint, random};
use export::Exporter;
use flows::Ring;
use trace::{Sampler, Trail};

/// How often series of workloads that are gone are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// Takes records as they are written.
pub trait Sink: Send + Sync + std::fmt::Debug {
    /// Takes one; must not wait.
    fn take(&self, record: &Record<'_>);
}

/// What records become besides lines of the log.
#[derive(Debug)]
pub struct Setup {
    /// What the waypoint is called in flow records.
    pub node: String,
    /// Flow records that are kept; [`flows::RECORDS_DEFAULT`].
    pub flow_records: usize,
    /// Which traces that begin here are recorded.
    pub sampler: Sampler,
    /// Where spans go; without it traces go on, and none that begins here is recorded.
    pub exporter: Option<Exporter>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            node: "waypoint".to_owned(),
            flow_records: flows::RECORDS_DEFAULT,
            sampler: Sampler::default(),
            exporter: None,
        }
    }
}

/// Records and metrics of one waypoint.
#[derive(Debug)]
pub struct Observe {
    /// Metrics of requests and connections; a source for the registry.
    pub series: Arc<Series>,
    /// The last flow records; served by [`flows::routes`].
    pub flows: Arc<Ring>,
    /// Counts of pairs, told to the control plane.
    pub tally: Arc<Tally>,
    sink: Arc<dyn Sink>,
    sampler: Sampler,
    exporter: Option<Exporter>,
}

impl Observe {
    /// Gives records to `sink`, and exports nothing.
    pub fn new(sink: Arc<dyn Sink>) -> Arc<Self> {
        Self::with(sink, Setup::default())
    }

    /// Writes records to the log, under the target `access`, and exports nothing.
    pub fn to_log() -> Arc<Self> {
        Self::logging(Setup::default())
    }

    /// Writes records to the log, under the target `access`.
    pub fn logging(setup: Setup) -> Arc<Self> {
        Self::with(Arc::new(record::Log), setup)
    }

    /// Gives records to `sink`.
    pub fn with(sink: Arc<dyn Sink>, setup: Setup) -> Arc<Self> {
        let Setup { node, flow_records, sampler, exporter } = setup;
        // Nobody behind us is to record the rest of a trace of which the beginning goes nowhere.
        let sampler = if exporter.is_some() { sampler } else { Sampler::FOLLOW };
        let flows = Arc::new(Ring::new(&node, flow_records));
        let tally = Arc::default();
        Arc::new(Self { series: Arc::default(), flows, tally, sink, sampler, exporter })
    }

    /// Joins the trace of a request, or begins one, and writes the headers that go on. What comes back writes those of
    /// each attempt.
    pub(crate) fn join(&self, headers: &mut HeaderMap, exchange: &mut Exchange) -> Trail {
        let (span, trail) = trace::join(headers, &self.sampler, random::wide, random::number);
        let is_recorded = span.is_sampled && self.exporter.is_some();
        exchange.traced(span, is_recorded.then(|| trail.shared()));
        trail
    }

    /// A tunnel request was refused before it had a record.
    pub(crate) fn refused(&self, reason: Reason) {
        metrics::counter!("ambit_waypoint_streams_refused_total", "code" => reason.code()).increment(1);
    }

    /// A request is over.
    pub(crate) fn exchanged(&self, call: &Call, exchange: &mut Exchange) {
        exchange.settle();
        let record = exchange.record(call);
        self.series.request(&record, clock::monotonic());
        tallied::request(&self.tally, &record);
        for policy in &exchange.shadow {
            metrics::counter!("ambit_policy_shadow_denied_total", "policy" => POLICIES.of(policy.to_string()))
                .increment(1);
        }
        if record.stopped == Some(ambit_route::retry::Stop::BudgetSpent) {
            metrics::counter!("ambit_waypoint_retry_budget_spent_total").increment(1);
        }
        self.told(&record);
        if let (Some(span), Some(exporter)) = (record.span.filter(|span| span.is_sampled), &self.exporter) {
            let state = call.waypoint.state();
            let about = spans::About {
                span,
                own: &state.own.workload,
                begun: exchange.begun,
                tries: &exchange.tries,
            };
            spans::of(&record, &about).for_each(|span| exporter.take(span));
        }
    }

    /// A connection that is passed through begins.
    pub(crate) fn opened(&self, record: &Record<'_>) {
        self.series.opened(record, clock::monotonic());
    }

    /// A connection that was passed through is over.
    pub(crate) fn passed(&self, record: &Record<'_>) {
        self.series.closed(record, clock::monotonic());
        tallied::connection(&self.tally, record);
        self.told(record);
    }

    fn told(&self, record: &Record<'_>) {
        if let Some((action, reason)) = record.denied_by() {
            let policy = record.policy.map(ToString::to_string).unwrap_or_default();
            metrics::counter!(
                "ambit_waypoint_denials_total",
                "policy" => POLICIES.of(policy), "action" => action, "reason" => reason.code()
            )
            .increment(1);
        }
        self.flows.push(record);
        self.sink.take(record);
    }
}

/// Forgets series of workloads that are gone, until the waypoint has left.
pub fn watch(waypoint: &Arc<Waypoint>) {
    let waypoint = waypoint.clone();
    tasks::spawn("waypoint-telemetry", async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(SWEEP_EVERY) => {}
                () = waypoint.drain.forced() => return,
            }
            let state = waypoint.state();
            let exists = |uid: &ambit_types::Uid| state.mesh.workload(uid).is_some();
            waypoint.observe.series.sweep(clock::monotonic(), exists);
        }
    });
}
