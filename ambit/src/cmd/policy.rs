//! `ambit policy …`: expected verdicts as a test, what a change would do to what was seen, and rules made from it.
//!
//! All three ask the engine that decides in ztunnel and waypoint; nothing here compares a rule with anything.

use clap::{Args as ClapArgs, Subcommand};

use super::nodes::Where;

pub(super) mod diff;
pub(crate) mod seen;
mod suggest;
pub(super) mod test;

/// Tests policies, tells what a change of them would do, and suggests some.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(flatten)]
    pub(super) at: Where,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Decide the rows of a file and compare with what they expect; exit code 79 if one differs
    Test(test::Args),
    /// Connections seen that would be decided or routed otherwise if these manifests were applied
    Diff(diff::Args),
    /// The fewest ALLOW rules that let in what was seen in a namespace, and nothing else
    Suggest(suggest::Args),
}

impl Args {
    /// Whether the command is about a lab that runs.
    pub(super) fn asks_lab(&self) -> bool {
        match &self.command {
            Command::Test(args) => args.asks_lab(),
            Command::Diff(_) | Command::Suggest(_) => true,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// When a file cannot be read, or no node answers.
pub fn run(args: &Args) -> anyhow::Result<i32> {
    match &args.command {
        Command::Test(test) => test::run(&args.at, test),
        Command::Diff(diff) => diff::run(&args.at, diff),
        Command::Suggest(suggest) => suggest::run(&args.at, suggest),
    }
}

/// A command about this lab, as somebody types it.
pub(super) fn typed(at: &Where, words: &str) -> String {
    let program = crate::out::program();
    if at.name == ambit_lab::LabName::default() {
        return format!("{program} {words}");
    }
    format!("{program} {words} --name {}", at.name)
}
