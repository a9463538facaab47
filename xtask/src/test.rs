//! The levels of `make test`: run each, say which, how long, and add up what cargo reports.
//!
//! Decides which levels this machine can run. It judges no test: a level fails when cargo says so, or when no test ran.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Args, ValueEnum};

use crate::tidy;
use crate::tool::Tools;

mod plan;
mod totals;

use plan::Targets;
use totals::Totals;

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Levels to run; all of them when none is named.
    levels: Vec<Level>,
    /// Runs the rows that need minutes in full: sets AMBIT_SOAK=1 and runs the namespace levels and targets named `soak`,
    /// and the pipeline level as a release build.
    #[arg(long)]
    soak: bool,
    /// Makes namespace tests fail where they cannot run, instead of being left out. Root implies it.
    #[arg(long, env = "AMBIT_REQUIRE_NETNS", value_parser = clap::builder::FalseyValueParser::new())]
    require_netns: bool,
    /// Makes the tests over a Kubernetes API server fail where its program could not be built, instead of being left out.
    #[arg(long, env = "AMBIT_REQUIRE_KUBE", value_parser = clap::builder::FalseyValueParser::new())]
    require_kube: bool,
    /// Makes tests with foreign peers fail where those are not installed, instead of being left out.
    #[arg(long, env = "AMBIT_REQUIRE_PEERS", value_parser = clap::builder::FalseyValueParser::new())]
    require_peers: bool,
}

/// A step of the proof, cheapest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Level {
    /// rustfmt.
    Fmt,
    /// clippy, warnings denied.
    Clippy,
    /// What the compiler does not check.
    Tidy,
    /// All programs and tests compile.
    Build,
    /// Tests beside the code.
    Unit,
    /// Manifests to decision through encoded messages, no socket.
    Pipeline,
    /// Real bytes on the loopback device.
    Loopback,
    /// Tunnels with Envoy and python's h2.
    Foreign,
    /// The real programs in network namespaces.
    Netns,
    /// The same over a real Kubernetes API server.
    Kube,
}

const ALL: &[Level] = &[
    Level::Fmt,
    Level::Clippy,
    Level::Tidy,
    Level::Build,
    Level::Unit,
    Level::Pipeline,
    Level::Loopback,
    Level::Foreign,
    Level::Netns,
    Level::Kube,
];

/// How a level ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// Everything in it passed.
    Passed,
    /// Something failed; says what, where cargo's own output does not.
    Failed(String),
    /// This machine cannot run it; never counted as passed.
    NotRun(String),
}

/// One line of the summary.
struct Report {
    level: Level,
    outcome: Outcome,
    totals: Totals,
    took: Duration,
}

/// Runs the levels and prints the totals; true when none failed.
///
/// # Errors
/// When cargo cannot be started at all.
pub(crate) fn run(tools: &Tools, options: &Options) -> anyhow::Result<bool> {
    let run = Run {
        tools,
        soak: options.soak,
        targets: Targets::of(&tools.metadata),
        require_netns: options.require_netns || is_root(),
        require_kube: options.require_kube,
        require_peers: options.require_peers,
    };
    let mut reports: Vec<Report> = Vec::new();
    for level in chosen(options) {
        let broken =
            reports.iter().any(|r| r.level == Level::Build && matches!(r.outcome, Outcome::Failed(_)));
        let report = if broken {
            let why = "the build failed".to_owned();
            Report { level, outcome: Outcome::NotRun(why), totals: Totals::default(), took: Duration::ZERO }
        } else {
            run.level(level)?
        };
        println!("== {report}\n");
        reports.push(report);
    }
    Ok(summarize(&reports))
}

/// Formatting, lints, tidy and documentation; true when all of them are clean.
///
/// # Errors
/// When cargo cannot be started at all.
pub(crate) fn check(tools: &Tools) -> anyhow::Result<bool> {
    let targets = Targets::of(&tools.metadata);
    let run =
        Run { tools, soak: false, targets, require_netns: false, require_kube: false, require_peers: false };
    let mut reports = Vec::new();
    for level in [Level::Fmt, Level::Clippy, Level::Tidy] {
        let report = run.level(level)?;
        println!("== {report}\n");
        reports.push(report);
    }
    let mut doc = tools.cargo(&["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"]);
    let documented = run.call(doc.env("RUSTDOCFLAGS", "-D warnings"))?;
    if !documented {
        println!("failed: doc");
    }
    Ok(documented && reports.iter().all(|r| !matches!(r.outcome, Outcome::Failed(_))))
}

