//! `ambit demo`: a tour of the mesh on this machine. Every claim is observed; one that is not fails the tour.
//!
//! The tour does nothing a person could not type: each step prints the commands it runs.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use ambit_lab::LabName;
use ambit_runtime::clock;
use anyhow::{Context as _, bail};

use crate::out;

mod stage;
mod steps;

use stage::Stage;

/// Starts a mesh of two nodes, enrols a namespace under traffic, and shows what that means.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Leave the lab running and print what to try
    #[arg(long)]
    keep: bool,
    /// Name of the lab the tour makes
    #[arg(long, env = "AMBIT_LAB", default_value = "demo")]
    name: LabName,
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
        bail!(
            "no tour in {}; run this in the repository, or name the folder with --folder",
            args.folder.display()
        );
    }
    let begun = clock::monotonic();
    let stage = Stage::new(args.name.clone(), args.folder.clone())?;
    out::data(INTRODUCTION);
    let mut claims = Claims::default();
    let toured = tour(&stage, &mut claims);
    if let Err(error) = &toured {
        claims.tell("the tour ran to its end", false, format!("{error:#}"));
    }
    if args.keep && toured.is_ok() {
        out::data(&format!(
            "\nThe lab {0} stays. Try:\n{1}  ambit lab down --name {0}\n",
            args.name.as_str(),
            TO_TRY
        ));
    } else {
        leave(&stage, &mut claims)?;
    }
    Ok(summary(&claims, begun))
}

const INTRODUCTION: &str = "\
This makes, on this machine only: 1 namespace as fabric, 2 as nodes, 5 as pods, and nft rules inside them.
Nothing in your host network or firewall. Everything is removed at the end.
";

const TO_TRY: &str = "\
  ambit status; ambit get workloads; ambit get certificates; ambit get connections
  ambit flows --verdict denied; ambit why last; ambit why AMB2104
  ambit lab exec -n shop web -- curl -s http://cart.shop/
  (with --name, or AMBIT_LAB set to the lab's name)
";

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

fn leave(stage: &Stage, claims: &mut Claims) -> anyhow::Result<()> {
    out::data("\n== leave");
    stage.lab(&["down"])?;
    let left = ambit_lab::cleanup::leftovers(stage.name());
    let seen = if left.is_empty() { "no namespace, process or file".to_owned() } else { left.join(", ") };
    claims.tell("nothing is left behind", left.is_empty(), seen);
    Ok(())
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
