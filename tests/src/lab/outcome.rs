//! What an oracle's client came to, and waiting for what is to come.

use std::time::{Duration, SystemTime};

use ambit_runtime::clock;
use serde_json::Value;

use super::{LOOK_AGAIN, Output, soak};

/// What an oracle's client came to.
///
/// # Panics
/// If it printed no summary.
#[track_caller]
#[must_use]
pub fn summary(output: &Output) -> Value {
    let line = output.stdout.lines().last().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in the summary of {output:?}"))
}

/// Demands that every connection of a summary completed; how many there were.
#[track_caller]
pub fn all_completed(summary: &Value) -> u64 {
    assert_eq!(summary["ok"], true, "a connection failed: {summary:#}");
    summary["connections"]["completed"].as_u64().expect("a count")
}

/// Demands that a load of `rate` connections a second completed as many as that makes in the time it ran, or nearly: 95
/// of 100 in full length, 80 of 100 in a short run, which may be on a slow machine. How many that were.
///
/// # Panics
/// If there were fewer: the load was not what the test says it was.
#[track_caller]
pub fn kept_its_rate(summary: &Value, rate: u64) -> u64 {
    let completed = summary["connections"]["completed"].as_u64().expect("a count");
    let ran_ms = summary["duration_ms"].as_u64().expect("milliseconds");
    let percent = if soak() { 95 } else { 80 };
    let least = rate * ran_ms * percent / 100_000;
    assert!(completed >= least, "{completed} in {ran_ms} ms, {rate}/s has to make {least}: {summary:#}");
    completed
}

/// When the connection of a flow record was begun.
///
/// # Panics
/// If the record does not say.
#[track_caller]
#[must_use]
pub fn begun(flow: &Value) -> SystemTime {
    let ended = flow["time"].as_str().and_then(|time| humantime::parse_rfc3339(time).ok()).expect("a time");
    ended - Duration::from_millis(flow["duration_ms"].as_u64().expect("milliseconds"))
}

/// Waits until `condition` holds; how long that took.
///
/// # Panics
/// If it does not hold in time.
#[track_caller]
pub fn wait_until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) -> Duration {
    let start = clock::monotonic();
    loop {
        if condition() {
            return clock::monotonic() - start;
        }
        assert!(clock::monotonic() - start < deadline, "not within {deadline:?}: {what}");
        std::thread::sleep(LOOK_AGAIN);
    }
}
