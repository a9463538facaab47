//! A whole benchmark: set up, rounds in alternating order, table and file; everything is put back at its end.
//!
//! Decides only what follows what. A failed run is told and counted, and the others go on.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::Context as _;
use nix::unistd::geteuid;

use crate::child::{Interrupted, Stop};
use crate::congestion::{self, Allowed};
use crate::contenders::{Contender, Place, Way, order};
use crate::cpu::Usage;
use crate::lab::Lab;
use crate::machine::Machine;
use crate::measures::{self, Measure, Size, Values};
use crate::options::{Options, Selection, parts};
use crate::waypoint::{self, Results};
use crate::{out, report, table};

/// Only one benchmark at a time: two would measure each other.
const LOCK: &str = "/run/ambit-bench.lock";

/// How long the machine is watched for load that is not ours.
const LOOK_AT_IDLE: Duration = Duration::from_secs(1);
/// Other load from which on a run is told to be disturbed.
const OTHER_LOAD_MAX: f64 = 0.1;

/// All runs of one measure at one place: a round is what each contender came to in it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cell {
    pub place: Place,
    pub measure: Measure,
    pub contenders: Vec<Contender>,
    pub rounds: Vec<BTreeMap<Contender, Values>>,
    /// How busy the machine was with something else before the first round, as a share of all its cores.
    pub other_load: f64,
}

impl Cell {
    /// Contenders without a single run.
    pub(crate) fn missing(&self) -> Vec<Contender> {
        let ran = |c: &Contender| self.rounds.iter().any(|r| r.contains_key(c));
        self.contenders.iter().copied().filter(|c| !ran(c)).collect()
    }
}

/// Measures what was asked for; whether every contender ran.
///
/// # Errors
/// If nothing can be measured here, or we were interrupted.
pub(crate) fn run(options: &Options) -> anyhow::Result<bool> {
    let parts = parts(&options.filters)?;
    if parts.mesh.is_none() && parts.waypoint.is_none() {
        return Ok(true);
    }
    if !geteuid().is_root() {
        anyhow::bail!("root is needed, for network namespaces and the kernel's list of congestion controls");
    }
    let folder = Options::folder()?;
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let lock = fs::File::create(LOCK).with_context(|| format!("opening {LOCK}"))?;
    lock.try_lock().with_context(|| format!("locking {LOCK}: does another benchmark run?"))?;
    let binaries = options.binaries()?;
    let stop = Stop::on_signals()?;
    let envoy = Options::envoy()?;
    let machine = Machine::read(&stop, &binaries, parts.waypoint.is_some().then_some(&*envoy))?;
    out::data(&machine.text());
    // In this order: the labs go first when this ends.
    let _allowed = Allowed::cubic()?;
    let of_mesh = match &parts.mesh {
        Some(selection) => {
            let lab = Lab::of_mesh(&options.name, &binaries, &folder, &options.set, &stop)?;
            congestion::check(&stop, &options.name)?;
            cells(&lab, &stop, options, selection)?
        }
        None => Vec::new(),
    };
    let at_waypoint =
        parts.waypoint.as_ref().map(|asked| waypoint::run(options, asked, &binaries, &folder, &stop));
    // What the mesh came to is told even where the waypoint could not be measured.
    let (at_waypoint, failed) = match at_waypoint.transpose() {
        Ok(results) => (results, None),
        Err(error) => (None, Some(error)),
    };
    tell(&machine, options, &of_mesh, at_waypoint.as_ref())?;
    if let Some(error) = failed {
        return Err(error);
    }
    Ok(told_missing(&of_mesh, at_waypoint.as_ref()))
}

/// Writes the file and prints the tables.
fn tell(
    machine: &Machine,
    options: &Options,
    cells: &[Cell],
    at_waypoint: Option<&Results>,
) -> anyhow::Result<()> {
    let json = options.json()?;
    let value = report::json(machine, options, cells, at_waypoint);
    fs::write(&json, format!("{value:#}\n")).with_context(|| format!("writing {}", json.display()))?;
    let tables = [table::text(cells), at_waypoint.map_or_else(String::new, waypoint::text)];
    for table in tables.iter().filter(|text| !text.is_empty()) {
        out::data(table);
        out::data("");
    }
    let (pairs, seconds, file) = (options.pairs(), options.seconds(), json.display());
    out::data(&format!("median (min-max) of {pairs} runs of {seconds} s; all of it: {file}"));
    let before_waypoint = at_waypoint.iter().flat_map(|r| &r.cells).map(|c| c.other_load);
    let other_load = cells.iter().map(|c| c.other_load).chain(before_waypoint).fold(0.0, f64::max);
    if other_load > OTHER_LOAD_MAX {
        let percent = other_load * 100.0;
        out::data(&format!(
            "DISTURBED: something else used up to {percent:.0} % of the machine; run it again"
        ));
    }
    Ok(())
}

