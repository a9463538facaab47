//! The metrics registry and its text form.
//!
//! Series that nothing has touched for [`IDLE`] are dropped (G39), so that the pods of yesterday do not weigh on
//! every scrape.

use std::time::Duration;

use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use metrics_util::MetricKindMask;

/// How long a series lives without being touched.
pub const IDLE: Duration = Duration::from_secs(30 * 60);

/// Upper bounds of duration histograms, in seconds.
const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Renders all metrics of the process in the Prometheus text format.
#[derive(Debug, Clone)]
pub struct Registry {
    handle: PrometheusHandle,
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
    /// Makes the registry and installs it for the whole process; series expire after `idle`.
    ///
    /// # Errors
    /// [`MetricsError::Installed`] on a second call.
    pub fn install(idle: Duration) -> Result<Self, MetricsError> {
        let recorder = recorder(idle)?;
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|_| MetricsError::Installed)?;
        Ok(Self { handle })
    }

    /// The text a scrape gets. Also does the upkeep that keeps histograms and idle series bounded.
    pub fn render(&self) -> String {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let alive = u32::try_from(runtime.metrics().num_alive_tasks()).unwrap_or(u32::MAX);
            metrics::gauge!("ambit_tasks_alive").set(f64::from(alive));
        }
        self.handle.run_upkeep();
        self.handle.render()
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
