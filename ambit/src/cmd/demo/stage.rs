//! What the tour acts with: the lab's commands, packet captures, waiting for a condition.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use ambit_lab::process::MEMBER_ENV;
use ambit_lab::{LabError, LabName, RunDir};
use ambit_runtime::clock;
use anyhow::{Context as _, bail};
use serde_json::Value;

use super::packets::{self, Stream};
use crate::cmd::interrupted::Interrupted;
use crate::out;

/// Pause between two looks at a condition.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The tour's lab.
pub(super) struct Stage {
    name: LabName,
    folder: PathBuf,
    ambit: PathBuf,
    /// Removes the lab when somebody interrupts the tour.
    pub(super) interrupted: Interrupted,
}

/// What came of a request that was sent with curl.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    /// HTTP status; 0 if there was none.
    pub(super) status: u16,
    /// Exit code of curl; that of `ambit lab exec` if curl could not be run.
    curl: i32,
}

impl Answer {
    /// Whether the request was answered with 200.
    pub(super) fn is_ok(self) -> bool {
        self.curl == 0 && self.status == 200
    }

    /// Whether the connection was refused or closed without an answer, by curl's own word.
    pub(super) fn is_refused(self) -> bool {
        // Could not connect; empty reply; reset.
        [7, 52, 56].contains(&self.curl)
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.curl {
            0 => write!(f, "status {}", self.status),
            7 => f.write_str("not connected (curl 7)"),
            52 => f.write_str("closed without an answer (curl 52)"),
            56 => f.write_str("reset (curl 56)"),
            other => write!(f, "curl ended with {other}"),
        }
    }
}

impl Stage {
    pub(super) fn new(name: LabName, folder: PathBuf) -> anyhow::Result<Self> {
        let ambit = std::env::current_exe().context("finding this program's own file")?;
        let interrupted = Interrupted::watch(&name)?;
        Ok(Self { name, folder, ambit, interrupted })
    }

    pub(super) fn name(&self) -> &LabName {
        &self.name
    }

    /// Starts the lab; one that an earlier tour left is removed first.
    pub(super) fn up(&self) -> anyhow::Result<()> {
        self.lab(&["down"])?;
        let files = ["00-namespaces.yaml", "10-workloads.yaml", "20-services.yaml"];
        let paths: Vec<String> = files.iter().map(|f| self.folder.join(f).display().to_string()).collect();
        let mut args = vec!["up", "--nodes", "2", "--set", "leaf_ttl=20s"];
        for path in &paths {
            args.extend(["-f", path]);
        }
        self.lab(&args).map(drop)
    }

    /// A command of this program for this lab, as somebody types it.
    pub(super) fn typed(&self, args: &[&str]) -> String {
        [&[&*out::program()][..], &self.named(args)].concat().join(" ")
    }

