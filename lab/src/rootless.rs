//! A lab without root: inside a user namespace of its own, where the kernel allows that.
//!
//! The first command of a lab makes user, mount and network namespaces and a `/run` of its own; later commands
//! join them through the daemon, which keeps them. With the last process everything is gone by itself; only the
//! file that names the daemon is on the machine, in a directory of the user's own.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Gid, Uid, getegid, geteuid};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::error::LabError;
use crate::name::LabName;

/// Moves a process without root to where the lab is; must be called before any thread is started.
///
/// `make` says whether a lab that does not run is about to be started.
///
/// # Errors
/// If the kernel does not allow user namespaces: says what to run instead.
pub fn enter(lab: &LabName, make: bool) -> Result<(), LabError> {
    match (is_ordinary_user(), daemon(lab)) {
        (false, _) => Ok(()),
        (true, Some(pid)) => join(pid),
        (true, None) if make => make_namespaces(geteuid(), getegid()),
        // A lab that does not run has no namespaces: the command finds nothing on the machine, and says so.
        (true, None) => Ok(()),
    }
}

/// Whether the caller is not root on this machine and has not entered a lab yet.
pub fn is_ordinary_user() -> bool {
    !geteuid().is_root()
}

/// Whether this process is root only inside a lab's user namespace.
pub fn is_inside() -> bool {
    machine_uid().is_ok_and(|uid| uid != geteuid().as_raw())
}

/// Names of the user's labs that run, for a user without root.
pub fn labs() -> Vec<LabName> {
    let entries = directory(false).map(|d| fs::read_dir(d).into_iter().flatten().flatten());
    let names = entries.into_iter().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    let mut labs: Vec<LabName> = names.filter(|lab| daemon(lab).is_some()).collect();
    labs.sort();
    labs
}

/// Remembers which process keeps the lab's namespaces.
///
/// # Errors
/// If the file cannot be written.
pub fn remember(lab: &LabName, pid: u32) -> Result<(), LabError> {
    let directory = directory(true).map_err(LabError::file("making a directory below", "/tmp"))?;
    let file = directory.join(lab.as_str());
    fs::write(&file, pid.to_string()).map_err(LabError::file("writing", file))
}

/// Forgets the lab; a missing file is no error.
pub fn forget(lab: &LabName) {
    if let Ok(directory) = directory(false) {
        let _ = fs::remove_file(directory.join(lab.as_str()));
        let _ = fs::remove_dir(directory);
    }
}

/// The daemon of a lab of this user, if it lives.
fn daemon(lab: &LabName) -> Option<i32> {
    let file = directory(false).ok()?.join(lab.as_str());
    let pid: i32 = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    crate::cleanup::is_daemon(pid, lab).then_some(pid)
}

/// A directory that only this user can write: `/tmp/ambit-UID`, by the user's number on the machine.
///
/// It exists only while the user has labs; `make` makes it.
fn directory(make: bool) -> io::Result<PathBuf> {
    let uid = machine_uid()?;
    let path = Path::new("/tmp").join(format!("ambit-{uid}"));
    if make {
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            Ok(()) | Err(_) => {}
        }
    }
    let meta = fs::symlink_metadata(&path)?;
    // Somebody else's directory, or a link to one, would let them choose whose namespaces we join.
    if !meta.is_dir() || meta.uid() != geteuid().as_raw() || meta.mode() & 0o077 != 0 {
        return Err(io::Error::other(format!(
            "{} belongs to somebody else or is open to others",
            path.display()
        )));
    }
    Ok(path)
}

/// The user's number outside the user namespace it may be in.
fn machine_uid() -> io::Result<u32> {
    let map = fs::read_to_string("/proc/self/uid_map")?;
    let mut words = map.split_whitespace().map(str::parse::<u32>);
    match (words.next(), words.next(), words.next(), words.next()) {
        // One number mapped to root: a user namespace as `make_namespaces` makes it.
        (Some(Ok(0)), Some(Ok(outside)), Some(Ok(1)), None) => Ok(outside),
        _ => Ok(geteuid().as_raw()),
    }
}

fn join(pid: i32) -> Result<(), LabError> {
    let fail = |cause: io::Error| LabError::Start { program: "the lab's user namespace".to_owned(), cause };
    let of = Pid::from_raw(pid).ok_or_else(|| fail(io::ErrorKind::InvalidInput.into()))?;
    let process = pidfd_open(of, PidfdFlags::empty()).map_err(|e| fail(e.into()))?;
    // Entering a mount namespace leads to its root; paths of the command line mean the caller's directory.
    let directory = std::env::current_dir();
    let all = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET;
    setns(process, all).map_err(|e| fail(e.into()))?;
    match directory {
        Ok(directory) => std::env::set_current_dir(directory).map_err(fail),
        // A directory that is gone was no place for a path either.
        Err(_) => Ok(()),
    }
}

fn make_namespaces(uid: Uid, gid: Gid) -> Result<(), LabError> {
    let refused = |what: &str, cause: &dyn std::fmt::Display| {
        LabError::Failed(format!(
            "a lab without root needs {what}, which this machine refuses ({cause}); run the command with sudo, or allow \
             user namespaces: sysctl -w user.max_user_namespaces=10000 kernel.apparmor_restrict_unprivileged_userns=0"
        ))
    };
    let resolver = fs::canonicalize("/etc/resolv.conf").ok();
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
        .map_err(|e| refused("user, mount and network namespaces of its own", &e))?;
    // The kernel takes a group map from an ordinary user only after setgroups is given up.
    let maps = [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {uid} 1")),
        ("/proc/self/gid_map", format!("0 {gid} 1")),
    ];
    for (file, text) in maps {
        fs::write(file, text).map_err(|e| refused("to be root inside its own user namespace", &e))?;
    }
    own_run(resolver.as_deref()).map_err(|e| refused("a /run of its own", &e))
}

/// Mounts an empty `/run`, seen by the lab only, and keeps the file there that pods bind their resolver over.
fn own_run(resolver: Option<&Path>) -> io::Result<()> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)?;
    let text = resolver.map(fs::read).transpose()?;
    mount(Some("none"), "/run", Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=755"))?;
    if let (Some(path), Some(text)) = (resolver.filter(|p| p.starts_with("/run")), text) {
        fs::create_dir_all(path.parent().unwrap_or_else(|| Path::new("/run")))?;
        fs::write(path, text)?;
    }
    Ok(())
}
