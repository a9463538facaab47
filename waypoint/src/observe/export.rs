//! Spans on their way to a collector: queued without waiting, sent in batches, and dropped (and counted) where a
//! collector does not keep up. No request ever waits for it.

mod client;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use ambit_runtime::drain::Drain;
use ambit_runtime::tasks;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::otel::Settings;
use super::otlp::{ExportRequest, KeyValue, Resource, ResourceSpans, Scope, ScopeSpans, Span};
use client::Client;

/// Longest time that what is queued has to leave when the program does.
const FLUSH: Duration = Duration::from_secs(2);

/// Where spans are queued. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Exporter {
    queue: mpsc::Sender<Span>,
    leave: CancellationToken,
    gone: CancellationToken,
}

/// Why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The roots cannot be read.
    #[error("reading the collector's roots from {path}; is OTEL_EXPORTER_OTLP_CERTIFICATE right?")]
    Roots {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        cause: std::io::Error,
    },
    /// There are no certificates in the file.
    #[error("{path} holds no certificates in PEM")]
    NoRoots {
        /// The file.
        path: PathBuf,
    },
    /// The address or its TLS settings are refused.
    #[error("preparing the channel to the collector")]
    Channel(#[from] tonic::transport::Error),
    /// TLS settings are refused.
    #[error("preparing TLS with the collector")]
    Tls(#[from] rustls::Error),
}

/// Starts exporting; none if nothing is to be exported. `name` is what the program is called in traces if the
/// settings do not say. To be called inside a runtime.
///
/// It goes on while `drain` waits for requests under way, and ends once it is forced or [`Exporter::finish`] is called.
///
/// # Errors
/// [`ExportError`].
pub fn start(settings: &Settings, name: &str, drain: &Drain) -> Result<Option<Exporter>, ExportError> {
    let Some(target) = &settings.target else { return Ok(None) };
    let (queue, spans) = mpsc::channel(settings.queue_max);
    let (leave, gone) = (CancellationToken::new(), CancellationToken::new());
    let work = Work {
        client: Client::new(target)?,
        spans,
        batch: Vec::new(),
        under_way: 0,
        resource: resource(settings, name),
        batch_max: settings.batch_max,
        delay: settings.delay,
        timeout: target.timeout,
        is_failing: false,
    };
    info!(collector = %target.url, protocol = ?target.protocol, "spans are exported");
    let (drain, left, over) = (drain.clone(), leave.clone(), gone.clone());
    tasks::spawn("trace-export", async move {
        // Told on every way out of here, also a panic.
        let _over = over.drop_guard();
        tokio::select! {
            () = work.run(&left) => {}
            // Only tells the other branch to leave; it ends by itself.
            () = async { drain.forced().await; left.cancel(); std::future::pending().await } => {}
        }
    });
    Ok(Some(Exporter { queue, leave, gone }))
}

impl Exporter {
    /// Queues a span, or drops it if there is no place.
    pub(super) fn take(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            dropped("queue", 1);
        }
    }

    /// Sends what is queued and ends; takes 2 s at most.
    pub async fn finish(&self) {
        self.leave.cancel();
        self.gone.cancelled().await;
    }
}

fn dropped(cause: &'static str, spans: usize) {
    metrics::counter!("ambit_trace_spans_dropped_total", "cause" => cause).increment(wide(spans));
}

fn resource(settings: &Settings, name: &str) -> Resource {
    let name = settings.service_name.as_deref().unwrap_or(name);
    let mut attributes = vec![
        KeyValue::text("service.name", name),
        KeyValue::text("telemetry.sdk.name", "ambit"),
        KeyValue::text("telemetry.sdk.language", "rust"),
        KeyValue::text("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
    ];
    attributes.extend(settings.attributes.iter().map(|(key, value)| KeyValue::text(key, value.clone())));
    Resource { attributes }
}

/// What the exporting task has.
struct Work {
    client: Client,
    spans: mpsc::Receiver<Span>,
    /// Taken off the queue and not sent.
    batch: Vec<Span>,
    /// Spans of the batch that is being sent.
    under_way: usize,
    resource: Resource,
    batch_max: usize,
    delay: Duration,
    timeout: Duration,
    is_failing: bool,
}

impl Work {
    /// Exports until it is to leave and the queue is empty, or its time for that is over.
    async fn run(mut self, leave: &CancellationToken) {
        let late = async {
            leave.cancelled().await;
            tokio::time::sleep(FLUSH).await;
        };
        tokio::select! {
            () = self.export(leave) => {}
            () = late => {}
        }
        self.spans.close();
        let left = self.spans.len() + self.batch.len() + self.under_way;
        if left > 0 {
            warn!(spans = left, "spans were lost: the collector did not take them before the end");
            dropped("end", left);
        }
    }

    async fn export(&mut self, leave: &CancellationToken) {
        loop {
            self.collect(leave).await;
            if self.batch.is_empty() {
                return;
            }
            self.deliver().await;
        }
    }

    /// Gathers a batch: full, or as large as it gets in the time. Empty only if there is nothing more to come.
    async fn collect(&mut self, leave: &CancellationToken) {
        let first = tokio::select! {
            biased;
            first = self.spans.recv() => first,
            () = leave.cancelled() => None,
        };
        let Some(first) = first else { return };
        self.batch.push(first);
        let mut over = pin!(tokio::time::sleep(self.delay));
        while self.batch.len() < self.batch_max {
            let next = tokio::select! {
                biased;
                next = self.spans.recv() => next,
                () = leave.cancelled() => None,
                () = over.as_mut() => None,
            };
            let Some(next) = next else { return };
            self.batch.push(next);
        }
    }

    /// Sends the batch, and drops it if that does not succeed in time.
    async fn deliver(&mut self) {
        let spans = std::mem::take(&mut self.batch);
        self.under_way = spans.len();
        let scope =
            Scope { name: "ambit-waypoint".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans }];
        let resource_spans = vec![ResourceSpans { resource: Some(self.resource.clone()), scope_spans }];
        let request = ExportRequest { resource_spans };
        let sent = tokio::time::timeout(self.timeout, self.client.deliver(&request)).await;
        let spans = std::mem::take(&mut self.under_way);
        match sent {
            Ok(Ok(rejected)) => {
                let rejected = rejected.min(spans);
                metrics::counter!("ambit_trace_spans_exported_total").increment(wide(spans - rejected));
                if rejected > 0 {
                    dropped("rejected", rejected);
                }
                if std::mem::take(&mut self.is_failing) {
                    info!("the collector takes spans again");
                }
            }
            Ok(Err(error)) => self.failed(spans, &error),
            Err(_) => self.failed(spans, "no answer in time"),
        }
    }

    /// Told once, not with every batch.
    fn failed(&mut self, spans: usize, error: &str) {
        dropped("export", spans);
        if !std::mem::replace(&mut self.is_failing, true) {
            warn!(error, spans, "the collector does not take spans; they are dropped and counted");
        }
    }
}

fn wide(spans: usize) -> u64 {
    u64::try_from(spans).unwrap_or(u64::MAX)
}
