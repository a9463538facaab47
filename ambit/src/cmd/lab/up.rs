//! `ambit lab up|down`: a lab from nothing, and back to nothing.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ambit_lab::config::{LabConfig, NODES_DEFAULT};
use ambit_lab::control::{Request, ask};
use ambit_lab::manifests::{self, Loaded};
use ambit_lab::process::MEMBER_ENV;
use ambit_lab::{LabError, LabName, RunDir, cleanup, rootless};
use ambit_runtime::clock;
use clap::ValueEnum;

use crate::cmd::interrupted::Interrupted;
use crate::out;

/// How long the daemon may take to make the fabric and listen.
const DAEMON_PATIENCE: Duration = Duration::from_secs(20);
/// How long it may take with an API server to start first.
const KUBE_PATIENCE: Duration = Duration::from_secs(150);
/// Pause between two looks for the daemon's socket.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What a lab is started with.
#[derive(Debug, clap::Args)]
pub(super) struct UpArgs {
    /// Manifests: files or folders of them, `-` for standard input
    #[arg(short, long = "filename", value_name = "FILE|DIR")]
    filename: Vec<PathBuf>,
    /// How many nodes, if the manifests declare none
    #[arg(long, help = format!("How many nodes, if the manifests declare none (default {NODES_DEFAULT})"))]
    nodes: Option<usize>,
    /// Where objects live
    #[arg(long, value_enum, default_value_t = Source::Folder)]
    source: Source,
    /// A setting; an unknown one lists those there are
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// The program with the parts of Kubernetes for `--source kube`
    #[arg(long, value_name = "FILE", env = "AMBIT_KUBE_BIN", hide = true)]
    kube_bin: Option<PathBuf>,
    /// How long to wait until everything is up
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Start no control plane, node agents and proxies
    #[arg(long, hide = true)]
    without_mesh: bool,
    /// Leave a lab that failed to come up as it is
    #[arg(long, hide = true)]
    keep_failed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Source {
    Folder,
    Kube,
}

/// What is removed.
#[derive(Debug, clap::Args)]
pub(super) struct DownArgs {
    /// Every lab on this machine
    #[arg(long)]
    pub(super) all: bool,
}

pub(super) fn up(lab: &LabName, args: &UpArgs) -> Result<i32, LabError> {
    let source = match args.source {
        Source::Folder => ambit_lab::kube::Source::Folder,
        Source::Kube => ambit_lab::kube::Source::Kube,
    };
    let mut config = LabConfig { source, mesh: !args.without_mesh, ..LabConfig::default() };
    for setting in &args.set {
        config.set(setting)?;
    }
    if args.source == Source::Kube {
        let own = std::env::current_exe().map_err(LabError::file("finding", "this program"))?;
        config.kube.complete(args.kube_bin.as_deref(), &own)?;
    }
    config.check_machine()?;
    let loaded = manifests::load(&args.filename)?;
    config.name_nodes(loaded.nodes(), args.nodes)?;
    clear_the_way(lab)?;
    let interrupted = Interrupted::watch(lab)?;
    let result = start(lab, &config, loaded, args, &interrupted);
    match result {
        Ok(()) => {
            interrupted.done();
            out::say(&format!("lab {lab} is up; look at it with: ambit lab status --name {lab}"));
            Ok(out::OK)
        }
        Err(_) if interrupted.is_stopped() => interrupted.wait_for_exit(),
        Err(error) if args.keep_failed => Err(error),
        Err(error) => {
            cleanup::remove(lab)?;
            rootless::forget(lab);
            Err(error)
        }
    }
}

/// Refuses to disturb a lab that runs, and removes what a killed one left.
fn clear_the_way(lab: &LabName) -> Result<(), LabError> {
    if cleanup::daemon_pid(lab, &RunDir::of(lab)).is_some() {
        return Err(LabError::AlreadyUp(lab.clone()));
    }
    let removed = cleanup::remove(lab)?;
    if !removed.is_nothing() {
        out::say(&format!("removed what an earlier lab {lab} had left: {}", describe(&removed)));
    }
    Ok(())
}

fn start(
    lab: &LabName,
    config: &LabConfig,
    loaded: Loaded,
    args: &UpArgs,
    interrupted: &Interrupted,
) -> Result<(), LabError> {
    let run = RunDir::of(lab);
    let objects = loaded.objects.len();
    let mut daemon = interrupted.make(|| {
        run.create().map_err(LabError::file("making directory", run.root()))?;
        config.save(&run)?;
        start_daemon(lab, &run)
    })?;
    out::say(&format!("fabric          {} nodes, {objects} objects", config.nodes.len()));
    if rootless::is_inside() {
        rootless::remember(lab, daemon.id())?;
    }
    let patience = if args.source == Source::Kube { KUBE_PATIENCE } else { DAEMON_PATIENCE };
    wait_for_daemon((lab, &run), &mut daemon, patience)?;
    let wait = Some(u64::try_from(args.timeout.as_millis()).unwrap_or(u64::MAX));
    ask(lab, &Request::Apply { objects: loaded.objects, wait: None }, &mut out::say)?;
    ask(lab, &Request::Up { wait }, &mut out::say)?;
    Ok(())
}

fn start_daemon(lab: &LabName, run: &RunDir) -> Result<Child, LabError> {
    let fail = |cause: io::Error| LabError::Start { program: "the lab's daemon".to_owned(), cause };
    let path = run.daemon_log();
    let log = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
    let log: File = log.map_err(LabError::file("opening log", path))?;
    Command::new(std::env::current_exe().map_err(fail)?)
        .args([ambit_lab::DAEMON_COMMAND, "--name", lab.as_str()])
        .env(MEMBER_ENV, lab.as_str())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(fail)?)
        .stderr(log)
        .spawn()
        .map_err(fail)
}

