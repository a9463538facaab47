//! The waypoint against Envoy as a plain HTTP proxy in the same place: requests for each CPU-second of the proxy's own
//! process, latency at a fixed rate, memory, and how all of it depends on the number of routes.
//!
//! Follows the rules of the whole benchmark: alternating rounds, medians, ratios of one run, no time asserted.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::child::{Interrupted, Stop};
use crate::congestion;
use crate::cpu::resident_bytes;
use crate::options::Options;
use crate::out;
use crate::run::other_load;

mod cast;
mod envoy;
mod h2load;
mod proxies;
mod table;

use cast::Stage;
use h2load::Size;
use proxies::{Load, Protocol, Proxy, Routes, Values};
pub(crate) use proxies::{Selection, select, words};
pub(crate) use table::{json, text};

const MIB: f64 = 1024.0 * 1024.0;
/// A run before the first round, which opens pools and warms caches and does not count.
const WARM_UP_SECONDS: u64 = 1;

/// All runs of one load, protocol and number of routes: a round is what each proxy came to in it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cell {
    load: Load,
    protocol: Protocol,
    routes: Routes,
    proxies: Vec<Proxy>,
    rounds: Vec<BTreeMap<Proxy, Values>>,
    /// How busy the machine was with something else before the first round, as a share of all its cores.
    pub other_load: f64,
}

impl Cell {
    fn what(&self) -> String {
        format!("{} {} {}", self.protocol.name(), self.routes.name(), self.load.name())
    }
}

/// Resident memory of a proxy with its routes, in MiB.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Memory {
    routes: Routes,
    proxy: Proxy,
    /// Before any load but the requests that tested it.
    idle: f64,
    /// After all load; none if the proxy was gone.
    after: Option<f64>,
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Results {
    /// The fixed rate in requests a second.
    rate: u32,
    /// In the order of measuring.
    pub cells: Vec<Cell>,
    memory: Vec<Memory>,
}

impl Results {
    /// What did not run even once, in words.
    pub(crate) fn missing(&self) -> Vec<String> {
        let lacking = |cell: &Cell| {
            let ran = |p: &Proxy| cell.rounds.iter().any(|r| r.contains_key(p));
            let none = cell.proxies.iter().filter(|p| !ran(p));
            none.map(|p| format!("{} did not run {}", p.title(), cell.what())).collect::<Vec<_>>()
        };
        self.cells.iter().flat_map(lacking).collect()
    }
}

/// Measures what was asked for, in a lab of its own.
///
/// # Errors
/// If the lab does not come up, or we were interrupted.
pub(crate) fn run(
    options: &Options,
    selection: &Selection,
    binaries: &Path,
    folder: &Path,
    stop: &Stop,
) -> anyhow::Result<Results> {
    let stage = Stage::up(&options.name, binaries, folder, &options.set, &selection.routes, stop)?;
    congestion::check(stop, &options.name)?;
    stop.pause(Duration::from_secs(options.settle()))?;
    let mut memory = idle_memory(&stage, selection)?;
    let size = Size { seconds: options.seconds(), rate: options.rate() };
    let mut cells = Vec::new();
    for mut cell in empty_cells(selection) {
        warm_up(&stage, &cell, stop, size)?;
        cell.other_load = other_load(stop)?;
        for number in 0..options.pairs() {
            let round = round(&stage, &cell, number, stop, size)?;
            cell.rounds.push(round);
        }
        cells.push(cell);
    }
    stop.pause(Duration::from_secs(options.settle()))?;
    for one in &mut memory {
        one.after = resident(&stage, one.proxy, one.routes).ok();
    }
    Ok(Results { rate: size.rate, cells, memory })
}

fn empty_cells(selection: &Selection) -> Vec<Cell> {
    let mut cells = Vec::new();
    for load in &selection.loads {
        for protocol in &selection.protocols {
            for routes in &selection.routes {
                let runs = |p: &Proxy| p.runs_with(*routes);
                let proxies: Vec<Proxy> = selection.proxies.iter().copied().filter(runs).collect();
                if !proxies.is_empty() {
                    let (load, protocol, routes) = (*load, *protocol, *routes);
                    cells.push(Cell { load, protocol, routes, proxies, rounds: Vec::new(), other_load: 0.0 });
                }
            }
        }
    }
    cells
}

fn idle_memory(stage: &Stage, selection: &Selection) -> anyhow::Result<Vec<Memory>> {
    let mut all = Vec::new();
    for routes in &selection.routes {
        for proxy in selection.proxies.iter().filter(|p| p.has_memory()) {
            let idle = resident(stage, *proxy, *routes)?;
            all.push(Memory { routes: *routes, proxy: *proxy, idle, after: None });
        }
    }
    Ok(all)
}

fn resident(stage: &Stage, proxy: Proxy, routes: Routes) -> anyhow::Result<f64> {
    let way = stage.way(proxy, Protocol::Http1, routes)?;
    let pid = way.proxy.ok_or_else(|| anyhow::anyhow!("{} has no process", proxy.title()))?;
    Ok(resident_bytes(pid)? / MIB)
}

fn warm_up(stage: &Stage, cell: &Cell, stop: &Stop, size: Size) -> anyhow::Result<()> {
    let size = Size { seconds: WARM_UP_SECONDS, ..size };
    for proxy in &cell.proxies {
        let ran = stage
            .way(*proxy, cell.protocol, cell.routes)
            .and_then(|way| h2load::run(&stage.lab, stop, &way, Load::Saturation, size));
        told(ran, &format!("{} warming up {}", cell.what(), proxy.title()), false)?;
    }
    Ok(())
}

/// One run of each proxy, forward and backward in turn, so that drift weighs on all alike.
fn round(
    stage: &Stage,
    cell: &Cell,
    number: usize,
    stop: &Stop,
    size: Size,
) -> anyhow::Result<BTreeMap<Proxy, Values>> {
    let mut order = cell.proxies.clone();
    if number % 2 == 1 {
        order.reverse();
    }
    let mut round = BTreeMap::new();
    for proxy in order {
        let what = format!("{} round {} {}", cell.what(), number + 1, proxy.title());
        let ran = stage
            .way(proxy, cell.protocol, cell.routes)
            .and_then(|way| h2load::run(&stage.lab, stop, &way, cell.load, size));
        if let Some(values) = told(ran, &what, true)? {
            round.insert(proxy, values);
        }
    }
    Ok(round)
}

/// Says what a run came to; a failed one is told and the others go on.
fn told(ran: anyhow::Result<Values>, what: &str, in_full: bool) -> anyhow::Result<Option<Values>> {
    match ran {
        Ok(values) => {
            if in_full {
                let parts = values.iter().map(|(m, v)| format!("{} {}", crate::table::number(*v), m.title()));
                out::say(&format!("bench: {what}: {}", parts.collect::<Vec<_>>().join(", ")));
            }
            Ok(Some(values))
        }
        Err(error) if error.is::<Interrupted>() => Err(error),
        Err(error) => {
            out::say(&format!("bench: {what} FAILED: {error:#}"));
            Ok(None)
        }
    }
}
