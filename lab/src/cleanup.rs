//! Removing a lab: every process, namespace and file, also when nobody is left who knows what there was.
//!
//! Works from what the kernel shows (bound namespaces, processes inside them, the environment mark), never
//! from a list that a killed process might have failed to write.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use ambit_net::linux::netns::{NETNS_DIR, NetNs};
use ambit_runtime::clock;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::LabError;
use crate::name::LabName;
use crate::paths::RunDir;
use crate::process::MEMBER_ENV;

/// How long the daemon may take to end its lab by itself.
const DAEMON_GRACE: Duration = Duration::from_secs(15);
/// How long killed processes may take to vanish.
const KILL_GRACE: Duration = Duration::from_secs(10);
/// Pause between two looks at the process table.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// How often the namespaces are looked for again.
const ROUNDS_MAX: usize = 5;

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Whether a daemon was running and ended.
    pub daemon: bool,
    /// How many processes had to be killed.
    pub processes: usize,
    /// The namespaces, by their names below `/run/netns`.
    pub namespaces: Vec<String>,
    /// Whether the lab's directory was there.
    pub directory: bool,
}

impl Removed {
    /// Whether there was nothing to remove.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// Ends and removes the lab of that name; nothing there is no error.
///
/// # Errors
/// If something resists: a process that cannot be killed, a mount or a file that cannot be removed.
pub fn remove(lab: &LabName) -> Result<Removed, LabError> {
    let run = RunDir::of(lab);
    let mut removed = Removed { namespaces: namespaces_of(lab), ..Removed::default() };
    removed.daemon = end_daemon(lab, &run);
    // What the daemon has not removed by itself is removed here. A daemon that was just being started may make
    // more meanwhile, until it is found and killed; then there is an end to it.
    for _ in 0..ROUNDS_MAX {
        let namespaces = namespaces_of(lab);
        removed.processes += kill_members(lab, &namespaces)?;
        for name in &namespaces {
            unbind(name)?;
        }
        removed.namespaces.extend(namespaces);
        if namespaces_of(lab).is_empty() {
            break;
        }
    }
    removed.namespaces.sort();
    removed.namespaces.dedup();
    removed.directory = run.root().exists();
    run.remove().map_err(LabError::file("removing directory", run.root()))?;
    Ok(removed)
}

fn unbind(name: &str) -> Result<(), LabError> {
    match NetNs::remove_named(name) {
        // Somebody else removed it at the same time.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(LabError::file("unbinding network namespace", name)),
    }
}

/// What still exists of a lab that should be gone: one line each, empty when nothing does.
pub fn leftovers(lab: &LabName) -> Vec<String> {
    let mut left: Vec<String> = Vec::new();
    let namespaces = namespaces_of(lab);
    for pid in members(lab, &inodes(&namespaces)) {
        left.push(format!("process {pid} {}", command_line(pid)));
    }
    left.extend(namespaces.into_iter().map(|n| format!("namespace {NETNS_DIR}/{n}")));
    let run = RunDir::of(lab);
    if run.root().exists() {
        left.push(format!("directory {}", run.root().display()));
    }
    left
}

/// Names of the lab's namespaces below `/run/netns`, sorted.
pub fn namespaces_of(lab: &LabName) -> Vec<String> {
    let entries = fs::read_dir(NETNS_DIR).into_iter().flatten().flatten();
    let names = entries.filter_map(|e| e.file_name().into_string().ok());
    let mut mine: Vec<String> = names.filter(|n| lab.owns(n)).collect();
    mine.sort();
    mine
}

/// Every lab on this machine: by its directory, or by a fabric that lost its directory.
pub fn labs() -> Vec<LabName> {
    let mut labs: BTreeSet<LabName> = RunDir::labs().into_iter().collect();
    let entries = fs::read_dir(NETNS_DIR).into_iter().flatten().flatten();
    let fabrics = entries.filter_map(|e| e.file_name().to_str()?.strip_suffix("-fabric").map(str::to_owned));
    labs.extend(fabrics.filter_map(|name| name.parse().ok()));
    labs.into_iter().collect()
}

/// Pid of the lab's daemon, if it lives.
pub fn daemon_pid(lab: &LabName, run: &RunDir) -> Option<i32> {
    let pid: i32 = fs::read_to_string(run.daemon_pid()).ok()?.trim().parse().ok()?;
    is_daemon(pid, lab).then_some(pid)
}

/// Whether a process is the daemon of that lab and lives.
pub(crate) fn is_daemon(pid: i32, lab: &LabName) -> bool {
    // A number alone may belong to somebody else by now; the command line says whose it is.
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|b| *b == 0).collect();
    let daemon = words.iter().any(|w| *w == crate::DAEMON_COMMAND.as_bytes());
    let named = words.iter().any(|w| *w == lab.as_str().as_bytes());
    daemon && named && !is_zombie(pid)
}

