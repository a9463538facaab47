//! Requests and new connections by wrk: closed loop, so its rates are saturation and its latency at one connection is
//! the time of a round trip.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use serde_json::Value;

use super::{Metric, Values, each};
use crate::child::{self, Stop};
use crate::contenders::{HTTP, Way};
use crate::cpu::Usage;
use crate::lab::Lab;

/// How much longer than its own time a run may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Marks the line that our script prints.
const MARK: &str = "ambit-bench ";
/// The most failed requests of a run that still counts, as a share of all.
const FAILED_MAX: f64 = 0.01;

/// Makes wrk print exact numbers instead of rounded ones; the load itself stays in C.
const SCRIPT: &str = r#"done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('ambit-bench {"us":%d,"requests":%d,"failed":%d,"p50":%d,"p99":%d}\n',
    summary.duration, summary.requests, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"#;

/// How wrk loads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    threads: u32,
    connections: u32,
    /// A new connection for each request.
    fresh: bool,
}

impl Load {
    /// As many new connections as get through, 64 at a time.
    pub(super) const CONNECTIONS: Self = Self { threads: 2, connections: 64, fresh: true };
    /// One request after the other.
    pub(super) const ONE: Self = Self { threads: 1, connections: 1, fresh: false };
    /// Saturation.
    pub(super) const MANY: Self = Self { threads: 2, connections: 128, fresh: false };
}

/// Runs wrk once.
///
/// # Errors
/// If wrk fails, or more than one in a hundred requests did.
pub(super) fn run(lab: &Lab, stop: &Stop, way: &Way, load: Load, seconds: u64) -> anyhow::Result<Values> {
    let script = lab.file("report.lua", SCRIPT)?;
    let url = format!("http://{}/page", std::net::SocketAddr::new(way.host, way.port(HTTP)));
    let (threads, connections) = (load.threads.to_string(), load.connections.to_string());
    let time = format!("{seconds}s");
    let mut argv =
        vec!["wrk", "-t", &threads, "-c", &connections, "-d", &time, "--timeout", "5s", "-s", &script];
    if load.fresh {
        argv.extend(["-H", "Connection: close"]);
    }
    argv.push(&url);
    let before = Usage::now(&way.proxies)?;
    let output = child::run(stop, Some(&way.client), &argv, Duration::from_secs(seconds) + PATIENCE)?;
    let used = Usage::now(&way.proxies)?.since(before);
    let counts = read(&output.ok("wrk")?)?;
    let mut values = Values::from([(Metric::PerSecond, counts.requests / counts.seconds)]);
    if !load.fresh {
        values.extend([(Metric::P50, counts.p50), (Metric::P99, counts.p99)]);
    }
    each(&mut values, way, used, counts.requests);
    Ok(values)
}

#[derive(Debug, PartialEq)]
struct Counts {
    seconds: f64,
    requests: f64,
    p50: f64,
    p99: f64,
}

fn read(stdout: &str) -> anyhow::Result<Counts> {
    let line = stdout.lines().find_map(|l| l.strip_prefix(MARK));
    let line = line.ok_or_else(|| anyhow!("wrk printed no summary: {}", stdout.trim()))?;
    let summary: Value = serde_json::from_str(line).context("reading wrk's summary")?;
    let number = |key: &str| summary[key].as_f64().ok_or_else(|| anyhow!("wrk's summary has no {key}"));
    let (requests, failed) = (number("requests")?, number("failed")?);
    if requests <= 0.0 || failed > requests * FAILED_MAX {
        bail!("{requests} requests were answered, {failed} failed");
    }
    Ok(Counts { seconds: number("us")? / 1e6, requests, p50: number("p50")?, p99: number("p99")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_found_among_what_wrk_prints() {
        let text = "Running 5s test\nambit-bench {\"us\":2000000,\"requests\":400,\"failed\":4,\"p50\":67,\"p99\":163}\n";
        let wanted = Counts { seconds: 2.0, requests: 400.0, p50: 67.0, p99: 163.0 };
        assert_eq!(read(text).expect("a summary"), wanted);
    }

    #[test]
    fn a_run_in_which_much_failed_is_none() {
        let line = |requests, failed| {
            format!(
                "ambit-bench {{\"us\":1,\"requests\":{requests},\"failed\":{failed},\"p50\":1,\"p99\":1}}"
            )
        };
        for (text, wanted) in [
            (line(100, 2), "100 requests were answered, 2 failed"),
            (line(0, 0), "0 requests were answered, 0 failed"),
            ("unable to connect".to_owned(), "wrk printed no summary: unable to connect"),
        ] {
            assert_eq!(read(&text).expect_err(&text).to_string(), wanted);
        }
    }
}
