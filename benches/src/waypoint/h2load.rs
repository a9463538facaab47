//! Requests by h2load: at a fixed rate or as many as get through, HTTP/1.1 or HTTP/2.
//!
//! h2load wakes its clients of a fixed rate every 10 ms and all together, so the rate is spread over several processes
//! that start apart and clients of at most 100 requests a second. What is left of the bunching weighs on all proxies
//! alike.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};

use super::cast::Way;
use super::proxies::{Load, Metric, Protocol, Values};
use crate::child::{Running, Stop};
use crate::cpu::Usage;
use crate::lab::Lab;

/// How much longer than its own time a run may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The most failed requests of a run that still counts, as a share of all.
const FAILED_MAX: f64 = 0.01;
/// The least of the asked rate that has to be kept.
const RATE_MIN: f64 = 0.95;
/// Processes that share a fixed rate.
const PROCESSES: u32 = 5;
/// Requests a second of one client at a fixed rate: one for each tick of h2load's.
const CLIENT_RATE_MAX: u32 = 100;
/// Connections and concurrent requests on each, at saturation.
const MANY_H1: (u32, u32) = (64, 1);
const MANY_H2: (u32, u32) = (16, 8);
/// Concurrent requests of an HTTP/2 connection at a fixed rate: never what holds a request back.
const STREAMS: u32 = 100;

/// How long a run takes, and the fixed rate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub seconds: u64,
    /// Requests a second.
    pub rate: u32,
}

/// What one process came to.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Counts {
    seconds: f64,
    /// Answered with 2xx.
    answered: f64,
    failed: f64,
}

/// Runs a load once.
///
/// # Errors
/// If h2load fails, more than one in a hundred requests did, or the rate was not kept.
pub(crate) fn run(lab: &Lab, stop: &Stop, way: &Way, load: Load, size: Size) -> anyhow::Result<Values> {
    let scheme = if way.is_tls { "https" } else { "http" };
    let urls = lab.file(&format!("{}.{scheme}", way.routes.name()), &way.urls())?;
    let logs = logs(lab, load);
    let lines: Vec<Vec<String>> = match load {
        Load::Saturation => vec![saturating(way, size, &urls)],
        Load::FixedRate => logs.iter().map(|log| paced(way, size, &urls, log)).collect(),
    };
    remove(&logs)?;
    let proxy: Vec<u32> = way.proxy.into_iter().collect();
    let (before, tunnels_before) = (Usage::now(&proxy)?, Usage::now(&way.tunnels)?);
    let counts = all(stop, way, &lines, size)?;
    let used = Usage::now(&proxy)?.since(before);
    let tunnels = Usage::now(&way.tunnels)?.since(tunnels_before);
    let mut values = values(counts, used, tunnels.proxies, way)?;
    match load {
        Load::Saturation => {
            values.insert(Metric::PerSecond, counts.answered / counts.seconds);
        }
        Load::FixedRate => {
            let rate = counts.answered / counts.seconds;
            if rate < f64::from(size.rate) * RATE_MIN {
                bail!("{rate:.0} of {} requests/s were answered; ask for fewer with --rate", size.rate);
            }
            values.extend(latencies(&logs)?);
        }
    }
    remove(&logs)?;
    Ok(values)
}

fn values(counts: Counts, used: Usage, tunnels: f64, way: &Way) -> anyhow::Result<Values> {
    if counts.answered <= 0.0 || counts.failed > counts.answered * FAILED_MAX {
        bail!("{} requests were answered, {} failed", counts.answered, counts.failed);
    }
    let each = |seconds: f64| seconds * 1e6 / counts.answered;
    let mut values = Values::from([(Metric::MachineEach, each(used.machine))]);
    if way.proxy.is_some() && used.proxies > 0.0 {
        values.insert(Metric::PerCpuSecond, counts.answered / used.proxies);
        values.insert(Metric::ProxyEach, each(used.proxies));
    }
    if !way.tunnels.is_empty() {
        values.insert(Metric::TunnelsEach, each(tunnels));
    }
    Ok(values)
}

/// The files for the latencies of each process.
fn logs(lab: &Lab, load: Load) -> Vec<String> {
    match load {
        Load::Saturation => Vec::new(),
        Load::FixedRate => (0..PROCESSES)
            .map(|n| lab.folder().join(format!("h2load-{n}.log")).display().to_string())
            .collect(),
    }
}

/// h2load appends to what is there.
fn remove(logs: &[String]) -> anyhow::Result<()> {
    for log in logs.iter().filter(|log| fs::exists(log).unwrap_or(true)) {
        fs::remove_file(log).with_context(|| format!("removing {log}"))?;
    }
    Ok(())
}

