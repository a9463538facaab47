//! `ambit policy …`: expected verdicts as a test, what a change would do to what was seen, and rules made from it.
//!
//! All three ask the engine that decides in ztunnel and waypoint; nothing here compares a rule with anything.

use ambit_lab::LabName;
use clap::{Args as ClapArgs, Subcommand};

use super::mesh::Mesh;
use super::nodes::block_on;
use super::objects::Objects;

pub(super) mod diff;
pub(crate) mod seen;
mod suggest;
pub(super) mod test;

/// Tests policies, tells what a change of them would do, and suggests some.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(flatten)]
    at: Mesh,
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
    /// The lab that it is about; none if it is about a cluster, or about files alone.
    pub(super) fn lab(&self) -> Option<&LabName> {
        match &self.command {
            Command::Test(args) if !args.asks_mesh() => None,
            Command::Test(_) | Command::Diff(_) | Command::Suggest(_) => self.at.lab(),
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

/// The objects of the mesh.
///
/// # Errors
/// When there is no such lab or cluster, or it does not answer.
fn objects(at: &Mesh) -> anyhow::Result<Objects> {
    match at.lab() {
        Some(lab) => Objects::of_lab(lab),
        None => block_on(async { Objects::of_cluster(&at.client().await?, at.root_namespace()).await }),
    }
}

/// A command of ours about this mesh, as somebody types it; a cluster is that of the environment.
fn typed(at: &Mesh, words: &str) -> String {
    typed_in(at.lab(), words)
}

/// The same about a lab, or without one a cluster.
pub(super) fn typed_in(lab: Option<&LabName>, words: &str) -> String {
    let program = crate::out::program();
    match lab.filter(|lab| **lab != LabName::default()) {
        Some(lab) => format!("{program} {words} --name {lab}"),
        None => format!("{program} {words}"),
    }
}
