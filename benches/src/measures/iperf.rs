//! Bulk throughput by iperf3: one direction, client to server, for a time.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use serde_json::Value;

use crate::child::{self, Stop};
use crate::contenders::{IPERF, Way};
use crate::cpu::Usage;

/// How often a server that still ends the run before is asked again.
const TRIES: usize = 10;
/// Pause between two tries.
const TRY_AGAIN: Duration = Duration::from_millis(300);
/// How much longer than its own time a run may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What arrived.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Moved {
    pub(super) bytes: f64,
    pub(super) seconds: f64,
}

/// Runs iperf3 once.
///
/// # Errors
/// With iperf3's own words.
pub(super) fn run(stop: &Stop, way: &Way, streams: u32, seconds: u64) -> anyhow::Result<(Moved, Usage)> {
    let (host, port) = (way.host.to_string(), way.port(IPERF).to_string());
    let (seconds_text, streams) = (seconds.to_string(), streams.to_string());
    let argv = ["iperf3", "-c", &host, "-p", &port, "-t", &seconds_text, "-P", &streams, "-i", "0", "-J"];
    for _ in 0..TRIES {
        let before = Usage::now(&way.proxies)?;
        let patience = Duration::from_secs(seconds) + PATIENCE;
        let output = child::run(stop, Some(&way.client), &argv, patience)?;
        let used = Usage::now(&way.proxies)?.since(before);
        match read(&output.stdout) {
            Ok(moved) => return Ok((moved, used)),
            Err(e) if e.to_string().contains("busy") => stop.pause(TRY_AGAIN)?,
            Err(e) => return Err(e.context(output.stderr.trim().to_owned())),
        }
    }
    bail!("the iperf3 server stays busy with the run before")
}

fn read(json: &str) -> anyhow::Result<Moved> {
    let report: Value = serde_json::from_str(json).context("reading iperf3's report")?;
    if let Some(error) = report["error"].as_str() {
        bail!("iperf3: {error}");
    }
    let sum = &report["end"]["sum_received"];
    let number = |key: &str| sum[key].as_f64().ok_or_else(|| anyhow!("iperf3's report has no {key}"));
    Ok(Moved { bytes: number("bytes")?, seconds: number("seconds")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_received_counts() {
        let json = r#"{"end": {"sum_sent": {"bytes": 9}, "sum_received": {"bytes": 1000, "seconds": 2.5}}}"#;
        assert_eq!(read(json).expect("a report"), Moved { bytes: 1000.0, seconds: 2.5 });
    }

    #[test]
    fn a_report_of_failure_is_one() {
        let cases = [
            (r#"{"error": "the server is busy"}"#, "iperf3: the server is busy"),
            (r#"{"end": {}}"#, "iperf3's report has no bytes"),
            ("", "reading iperf3's report"),
        ];
        for (json, wanted) in cases {
            assert_eq!(read(json).expect_err(json).to_string(), wanted);
        }
    }
}
