//! The metrics registry and its text form, which is OpenMetrics.
//!
//! Series that nothing has touched for [`IDLE`] are dropped (G39), so that the pods of yesterday do not weigh on
//! every scrape. Memory stays bounded whether or not somebody scrapes. Who knows better when a series is over keeps
//! it as a [`Source`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::LocalRecorderGuard;
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use metrics_util::MetricKindMask;
use process::Process;

use crate::{clock, tasks};

mod process;
#[cfg(test)]
mod tests;
pub mod text;
pub mod values;

pub use process::processor_seconds;

/// How long a series lives without being touched.
pub const IDLE: Duration = Duration::from_secs(30 * 60);

/// How often samples are moved into their histograms; until then each of them takes memory.
const UPKEEP: Duration = Duration::from_secs(10);

/// In every which of those rounds idle series are dropped.
const EXPIRY_ROUNDS: u32 = 30;

/// How often it is looked how late the runtime wakes a task.
const STALL_LOOK: Duration = Duration::from_secs(1);

/// Upper bounds of duration histograms, in seconds.
const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Renders all metrics of the process as OpenMetrics text.
#[derive(Debug, Clone)]
pub struct Registry {
    handle: PrometheusHandle,
    sources: Arc<Mutex<Vec<Arc<dyn Source>>>>,
}

/// Series that their owner keeps by itself.
pub trait Source: Send + Sync + std::fmt::Debug {
    /// Appends whole families as OpenMetrics text, of names that nobody else uses; [`text`] helps.
    fn write(&self, text: &mut String);
}

/// The recorder could not be made the process's own.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// The exporter's settings were refused.
    #[error("building the metrics recorder")]
    Build(#[from] BuildError),
    /// Another recorder is installed already.
    #[error("a metrics recorder is already installed in this process")]
    Installed,
}

impl Registry {
    /// Makes the registry and installs it for the whole process, which it takes to start now; series expire after
    /// `idle`.
    ///
    /// # Errors
    /// [`MetricsError::Installed`] on a second call.
    pub fn install(idle: Duration) -> Result<Self, MetricsError> {
        let recorder = recorder(idle)?;
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|_| MetricsError::Installed)?;
        let registry = Self { handle, sources: Arc::default() };
        registry.add(Arc::new(Process::started(clock::wall())));
        Ok(registry)
    }

    /// Makes a registry of this thread alone, for as long as what comes with it is held; its recorder is never freed.
    ///
    /// For tests: they share a process, and what one of them counts must not show in the page of another.
    ///
    /// # Errors
    /// [`MetricsError::Build`].
    pub fn of_thread(idle: Duration) -> Result<(Self, LocalRecorderGuard<'static>), MetricsError> {
        let recorder: &'static PrometheusRecorder = Box::leak(Box::new(recorder(idle)?));
        let registry = Self { handle: recorder.handle(), sources: Arc::default() };
        registry.add(Arc::new(Process::started(clock::wall())));
        Ok((registry, metrics::set_default_local_recorder(recorder)))
    }

    /// Adds series of `source` to every scrape from now on.
    pub fn add(&self, source: Arc<dyn Source>) {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).push(source);
    }

    /// Starts the tasks that keep histograms and idle series bounded where nobody scrapes, and that watch how late the
    /// runtime is; they end with it.
    pub fn start_upkeep(&self) {
        let registry = self.clone();
        tasks::spawn("metrics-upkeep", async move {
            for round in (1..=EXPIRY_ROUNDS).cycle() {
                tokio::time::sleep(UPKEEP).await;
                registry.upkeep(round == EXPIRY_ROUNDS);
            }
        });
        tasks::spawn("metrics-stall", async {
            loop {
                let due = clock::monotonic() + STALL_LOOK;
                tokio::time::sleep(STALL_LOOK).await;
                let late = clock::monotonic().saturating_duration_since(due);
                metrics::histogram!("ambit_runtime_stall_seconds").record(late.as_secs_f64());
            }
        });
    }

    fn upkeep(&self, expire: bool) {
        self.handle.run_upkeep();
        if expire {
            // The exporter looks for idle series only while it renders.
            drop(self.handle.render());
        }
    }

    /// The text a scrape gets. Also does the upkeep that keeps histograms and idle series bounded.
    pub fn render(&self) -> String {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let alive = u32::try_from(runtime.metrics().num_alive_tasks()).unwrap_or(u32::MAX);
            metrics::gauge!("ambit_tasks_alive").set(f64::from(alive));
        }
        self.handle.run_upkeep();
        let mut text = text::as_openmetrics(&self.handle.render());
        for source in self.sources.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            source.write(&mut text);
        }
        text.push_str("# EOF\n");
        text
    }
}

fn recorder(idle: Duration) -> Result<PrometheusRecorder, BuildError> {
    // Gauges stay: live owners set them and take them back.
    let expiring = MetricKindMask::COUNTER | MetricKindMask::HISTOGRAM;
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)?
        .idle_timeout(expiring, Some(idle))
        .build_recorder();
    Ok(recorder)
}
