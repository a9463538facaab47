//! The commands, and what is common to all: parsing, errors, exit codes.

use clap::{Parser, Subcommand};

use crate::out;

pub mod lab;

/// Ambient service mesh: every connection authenticated, encrypted, authorised and recorded.
#[derive(Debug, Parser)]
#[command(name = "ambit", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A mesh on this machine: nodes and pods made of network namespaces
    Lab(lab::Args),
}

/// Parses the command line, runs the command and returns its exit code.
pub fn run() -> i32 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let code = if e.use_stderr() { out::USAGE } else { out::OK };
            // Help goes to standard output and mistakes to standard error; clap knows which this is.
            let _ = e.print();
            return code;
        }
    };
    match cli.command {
        Command::Lab(args) => lab::run(args),
    }
}
