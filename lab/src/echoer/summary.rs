//! What a run came to: counts, latencies, the first failures. One JSON object.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::frame::{Faults, Report};

/// Failures that are told with their text.
const TOLD_MAX: usize = 20;
/// Longest latency that is told apart, in microseconds.
const LATENCY_US_MAX: u64 = 600_000_000;

/// How a connection can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The target's name has no address.
    Unresolved,
    /// The connection was refused.
    Refused,
    /// It was not opened in time.
    ConnectTimeout,
    /// There is no way to the target.
    Unreachable,
    /// It was reset while it was in use.
    Reset,
    /// It was closed before everything was said.
    Truncated,
    /// Nothing came for too long although something was due.
    Stalled,
    /// The answer came from a server that was not expected, or for another connection.
    Misdelivered,
    /// Frames were lost, repeated, reordered or changed.
    Damaged,
    /// Bytes came that are none of ours.
    Garbage,
    /// The client could not go on, for instance for want of descriptors.
    Local,
}

/// How one connection went.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Until it was open.
    pub connect: Option<Duration>,
    /// Until the server's first frame.
    pub first_byte: Option<Duration>,
    /// Until its end.
    pub total: Option<Duration>,
    /// Who answered.
    pub server: Option<String>,
    /// Whom the server saw.
    pub seen_as: Option<IpAddr>,
    /// Payload bytes sent.
    pub bytes_sent: u64,
    /// What was wrong with what came.
    pub received: Report,
    /// What the server saw.
    pub sent: Option<Report>,
    /// Why it failed; none if all went well.
    pub failure: Option<(Failure, String)>,
}

/// A failure with its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Told {
    /// The number of the connection.
    pub connection: u64,
    /// The kind of failure.
    pub failure: Failure,
    /// What happened.
    pub error: String,
    /// When the connection was begun, in milliseconds since the start of the run.
    pub begun_ms: u64,
    /// When it failed, in milliseconds since the start of the run.
    pub at_ms: u64,
}

/// Latencies in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Latency {
    /// Half were faster.
    pub p50: f64,
    /// 99 of 100 were faster.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
}

/// Counts of connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Begun.
    pub attempted: u64,
    /// Open at some time.
    pub established: u64,
    /// Ended with everything said and nothing wrong.
    pub completed: u64,
    /// Not so.
    pub failed: u64,
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Whether every connection completed.
    pub ok: bool,
    /// Where to.
    pub target: String,
    /// When it began, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// How long it took.
    pub duration_ms: u64,
    /// Connections.
    pub connections: Counts,
    /// Connections by the server that answered.
    pub servers: BTreeMap<String, u64>,
    /// Connections by the address that the server saw.
    pub seen_as: BTreeMap<IpAddr, u64>,
    /// Connections that failed, by kind.
    pub failures: BTreeMap<Failure, u64>,
    /// Payload bytes sent.
    pub bytes_sent: u64,
    /// Payload bytes that came back.
    pub bytes_received: u64,
    /// Frames from the server that were not as they should be.
    pub faults_received: Faults,
    /// Frames to the server that were not as they should be, as it tells.
    pub faults_sent: Faults,
    /// Until connections were open, in milliseconds.
    pub connect_ms: Latency,
    /// From the start to the server's first frame, in milliseconds.
    pub first_byte_ms: Latency,
    /// From the start to the end, in milliseconds; of held connections as well.
    pub total_ms: Latency,
    /// The first failure's text.
    pub first_error: Option<String>,
    /// The first failure's time, in milliseconds since the start.
    pub first_failure_ms: Option<u64>,
    /// The last failure's time, in milliseconds since the start.
    pub last_failure_ms: Option<u64>,
    /// When the youngest of the connections that failed was begun, in milliseconds since the start.
    pub last_failed_begun_ms: Option<u64>,
    /// The first failures.
    pub errors: Vec<Told>,
}

