//! Latencies as counts in fixed buckets, so that those of many proxies add up.

/// Buckets of a histogram: bounds grow by a half from 250 us to 48 s, and one is for what takes longer.
pub const BUCKETS: usize = 32;

/// Upper bounds in microseconds, of all buckets but the last.
const BOUNDS_US: [u64; BUCKETS - 1] = bounds();

const fn bounds() -> [u64; BUCKETS - 1] {
    let mut bounds = [0; BUCKETS - 1];
    let (mut at, mut bound) = (0, 250);
    while at < bounds.len() {
        bounds[at] = bound;
        bound += bound / 2;
        at += 1;
    }
    bounds
}

/// The bucket of something that took so many microseconds.
pub fn bucket_of(us: u64) -> usize {
    BOUNDS_US.partition_point(|bound| *bound < us)
}

/// What a share `q` (0 to 1) of everything counted took at most, in milliseconds; none where nothing was counted. It is
/// right to a bucket, and spread evenly inside one. Beyond the last bound it is that bound.
#[expect(clippy::cast_precision_loss, reason = "counts and microseconds stay far below 2^52")]
pub fn quantile_ms(counts: &[u64], q: f64) -> Option<f64> {
    let total: u64 = counts.iter().fold(0, |sum, count| sum.saturating_add(*count));
    if total == 0 {
        return None;
    }
    let wanted = q.clamp(0.0, 1.0) * total as f64;
    let mut below = 0.0;
    for (at, count) in counts.iter().enumerate().take(BUCKETS - 1) {
        let here = *count as f64;
        if here > 0.0 && below + here >= wanted {
            let from = if at == 0 { 0 } else { BOUNDS_US[at - 1] } as f64;
            let to = BOUNDS_US[at] as f64;
            return Some((from + (to - from) * ((wanted - below) / here).clamp(0.0, 1.0)) / 1000.0);
        }
        below += here;
    }
    Some(BOUNDS_US[BUCKETS - 2] as f64 / 1000.0)
}
