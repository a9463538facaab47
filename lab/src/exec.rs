//! Running a command inside a pod, with the caller's own terminal and the command's own exit code.
//!
//! Acts in the calling process; the daemon is only asked which process's namespaces to join.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::process::Command;

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open};
use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::control::{self, Request};
use crate::error::LabError;
use crate::name::LabName;
use crate::process::Exit;

/// Runs `argv` in the pod and returns its exit code; 127 if there is no such program.
///
/// # Errors
/// If the lab or the pod does not run, or its namespaces cannot be entered.
pub fn run(
    lab: &LabName,
    (namespace, pod): (&str, &str),
    container: Option<&str>,
    argv: &[OsString],
) -> Result<i32, LabError> {
    let request = Request::PodProcess {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        container: container.map(str::to_owned),
    };
    let answer = control::ask(lab, &request, &mut |_| {})?;
    let pid = answer.get("pid").and_then(serde_json::Value::as_i64).and_then(|p| i32::try_from(p).ok());
    let pid = pid.ok_or_else(|| LabError::Failed(format!("pod {namespace}/{pod} has no running process")))?;
    inside(pid, argv)
}

/// Runs `argv` in the namespaces of a process, with its environment and directory.
fn inside(pid: i32, argv: &[OsString]) -> Result<i32, LabError> {
    let fail = |program: &str| {
        let program = program.to_owned();
        move |cause: std::io::Error| LabError::Start { program, cause }
    };
    let mut command = Command::new(std::env::current_exe().map_err(fail("this program"))?);
    command.arg(crate::runner::COMMAND).arg("--").args(argv);
    command.env_clear().envs(environment_of(pid)?).envs(terminal()).current_dir(directory_of(pid));
    // Handlers first: a signal from the terminal reaches the command too, and its end is what ends us.
    let signals = Signals::new([SIGINT, SIGQUIT, SIGTERM, SIGHUP]).map_err(fail("signal handling"))?;
    let (told, started) = std::sync::mpsc::sync_channel(1);
    forward(signals, started);
    // A thread of its own: the kernel lets only a thread that shares no directory change its mounts.
    let worker = std::thread::spawn(move || -> std::io::Result<Exit> {
        join(pid)?;
        let mut child = command.spawn()?;
        let _ = told.send(Pid::from_raw(i32::try_from(child.id()).expect("the kernel's pids fit")));
        child.wait().map(Exit::from)
    });
    let lost = |_| Err(std::io::Error::other("the thread that starts it panicked"));
    worker.join().unwrap_or_else(lost).map(|e| e.code).map_err(fail("a command in the pod"))
}

/// Moves the calling thread into all namespaces of a process; its children are in its pid namespace too.
pub(crate) fn join(pid: i32) -> std::io::Result<()> {
    let of = rustix::process::Pid::from_raw(pid).ok_or(std::io::ErrorKind::InvalidInput)?;
    let process = pidfd_open(of, PidfdFlags::empty())?;
    unshare(CloneFlags::CLONE_FS)?;
    let all = CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS;
    setns(process, all)?;
    Ok(())
}

/// A process's environment as it was started with.
pub(crate) fn environment_of(pid: i32) -> Result<BTreeMap<OsString, OsString>, LabError> {
    let path = format!("/proc/{pid}/environ");
    let bytes = fs::read(&path).map_err(LabError::file("reading", path))?;
    let mut variables = BTreeMap::new();
    for entry in bytes.split(|b| *b == 0) {
        if let Some(at) = entry.iter().position(|b| *b == b'=') {
            let (name, value) = (entry[..at].to_vec(), entry[at + 1..].to_vec());
            variables.insert(OsString::from_vec(name), OsString::from_vec(value));
        }
    }
    Ok(variables)
}

/// The directory a process is in.
pub(crate) fn directory_of(pid: i32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_else(|_| PathBuf::from("/"))
}

/// What the caller's terminal is, for programs that draw on it.
fn terminal() -> Option<(OsString, OsString)> {
    std::env::vars_os().find(|(name, _)| name == "TERM")
}

/// Passes signals that were meant for the command on to it; the terminal sends the others there by itself.
fn forward(mut signals: Signals, started: std::sync::mpsc::Receiver<Pid>) {
    std::thread::spawn(move || {
        let Ok(child) = started.recv() else { return };
        for signal in signals.forever().filter(|s| [SIGTERM, SIGHUP].contains(s)) {
            if let Ok(signal) = Signal::try_from(signal) {
                // The command may have ended just now; then there is nobody to tell.
                let _ = kill(child, signal);
            }
        }
    });
}