    /// Arguments with the lab's name, before what a pod is to run.
    fn named<'b>(&'b self, args: &[&'b str]) -> Vec<&'b str> {
        let at = args.iter().position(|word| *word == "--").unwrap_or(args.len());
        // `--name` of `ambit waypoint` is the waypoint's.
        let flag = if args.first() == Some(&"waypoint") { "--lab" } else { "--name" };
        [&args[..at], &[flag, self.name.as_str()], &args[at..]].concat()
    }

    /// Starts a process that belongs to the lab, so that whoever removes the lab finds it.
    fn spawn(&self, command: &mut Command) -> anyhow::Result<Child> {
        command.env(MEMBER_ENV, self.name.as_str()).stdin(Stdio::null());
        let program = command.get_program().to_string_lossy().into_owned();
        let start = || command.spawn().map_err(|cause| LabError::Start { program, cause });
        Ok(self.interrupted.make(start)?)
    }

    fn run(&self, args: &[&str]) -> anyhow::Result<Output> {
        let mut command = Command::new(&self.ambit);
        command.args(self.named(args)).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = self.spawn(&mut command)?;
        child.wait_with_output().with_context(|| format!("running `{}`", self.typed(args)))
    }

    /// Runs `ambit lab …` and shows the command; its standard output.
    pub(super) fn lab(&self, args: &[&str]) -> anyhow::Result<String> {
        self.done(&[&["lab"][..], args].concat())
    }

    /// Runs `ambit …` and shows the command; its standard output, if it succeeded.
    pub(super) fn done(&self, args: &[&str]) -> anyhow::Result<String> {
        out::data(&format!("  $ {}", self.typed(args)));
        let output = self.run(args)?;
        if !output.status.success() {
            bail!("`{}` failed: {}", self.typed(args), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs `ambit …` (not `ambit lab`) and shows the command; its standard output.
    pub(super) fn ambit(&self, args: &[&str]) -> anyhow::Result<String> {
        out::data(&format!("  $ {}", self.typed(args)));
        self.quiet(args)
    }

    /// Runs `ambit …` without showing it, whatever its exit code; its standard output.
    pub(super) fn quiet(&self, args: &[&str]) -> anyhow::Result<String> {
        Ok(String::from_utf8_lossy(&self.run(args)?.stdout).into_owned())
    }

    /// The lab's own account of its nodes, programs and pods.
    pub(super) fn status(&self) -> anyhow::Result<Value> {
        let text = self.quiet(&["lab", "status", "-o", "json"])?;
        serde_json::from_str(&text).context("reading `ambit lab status`")
    }

    /// The process of one of the mesh's programs; none while it does not run.
    pub(super) fn program(&self, target: &str) -> anyhow::Result<Option<u64>> {
        let status = self.status()?;
        let programs = status["programs"].as_array().cloned().unwrap_or_default();
        let found = programs.iter().find(|p| p["target"] == target).context("the lab has such a program")?;
        Ok(found["pid"].as_u64())
    }

    /// Flow records as JSON, filtered by further arguments.
    pub(super) fn flows(&self, args: &[&str]) -> anyhow::Result<Vec<Value>> {
        let text = self.quiet(&[&["flows", "-o", "json", "--last", "10000"][..], args].concat())?;
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// Asks cart from a pod with a marker in the request.
    pub(super) fn ask_cart(&self, namespace: &str, pod: &str, marker: &str) -> anyhow::Result<Answer> {
        let header = format!("x-marker: {marker}");
        self.ask(namespace, pod, "http://cart.shop.svc.cluster.local/", &["-H", &header])
    }

    /// Sends one request from a pod.
    pub(super) fn ask(
        &self,
        namespace: &str,
        pod: &str,
        url: &str,
        options: &[&str],
    ) -> anyhow::Result<Answer> {
        let curl = ["curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}"];
        let exec = ["lab", "exec", "-n", namespace, pod, "--"];
        let output = self.run(&[&exec[..], &curl, options, &[url]].concat())?;
        let status = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or(0);
        Ok(Answer { status, curl: output.status.code().unwrap_or(-1) })
    }

    /// Runs a command in a pod without showing it, whatever its exit code; its standard output.
    pub(super) fn exec(&self, namespace: &str, pod: &str, command: &[&str]) -> anyhow::Result<String> {
        self.quiet(&[&["lab", "exec", "-n", namespace, pod, "--"], command].concat())
    }

    /// A file of the tour.
    pub(super) fn file(&self, name: &str) -> String {
        self.folder.join("steps").join(name).display().to_string()
    }

    /// Lines of a pod's log that begin with `word`.
    pub(super) fn count(&self, namespace: &str, pod: &str, word: &str) -> usize {
        let path = RunDir::of(&self.name).pod_log(namespace, pod);
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().filter(|line| line.starts_with(word)).count()
    }

    /// Begins to capture what crosses the fabric's bridge.
    pub(super) fn capture(&self) -> anyhow::Result<Capture> {
        let file = RunDir::of(&self.name).root().join("demo.pcap");
        // Left over from an earlier step, or not there.
        let _ = std::fs::remove_file(&file);
        let fabric = self.name.fabric();
        let mut command = Command::new("ip");
        // -Z root: in a lab without root there is no other user to become.
        command.args(["netns", "exec", &fabric, "tcpdump", "-i", "br0", "--immediate-mode", "-U"]);
        command.args(["-Z", "root", "-s", "0", "-w"]).arg(&file).arg("tcp");
        let process = self
            .spawn(command.stdout(Stdio::null()).stderr(Stdio::null()))
            .context("starting tcpdump; is it installed?")?;
        let capture = Capture { process, file };
        // The file's head is written once the capture runs.
        eventually(Duration::from_secs(5), || capture.bytes().len() >= 24)
            .context("tcpdump did not start")?;
        Ok(capture)
    }
}

/// A running packet capture; ended when dropped.
pub(super) struct Capture {
    process: Child,
    file: PathBuf,
}

impl Capture {
    /// What was captured so far.
    pub(super) fn bytes(&self) -> Vec<u8> {
        read(&self.file)
    }

    /// Whether a text crossed the fabric in clear.
    pub(super) fn shows(&self, text: &str) -> bool {
        let wanted = text.as_bytes();
        self.bytes().windows(wanted.len()).any(|window| window == wanted)
    }

    /// What was sent to and from a TCP port on connections whose beginning was captured.
    pub(super) fn streams_on(&self, port: u16) -> Vec<Stream> {
        packets::streams(&self.bytes(), port)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // Already gone is what is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn read(file: &Path) -> Vec<u8> {
    std::fs::read(file).unwrap_or_default()
}

/// Waits until something holds.
///
/// # Errors
/// When it does not within `within`.
pub(super) fn eventually(within: Duration, mut holds: impl FnMut() -> bool) -> anyhow::Result<Duration> {
    let begun = clock::monotonic();
    loop {
        let waited = clock::monotonic().saturating_duration_since(begun);
        if holds() {
            return Ok(waited);
        }
        if waited >= within {
            bail!("it did not come about within {within:?}");
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}