/// Gathers outcomes.
#[derive(Debug)]
pub struct Tally {
    summary: Summary,
    connect: Histogram<u64>,
    first_byte: Histogram<u64>,
    total: Histogram<u64>,
}

impl Tally {
    /// Nothing has happened yet.
    pub fn new(target: &str, started_unix_ms: u64) -> Self {
        let histogram = || {
            Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("bounds and digits are valid constants")
        };
        let summary = Summary {
            ok: false,
            target: target.to_owned(),
            started_unix_ms,
            duration_ms: 0,
            connections: Counts::default(),
            servers: BTreeMap::new(),
            seen_as: BTreeMap::new(),
            failures: BTreeMap::new(),
            bytes_sent: 0,
            bytes_received: 0,
            faults_received: Faults::default(),
            faults_sent: Faults::default(),
            connect_ms: Latency::default(),
            first_byte_ms: Latency::default(),
            total_ms: Latency::default(),
            first_error: None,
            first_failure_ms: None,
            last_failure_ms: None,
            last_failed_begun_ms: None,
            errors: Vec::new(),
        };
        Self { summary, connect: histogram(), first_byte: histogram(), total: histogram() }
    }

    /// Takes the outcome of a connection, `when` it was begun and when it ended, in milliseconds after the start.
    pub fn add(&mut self, connection: u64, when: (u64, u64), outcome: &Outcome) {
        let s = &mut self.summary;
        s.connections.attempted += 1;
        s.connections.established += u64::from(outcome.connect.is_some());
        s.bytes_sent += outcome.bytes_sent;
        s.bytes_received += outcome.received.bytes;
        s.faults_received.add(&outcome.received.faults);
        if let Some(sent) = &outcome.sent {
            s.faults_sent.add(&sent.faults);
        }
        if let Some(server) = &outcome.server {
            *s.servers.entry(server.clone()).or_default() += 1;
        }
        if let Some(address) = outcome.seen_as {
            *s.seen_as.entry(address).or_default() += 1;
        }
        for (histogram, time) in [
            (&mut self.connect, outcome.connect),
            (&mut self.first_byte, outcome.first_byte),
            (&mut self.total, outcome.total),
        ] {
            if let Some(time) = time {
                histogram.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
            }
        }
        match &outcome.failure {
            None => s.connections.completed += 1,
            Some((failure, error)) => self.fail(connection, when, *failure, error),
        }
    }

    fn fail(&mut self, connection: u64, (begun_ms, at_ms): (u64, u64), failure: Failure, error: &str) {
        let s = &mut self.summary;
        s.connections.failed += 1;
        *s.failures.entry(failure).or_default() += 1;
        s.first_error.get_or_insert_with(|| error.to_owned());
        s.first_failure_ms = Some(s.first_failure_ms.map_or(at_ms, |t| t.min(at_ms)));
        s.last_failure_ms = s.last_failure_ms.max(Some(at_ms));
        s.last_failed_begun_ms = s.last_failed_begun_ms.max(Some(begun_ms));
        if s.errors.len() < TOLD_MAX {
            s.errors.push(Told { connection, failure, error: error.to_owned(), begun_ms, at_ms });
        }
    }

    /// Ends the run.
    pub fn finish(self, duration: Duration) -> Summary {
        let mut s = self.summary;
        s.ok = s.connections.attempted > 0 && s.connections.completed == s.connections.attempted;
        s.duration_ms = millis(duration);
        s.connect_ms = latency(&self.connect);
        s.first_byte_ms = latency(&self.first_byte);
        s.total_ms = latency(&self.total);
        s
    }
}

/// A duration in whole milliseconds.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn latency(histogram: &Histogram<u64>) -> Latency {
    let ms = |us: u64| us as f64 / 1000.0;
    if histogram.is_empty() {
        return Latency::default();
    }
    Latency {
        p50: ms(histogram.value_at_quantile(0.50)),
        p99: ms(histogram.value_at_quantile(0.99)),
        max: ms(histogram.max()),
    }
}
