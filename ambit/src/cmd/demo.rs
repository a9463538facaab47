//! `ambit demo`: a tour of the mesh on this machine. Every claim is observed; one that is not fails the tour.
//!
//! The tour does nothing a person could not type: each step prints the commands it runs. However it ends, the lab
//! is gone afterwards, unless somebody asked to keep it.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ambit_lab::LabName;
use ambit_runtime::clock;
use anyhow::Context as _;

use crate::out::{self, Failure};

mod packets;
mod stage;
mod steps;
mod waypoint;

use stage::Stage;

/// Starts a mesh of two nodes, enrols a namespace under traffic, and shows what that means.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Leave the lab running and print what to try
    #[arg(long)]
    keep: bool,
    /// Name of the lab the tour makes; one of that name is removed first
    #[arg(long, env = "AMBIT_LAB", default_value = "demo")]
    pub(super) name: LabName,
    /// Folder of the tour's manifests
    #[arg(long, default_value = "demo")]
    folder: PathBuf,
    /// Ask nothing, also on a terminal
    #[arg(long)]
    yes: bool,
}

/// One claim and what was seen of it.
struct Claim {
    text: String,
    seen: String,
    holds: bool,
}

/// The claims of the tour, told as they are made.
#[derive(Default)]
struct Claims(Vec<Claim>);

impl Claims {
    /// Tells a claim with its evidence.
    fn tell(&mut self, text: &str, holds: bool, seen: impl Into<String>) {
        let seen = seen.into();
        out::data(&format!("  {} {text}: {seen}", if holds { "✓" } else { "✗" }));
        self.0.push(Claim { text: text.to_owned(), seen, holds });
    }
}

/// Runs the tour; 0 only if every claim was observed.
///
/// # Errors
/// When the lab cannot be started, with what to do.
pub fn run(args: &Args) -> anyhow::Result<i32> {
    if !args.folder.join("00-namespaces.yaml").is_file() {
        let folder = args.folder.display();
        let told =
            format!("no tour in {folder}; run this in the repository, or name its folder with --folder");
        return Err(Failure::new(out::USAGE, told).into());
    }
    check_tools()?;
    out::data(INTRODUCTION);
    if !args.yes && !agreed()? {
        out::say("nothing was made");
        return Ok(out::INTERRUPTED);
    }
    let begun = clock::monotonic();
    let stage = Stage::new(args.name.clone(), args.folder.clone())?;
    let mut claims = Claims::default();
    let toured = tour(&stage, &mut claims);
    if stage.interrupted.is_stopped() {
        stage.interrupted.wait_for_exit();
    }
    if let Err(error) = &toured {
        claims.tell("the tour ran to its end", false, format!("{error:#}"));
    }
    let stays = args.keep && toured.is_ok();
    if !stays {
        leave(&stage, &mut claims);
    }
    let code = summary(&claims, begun);
    stage.interrupted.done();
    if stays {
        // So that there is something to find out and to mend: batch is refused again, once.
        steps::leave_a_refusal(&stage)?;
        out::data(&format!("\nThe lab {} stays. Try:\n{}", args.name, to_try(&stage)));
    }
    Ok(code)
}

const INTRODUCTION: &str = "\
This makes, on this machine only: 1 namespace as fabric, 2 as nodes, up to 8 as pods, and nft rules inside them.
Nothing in your host network or firewall. Everything is removed at the end.
";

/// Programs the tour runs, with the Debian package of each.
const TOOLS: [(&str, &str); 5] = [
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("tcpdump", "tcpdump"),
    ("curl", "curl"),
    ("nginx", "nginx-light"),
];

/// Says what the machine lacks before anything is made.
fn check_tools() -> anyhow::Result<()> {
    let folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin"];
    let there = |tool: &str| folders.iter().any(|folder| Path::new(folder).join(tool).exists());
    let missing = TOOLS.iter().filter(|(tool, _)| !there(tool));
    let packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    if !packages.is_empty() {
        let told = format!(
            "the tour needs programs that are not installed; as root: apt-get install --no-install-recommends {}",
            packages.join(" ")
        );
        return Err(Failure::new(out::FAILED, told).into());
    }
    Ok(())
}

/// Asks whether to go on, if somebody is there to answer.
fn agreed() -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Ok(true);
    }
    let mut terminal = io::stdout().lock();
    terminal.write_all(b"Continue? [Y/n] ").and_then(|()| terminal.flush()).context("asking")?;
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer).context("reading the answer")?;
    // The end of the input is no answer.
    Ok(read > 0 && ["", "y", "yes"].contains(&&*answer.trim().to_lowercase()))
}

/// What a person may try with a lab that stays, each line as it is typed.
fn to_try(stage: &Stage) -> String {
    let commands = [
        "status",
        "map",
        "get workloads",
        "get certificates",
        "get connections",
        "flows --verdict denied",
        "why last",
        "why AMB2104",
        "policy suggest -n shop --allow last",
    ];
    let mut lines: Vec<String> =
        commands.iter().map(|c| stage.typed(&c.split(' ').collect::<Vec<_>>())).collect();
    lines.push(stage.typed(&["lab", "exec", "-n", "shop", "web", "--", "curl", "-s", "http://cart.shop/"]));
    lines.push(stage.typed(&["lab", "down"]));
    lines.iter().map(|line| format!("  {line}\n")).collect()
}

/// A step of the tour.
type Step = fn(&Stage, &mut Claims) -> anyhow::Result<()>;

const STEPS: &[(&str, Step)] = &[
    ("before enrolment the fabric carries the request in clear", steps::in_clear),
    ("enrol the namespace with a label, while its traffic runs", steps::enrol),
    ("who called whom, with which identity", steps::identities),
    ("a policy refuses one caller and says which rule did", steps::policy),
    ("the control plane stops, traffic goes on", steps::without_control_plane),
    ("a ztunnel is killed and comes back", steps::kill_ztunnel),
    ("certificates rotate under load", steps::rotation),
    ("a waypoint: a canary, a version by header, a policy by method", waypoint::waypoint),
];

fn tour(stage: &Stage, claims: &mut Claims) -> anyhow::Result<()> {
    out::data("== start: two nodes, five pods, nothing enrolled");
    stage.up()?;
    for (title, step) in STEPS {
        out::data(&format!("\n== {title}"));
        step(stage, claims).with_context(|| format!("in the step \"{title}\""))?;
    }
    Ok(())
}

fn leave(stage: &Stage, claims: &mut Claims) {
    out::data("\n== leave");
    let down = stage.lab(&["down"]).err().map(|error| format!("{error:#}"));
    let left: Vec<String> = down.into_iter().chain(ambit_lab::cleanup::leftovers(stage.name())).collect();
    let seen = if left.is_empty() { "no namespace, process or file".to_owned() } else { left.join(", ") };
    claims.tell("nothing is left behind", left.is_empty(), seen);
}

fn summary(claims: &Claims, begun: Instant) -> i32 {
    let failed = claims.0.iter().filter(|claim| !claim.holds).count();
    let rows: Vec<Vec<String>> = claims
        .0
        .iter()
        .map(|c| vec![c.text.clone(), c.seen.clone(), if c.holds { "pass" } else { "FAIL" }.to_owned()])
        .collect();
    out::data("");
    out::data(&out::table(&["CLAIM", "SEEN", "RESULT"], &rows));
    let took: Duration = clock::monotonic().saturating_duration_since(begun);
    out::data(&format!("{} of {} claims observed in {} s", rows.len() - failed, rows.len(), took.as_secs()));
    if failed == 0 { out::OK } else { out::FAILED }
}