fn end_daemon(lab: &LabName, run: &RunDir) -> bool {
    let Some(pid) = daemon_pid(lab, run) else { return false };
    for (signal, grace) in [(Signal::SIGTERM, DAEMON_GRACE), (Signal::SIGKILL, KILL_GRACE)] {
        let _ = kill(Pid::from_raw(pid), signal);
        if wait_until(grace, || daemon_pid(lab, run).is_none()) {
            break;
        }
    }
    true
}

fn kill_members(lab: &LabName, namespaces: &[String]) -> Result<usize, LabError> {
    let inodes = inodes(namespaces);
    let mut killed: BTreeSet<i32> = BTreeSet::new();
    let gone = wait_until(KILL_GRACE, || {
        let members = members(lab, &inodes);
        for pid in &members {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            killed.insert(*pid);
        }
        members.is_empty()
    });
    if gone {
        return Ok(killed.len());
    }
    let left: Vec<String> =
        members(lab, &inodes).iter().map(|p| format!("{p} {}", command_line(*p))).collect();
    Err(LabError::Failed(format!(
        "processes of lab {lab} do not end although killed: {}; look at /proc/PID/stack of each",
        left.join(", ")
    )))
}

/// Processes inside one of those namespaces, or marked as the lab's, except this one.
fn members(lab: &LabName, inodes: &BTreeSet<(u64, u64)>) -> Vec<i32> {
    let mark = format!("{MEMBER_ENV}={lab}");
    let own = std::process::id();
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|e| e.file_name().to_str().and_then(|n| n.parse::<i32>().ok()))
        .filter(|pid| u32::try_from(*pid) != Ok(own))
        .filter(|pid| inside(*pid, inodes) || marked(*pid, mark.as_bytes()))
        .filter(|pid| !is_zombie(*pid))
        .collect()
}

fn inside(pid: i32, inodes: &BTreeSet<(u64, u64)>) -> bool {
    fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|m| inodes.contains(&(m.dev(), m.ino())))
}

fn marked(pid: i32, mark: &[u8]) -> bool {
    fs::read(format!("/proc/{pid}/environ")).is_ok_and(|env| env.split(|b| *b == 0).any(|v| v == mark))
}

fn is_zombie(pid: i32) -> bool {
    // The state is the first letter after the command in parentheses, which may itself hold parentheses.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z') || rest.starts_with('X'))
}

fn inodes(namespaces: &[String]) -> BTreeSet<(u64, u64)> {
    let files = namespaces.iter().map(|n| Path::new(NETNS_DIR).join(n));
    // Only real namespaces count: a file that was never bound over has the device of `/run`.
    files.filter_map(|f| NetNs::open(&f).ok()).map(|ns| (ns.id().dev, ns.id().inode)).collect()
}

fn command_line(pid: i32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned()
}

fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let deadline = clock::monotonic() + limit;
    loop {
        if done() {
            return true;
        }
        if clock::monotonic() >= deadline {
            return false;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}
