//! The only reader of time.
//!
//! Decisions take time as an argument; the code that gathers facts asks here. An offset for tests can be set
//! once at start, so that certificates expire and skew shows without touching the machine's clock.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

static OFFSET_SECONDS: AtomicI64 = AtomicI64::new(0);

/// Monotonic time, for deadlines and durations.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the monotonic clock")]
pub fn monotonic() -> Instant {
    Instant::now()
}

/// Wall time, for certificates, tokens and records.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
pub fn wall() -> SystemTime {
    let offset = OFFSET_SECONDS.load(Ordering::Relaxed);
    let shift = Duration::from_secs(offset.unsigned_abs());
    let now = SystemTime::now();
    if offset < 0 { now - shift } else { now + shift }
}

/// Wall time in whole seconds since 1970.
pub fn unix_seconds() -> u64 {
    wall().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Shifts wall time for the life of the process; a test hook that programs accept only inside a lab.
pub fn set_test_offset(seconds: i64) {
    OFFSET_SECONDS.store(seconds, Ordering::Relaxed);
}
