//! Where the program with the parts of Kubernetes inside is found, and its `kubectl`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use ambit_net::linux::netns::NETNS_DIR;

use crate::config::LabConfig;
use crate::error::LabError;
use crate::name::LabName;
use crate::paths::RunDir;

use super::Source;

/// Its file name.
pub const PROGRAM: &str = "ambit-kube";
/// Where it is named if it is none of the usual places.
pub const ENVIRONMENT: &str = "AMBIT_KUBE_BIN";

/// Finds the program: the one that is named, else beside our own, else in `kube/` beside the folder of our own.
///
/// # Errors
/// If it is nowhere; says how it is made.
pub fn find(named: Option<&Path>, own: &Path) -> Result<PathBuf, LabError> {
    let missing = |places: &str| {
        LabError::Failed(format!(
            "--source kube needs the program {PROGRAM}, which is not {places}; build it with: make kube (or name \
             it in {ENVIRONMENT})"
        ))
    };
    if let Some(named) = named {
        return named.canonicalize().map_err(|_| missing(&format!("at {}", named.display())));
    }
    let folder = own.parent().unwrap_or_else(|| Path::new("/"));
    let beside = folder.parent().map(|up| up.join("kube").join(PROGRAM));
    let places: Vec<PathBuf> = [folder.join(PROGRAM)].into_iter().chain(beside).collect();
    let found = places.iter().find(|path| path.is_file()).cloned();
    let listed = places.iter().map(|p| format!("at {}", p.display())).collect::<Vec<_>>().join(" or ");
    found.ok_or_else(|| missing(&listed))
}

/// Becomes `kubectl` with the lab's API server; returns only if that fails.
///
/// # Errors
/// If the lab is not up or has no API server, or the program cannot be started.
pub fn kubectl(lab: &LabName, args: &[OsString]) -> Result<i32, LabError> {
    let run = RunDir::of(lab);
    if !run.root().exists() {
        return Err(LabError::NotUp(lab.clone()));
    }
    let config = LabConfig::load(&run)?;
    if config.source == Source::Folder {
        return Err(LabError::Failed(format!(
            "lab {lab} keeps its objects in a folder and has no API server; start one with: {}",
            lab.command("up --source kube")
        )));
    }
    let path = Path::new(NETNS_DIR).join(lab.fabric());
    // The API server's address exists only in there.
    ambit_net::linux::netns::NetNs::open(&path)?.enter()?;
    let program = config.kube.binary;
    let mut command = Command::new(&program);
    command.arg("kubectl").args(args).env("KUBECONFIG", run.kubeconfig());
    let cause = command.exec();
    Err(LabError::Start { program: program.display().to_string(), cause })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_nowhere_is_told_with_the_way_to_make_it() {
        let own = Path::new("/nowhere/debug/ambit");
        for named in [None, Some(Path::new("/nowhere/else"))] {
            let told = find(named, own).map_err(|e| e.to_string());
            let told = told.expect_err("there is nothing");
            assert!(told.contains("make kube") && told.contains(ENVIRONMENT), "{told}");
        }
    }
}
