//! What was measured, as numbers with their ratio to the number of objects. Pure.

use std::time::Duration;

use ambit_benches::{Mode, Row};

use crate::process::Memory;
use crate::ztunnels::Given;

const KIB: f64 = 1024.0;
const MIB: f64 = 1024.0 * 1024.0;

/// How much there was.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub mode: Mode,
    pub pods: usize,
    /// Pods, services, nodes and proxies.
    pub objects: usize,
    /// Proxies that were connected.
    pub clients: usize,
}

/// One change.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change {
    /// From just before it was written until the last proxy it concerns had it; none if one never had it.
    pub last: Option<Duration>,
    /// Proxies it concerns.
    pub concerned: usize,
    /// What they were given, in bytes, together.
    pub bytes: u64,
    /// What all others were given.
    pub bytes_to_others: u64,
}

/// Many changes.
#[derive(Debug, Clone)]
pub(crate) struct Churn {
    pub made: usize,
    pub took: Duration,
    /// Resident memory in bytes, by time since the beginning.
    pub samples: Vec<(Duration, f64)>,
    /// CPU-seconds of the control plane.
    pub cpu: f64,
    /// What all proxies were given.
    pub bytes: u64,
    /// From the last change until all proxies had answered it.
    pub caught_up: Duration,
}

/// Everything of one source in one mode.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// From the start of the control plane until it had read everything.
    pub load: Duration,
    /// Memory over an empty source.
    pub empty: Memory,
    /// With all objects and no proxy.
    pub loaded: Memory,
    /// With all proxies.
    pub synced: Memory,
    /// At the end.
    pub last: Memory,
    /// Until the first proxy, alone, had what it asked for.
    pub first: Duration,
    /// Until all others had.
    pub rest: Duration,
    /// What each was given until then.
    pub given: Vec<Given>,
    pub changes: Vec<Change>,
    pub churn: Churn,
}

fn row(name: &'static str, title: &str, value: f64, unit: &'static str, note: String) -> Row {
    Row { name, title: title.to_owned(), value, unit, note }
}

/// Counts stay far below 2^52.
#[expect(clippy::cast_precision_loss, reason = "what is counted stays far below 2^52")]
fn float(number: u64) -> f64 {
    number as f64
}

fn count(number: usize) -> f64 {
    u64::try_from(number).map_or(f64::NAN, float)
}

impl Facts {
    /// The numbers in the order in which they are told.
    pub(crate) fn rows(&self, settings: Settings) -> Vec<Row> {
        let mut rows = self.of_objects(settings);
        rows.extend(self.of_sync(settings));
        rows.extend(self.of_changes(settings));
        rows.extend(self.churn.rows());
        rows.push(row("rss_peak", "memory, most at any time", self.last.peak / MIB, "MiB", String::new()));
        rows
    }

    fn of_objects(&self, of: Settings) -> Vec<Row> {
        let load = self.load.as_secs_f64();
        let each = format!("{:.3} ms an object, of {}", load * 1e3 / count(of.objects), of.objects);
        let own = (self.loaded.now - self.empty.now) / KIB / count(of.pods);
        let note = format!("{own:.2} KiB a pod over empty; aim: under 1");
        let peak = (self.loaded.peak - self.empty.now) / KIB / count(of.pods);
        vec![
            row("load", "reading all objects", load, "s", each),
            row("rss_empty", "memory, no objects", self.empty.now / MIB, "MiB", String::new()),
            row("rss_loaded", "memory, all objects, no proxies", self.loaded.now / MIB, "MiB", note),
            row("rss_per_pod", "memory for each pod", own, "KiB", String::new()),
            row(
                "rss_loaded_peak",
                "memory, most while reading",
                self.loaded.peak / MIB,
                "MiB",
                format!("{peak:.2} KiB a pod over empty"),
            ),
        ]
    }