fn chosen(options: &Options) -> Vec<Level> {
    if !options.levels.is_empty() {
        let mut levels = options.levels.clone();
        if levels.contains(&Level::Netns) || levels.contains(&Level::Kube) {
            levels.push(Level::Build); // those tests start the programs
        }
        levels.sort_unstable();
        levels.dedup();
        return levels;
    }
    if options.soak {
        return vec![Level::Build, Level::Pipeline, Level::Netns, Level::Kube];
    }
    ALL.to_vec()
}

/// Prints how the levels ended, those that did not run by name, and the sum over every cargo test run.
fn summarize(reports: &[Report]) -> bool {
    let mut sum = Totals::default();
    let mut clean = true;
    println!("levels:");
    for report in reports {
        println!("  {report}");
        sum.add(&report.totals);
        clean &= !matches!(report.outcome, Outcome::Failed(_));
    }
    for report in reports {
        if let Outcome::NotRun(why) = &report.outcome {
            println!("not run here: {} ({why})", report.level);
        }
    }
    println!("{} passed, {} failed", sum.passed, sum.failed);
    clean && sum.failed == 0
}

/// One run of `make test`.
struct Run<'a> {
    tools: &'a Tools,
    soak: bool,
    targets: Targets,
    require_netns: bool,
    /// Whether it is an error that no API server was built.
    require_kube: bool,
    require_peers: bool,
}

impl Run<'_> {
    fn level(&self, level: Level) -> anyhow::Result<Report> {
        println!("== {level}: {}", level.purpose());
        let started = now();
        let (outcome, totals) = match level {
            Level::Fmt => (self.component("fmt", &["fmt", "--all", "--check"])?, Totals::default()),
            Level::Clippy => {
                let lint = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
                (self.component("clippy", &lint)?, Totals::default())
            }
            Level::Tidy => (passed_or(tidy::run(self.tools)?, "findings above"), Totals::default()),
            Level::Build => {
                let done = self.call(&mut self.tools.cargo(&[
                    "build",
                    "--workspace",
                    "--bins",
                    "--tests",
                    "--locked",
                ]))?;
                (passed_or(done, "cargo's errors above"), Totals::default())
            }
            Level::Unit | Level::Pipeline | Level::Loopback => self.tests(level)?,
            Level::Foreign if self.require_peers || self.has_peers() => self.tests(level)?,
            Level::Foreign => {
                let why = "Envoy and h2 are not in target/peers; see above, or run xtask/need.sh test";
                (Outcome::NotRun(why.to_owned()), Totals::default())
            }
            Level::Netns | Level::Kube if !self.require_netns => {
                (Outcome::NotRun("it needs root; run `make test` as root".to_owned()), Totals::default())
            }
            Level::Netns => self.tests(level)?,
            Level::Kube if self.require_kube || self.has_kube() => self.tests(level)?,
            Level::Kube => {
                let why = "ambit-kube is not in target/kube; see above, or run make kube";
                (Outcome::NotRun(why.to_owned()), Totals::default())
            }
        };
        Ok(Report { level, outcome, totals, took: now() - started })
    }

    /// Whether `xtask/need.sh test` could install the peers; it puts the list beside them once they are whole.
    fn has_peers(&self) -> bool {
        self.tools.metadata.target_directory.join("peers/requirements.txt").exists()
    }

    /// Whether `xtask/need.sh` could build the Kubernetes control plane, or another one is named.
    fn has_kube(&self) -> bool {
        let built = self.tools.metadata.target_directory.join("kube/ambit-kube");
        built.exists() || std::env::var_os("AMBIT_KUBE_BIN").is_some_and(|path| Path::new(&path).exists())
    }

    /// Runs a cargo component, if it is there.
    fn component(&self, name: &str, arguments: &[&str]) -> anyhow::Result<Outcome> {
        if !self.tools.has_component(name) {
            let package = if name == "fmt" { "rustfmt" } else { name };
            return Ok(Outcome::NotRun(format!(
                "{package} is not installed: rustup component add {package}"
            )));
        }
        let done = self.call(&mut self.tools.cargo(arguments))?;
        Ok(passed_or(done, "its findings above"))
    }

    fn tests(&self, level: Level) -> anyhow::Result<(Outcome, Totals)> {
        let calls = self.targets.calls(level, self.soak);
        if calls.is_empty() {
            let why = format!("no test target named {level} in the workspace");
            return Ok((Outcome::Failed(why), Totals::default()));
        }
        let mut totals = Totals::default();
        let mut clean = true;
        for call in calls {
            let arguments: Vec<&str> = call.arguments.iter().map(String::as_str).collect();
            let mut command = self.tools.cargo(&arguments);
            command.envs(call.variable);
            if self.require_netns {
                command.env("AMBIT_REQUIRE_NETNS", "1");
            }
            if level == Level::Foreign {
                // A test that finds no peers must not count as passed.
                command.env("AMBIT_REQUIRE_PEERS", "1");
            }
            if self.soak {
                command.env("AMBIT_SOAK", "1");
            }
            clean &= self.count(&mut command, &mut totals)?;
        }
        let outcome = if !clean || totals.failed > 0 {
            Outcome::Failed(format!("{} failed", totals.failed))
        } else if totals.passed == 0 {
            Outcome::Failed("no test ran, so nothing is proved".to_owned())
        } else {
            Outcome::Passed
        };
        Ok((outcome, totals))
    }

    /// Runs a command with its output passed through.
    fn call(&self, command: &mut Command) -> anyhow::Result<bool> {
        announce(command);
        let status = command.status().with_context(|| format!("starting {:?}", command.get_program()))?;
        Ok(status.success())
    }

    /// Runs a test command, passes its output through line by line and adds up the results.
    fn count(&self, command: &mut Command, totals: &mut Totals) -> anyhow::Result<bool> {
        announce(command);
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {:?}", command.get_program()))?;
        let output = child.stdout.take().context("the output of cargo was not captured")?;
        let mut run = Totals::default();
        for line in BufReader::new(output).split(b'\n') {
            let line = line.context("reading what cargo prints")?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            run.read(&line);
        }
        let clean = child.wait().context("waiting for cargo")?.success();
        if !clean && run.failed == 0 {
            println!("a test program ended without a result, or did not compile: counted as one failure");
            run.failed = 1;
        }
        totals.add(&run);
        Ok(clean)
    }
}

