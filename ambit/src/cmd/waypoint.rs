//! `ambit waypoint …`: making waypoints, and showing how they stand.
//!
//! A waypoint is a Gateway of the class `istio-waypoint`: these commands write and read that object in a lab, as
//! `ambit lab apply` and `get` would, or in a cluster (`cluster`). What they decide is in `gateway` and `facts`; nothing
//! there asks anybody.

use std::time::Duration;

use ambit_lab::control::{Request, WaitMillis, ask};
use ambit_lab::schedule::waypoints;
use ambit_lab::store::{Kind, ObjectKey};
use ambit_lab::{LabName, RunDir, manifests};
use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use serde_json::Value;

use super::install::cluster::At;
use super::nodes::{block_on, json, no_lab};
use super::place;
use crate::out::{self, Failure};

mod cluster;
pub(super) mod facts;
mod gateway;
pub(super) mod show;
#[cfg(test)]
mod tests;

/// Makes, shows and removes the proxies that route and authorise HTTP for a namespace or a service.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[arg(long, env = "AMBIT_LAB", global = true, help = place::LAB)]
    lab: Option<LabName>,
    #[arg(skip)]
    usual: LabName,
    #[command(flatten)]
    at: At,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a waypoint, or change the one of that name, and wait until it is in force
    Apply(ApplyArgs),
    /// Show the waypoints there are
    List(show::ListArgs),
    /// Show pods, revisions, refused configuration and services of waypoints; exit code 1 while something is amiss
    Status(show::StatusArgs),
    /// Remove waypoints; what still asks for one is refused then
    Delete(DeleteArgs),
    /// Print the Gateway that `apply` would write
    Generate(GatewayArgs),
}

impl Args {
    /// The lab that the command is about; none if it is about a cluster, or needs neither.
    pub(super) fn lab(&self) -> Option<&LabName> {
        if self.needs_nothing() {
            return None;
        }
        place::lab(self.lab.as_ref(), &self.usual, &self.at)
    }

    fn needs_nothing(&self) -> bool {
        matches!(self.command, Command::Generate(_))
    }
}

/// The mesh that a command is about, for sentences about it.
#[derive(Debug, Clone, Copy)]
enum Mesh<'a> {
    Lab(&'a LabName),
    Cluster,
}

impl Mesh<'_> {
    /// What changes an object, as somebody types it.
    fn command(self, words: &str) -> String {
        match self {
            Self::Lab(lab) => lab.command(words),
            Self::Cluster => format!("kubectl {words}"),
        }
    }

    /// A command about its waypoints as somebody types it.
    fn typed(self, words: &str) -> String {
        match self {
            Self::Lab(lab) if *lab != LabName::default() => format!("ambit waypoint {words} --lab {lab}"),
            Self::Lab(_) | Self::Cluster => format!("ambit waypoint {words}"),
        }
    }
}

/// Which waypoint.
#[derive(Debug, Clone, ClapArgs)]
struct GatewayArgs {
    /// The waypoint's namespace
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// The waypoint's name
    #[arg(long, default_value = "waypoint")]
    name: String,
    /// Which traffic it serves: to services (the default), to workloads by their own address, all, or none
    #[arg(long = "for", value_enum, value_name = "TYPE")]
    traffic: Option<Traffic>,
}

/// Which traffic a waypoint serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Traffic {
    Service,
    Workload,
    All,
    None,
}

impl Traffic {
    /// As the label has it.
    fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Workload => "workload",
            Self::All => "all",
            Self::None => "none",
        }
    }
}

#[derive(Debug, ClapArgs)]
struct ApplyArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Label the namespace so that everything in it uses this waypoint
    #[arg(long)]
    enroll_namespace: bool,
    /// With --enroll-namespace: also if the namespace uses another waypoint
    #[arg(long, requires = "enroll_namespace")]
    overwrite: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, ClapArgs)]