    fn of_sync(&self, of: Settings) -> Vec<Row> {
        let (clients, rest) = (count(of.clients), self.rest.as_secs_f64());
        let bytes = float(self.given.iter().map(|given| given.bytes).sum());
        let resources = float(self.given.iter().map(|given| given.resources).sum());
        let first = self.given.first().copied().unwrap_or_default();
        let of_first = format!("{} resources, {:.1} KiB", first.resources, float(first.bytes) / KIB);
        let of_all = format!("{:.2} ms a proxy, of {}", rest * 1e3 / (clients - 1.0).max(1.0), of.clients);
        let own = (self.synced.now - self.loaded.now) / KIB / clients;
        let of_each =
            format!("{:.1} resources a proxy, {:.0} bytes each", resources / clients, bytes / resources);
        vec![
            row("sync_first", "first proxy, alone", self.first.as_secs_f64() * 1e3, "ms", of_first),
            row("sync_all", "all other proxies", rest, "s", of_all),
            row("sync_bytes", "sent to a proxy", bytes / clients / KIB, "KiB", of_each),
            row(
                "rss_synced",
                "memory, all proxies connected",
                self.synced.now / MIB,
                "MiB",
                format!("{own:.1} KiB a proxy over none"),
            ),
        ]
    }

    fn of_changes(&self, of: Settings) -> Vec<Row> {
        let made = count(self.changes.len()).max(1.0);
        let mut times: Vec<f64> =
            self.changes.iter().filter_map(|c| c.last).map(|last| last.as_secs_f64() * 1e3).collect();
        times.sort_by(f64::total_cmp);
        let most = times.last().copied().unwrap_or(f64::NAN);
        let concerned = self.changes.iter().map(|c| c.concerned).sum::<usize>();
        let bytes = float(self.changes.iter().map(|c| c.bytes).sum());
        let others = float(self.changes.iter().map(|c| c.bytes_to_others).sum());
        let each = format!("{:.0} bytes a proxy", bytes / count(concerned).max(1.0));
        let whom = format!("{:.1} of {} proxies", count(concerned) / made, of.clients);
        let must = match of.mode {
            Mode::OnDemand => "must be 0",
            Mode::Wildcard => "a change concerns all",
        };
        vec![
            row("change", "one change, until all have it, median", middle(&times), "ms", whom),
            row("change_most", "the slowest of them", most, "ms", "aim: under 100".to_owned()),
            row("change_bytes", "bytes of one change", bytes / made, "bytes", each),
            row("change_bytes_others", "bytes to others, all changes", others, "bytes", must.to_owned()),
        ]
    }
}

impl Churn {
    fn rows(&self) -> Vec<Row> {
        let (made, minutes) = (count(self.made).max(1.0), self.took.as_secs_f64() / 60.0);
        let half = self.samples.len() / 2;
        let (whole, late) = (slope(&self.samples), slope(&self.samples[half..]));
        let first = self.samples.first().map_or(f64::NAN, |(_, bytes)| *bytes);
        let last = self.samples.last().map_or(f64::NAN, |(_, bytes)| *bytes);
        let span = format!("from {:.1} to {:.1} MiB", first / MIB, last / MIB);
        let of_change = format!("{:.1} bytes a change", late / (made / minutes));
        let rate = format!("in {:.0} s: {:.0} a minute", self.took.as_secs_f64(), made / minutes);
        let cpu = self.cpu * 1e3 / made;
        let busy = format!("{:.0} % of a core", self.cpu / self.took.as_secs_f64() * 100.0);
        let behind = self.caught_up.as_secs_f64() * 1e3;
        vec![
            row("churn", "churn, changes", made, "", rate),
            row("churn_slope", "memory, slope", whole / KIB, "KiB/min", span),
            row("churn_slope_late", "memory, slope of the second half", late / KIB, "KiB/min", of_change),
            row("churn_cpu", "CPU of the control plane", cpu, "ms a change", busy),
            row(
                "churn_bytes",
                "sent to all proxies",
                float(self.bytes) / made,
                "bytes a change",
                String::new(),
            ),
            row("churn_behind", "until the last change is answered", behind, "ms", "by all".to_owned()),
        ]
    }
}

/// The middle one of sorted numbers.
fn middle(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// How fast samples grow, a minute, by least squares; 0 of fewer than two.
fn slope(samples: &[(Duration, f64)]) -> f64 {
    if samples.len() < 2 {
        return 0.0;
    }
    let number = count(samples.len());
    let minutes = |time: &Duration| time.as_secs_f64() / 60.0;
    let mean_x = samples.iter().map(|(time, _)| minutes(time)).sum::<f64>() / number;
    let mean_y = samples.iter().map(|(_, value)| value).sum::<f64>() / number;
    let mut both = 0.0;
    let mut square = 0.0;
    for (time, value) in samples {
        let x = minutes(time) - mean_x;
        both += x * (value - mean_y);
        square += x * x;
    }
    if square == 0.0 { 0.0 } else { both / square }
}
