//! A program that runs beside the benchmark: started, asked for its memory, ended when dropped.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use ambit_runtime::clock;
use anyhow::{Context as _, anyhow};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a program may take to end before it is killed.
const GRACE: Duration = Duration::from_secs(30);
/// Pause between two looks whether it has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Lines of its log that an error shows.
const TAIL: usize = 12;

/// A running program.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    name: String,
    errors: PathBuf,
}

/// Resident memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Memory {
    /// Now.
    pub now: f64,
    /// At most, since the program started.
    pub peak: f64,
}

impl Process {
    /// Starts a program with nothing of our environment but the path; its words go to `NAME.out` and `NAME.err` in
    /// `folder`. It dies with the thread that calls this.
    pub(crate) fn start(program: &Path, args: &[String], folder: &Path) -> anyhow::Result<Self> {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let file = |end: &str| {
            let path = folder.join(format!("{name}.{end}"));
            File::create(&path).with_context(|| format!("making {}", path.display())).map(|file| (path, file))
        };
        let ((_, output), (errors, error)) = (file("out")?, file("err")?);
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(args).env_clear();
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.stdin(Stdio::null()).stdout(output).stderr(error);
        let child = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        Ok(Self { child, name, errors })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// That it still runs.
    ///
    /// # Errors
    /// If it has ended, with its last words.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(self.ended(status)),
        }
    }

    fn ended(&self, status: ExitStatus) -> anyhow::Error {
        anyhow!("{} ended with {status}: {}", self.name, self.last_words())
    }

    /// The end of what it said.
    pub(crate) fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.errors).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }

    /// Its memory.
    ///
    /// # Errors
    /// If it has ended.
    pub(crate) fn memory(&self) -> anyhow::Result<Memory> {
        let path = format!("/proc/{}/status", self.pid());
        let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        memory(&text).ok_or_else(|| anyhow!("{path} tells no memory: has {} ended?", self.name))
    }

    fn signal(&self, signal: Signal) {
        if let Ok(pid) = i32::try_from(self.pid()) {
            // One that has ended need not be told.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        self.signal(Signal::SIGTERM);
        let end = clock::monotonic() + GRACE;
        while matches!(self.child.try_wait(), Ok(None)) && clock::monotonic() < end {
            std::thread::sleep(LOOK_AGAIN);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Memory as `/proc/PID/status` tells it.
fn memory(status: &str) -> Option<Memory> {
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    Some(Memory { now: kib("VmRSS:")? * 1024.0, peak: kib("VmHWM:")? * 1024.0 })
}