struct DeleteArgs {
    /// Names
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    names: Vec<String>,
    /// Every waypoint of the namespace
    #[arg(long)]
    all: bool,
    /// The waypoints' namespace
    #[arg(short, long, default_value = "default")]
    namespace: String,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Whether and how long to wait.
#[derive(Debug, ClapArgs)]
struct WaitArgs {
    /// Wait until the change is in force, which is the default in a lab, and with --enroll-namespace
    #[arg(long, conflicts_with = "no_wait")]
    wait: bool,
    /// Return at once instead
    #[arg(long)]
    no_wait: bool,
    /// How long to wait
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

impl WaitArgs {
    fn millis(&self) -> WaitMillis {
        (!self.no_wait).then(|| u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX))
    }
}

impl ApplyArgs {
    /// Whether a cluster is waited for. A namespace that asks for a waypoint which is not there is refused, so before
    /// one is labelled it is, unless somebody says no.
    fn waits_in_cluster(&self) -> bool {
        self.wait.wait || (self.enroll_namespace && !self.wait.no_wait)
    }
}

/// Runs the command.
///
/// # Errors
/// When there is no such lab, namespace or waypoint, or the lab or the API server refuses the change.
pub fn run(args: &Args) -> anyhow::Result<i32> {
    if let Command::Generate(gateway) = &args.command {
        out::data(&manifests::to_yaml(&gateway::of(gateway)));
        return Ok(out::OK);
    }
    match args.lab() {
        Some(lab) => run_in_lab(lab, &args.command),
        None => block_on(async { cluster::run(&args.at.connect().await?, &args.command).await }),
    }
}

fn run_in_lab(lab: &LabName, command: &Command) -> anyhow::Result<i32> {
    match command {
        Command::Apply(args) => apply(lab, args),
        Command::List(args) => Ok(show::list(Mesh::Lab(lab), &Objects::of(lab)?, args, &sync(lab)?)),
        Command::Status(args) => show::status(Mesh::Lab(lab), &Objects::of(lab)?, args, &sync(lab)?),
        Command::Delete(args) => delete(lab, args),
        Command::Generate(_) => Ok(out::OK),
    }
}

fn apply(lab: &LabName, args: &ApplyArgs) -> anyhow::Result<i32> {
    let objects = Objects::of(lab)?;
    let GatewayArgs { namespace, name, .. } = &args.gateway;
    let home = gateway::check_namespace(&objects.namespaces, namespace, Mesh::Lab(lab))?;
    gateway::check_free(&objects.gateways, namespace, name)?;
    if args.enroll_namespace {
        gateway::check_enrolment(home, name, args.overwrite)?;
    }
    let wait = args.wait.millis();
    ask(lab, &Request::Apply { objects: vec![gateway::of(&args.gateway)], wait }, &mut out::say)?;
    out::data(&format!("waypoint {namespace}/{name} applied"));
    if args.enroll_namespace {
        // Only now: a namespace that asks for a waypoint which is not there is refused.
        let object = ObjectKey::new(Kind::Namespace, None, namespace);
        let changes = vec![(facts::USE_WAYPOINT.to_owned(), Some(name.clone()))];
        ask(lab, &Request::Mark { object, annotations: false, changes, wait }, &mut out::say)?;
        out::data(&format!("namespace {namespace} labelled {}={name}", facts::USE_WAYPOINT));
    }
    for hint in gateway::hints(&Objects::of(lab)?, namespace, name, Mesh::Lab(lab)) {
        out::say(&hint);
    }
    Ok(out::OK)
}

fn delete(lab: &LabName, args: &DeleteArgs) -> anyhow::Result<i32> {
    let objects = Objects::of(lab)?;
    let namespace = &args.namespace;
    let names = if args.all { facts::names(&objects.gateways, namespace) } else { args.names.clone() };
    for name in &names {
        gateway::check_exists(&objects.gateways, namespace, name, Mesh::Lab(lab))?;
    }
    if names.is_empty() {
        out::say(&format!("no waypoint in namespace {namespace}; nothing to remove"));
        return Ok(out::OK);
    }
    let doomed = names.iter().map(|name| ObjectKey::new(Kind::Gateway, Some(namespace), name)).collect();
    let request = Request::Delete { objects: doomed, ignore_missing: false, wait: args.wait.millis() };
    // Told first: from the moment it is gone, these are refused.
    for name in &names {
        if let Some(warning) = gateway::orphans(&objects, namespace, name, Mesh::Lab(lab)) {
            out::say(&warning);
        }
    }
    ask(lab, &request, &mut out::say)?;
    for name in &names {
        out::data(&format!("waypoint {namespace}/{name} deleted"));
    }
    Ok(out::OK)
}

/// What objects say about waypoints.
#[derive(Debug, Clone, Default)]
struct Objects {
    namespaces: Vec<Value>,
    gateways: Vec<Value>,
    services: Vec<Value>,
    pods: Vec<Value>,
}

impl Objects {
    /// Reads them; Gateways that are no waypoints are among them.
    fn of(lab: &LabName) -> anyhow::Result<Self> {
        let run = RunDir::of(lab);
        if !run.root().exists() {
            return Err(Failure::new(out::UNREACHABLE, no_lab(lab)).into());
        }
        Ok(Self {
            namespaces: manifests::stored(&run, Kind::Namespace)?,
            gateways: manifests::stored(&run, Kind::Gateway)?,
            services: manifests::stored(&run, Kind::Service)?,
            pods: manifests::stored(&run, Kind::Pod)?,
        })
    }

    /// The waypoints among the Gateways.
    fn waypoints(&self) -> impl Iterator<Item = &Value> {
        self.gateways.iter().filter(|gateway| waypoints::is_waypoint(gateway))
    }
}

/// The control plane's `/sync`; nothing when it is away, which is a finding and not a failure of the question.
fn sync(lab: &LabName) -> anyhow::Result<Value> {
    let socket = RunDir::of(lab).istiod().join("admin.sock");
    block_on(async { Ok(json(&socket, "/sync").await.unwrap_or(Value::Null)) })
}
