//! What is told of requests and connections: one record each, written once at the end, and the metrics that
//! dashboards of this field know.
//!
//! It decides nothing. A client's words are escaped and cut before they get into a record, and never become a label.

mod connection;
mod exchange;
mod series;
pub(crate) mod trace;

use ambit_types::Reason;

pub(crate) use connection::Connection;
pub(crate) use exchange::Exchange;
pub use exchange::Record;
pub use series::Series;

use std::sync::Arc;

use crate::terminate::Call;

/// Takes records as they are written.
pub trait Sink: Send + Sync + std::fmt::Debug {
    /// Takes one; must not wait.
    fn take(&self, record: &Record<'_>);
}

/// Records and metrics of one waypoint.
#[derive(Debug)]
pub struct Observe {
    /// Metrics of requests and connections; a source for the registry.
    pub series: Arc<Series>,
    sink: Arc<dyn Sink>,
}

impl Observe {
    /// Gives records to `sink`.
    pub fn new(sink: Arc<dyn Sink>) -> Arc<Self> {
        Arc::new(Self { series: Arc::default(), sink })
    }

    /// Writes records to the log, under the target `access`.
    pub fn to_log() -> Arc<Self> {
        Self::new(Arc::new(exchange::Log))
    }

    /// A tunnel request was refused before it had a record.
    pub(crate) fn refused(&self, reason: Reason) {
        metrics::counter!("ambit_waypoint_streams_refused_total", "code" => reason.code()).increment(1);
    }

    /// A request is over.
    pub(crate) fn exchanged(&self, call: &Call, exchange: &mut Exchange) {
        let record = exchange.record(call);
        self.series.count(&record);
        if let (Some(reason), Some(policy)) = (record.reason, record.policy) {
            metrics::counter!(
                "ambit_waypoint_denials_total",
                "policy" => policy.to_string(), "reason" => reason.code()
            )
            .increment(1);
        }
        self.sink.take(&record);
    }

    /// A connection that was passed through is over.
    pub(crate) fn passed(&self, record: &Record<'_>) {
        self.series.count(record);
        self.sink.take(record);
    }
}
