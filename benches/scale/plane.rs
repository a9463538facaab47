//! The control plane that is measured: the program itself, started over one source and asked by its admin socket.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ambit_net::grpc::channel::Target;
use ambit_runtime::admin::client;
use ambit_runtime::clock;
use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::process::{Memory, Process};

/// How long reading all objects may take.
const READY_MAX: Duration = Duration::from_secs(600);
/// Pause between two looks whether they are read.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Pause between two questions how far the proxies are; each answer names every node.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// How long the proxies may take to have everything.
const ANSWERED_MAX: Duration = Duration::from_secs(120);

/// A running control plane; ended when dropped.
#[derive(Debug)]
pub(crate) struct Plane {
    process: Process,
    admin: PathBuf,
    state: PathBuf,
    listen: SocketAddr,
    /// From its start until it had read all objects and served.
    pub ready_after: Duration,
}

impl Plane {
    /// Starts it and waits until it is ready; `home` is a folder of its own, `source` the arguments that name its
    /// objects.
    ///
    /// # Errors
    /// If it ends, or is not ready in time.
    pub(crate) async fn start(program: &Path, home: &Path, source: Vec<String>) -> anyhow::Result<Self> {
        fs::create_dir_all(home).with_context(|| format!("making {}", home.display()))?;
        let (admin, state) = (home.join("admin.sock"), home.join("state"));
        let listen = free_port()?;
        let mut args = vec![
            format!("--state-dir={}", state.display()),
            format!("--listen={listen}"),
            format!("--admin-socket={}", admin.display()),
            "--drain-grace=1s".to_owned(),
            // Longer than the benchmark, so that no stream is opened anew while something is measured.
            "--stream-age-max=24h".to_owned(),
        ];
        args.extend(source);
        let started = clock::monotonic();
        let process = Process::start(program, &args, home)?;
        let mut plane = Self { process, admin, state, listen, ready_after: Duration::ZERO };
        loop {
            plane.process.check()?;
            // Until all objects are read there is no socket.
            let answer = client::get(&plane.admin, "/healthz/ready").await;
            let after = clock::monotonic().saturating_duration_since(started);
            if answer.is_ok_and(|answer| answer.status.is_success()) {
                plane.ready_after = after;
                return Ok(plane);
            }
            if after > READY_MAX {
                let words = plane.process.last_words();
                bail!("istiod-lite is not ready after {} s: {words}", READY_MAX.as_secs());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// How proxies reach it.
    pub(crate) fn target(&self) -> Target {
        Target {
            address: format!("https://{}", self.listen),
            roots: self.state.join("root-cert.pem").display().to_string(),
            alternative_name: None,
            local_address: None,
        }
    }

    /// Its memory.
    ///
    /// # Errors
    /// If it has ended.
    pub(crate) fn memory(&self) -> anyhow::Result<Memory> {
        self.process.memory()
    }

    /// CPU-seconds it has used.
    ///
    /// # Errors
    /// If it has ended.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        ambit_benches::cpu_seconds(self.process.pid())
    }

    /// Waits until `count` proxies are connected and have answered everything up to a revision.
    ///
    /// # Errors
    /// If that does not come about.
    pub(crate) async fn until_answered(&mut self, revision: u64, count: usize) -> anyhow::Result<()> {
        let end = clock::monotonic() + ANSWERED_MAX;
        loop {
            self.process.check()?;
            let sync = self.ask("/sync").await?;
            let answered = answered(&sync, revision);
            if answered >= count {
                return Ok(());
            }
            if clock::monotonic() > end {
                let at = &sync["revision"];
                bail!(
                    "only {answered} of {count} proxies have answered revision {revision} after {} s; the control \
                     plane itself is at {at}",
                    ANSWERED_MAX.as_secs()
                );
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// The revision it has taken in.
    ///
    /// # Errors
    /// If it does not say.
    pub(crate) async fn revision(&self) -> anyhow::Result<u64> {
        self.ask("/sync").await?["revision"].as_u64().context("/sync names no revision")
    }

    /// What is wrong with the objects, which must be nothing.
    ///
    /// # Errors
    /// Names the first problem.
    pub(crate) async fn check_objects(&self) -> anyhow::Result<()> {
        let sync = self.ask("/sync").await?;
        let problems = sync["problems"].as_array().map(Vec::as_slice).unwrap_or_default();
        match problems {
            [] => Ok(()),
            [first, ..] => bail!("{} objects of the benchmark are refused, such as: {first}", problems.len()),
        }
    }

    async fn ask(&self, what: &str) -> anyhow::Result<Value> {
        let answer = client::get(&self.admin, what).await?;
        serde_json::from_slice(&answer.body).with_context(|| format!("reading the answer to {what}"))
    }
}

fn answered(sync: &Value, revision: u64) -> usize {
    let nodes = sync["nodes"].as_array().into_iter().flatten();
    let is_there = |node: &&Value| {
        node["connected"] == true && node["acked_revision"].as_u64().is_some_and(|acked| acked >= revision)
    };
    nodes.filter(is_there).count()
}

/// A port that nobody listens on.
fn free_port() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("looking for a free port")?;
    listener.local_addr().context("looking for a free port")
}