fn wait_for_daemon(
    (lab, run): (&LabName, &RunDir),
    daemon: &mut Child,
    patience: Duration,
) -> Result<(), LabError> {
    let deadline = clock::monotonic() + patience;
    while !run.daemon_socket().exists() {
        let ended = daemon.try_wait().ok().flatten();
        if ended.is_some() || clock::monotonic() >= deadline {
            let log = fs::read_to_string(run.daemon_log()).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(5).collect();
            let told: Vec<&str> = last.into_iter().rev().map(|l| l.trim_start_matches("Error: ")).collect();
            let message = format!("lab {lab} could not be made:\n{}", told.join("\n"));
            let exit_code = ended.and_then(|s| s.code()).filter(|c| *c != 0).unwrap_or(out::FAILED);
            return Err(LabError::Refused { exit_code, message });
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}

pub(super) fn down(lab: &LabName, args: &DownArgs) -> Result<i32, LabError> {
    let labs = if args.all { cleanup::labs() } else { vec![lab.clone()] };
    let mut code = out::OK;
    for lab in &labs {
        let removed = cleanup::remove(lab)?;
        rootless::forget(lab);
        if removed.is_nothing() {
            out::say(&format!("lab {lab}: nothing to remove"));
        } else {
            out::say(&format!("lab {lab}: removed {}", describe(&removed)));
        }
        let left = cleanup::leftovers(lab);
        if !left.is_empty() {
            out::say(&format!("lab {lab}: still there:\n  {}", left.join("\n  ")));
            code = out::FAILED;
        }
    }
    if labs.is_empty() {
        out::say("no lab is up");
    }
    Ok(code)
}

/// Removes labs that each live in a user namespace of their own, by a command of its own each.
pub(super) fn down_each(labs: &[LabName]) -> i32 {
    let mut code = out::OK;
    for lab in labs {
        let ended = std::env::current_exe()
            .and_then(|own| Command::new(own).args(["lab", "down", "--name", lab.as_str()]).status());
        match ended {
            Ok(status) if status.success() => {}
            Ok(status) => code = status.code().unwrap_or(out::FAILED),
            Err(e) => {
                out::say(&format!("Error: removing lab {lab}: {e}"));
                code = out::FAILED;
            }
        }
    }
    code
}

fn describe(removed: &cleanup::Removed) -> String {
    let count =
        |n: usize, one: &str, many: &str| (n > 0).then(|| format!("{n} {}", if n == 1 { one } else { many }));
    let parts = [
        removed.daemon.then(|| "daemon".to_owned()),
        count(removed.processes, "process", "processes"),
        count(removed.namespaces.len(), "namespace", "namespaces"),
        removed.directory.then(|| "files".to_owned()),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
