//! Finding a pod's namespace through its processes: `/proc` of the node, read by pod uid.
//!
//! Of several processes the oldest outside the node's own network counts: it is the sandbox's first one, and what a
//! container starts later in a namespace of its own is not the pod's. A pod that was found once costs two small reads
//! as long as that process lives; a look through all processes is made at most every [`SCAN_PAUSE`].

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ambit_net::linux::netns::{NetNs, NetNsError, NetNsId};
use ambit_runtime::clock;

use super::cgroup;

#[cfg(test)]
mod tests;

/// Shortest time between two looks through all processes.
const SCAN_PAUSE: Duration = Duration::from_millis(250);
/// Longest control group text that is read; the kernel's are far shorter.
const TEXT_MAX: u64 = 64 << 10;

/// The processes of the node.
#[derive(Debug)]
pub(super) struct Processes {
    proc: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// For each pod its processes, oldest first.
    of: BTreeMap<String, Vec<Process>>,
    looked: Option<Instant>,
}

/// One process. Its number alone could be another one's later, so its start counts too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Process {
    /// Clock ticks since the machine started.
    started: u64,
    pid: u32,
}

impl Processes {
    pub(super) fn new(proc: &Path) -> Self {
        Self { proc: proc.to_owned(), known: Mutex::default() }
    }

    /// Where the pod would be found, for messages.
    pub(super) fn place(&self) -> &Path {
        &self.proc
    }

    /// The namespace of the pod's oldest process outside the networks in `nodes`, and where it was found. `None` if it
    /// has no such process.
    ///
    /// # Errors
    /// [`NetNsError`] if there is one and its namespace may not be opened.
    pub(super) fn open(
        &self,
        uid: &str,
        nodes: &BTreeSet<NetNsId>,
    ) -> Result<Option<(PathBuf, NetNs)>, NetNsError> {
        let candidates = self.remembered(uid);
        if let Some(found) = self.first_outside(uid, &candidates, nodes)? {
            return Ok(Some(found));
        }
        let candidates = self.look(uid);
        self.first_outside(uid, &candidates, nodes)
    }

    /// Every pod that has processes.
    pub(super) fn pods(&self) -> BTreeSet<String> {
        self.refresh(true);
        self.known.lock().unwrap_or_else(PoisonError::into_inner).of.keys().cloned().collect()
    }

    fn remembered(&self, uid: &str) -> Vec<Process> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.of.get(uid).cloned().unwrap_or_default()
    }

    fn look(&self, uid: &str) -> Vec<Process> {
        self.refresh(false);
        self.remembered(uid)
    }

    /// Looks through all processes, unless that was done a moment ago.
    fn refresh(&self, now: bool) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = known.looked.is_some_and(|at| clock::monotonic().duration_since(at) < SCAN_PAUSE);
        if fresh && !now {
            return;
        }
        known.of = scan(&self.proc);
        known.looked = Some(clock::monotonic());
    }

    fn first_outside(
        &self,
        uid: &str,
        candidates: &[Process],
        nodes: &BTreeSet<NetNsId>,
    ) -> Result<Option<(PathBuf, NetNs)>, NetNsError> {
        for process in candidates {
            let directory = self.proc.join(process.pid.to_string());
            let path = directory.join("ns/net");
            let netns = match NetNs::open(&path) {
                Ok(netns) => netns,
                Err(NetNsError::Open { cause, .. }) if is_gone(&cause) => continue,
                Err(error) => return Err(error),
            };
            // Looked at after opening: if it is still that process, the namespace was its.
            let same =
                read(&directory, process.pid).is_some_and(|(of, found)| of == uid && found == *process);
            if same && !nodes.contains(&netns.id()) {
                return Ok(Some((path, netns)));
            }
        }
        Ok(None)
    }
}

fn is_gone(cause: &io::Error) -> bool {
    // ESRCH: it ended between the two steps of opening.
    cause.kind() == io::ErrorKind::NotFound || cause.raw_os_error() == Some(nix::libc::ESRCH)
}

fn scan(proc: &Path) -> BTreeMap<String, Vec<Process>> {
    let mut of: BTreeMap<String, Vec<Process>> = BTreeMap::new();
    let entries = match std::fs::read_dir(proc) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::warn!(%error, proc = %proc.display(), "the node's processes cannot be listed");
            return of;
        }
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids {
        if let Some((uid, process)) = read(&proc.join(pid.to_string()), pid) {
            of.entry(uid).or_default().push(process);
        }
    }
    of.values_mut().for_each(|processes| processes.sort_unstable());
    of
}

/// The pod of a process and when it began; `None` for one of no pod and for one that has ended.
fn read(directory: &Path, pid: u32) -> Option<(String, Process)> {
    let uid = cgroup::pod_uid(&text(&directory.join("cgroup"))?)?;
    let started = start_time(&text(&directory.join("stat"))?)?;
    Some((uid, Process { started, pid }))
}

/// Field 22 of `/proc/PID/stat`; the second field is the command's name and may hold anything, so fields are counted
/// from its closing parenthesis.
fn start_time(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

fn text(path: &Path) -> Option<String> {
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(TEXT_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}