fn announce(command: &Command) {
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
    println!("+ cargo {}", words.join(" "));
}

fn passed_or(passed: bool, why: &str) -> Outcome {
    if passed { Outcome::Passed } else { Outcome::Failed(why.to_owned()) }
}

#[expect(clippy::disallowed_methods, reason = "a build task has no injected clock; the time is only printed")]
fn now() -> Instant {
    Instant::now()
}

/// Whether this process runs as root: the owner of its own entry in the process table.
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|owner| owner.uid() == 0)
}

impl Level {
    fn purpose(self) -> &'static str {
        match self {
            Self::Fmt => "formatting as rustfmt.toml says",
            Self::Clippy => "lints, warnings denied",
            Self::Tidy => "layers, lengths, module heads, links, generated pages",
            Self::Build => "all programs and tests",
            Self::Unit => "tests beside the code",
            Self::Pipeline => "manifests to decision through encoded messages, no socket",
            Self::Loopback => "real TLS, HTTP/2 and gRPC on the loopback device",
            Self::Foreign => "tunnels with a real Envoy and with python's h2, both ways",
            Self::Netns => "the real programs in network namespaces",
            Self::Kube => "the real programs over a real Kubernetes API server, driven by kubectl",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fmt => "fmt",
            Self::Clippy => "clippy",
            Self::Tidy => "tidy",
            Self::Build => "build",
            Self::Unit => "unit",
            Self::Pipeline => "pipeline",
            Self::Loopback => "loopback",
            Self::Foreign => "foreign",
            Self::Netns => "netns",
            Self::Kube => "kube",
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.took.as_secs_f64();
        match &self.outcome {
            Outcome::Passed if self.totals.passed > 0 => {
                write!(f, "{:9} ok, {} passed, in {seconds:.1} s", self.level, self.totals.passed)
            }
            Outcome::Passed => write!(f, "{:9} ok, in {seconds:.1} s", self.level),
            Outcome::Failed(why) => write!(f, "{:9} FAILED after {seconds:.1} s: {why}", self.level),
            Outcome::NotRun(why) => write!(f, "{:9} NOT RUN: {why}", self.level),
        }
    }
}
