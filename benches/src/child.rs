//! Running other programs to their end, and ending them when we are told to stop.
//!
//! A child never sees the terminal's signals: the bench itself decides what ends when, so that clean-up commands
//! survive a second Ctrl-C. What a program's output means is not known here.

use std::io::Read;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Pause between two looks at a child.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long a child may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(3);
/// The most that is kept of each stream of a child.
const OUTPUT_BYTES_MAX: u64 = 16 << 20;

/// We were told to stop by SIGINT, SIGTERM or SIGHUP.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Whether we were told to stop.
#[derive(Debug, Clone)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Listens for SIGINT, SIGTERM and SIGHUP from now on.
    pub(crate) fn on_signals() -> anyhow::Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP]
        {
            signal_hook::flag::register(signal, Arc::clone(&flag)).context("listening for signals")?;
        }
        Ok(Self(flag))
    }

    /// One that is never told: for clean-up.
    pub(crate) fn never() -> Self {
        Self(Arc::new(AtomicBool::new(false)))
    }

    /// # Errors
    /// [`Interrupted`] once we were told to stop.
    pub(crate) fn check(&self) -> Result<(), Interrupted> {
        if self.0.load(Ordering::Relaxed) { Err(Interrupted) } else { Ok(()) }
    }

    /// Waits, unless told to stop.
    ///
    /// # Errors
    /// [`Interrupted`] once we were told to stop.
    pub(crate) fn pause(&self, time: Duration) -> Result<(), Interrupted> {
        let end = now() + time;
        while now() < end {
            self.check()?;
            std::thread::sleep(LOOK_AGAIN);
        }
        self.check()
    }
}

/// Monotonic time, for deadlines only; measured times come from the load generators.
#[expect(clippy::disallowed_methods, reason = "this program links no crate of the mesh, its clock included")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// What a program came to.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    /// Exit code; none if a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Its standard output.
    ///
    /// # Errors
    /// If it did not exit with 0, with the end of what it said.
    pub(crate) fn ok(self, what: &str) -> anyhow::Result<String> {
        if self.code == Some(0) {
            return Ok(self.stdout);
        }
        let said = format!("{}\n{}", self.stdout.trim(), self.stderr.trim());
        let tail: Vec<&str> = said.trim().lines().rev().take(12).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        let code = self.code.map_or_else(|| "a signal".to_owned(), |c| format!("exit code {c}"));
        bail!("{what} ended with {code}: {}", tail.join("\n"))
    }
}

/// A program that runs; ended when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    what: String,
    child: Child,
    stdout: Stream,
    stderr: Stream,
}

impl Running {
    /// Starts a program in a network namespace, or in our own if there is no name.
    pub(crate) fn start(netns: Option<&str>, argv: &[&str]) -> anyhow::Result<Self> {
        let what = argv.first().map(|p| Path::new(p).file_name().unwrap_or_default().display().to_string());
        let what = what.ok_or_else(|| anyhow!("no program was named"))?;
        // A killed bench takes its load generators with it.
        let mut line = vec!["setpriv", "--pdeathsig", "KILL"];
        line.extend_from_slice(argv);
        let mut command = match netns {
            Some(name) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name]).args(&line);
                command
            }
            // Outside the namespaces runs only the lab's own command line, which leaves a daemon behind.
            None => {
                let mut command = Command::new(argv[0]);
                command.args(&argv[1..]);
                command
            }
        };
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("starting {what}"))?;
        let stdout = Stream::read(child.stdout.take());
        let stderr = Stream::read(child.stderr.take());
        Ok(Self { what, child, stdout, stderr })
    }

    /// What it has written to standard error so far.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it does not end in time, or we are told to stop; it is ended then.
    pub(crate) fn finish(mut self, stop: &Stop, patience: Duration) -> anyhow::Result<Output> {
        let end = now() + patience;
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.stdout.close();
                self.stderr.close();
                return Ok(Output {
                    code: status.code(),
                    stdout: self.stdout.text(),
                    stderr: self.stderr.text(),
                });
            }
            stop.check()?;
            if now() > end {
                bail!("{} still runs after {} s: {}", self.what, patience.as_secs(), self.stderr());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    fn end(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let pid = i32::try_from(self.child.id()).expect("the kernel's pids fit");
        // It may have ended just now; then there is nobody to tell.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        let end = now() + GRACE;
        while matches!(self.child.try_wait(), Ok(None)) && now() < end {
            std::thread::sleep(LOOK_AGAIN);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// One stream of a child, read by a thread so that a full pipe never holds the child up.
#[derive(Debug)]
struct Stream {
    text: Arc<Mutex<String>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Stream {
    fn read(from: Option<impl Read + Send + 'static>) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let to = Arc::clone(&text);
        let reader = from.map(|from| {
            std::thread::spawn(move || {
                let (mut from, mut piece) = (from.take(OUTPUT_BYTES_MAX), [0; 4096]);
                while let Ok(n @ 1..) = from.read(&mut piece) {
                    let mut text = to.lock().unwrap_or_else(PoisonError::into_inner);
                    text.push_str(&String::from_utf8_lossy(&piece[..n]));
                }
            })
        });
        Self { text, reader }
    }

    fn text(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the last byte has been read.
    fn close(&mut self) {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// Runs a program to its end.
///
/// # Errors
/// If it cannot be started, takes too long, or we are told to stop.
pub(crate) fn run(
    stop: &Stop,
    netns: Option<&str>,
    argv: &[&str],
    patience: Duration,
) -> anyhow::Result<Output> {
    Running::start(netns, argv)?.finish(stop, patience)
}
