//! The workspace's own tasks: `cargo xtask tidy|check|docs|sbom|test`.
//!
//! Decides nothing about the product. Everything a script would do here is a subcommand instead, so that it is typed,
//! tested and runs the same on every machine.
#![expect(clippy::print_stdout, reason = "a task's report is its output")]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod docs;
mod layers;
mod sbom;
mod test;
mod tidy;
mod tool;

use tool::Tools;

/// Tasks of the Ambit workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    /// The cargo to call.
    #[arg(long, env = "CARGO", default_value = "cargo", hide = true)]
    cargo: String,
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Checks what the compiler does not: layers, lengths, module heads, words, links, generated pages.
    Tidy,
    /// Formatting, lints, tidy, documentation of private items: all that needs no test run.
    Check,
    /// Writes the generated pages and tables anew.
    Docs,
    /// Writes what the programs are made of, as CycloneDX.
    Sbom(sbom::Options),
    /// Runs the levels of `make test` and adds up what cargo reports.
    Test(test::Options),
}

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let tools = Tools::locate(&cli.cargo)?;
    let clean = match cli.task {
        Task::Tidy => tidy::run(&tools)?,
        Task::Check => test::check(&tools)?,
        Task::Docs => docs::write(&tools.root)?,
        Task::Sbom(options) => sbom::run(&tools, &options)?,
        Task::Test(options) => test::run(&tools, &options)?,
    };
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
