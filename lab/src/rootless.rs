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
use nix::unistd::{Gid, Uid, geteuid, getegid};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::error::LabError;
use crate::name::LabName;

/// What a command of a user without root acts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inside {
    /// The machine itself: the caller is root.
    Machine,
    /// The user namespace of the lab, which was there.
    Joined,
    /// A user namespace that was made now.
    Made,
    /// Nothing: the lab does not run, and this command does not start one.
    Nothing,
}

/// Moves the calling process to where the lab is; must be called before any thread is started.
///
/// `make` says whether a lab that does not run is about to be started.
///
/// # Errors
/// If the kernel does not allow user namespaces: says what to run instead.
pub fn enter(lab: &LabName, make: bool) -> Result<Inside, LabError> {
    if geteuid().is_root() {
        return Ok(Inside::Machine);
    }
    if let Some(pid) = daemon(lab) {
        join(pid)?;
        return Ok(Inside::Joined);
    }
    if !make {
        return Ok(Inside::Nothing);
    }
    make_namespaces(geteuid(), getegid())?;
    Ok(Inside::Made)
}

/// Names of the user's labs that run, for a user without root.
pub fn labs() -> Vec<LabName> {
    let entries = directory().map(|d| fs::read_dir(d).into_iter().flatten().flatten());
    let names = entries.into_iter().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    let mut labs: Vec<LabName> = names.filter(|lab| daemon(lab).is_some()).collect();
    labs.sort();
    labs
}

/// Remembers which process keeps the lab's namespaces; `outside` is the user's directory as seen before entering.
///
/// # Errors
/// If the file cannot be written.
pub fn remember(lab: &LabName, pid: u32) -> Result<(), LabError> {
    let directory = directory().map_err(LabError::file("making a directory below", "/tmp"))?;
    let file = directory.join(lab.as_str());
    fs::write(&file, pid.to_string()).map_err(LabError::file("writing", file))
}

/// Forgets the lab; a missing file is no error.
pub fn forget(lab: &LabName) {
    if let Ok(directory) = directory() {
        let _ = fs::remove_file(directory.join(lab.as_str()));
        let _ = fs::remove_dir(directory);
    }
}