/// Names what did not run; whether everything did.
fn told_missing(cells: &[Cell], at_waypoint: Option<&Results>) -> bool {
    let mut all = true;
    for missing in at_waypoint.iter().flat_map(|results| results.missing()) {
        all = false;
        out::say(&format!("bench: {missing}"));
    }
    for cell in cells {
        for contender in cell.missing() {
            all = false;
            let (name, measure, place) = (contender.title(), cell.measure.name(), cell.place.name());
            out::say(&format!("bench: {name} did not run {measure} {place}"));
        }
    }
    all
}

fn cells(lab: &Lab, stop: &Stop, options: &Options, selection: &Selection) -> anyhow::Result<Vec<Cell>> {
    let size =
        Size { seconds: options.seconds(), connections: options.connections(), settle: options.settle() };
    let mut cells = Vec::new();
    for measure in &selection.measures {
        for place in &selection.places {
            let runs = |c: &Contender| c.runs_at(*place) && takes_part(*c, *measure, *place);
            let contenders: Vec<Contender> = selection.contenders.iter().copied().filter(runs).collect();
            if contenders.is_empty() {
                continue;
            }
            let other_load = other_load(stop)?;
            let mut cell =
                Cell { place: *place, measure: *measure, contenders, rounds: Vec::new(), other_load };
            let rounds = if measure.is_once() { 1 } else { options.pairs() };
            for number in 0..rounds {
                let round = round(lab, stop, &cell, number, size)?;
                cell.rounds.push(round);
            }
            cells.push(cell);
        }
    }
    Ok(cells)
}

/// How busy the machine is while nothing of ours runs but idle programs.
pub(crate) fn other_load(stop: &Stop) -> anyhow::Result<f64> {
    let before = Usage::now(&[])?;
    stop.pause(LOOK_AT_IDLE)?;
    let used = Usage::now(&[])?.since(before);
    let cores = std::thread::available_parallelism()?.get();
    Ok(used.machine / (LOOK_AT_IDLE.as_secs_f64() * cores as f64))
}

/// Memory is that of proxies, and between nodes, where each has one of its own.
fn takes_part(contender: Contender, measure: Measure, place: Place) -> bool {
    match measure {
        Measure::Memory => contender != Contender::NoMesh && place == Place::CrossNode,
        Measure::Bulk1
        | Measure::Bulk4
        | Measure::Connections
        | Measure::Requests1
        | Measure::Requests128 => true,
    }
}

fn round(
    lab: &Lab,
    stop: &Stop,
    cell: &Cell,
    number: usize,
    size: Size,
) -> anyhow::Result<BTreeMap<Contender, Values>> {
    let mut round = BTreeMap::new();
    for contender in order(number, &cell.contenders) {
        let way = lab.way(contender, cell.place);
        let what = format!(
            "{} {} round {} {}",
            cell.measure.name(),
            cell.place.name(),
            number + 1,
            contender.title()
        );
        let ran = way.and_then(|way| once(lab, stop, cell, contender, &way, size));
        match ran {
            Ok(values) => {
                out::say(&format!("bench: {what}: {}", table::line(&values)));
                round.insert(contender, values);
            }
            Err(error) if error.is::<Interrupted>() => return Err(error),
            Err(error) => out::say(&format!("bench: {what} FAILED: {error:#}")),
        }
    }
    Ok(round)
}

fn once(
    lab: &Lab,
    stop: &Stop,
    cell: &Cell,
    contender: Contender,
    way: &Way,
    size: Size,
) -> anyhow::Result<Values> {
    let values = measures::run(lab, stop, cell.measure, way, size)?;
    lab.check_path(contender, cell.place)?;
    Ok(values)
}
