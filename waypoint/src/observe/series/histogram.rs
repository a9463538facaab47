//! Distributions over the bounds that Istio's dashboards know.

use std::sync::atomic::{AtomicU64, Ordering};

use ambit_runtime::metrics::text;

/// Upper bounds, in milliseconds, and in bytes as well.
const BOUNDS: [f64; 19] = [
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

/// A distribution over [`BOUNDS`].
#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// Samples of each bucket alone, those beyond the last bound at the end.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    /// Thousandths.
    sum: AtomicU64,
}

impl Histogram {
    /// Adds a sample that is not negative.
    pub(super) fn add(&self, value: f64) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "never negative, and capped"
        )]
        let thousandths = (value * 1000.0).round() as u64;
        self.put(value, thousandths);
    }

    /// Adds a whole number, which the sum keeps as it is.
    pub(super) fn add_whole(&self, value: u64) {
        self.put(as_float(value), value.saturating_mul(1000));
    }

    fn put(&self, value: f64, thousandths: u64) {
        let at = BOUNDS.partition_point(|bound| *bound < value);
        self.buckets[at].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(thousandths, Ordering::Relaxed);
    }

    /// Writes the distribution's series, with `labels` on each.
    pub(super) fn write(&self, out: &mut String, name: &str, labels: &str) {
        let mut count = 0;
        for (at, bucket) in self.buckets.iter().enumerate() {
            count += bucket.load(Ordering::Relaxed);
            let bound = BOUNDS.get(at).map_or_else(|| "+Inf".to_owned(), ToString::to_string);
            text::series(out, &format!("{name}_bucket"), &format!("{labels},le=\"{bound}\""), count);
        }
        let sum = as_float(self.sum.load(Ordering::Relaxed)) / 1000.0;
        text::series(out, &format!("{name}_sum"), labels, sum);
        text::series(out, &format!("{name}_count"), labels, count);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a sample of a distribution")]
fn as_float(value: u64) -> f64 {
    value as f64
}
