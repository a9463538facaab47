//! The daemon of one lab: it owns namespaces, programs and pods, and obeys the command line.
//!
//! One loop is the only writer of the lab's state; whatever takes time happens in tasks beside it. If the daemon
//! is killed, the kernel ends its processes, and `cleanup` removes the rest without it.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::LabConfig;
use crate::control;
use crate::error::LabError;
use crate::kube::Source;
use crate::kube::tokens::Requests;
use crate::link::Place;
use crate::name::LabName;
use crate::paths::RunDir;
use crate::pod::sandbox::Site;
use crate::programs::{Home, Programs};
use crate::store::Store;
use crate::token::Issuer;
use crate::topology::{self, Node};

mod act;
mod commands;
pub mod force;
mod health;
mod network;
mod nodes;
mod owner;
mod pods;
mod report;
mod report_status;
mod served;
mod tokens;
mod wait;
mod waypoints;

/// Worker threads: the daemon waits, its processes work.
const WORKERS: usize = 2;
/// How long the pods may take to end when the lab goes down.
const DOWN_GRACE: Duration = Duration::from_millis(500);

/// Runs the daemon of the lab that `--name NAME` says until it is told to end; returns the exit code.
pub fn main(args: impl IntoIterator<Item = String>) -> i32 {
    match run(args) {
        Ok(()) => 0,
        Err(error) => {
            // Standard error is the daemon's log, which `up` shows when the daemon ends early.
            let _ = writeln!(std::io::stderr(), "Error: {}", error.full());
            error.exit_code()
        }
    }
}

fn run(args: impl IntoIterator<Item = String>) -> Result<(), LabError> {
    let mut args = args.into_iter().skip_while(|a| a != "--name").skip(1);
    let lab: LabName = args.next().unwrap_or_default().parse()?;
    let run = RunDir::of(&lab);
    let config = LabConfig::load(&run)?;
    // Every pod costs a few descriptors; the limit of a login shell would end at some hundred pods.
    crate::echoer::raise_descriptor_limit()
        .map_err(LabError::file("raising the descriptor limit of", "the daemon"))?;
    // A new session: signals of the terminal that ran `up` are not for the daemon.
    let _ = rustix::process::setsid();
    let pid = std::process::id().to_string();
    fs::write(run.daemon_pid(), pid).map_err(LabError::file("writing", run.daemon_pid()))?;
    let logging = ambit_runtime::logging::start("info", ambit_runtime::logging::Format::Plain);
    let _logging = logging.map_err(|e| LabError::Usage(e.to_string()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .map_err(LabError::file("starting the runtime of", "the daemon"))?;
    runtime.block_on(serve(lab, run, config))
}

async fn serve(lab: LabName, run: RunDir, config: LabConfig) -> Result<(), LabError> {
    let fail = LabError::file("listening for signals in", "the daemon");
    let mut terminate = signal(SignalKind::terminate()).map_err(fail)?;
    let built = Built::new(lab, run, config).await?;
    built.store.follow()?;
    let calls = control::serve(&built.home.run)?;
    let mut owner = owner::Owner::new(built)?;
    match &owner.home.kube {
        Some(cluster) => served::keep(&owner, cluster).await?,
        None => tokens::issue(&owner)?,
    }
    tokio::select! {
        () = owner.run(calls) => {}
        _ = terminate.recv() => tracing::info!(signal = Signal::SIGTERM.as_str(), "going down"),
    }
    owner::end_everything(&owner).await;
    Ok(())
}

/// The fixed parts of a lab, in existence.
struct Built {
    home: Arc<Home>,
    sites: Vec<Arc<Site>>,
    programs: Programs,
    store: Arc<Store>,
}

impl Built {
    async fn new(lab: LabName, run: RunDir, config: LabConfig) -> Result<Self, LabError> {
        let nodes = config.topology();
        let fabric = Arc::new(topology::create_fabric(&lab, config.families)?);
        fabric.set(&config.kernel_parameters())?;
        let runner =
            std::env::current_exe().map_err(LabError::file("finding", "the daemon's own program"))?;
        let (store, issuer, kube) = match config.source {
            Source::Folder => {
                let store = Store::open(&run.objects())?;
                (Arc::new(store), Arc::new(Issuer::load_or_create(&run.istiod())?), None)
            }
            Source::Kube => {
                let cluster = served::start((&lab, &run), &config, &runner, &fabric).await?;
                let store = Store::served(cluster.api.clone(), served::driver(&config, &fabric, &run)).await;
                let issuer = Issuer::server(Requests::of(cluster.api.clone()));
                (Arc::new(store), Arc::new(issuer), Some(Arc::new(cluster)))
            }
        };
        let mut sites = Vec::new();
        for node in &nodes {
            sites.push(Arc::new(build_node(&lab, &run, &config, &issuer, &fabric, node)?));
        }
        for (site, other) in sites.iter().flat_map(|s| nodes.iter().map(move |n| (s, n))) {
            if site.node != *other {
                topology::connect_nodes(&site.place, other, config.families)?;
            }
        }
        let binaries = runner.parent().map_or_else(|| PathBuf::from("/"), PathBuf::from);
        let by_name = sites.iter().map(|s| (s.node.name.clone(), (s.node.clone(), Arc::clone(&s.place))));
        let nodes = by_name.collect();
        let home = Arc::new(Home { nodes, lab, run, config, binaries, runner, fabric, kube });
        let programs = Programs::of(&home)?;
        Ok(Self { home, sites, programs, store })
    }
}

fn build_node(
    lab: &LabName,
    run: &RunDir,
    config: &LabConfig,
    issuer: &Arc<Issuer>,
    fabric: &Place,
    node: &Node,
) -> Result<Site, LabError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let place = topology::create_node(lab, fabric, node, config.families)?;
    crate::service::prepare(&place, config.families)?;
    if config.source == Source::Kube {
        let control_plane = crate::kube::front::address(config.families);
        topology::address_proxy(&place, node, control_plane, config.families)?;
    }
    let kernel = config.kernel_parameters();
    place.set(&kernel)?;
    let directory = run.node(&node.name);
    let made = fs::DirBuilder::new().mode(0o700).create(&directory);
    made.map_err(LabError::file("making directory", directory))?;
    let (lab, run, families) = (lab.clone(), run.clone(), config.families);
    let (place, issuer, node_uid) = (Arc::new(place), Arc::clone(issuer), Arc::default());
    Ok(Site { lab, run, families, node: node.clone(), place, kernel, issuer, node_uid })
}