fn line(way: &Way, size: Size, urls: &str, connections: u32, streams: u32) -> Vec<String> {
    let mut line: Vec<String> = vec!["h2load".to_owned(), "-t".to_owned(), "1".to_owned()];
    if way.protocol == Protocol::Http1 {
        line.push("--h1".to_owned());
    }
    let pairs = [
        ("-c", connections.to_string()),
        ("-m", streams.to_string()),
        ("-D", size.seconds.to_string()),
        ("-i", urls.to_owned()),
    ];
    line.extend(pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
    line.push(format!("--connect-to={}", way.to));
    line
}

fn saturating(way: &Way, size: Size, urls: &str) -> Vec<String> {
    let (connections, streams) = match way.protocol {
        Protocol::Http1 => MANY_H1,
        Protocol::Http2 => MANY_H2,
    };
    line(way, size, urls, connections, streams)
}

/// One of [`PROCESSES`] that share the rate.
fn paced(way: &Way, size: Size, urls: &str, log: &str) -> Vec<String> {
    let clients = size.rate.div_ceil(PROCESSES * CLIENT_RATE_MAX).max(1);
    let rate = f64::from(size.rate) / f64::from(PROCESSES * clients);
    let streams = match way.protocol {
        Protocol::Http1 => 1,
        Protocol::Http2 => STREAMS,
    };
    let mut line = line(way, size, urls, clients, streams);
    line.extend([format!("--rps={rate}"), format!("--log-file={log}")]);
    line
}

/// Runs all processes at once, to their end.
fn all(stop: &Stop, way: &Way, lines: &[Vec<String>], size: Size) -> anyhow::Result<Counts> {
    let mut running = Vec::new();
    for line in lines {
        let argv: Vec<&str> = line.iter().map(String::as_str).collect();
        running.push(Running::start(Some(&way.client), &argv)?);
    }
    let mut sum = Counts::default();
    for one in running {
        let output = one.finish(stop, Duration::from_secs(size.seconds) + PATIENCE)?;
        let counts = read(&output.ok("h2load")?)?;
        sum.seconds = sum.seconds.max(counts.seconds);
        sum.answered += counts.answered;
        sum.failed += counts.failed;
    }
    Ok(sum)
}

/// Reads h2load's summary.
fn read(stdout: &str) -> anyhow::Result<Counts> {
    let after = |start: &str| {
        let found = stdout.lines().find_map(|l| l.trim_start().strip_prefix(start));
        found.ok_or_else(|| anyhow!("h2load printed no {start:?}: {}", stdout.trim()))
    };
    let finished = after("finished in ")?.split(',').next().unwrap_or_default();
    let (requests, statuses) = (after("requests: ")?, after("status codes: ")?);
    let named = |list: &str, name: &str| {
        let found = list.split(',').find_map(|part| part.trim().strip_suffix(name)?.trim().parse().ok());
        found.ok_or_else(|| anyhow!("h2load told no number of {name:?}: {list}"))
    };
    let refused: f64 = named(statuses, "3xx")? + named(statuses, "4xx")? + named(statuses, "5xx")?;
    // h2load counts 4xx and 5xx as failed already.
    let failed: f64 = named(requests, "failed")? + named(requests, "errored")?;
    Ok(Counts {
        seconds: seconds(finished).ok_or_else(|| anyhow!("h2load took {finished:?}"))?,
        answered: named(statuses, "2xx")?,
        failed: failed.max(refused),
    })
}

/// A time as h2load prints it, such as `5.00s` or `998.12ms`.
fn seconds(text: &str) -> Option<f64> {
    let units = [("ms", 1e-3), ("us", 1e-6), ("s", 1.0)];
    units.iter().find_map(|(unit, size)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * size))
}

/// Percentiles over the logs of all processes: lines of start, status and microseconds.
fn latencies(logs: &[String]) -> anyhow::Result<Values> {
    let mut all = Vec::new();
    for log in logs {
        let text = fs::read_to_string(log).with_context(|| format!("reading {log}"))?;
        let took = |line: &str| line.split_whitespace().nth(2)?.parse::<f64>().ok();
        for line in text.lines() {
            all.push(took(line).ok_or_else(|| anyhow!("{log} has the line {line:?}"))?);
        }
    }
    all.sort_by(f64::total_cmp);
    let at = |share: usize| all.get((all.len() * share / 100).min(all.len().saturating_sub(1))).copied();
    let (p50, p99) = at(50).zip(at(99)).ok_or_else(|| anyhow!("h2load recorded no request"))?;
    Ok(Values::from([(Metric::P50, p50), (Metric::P99, p99)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(time: &str, ok: u32, failed: u32) -> String {
        format!(
            "finished in {time}, 1.00 req/s, 1KB/s\nrequests: 9 total, 9 started, 9 done, {ok} succeeded, \
             {failed} failed, 0 errored, 0 timeout\nstatus codes: {ok} 2xx, 0 3xx, {failed} 4xx, 0 5xx\n"
        )
    }

    #[test]
    fn the_summary_is_read() {
        let wanted = Counts { seconds: 5.0, answered: 40.0, failed: 3.0 };
        assert_eq!(read(&summary("5.00s", 40, 3)).expect("a summary"), wanted);
        assert_eq!(read(&summary("500.00ms", 1, 0)).expect("a summary").seconds, 0.5);
        assert!(read("cannot connect").is_err());
    }

    #[test]
    fn percentiles_are_those_of_all_processes() {
        let folder = std::env::temp_dir();
        let name = |n: u32| folder.join(format!("ambit-bench-h2load-{}-{n}", std::process::id()));
        for (n, from) in [(0, 1), (1, 51)] {
            let lines: String = (from..from + 50).map(|us| format!("1\t200\t{us}\n")).collect();
            fs::write(name(n), lines).expect("a temporary file");
        }
        let logs: Vec<String> = [0, 1].map(|n| name(n).display().to_string()).to_vec();
        let got = latencies(&logs).expect("lines");
        assert_eq!((got[&Metric::P50], got[&Metric::P99]), (51.0, 100.0));
        remove(&logs).expect("there");
        assert!(latencies(&logs).is_err(), "nothing was recorded");
    }
}
