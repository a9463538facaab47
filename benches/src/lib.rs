//! Benchmarks of the whole mesh: Ambit against no mesh, HAProxy, and Envoy in a waypoint's place, in the lab's topology.
//!
//! Drives the lab and the load generators through their command lines, so it links none of what it measures; the
//! programs beside it, `decisions` and `scale`, do. It prints medians and ratios and never asserts a time: it fails only
//! when a contender did not run.

mod child;
mod congestion;
mod contenders;
mod cpu;
mod lab;
mod machine;
mod measures;
mod objects;
mod options;
mod out;
mod report;
mod run;
mod scale;
mod table;
mod topology;
mod waypoint;

use std::process::ExitCode;

use clap::Parser as _;

pub use scale::{Measure, Mode, Row, Run, Scale, Source, cpu_seconds, run as scale};

/// Exit code after SIGINT, as shells use it.
const INTERRUPTED: u8 = 130;

/// Reads the command line, measures, prints the table.
#[must_use]
pub fn main() -> ExitCode {
    let options = options::Options::parse();
    if !options.bench {
        out::say("bench: nothing to do as a test; measure with: cargo bench -p ambit-benches");
        return ExitCode::SUCCESS;
    }
    match run::run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) if error.is::<child::Interrupted>() => {
            out::say("bench: interrupted; everything was put back");
            ExitCode::from(INTERRUPTED)
        }
        Err(error) => {
            out::say(&format!("bench: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Reads the command line and prints what `measure` makes of it, if decisions were asked for: for the program that
/// links what decides, as this library does not. `measure` is told whether to be quick.
#[must_use]
pub fn decisions(measure: fn(bool) -> String) -> ExitCode {
    let options = options::Options::parse();
    match options::parts(&options.filters) {
        Ok(parts) if options.bench && parts.decisions => out::data(&measure(options.is_quick())),
        Ok(_) => {}
        Err(error) => {
            out::say(&format!("bench: {error:#}"));
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
