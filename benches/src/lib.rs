//! Benchmarks of the whole mesh: Ambit against no mesh and against HAProxy, in the lab's topology.
//!
//! Drives the lab and the load generators through their command lines, so it links none of what it measures. It
//! prints medians and ratios and never asserts a time: it fails only when a contender did not run.

mod child;
mod congestion;
mod contenders;
mod cpu;
mod machine;
mod measures;
mod options;
mod out;
mod report;
mod run;
mod table;
mod topology;

use std::process::ExitCode;

use clap::Parser as _;

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
