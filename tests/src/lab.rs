//! A lab for a test: up, exercised through its command line, taken down, and checked to have left nothing.
//!
//! Everything goes through the contract that people use too: `ambit lab …`, `ambit flows`, `ambit get`. What a test
//! claims stands in the test; this file only acts, waits for conditions and reads.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test tells its runner what it could not do"
)]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

mod acts;
mod background;
mod capture;
mod end;
mod machine;
mod outcome;
mod reads;
mod source;

pub use background::{Background, Output};
pub use capture::Capture;
pub use outcome::{all_completed, begun, kept_its_rate, summary, wait_until};
use source::{Source, lacking};

/// Pause between two looks at a condition.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long any single command may take, unless a test says otherwise.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long a lab may take to come up: with an API server, on a machine that has others to start as well.
const UP_PATIENCE: Duration = Duration::from_secs(180);

/// Whether the rows run in full length: `AMBIT_SOAK=1`.
#[must_use]
pub fn soak() -> bool {
    flag("AMBIT_SOAK")
}

pub(crate) fn flag(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|v| !["", "0", "false"].iter().any(|off| v == OsStr::new(off)))
}

/// Says that a test cannot run here, and why.
///
/// # Panics
/// If `AMBIT_REQUIRE_NETNS=1` demands that it runs.
#[track_caller]
pub fn not_run(lacking: &str) {
    assert!(!flag("AMBIT_REQUIRE_NETNS"), "AMBIT_REQUIRE_NETNS is set, but {lacking}");
    println!("NOT RUN: {lacking}");
}

/// The folder of the programs under test: that of the test's own executable, one up from `deps`.
pub(crate) fn binaries() -> PathBuf {
    let own = std::env::current_exe().expect("a running test has a file");
    let folder = own.parent().expect("a file is in a folder");
    if folder.ends_with("deps") {
        folder.parent().expect("deps is in a folder").into()
    } else {
        folder.into()
    }
}

/// The program under test that stands beside the others.
#[must_use]
pub fn ambit() -> String {
    binaries().join("ambit").display().to_string()
}

/// The tests' own HTTP and gRPC peer.
#[must_use]
pub fn http_peer() -> String {
    binaries().join("http-peer").display().to_string()
}

/// A file of `tests/peers`.
#[must_use]
pub fn peer(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(name).display().to_string()
}

/// Takes a lab's name for the whole process: tests run side by side, and a second lab of that name would begin by
/// taking the first one down.
#[track_caller]
fn claim(name: &str) {
    static TAKEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let fresh = TAKEN.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
    assert!(fresh, "the lab name {name:?} is used twice in one test program");
}

/// A lab that this test brought up.
#[derive(Debug)]
pub struct Lab {
    name: String,
    files: TempDir,
}

impl Lab {
    /// Brings a lab up; none if this machine cannot, which is said. `AMBIT_LAB_SOURCE` says
    /// whether its objects live in a folder (`folder`, the default) or in a real API server (`kube`), where every change
    /// is made by `kubectl`.
    ///
    /// # Panics
    /// If it does not come up, if its name was used before, or if this machine cannot and `AMBIT_REQUIRE_NETNS=1`
    /// demands it.
    #[track_caller]
    #[must_use]
    pub fn up(name: &str, manifests: &[Value], settings: &[&str]) -> Option<Self> {
        Self::up_from(Source::chosen(), name, manifests, settings)
    }

    /// As [`Self::up`], over a real API server; none also where its program was not built.
    ///
    /// # Panics
    /// As [`Self::up`].
    #[track_caller]
    #[must_use]
    pub fn up_kube(name: &str, manifests: &[Value], settings: &[&str]) -> Option<Self> {
        Self::up_from(Source::Kube, name, manifests, settings)
    }

    #[track_caller]
    fn up_from(source: Source, name: &str, manifests: &[Value], settings: &[&str]) -> Option<Self> {
        if let Some(lacking) = source.lacking() {
            not_run(&lacking);
            return None;
        }
        let lab = Self::adopt(name)?;
        let file = lab.write(manifests);
        let own = source.arguments();
        let mut args = vec!["lab", "up"];
        args.extend(own.iter().map(String::as_str));
        if !manifests.is_empty() {
            args.extend(["-f", &file]);
        }
        for setting in settings {
            args.extend(["--set", setting]);
        }
        drop(lab.start(&args).finish(UP_PATIENCE).ok());
        Some(lab)
    }

    /// Takes charge of a lab that a command of the test brings up: what a killed run left goes first, and at the end
    /// it is taken down and checked like any other. None if this machine cannot, which is said.
    ///
    /// # Panics
    /// If its name was used before, or if this machine cannot and `AMBIT_REQUIRE_NETNS=1` demands it.
    #[track_caller]
    #[must_use]
    pub fn adopt(name: &str) -> Option<Self> {
        claim(name);
        if let Some(lacking) = lacking() {
            not_run(&lacking);
            return None;
        }
        let lab = Self { name: format!("t-{name}"), files: TempDir::new().expect("a temporary folder") };
        // What a killed run of this test left is in the way.
        drop(lab.ambit(&["lab", "down"]));
        Some(lab)
    }

    /// The lab's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn write(&self, objects: &[Value]) -> String {
        let texts: Vec<String> = objects.iter().map(|o| format!("{o:#}")).collect();
        self.file("manifests.yaml", &texts.join("\n---\n"))
    }

    /// Writes a file in the test's own folder; its path.
    ///
    /// # Panics
    /// If it cannot be written.
    #[must_use]
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.files.path().join(name);
        fs::write(&path, text).expect("writing a temporary file");
        path.display().to_string()
    }

    /// A folder of the test's own, for a program in a pod.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn folder(&self, name: &str) -> String {
        let path = self.files.path().join(name);
        fs::create_dir_all(&path).expect("making a temporary folder");
        path.display().to_string()
    }

    /// The lab's own directory.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        Path::new("/run/ambit").join(&self.name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(ambit());
        command.env("AMBIT_LAB", &self.name).args(args);
        command
    }

    /// Runs `ambit ARGS…` for this lab.
    #[track_caller]
    #[must_use]
    pub fn ambit(&self, args: &[&str]) -> Output {
        self.start(args).finish(PATIENCE)
    }

    /// Starts `ambit ARGS…` for this lab.
    #[track_caller]
    #[must_use]
    pub fn start(&self, args: &[&str]) -> Background {
        Background::start(&mut self.command(args))
    }

    /// Runs `ambit lab ARGS…`; its standard output.
    #[track_caller]
    pub fn lab(&self, args: &[&str]) -> String {
        self.ambit(&[&["lab"], args].concat()).ok()
    }

    /// Applies objects and waits until they are in force.
    #[track_caller]
    pub fn apply(&self, objects: &[Value]) {
        let file = self.write(objects);
        drop(self.lab(&["apply", "-f", &file]));
    }
}

fn split(pod: &str) -> (&str, &str) {
    pod.split_once('/').unwrap_or(("default", pod))
}
