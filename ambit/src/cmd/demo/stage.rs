//! What the tour acts with: the lab's commands, packet captures, waiting for a condition.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use ambit_lab::{LabName, RunDir};
use ambit_runtime::clock;
use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::out;

/// Pause between two looks at a condition.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The tour's lab.
pub(super) struct Stage {
    name: LabName,
    folder: PathBuf,
    ambit: PathBuf,
}

impl Stage {
    pub(super) fn new(name: LabName, folder: PathBuf) -> anyhow::Result<Self> {
        let ambit = std::env::current_exe().context("finding this program's own file")?;
        Ok(Self { name, folder, ambit })
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

    /// Runs `ambit lab …` and shows the command; its standard output.
    pub(super) fn lab(&self, args: &[&str]) -> anyhow::Result<String> {
        out::data(&format!("  $ ambit lab {} --name {}", args.join(" "), self.name.as_str()));
        let output = self.quiet_lab(args)?;
        if !output.status.success() {
            bail!(
                "`ambit lab {}` failed: {}",
                args.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs `ambit lab …` without showing it, whatever its exit code.
    pub(super) fn quiet_lab(&self, args: &[&str]) -> anyhow::Result<Output> {
        let (first, rest) = args.split_first().context("a command")?;
        let name = ["--name", self.name.as_str()];
        let mut command = Command::new(&self.ambit);
        command.arg("lab").arg(first).args(name).args(rest).stdin(Stdio::null());
        command.output().context("running `ambit lab`")
    }

    /// Runs `ambit …` (not `ambit lab`) and shows the command; its standard output.
    pub(super) fn ambit(&self, args: &[&str]) -> anyhow::Result<String> {
        out::data(&format!("  $ ambit {} --name {}", args.join(" "), self.name.as_str()));
        self.quiet_ambit(args)
    }

    /// The same without showing it.
    pub(super) fn quiet_ambit(&self, args: &[&str]) -> anyhow::Result<String> {
        let output = Command::new(&self.ambit).args(args).args(["--name", self.name.as_str()]).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Flow records as JSON, filtered by further arguments.
    pub(super) fn flows(&self, args: &[&str]) -> anyhow::Result<Vec<Value>> {
        let mut command = Command::new(&self.ambit);
        command.args(["flows", "-o", "json", "--last", "10000", "--name", self.name.as_str()]).args(args);
        let text = command.output()?.stdout;
        Ok(text.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }

    /// Runs a command in a pod, whatever its exit code.
    pub(super) fn exec(&self, namespace: &str, pod: &str, command: &[&str]) -> anyhow::Result<Output> {
        let mut args = vec!["exec", "-n", namespace, pod, "--"];
        args.extend(command);
        self.quiet_lab(&args)
    }

    /// Asks cart from a pod with a marker in the request; the HTTP status, 0 if there was none.
    pub(super) fn ask_cart(&self, namespace: &str, pod: &str, marker: &str) -> anyhow::Result<u16> {
        let header = format!("x-marker: {marker}");
        let format = "%{http_code}";
        let url = "http://cart.shop.svc.cluster.local/";
        let output = self.exec(
            namespace,
            pod,
            &["curl", "-s", "-m", "5", "-o", "/dev/null", "-w", format, "-H", &header, url],
        )?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or(0))
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
        let process = Command::new("ip")
            .args([
                "netns",
                "exec",
                &fabric,
                "tcpdump",
                "-i",
                "br0",
                "--immediate-mode",
                "-U",
                "-s",
                "0",
                "-w",
            ])
            .arg(&file)
            .args(["tcp"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
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

    /// Packets on a TCP port, as tcpdump counts them in the file.
    pub(super) fn packets_on(&self, port: u16) -> usize {
        let filter = format!("tcp port {port}");
        let read =
            Command::new("tcpdump").arg("-nr").arg(&self.file).arg(filter).stderr(Stdio::null()).output();
        read.map_or(0, |output| output.stdout.iter().filter(|b| **b == b'\n').count())
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
