//! The commands, and what is common to all: parsing, errors, exit codes.

use clap::{Parser, Subcommand};

use crate::out;

pub mod breakglass;
pub mod bundle;
pub mod ca;
pub mod check;
mod cluster;
pub mod completion;
pub mod demo;
pub mod echoer;
pub mod edges;
pub mod enroll;
pub mod explain;
pub mod flows;
mod form;
pub mod get;
pub mod install;
mod interrupted;
mod jsonpath;
pub mod lab;
pub mod lint;
pub mod map;
mod mesh;
mod nodes;
mod objects;
mod place;
pub mod policy;
pub mod stat;
pub mod status;
pub mod strict;
pub mod tap;
pub mod top;
pub mod uninstall;
pub mod upgrade;
pub mod waypoint;
pub mod why;

#[cfg(test)]
mod tests;

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
    /// A tour of the mesh on this machine, every claim with its evidence
    Demo(demo::Args),
    /// What an installation in a cluster is made of: print it, or write it
    Install(install::Args),
    /// Make an installation what this version's would be; --plan says what that changes
    Upgrade(upgrade::Args),
    /// Take the mesh out of a cluster, without leaving anything
    Uninstall(uninstall::Args),
    /// Let a namespace join the mesh; no pod restarts
    Enroll(enroll::Args),
    /// Let a namespace leave the mesh; no pod restarts
    Unenroll(enroll::Args),
    /// Every node: version, synchronisation, captured pods, certificates
    Status(status::Args),
    /// Waypoints: proxies that route and authorise HTTP for a namespace or a service
    Waypoint(waypoint::Args),
    /// Is the mesh of a cluster installed, sound, and allowed to do its work
    Check(check::Args),
    /// The roots of trust, and replacing them without a connection noticing
    Ca(ca::Args),
    /// What the ztunnels know and hold
    Get(get::Args),
    /// What happened: one record a connection and end
    Flows(flows::Args),
    /// Connections and requests as they happen, with both identities
    Tap(tap::Args),
    /// Who talks to whom most, as it happens
    Top(top::Args),
    /// Golden numbers: rate, success, latency, refusals
    Stat(stat::Args),
    /// Who talks to whom, and whether that is secured
    Edges(edges::Args),
    /// The map of the mesh, here or in a browser
    Map(map::Args),
    /// What happens if A calls B, hop by hop, and why
    Explain(explain::Args),
    /// What a reason code means, or why a connection was refused
    Why(why::Args),
    /// Expected verdicts as a test, what a change would do, rules made of what was seen
    Policy(policy::Args),
    /// Mistakes in manifests or in a running mesh
    Lint(lint::Args),
    /// Who would be refused if plaintext were
    Strict(strict::Args),
    /// Let a namespace be called by anybody for a while, loudly
    Breakglass(breakglass::Args),
    /// One archive for whoever is to help: state, records, logs and objects, without secrets
    SupportBundle(bundle::Args),
    /// A script by which a shell completes commands and flags
    Completion(completion::Args),
    /// A TCP server that states who it is, and a client that checks every byte
    #[command(hide = true)]
    Echoer(echoer::Args),
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
    if let Err(error) = enter(&cli.command) {
        return told(Err(error));
    }
    match cli.command {
        Command::Lab(args) => lab::run(args),
        Command::Demo(args) => told(demo::run(&args)),
        Command::Install(args) => told(install::run(&args)),
        Command::Upgrade(args) => told(upgrade::run(&args)),
        Command::Uninstall(args) => told(uninstall::run(&args)),
        Command::Enroll(args) => told(enroll::run(&args, enroll::Way::In)),
        Command::Unenroll(args) => told(enroll::run(&args, enroll::Way::Out)),
        Command::Status(args) => told(status::run(&args)),
        Command::Waypoint(args) => told(waypoint::run(&args)),
        Command::Check(args) => told(check::run(&args)),
        Command::Ca(args) => told(ca::run(&args)),
        Command::Get(args) => told(get::run(&args)),
        Command::Flows(args) => told(flows::run(&args)),
        Command::Tap(args) => told(tap::run(&args)),
        Command::Top(args) => told(top::run(&args)),
        Command::Stat(args) => told(stat::run(&args)),
        Command::Edges(args) => told(edges::run(&args)),
        Command::Map(args) => told(map::run(&args)),
        Command::Explain(args) => told(explain::run(&args)),
        Command::Why(args) => told(why::run(&args)),
        Command::Policy(args) => told(policy::run(&args)),
        Command::Lint(args) => told(lint::run(&args)),
        Command::Strict(args) => told(strict::run(&args)),
        Command::Breakglass(args) => told(breakglass::run(&args)),
        Command::SupportBundle(args) => told(bundle::run(&args)),
        Command::Completion(args) => told(completion::run(&args)),
        Command::Echoer(args) => told(echoer::run(args)),
    }
}

/// Moves to where the command's lab is, if it is one of a user without root; comes before any thread.
fn enter(command: &Command) -> anyhow::Result<()> {
    let (lab, make) = match command {
        Command::Demo(args) => (Some(&args.name), true),
        Command::Enroll(args) | Command::Unenroll(args) => (args.lab(), false),
        Command::Status(args) => (args.lab(), false),
        Command::Waypoint(args) => (args.lab(), false),
        Command::Ca(args) => (args.lab(), false),
        Command::Get(args) => (args.at.lab(), false),
        Command::Flows(args) => (args.at.lab(), false),
        Command::Tap(args) => (args.at.lab(), false),
        Command::Top(args) => (args.at.lab(), false),
        Command::Stat(args) => (args.seen.at.lab(), false),
        Command::Edges(args) => (args.seen.at.lab(), false),
        Command::Map(args) => (args.seen.at.lab(), false),
        Command::Explain(args) if args.asks_lab() => (Some(&args.at.name), false),
        Command::Why(args) => (args.at.lab(), false),
        Command::Policy(args) => (args.lab(), false),
        Command::Lint(args) if args.asks_lab() => (Some(&args.at.name), false),
        Command::Strict(args) => (Some(&args.at.name), false),
        Command::Breakglass(args) => (Some(&args.at.name), false),
        Command::SupportBundle(args) => (args.lab(), false),
        // It asks for itself, or needs no lab.
        Command::Lab(_)
        | Command::Explain(_)
        | Command::Lint(_)
        | Command::Check(_)
        | Command::Install(_)
        | Command::Upgrade(_)
        | Command::Uninstall(_)
        | Command::Completion(_)
        | Command::Echoer(_) => (None, false),
    };
    let Some(lab) = lab else { return Ok(()) };
    let refused = |error: ambit_lab::LabError| out::Failure::new(error.exit_code(), error.full());
    ambit_lab::rootless::enter(lab, make).map_err(|error| refused(error).into())
}

/// The exit code of a command; a failure is told with its causes.
fn told(outcome: anyhow::Result<i32>) -> i32 {
    outcome.unwrap_or_else(|error| {
        out::say(&format!("Error: {error:#}"));
        match (error.downcast_ref::<out::Failure>(), error.downcast_ref::<ambit_lab::LabError>()) {
            (Some(failure), _) => failure.code,
            (None, Some(error)) => error.exit_code(),
            (None, None) => out::UNREACHABLE,
        }
    })
}
