//! Commands that run beside a test, and what they came to.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ambit_runtime::clock;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::LOOK_AGAIN;

/// What a command came to.
#[derive(Debug, Clone)]
pub struct Output {
    /// Exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl Output {
    /// Its standard output.
    ///
    /// # Panics
    /// If it did not exit with 0.
    #[track_caller]
    #[must_use]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "exit code; stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout
    }
}

/// A process that runs beside the test, in a pod or not; ended when dropped.
#[derive(Debug)]
pub struct Background {
    what: String,
    child: Child,
    files: TempDir,
    since: std::time::Instant,
}

impl Background {
    /// Starts a command beside the test.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let what = format!("{command:?}");
        let files = TempDir::new().expect("a temporary folder");
        let file = |name: &str| File::create(files.path().join(name)).expect("a temporary file");
        command.stdin(Stdio::null()).stdout(file("out")).stderr(file("err"));
        let since = clock::monotonic();
        let child = command.spawn().unwrap_or_else(|e| panic!("starting {what}: {e}"));
        Self { what, child, files, since }
    }

    /// What it has written to standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.read("out")
    }

    /// What it has written to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.read("err")
    }

    fn read(&self, name: &str) -> String {
        let bytes = fs::read(self.files.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether it still runs.
    ///
    /// # Panics
    /// If its state cannot be read.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child's state").is_none()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not end in time.
    #[track_caller]
    #[must_use]
    pub fn finish(mut self, deadline: Duration) -> Output {
        let end = self.since + deadline;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child's state") {
                let took = clock::monotonic() - self.since;
                return Output { code: status.code(), stdout: self.stdout(), stderr: self.stderr(), took };
            }
            if clock::monotonic() > end {
                let (what, out, err) = (self.what.clone(), self.stdout(), self.stderr());
                panic!("{what} still runs after {deadline:?}; stdout: {out}\nstderr: {err}");
            }
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// Ends it with SIGTERM and waits.
    ///
    /// # Panics
    /// If it does not end within ten seconds.
    #[track_caller]
    #[must_use]
    pub fn stop(self) -> Output {
        self.signal(Signal::SIGTERM);
        let so_far = clock::monotonic() - self.since;
        self.finish(so_far + Duration::from_secs(10))
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal; one that has ended is no error.
    ///
    /// # Panics
    /// If its pid is none.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("the kernel's pids fit");
        // It may have ended just now; then there is nobody to tell.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{} said: {}{}", self.what, self.stdout(), self.stderr());
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            // `lab exec` passes SIGTERM on to the command in the pod, which SIGKILL would leave behind.
            self.signal(Signal::SIGTERM);
            let end = clock::monotonic() + Duration::from_secs(2);
            while matches!(self.child.try_wait(), Ok(None)) && clock::monotonic() < end {
                std::thread::sleep(LOOK_AGAIN);
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
