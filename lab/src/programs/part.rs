//! The task of one program: commands in order, restarts with a growing pause, graceful replacement.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ambit_net::linux::netns::NetNs;
use ambit_runtime::{admin, clock, tasks};
use nix::sys::signal::Signal;
use tokio::sync::{mpsc, watch};

use super::spec::{self, Spec, Target};
use super::{Command, Home, PartState, Told};
use crate::error::LabError;
use crate::kube::{self, Source};
use crate::process::{self, Exit, Launch, MEMBER_ENV, Running, Signaller, tail};

/// How long a program may take from its start to its first readiness.
const READY_PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two questions for readiness.
const READY_AGAIN: Duration = Duration::from_millis(20);
/// Time between SIGTERM and SIGKILL when a program is stopped by command.
const STOP_GRACE: Duration = Duration::from_secs(30);
/// Time between SIGTERM and SIGKILL when the lab goes down.
const END_GRACE: Duration = Duration::from_millis(500);
/// First pause before a program that keeps ending is started again; the very first time there is none.
const BACK_OFF_FIRST: Duration = Duration::from_millis(200);
/// Longest such pause.
const BACK_OFF_MAX: Duration = Duration::from_secs(10);
/// A program that ran this long is started again without a pause.
const RAN_WELL: Duration = Duration::from_secs(10);

/// Starts the task; it ends with its last command sender.
pub(super) fn begin(
    home: Arc<Home>,
    target: Target,
    inbox: mpsc::Receiver<Told>,
    state: watch::Sender<PartState>,
) {
    let mut keeper = Keeper {
        home,
        target,
        state,
        current: None,
        draining: Vec::new(),
        instance: 0,
        pause: Duration::ZERO,
        start_at: None,
    };
    keeper.take_over();
    tasks::spawn("program", keeper.run(inbox));
}

struct Current {
    running: Running,
    admin: std::path::PathBuf,
    since: Instant,
}

struct Keeper {
    home: Arc<Home>,
    target: Target,
    state: watch::Sender<PartState>,
    current: Option<Current>,
    draining: Vec<Signaller>,
    instance: u64,
    pause: Duration,
    start_at: Option<Instant>,
}

impl Keeper {
    async fn run(mut self, mut inbox: mpsc::Receiver<Told>) {
        loop {
            tokio::select! {
                told = inbox.recv() => {
                    let Some((command, reply)) = told else { return };
                    let result = self.obey(command).await;
                    // Whoever asked may have left; the command was carried out all the same.
                    let _ = reply.send(result);
                }
                exit = ended(&mut self.current) => self.after_end(exit),
                () = until(self.start_at) => self.start_again(),
            }
        }
    }

    async fn obey(&mut self, command: Command) -> Result<(), LabError> {
        match command {
            Command::Start => {
                self.state.send_modify(|s| s.wanted = true);
                self.pause = Duration::ZERO;
                if self.current.is_none() {
                    self.launch_alone()?;
                }
                self.wait_ready().await
            }
            Command::Stop => {
                self.stop(STOP_GRACE).await;
                Ok(())
            }
            Command::Restart if matches!(self.target, Target::Ztunnel(_)) && self.current.is_some() => {
                self.replace().await
            }
            Command::Restart => {
                self.stop(STOP_GRACE).await;
                self.state.send_modify(|s| s.wanted = true);
                self.launch_alone()?;
                self.wait_ready().await
            }
            Command::Kill => self.kill().await,
            Command::End => {
                self.stop(END_GRACE).await;
                for old in self.draining.drain(..) {
                    signal(&self.target, &old, Signal::SIGKILL);
                }
                Ok(())
            }
        }
    }

    /// Takes charge of a part of the cluster's control plane, which runs before the lab's programs do.
    fn take_over(&mut self) {
        let (Target::Kube(part), Some(cluster)) = (&self.target, &self.home.kube) else { return };
        let admin = kube::spec::part(*part, &self.home.config, &self.home.run).admin;
        match process::adopt(cluster.first_pid(*part)) {
            Ok(running) => {
                let pid = Some(running.pid);
                self.current = Some(Current { running, admin, since: clock::monotonic() });
                self.state.send_modify(|s| (s.pid, s.ready, s.wanted) = (pid, true, true));
            }
            Err(error) => {
                tracing::warn!(part = %self.target, %error, "it has ended already; starting it again");
                self.state.send_modify(|s| s.wanted = true);
                self.start_at = Some(clock::monotonic());
            }
        }
    }

    /// Starts the program as the only instance, known by its usual names at once.
    fn launch_alone(&mut self) -> Result<(), LabError> {
        self.launch()?;
        match &self.current {
            Some(current) => self.point_at(&current.admin),
            None => Ok(()),
        }
    }

    /// Starts the program; it is not ready yet.
    fn launch(&mut self) -> Result<(), LabError> {
        self.instance += 1;
        self.start_at = None;
        let (spec, netns) = self.spec()?;
        let path = self.target.log(&self.home.run);
        let open = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
        let log = open.map_err(LabError::file("opening log", path))?;
        let program = match (&self.target, &self.home.kube) {
            (Target::Kube(_), Some(cluster)) => cluster.binary.clone(),
            _ => self.home.binaries.join(spec.program),
        };
        let mut argv = vec![program.to_string_lossy().into_owned()];
        argv.extend(spec.args);
        let mut env = spec.env;
        env.push((MEMBER_ENV.to_owned(), self.home.lab.to_string()));
        let runner = self.home.runner.clone();
        let launch = Launch { runner, argv, env, directory: "/".into(), netns, container: None, log };
        let running = tokio::task::block_in_place(|| process::start(launch))?;
        tracing::info!(part = %self.target, pid = running.pid, "started");
        let pid = running.pid;
        self.current = Some(Current { running, admin: spec.admin, since: clock::monotonic() });
        self.state.send_modify(|s| (s.pid, s.ready) = (Some(pid), false));
        Ok(())
    }

    fn spec(&self) -> Result<(Spec, NetNs), LabError> {
        let home = &self.home;
        let unknown = || LabError::Failed(format!("{} is no program of this lab", self.target));
        let (config, run) = (&home.config, &home.run);
        let is_kube = config.source == Source::Kube;
        let (spec, place) = match &self.target {
            Target::Kube(part) => (kube::spec::part(*part, config, run), &home.fabric),
            Target::Istiod if is_kube => (kube::spec::istiod(config, run, 0), &home.fabric),
            Target::Istiod => (spec::istiod(config, run), &home.fabric),
            Target::Replica(replica) => (kube::spec::istiod(config, run, *replica), &home.fabric),
            Target::Cni(node) => {
                let (node, place) = home.nodes.get(node).ok_or_else(unknown)?;
                let spec = if is_kube { kube::spec::cni } else { spec::cni };
                (spec(config, run, node), place)
            }
            Target::Ztunnel(node) => {
                let (node, place) = home.nodes.get(node).ok_or_else(unknown)?;
                let spec = if is_kube { kube::spec::ztunnel } else { spec::ztunnel };
                (spec(config, run, node, self.instance), place)
            }
            Target::Pod { .. } | Target::Waypoint { .. } => return Err(unknown()),
        };
        let netns =
            place.netns.try_clone().map_err(LabError::file("opening namespace", place.name.clone()))?;
        Ok((spec, netns))
    }

    /// Waits until the current instance is ready; an instance that ends instead is an error.
    async fn wait_ready(&mut self) -> Result<(), LabError> {
        let Some(current) = &mut self.current else { return Ok(()) };
        let admin = current.admin.clone();
        let (home, target) = (Arc::clone(&self.home), self.target.clone());
        let outcome = tokio::select! {
            ready = tokio::time::timeout(READY_PATIENCE, ready(&home, &target, &admin)) => ready.is_ok(),
            exit = &mut current.running.ended => {
                let code = exit.map_or(255, |Exit { code }| code);
                self.after_end(code);
                return Err(self.not_ready(&format!("it ended with exit code {code}")));
            }
        };
        if !outcome {
            let why = match &self.target {
                Target::Kube(_) => "it does not answer".to_owned(),
                _ => format!("{} does not answer 200", admin.display()),
            };
            return Err(self.not_ready(&why));
        }
        self.state.send_modify(|s| s.ready = true);
        Ok(())
    }

    fn not_ready(&self, why: &str) -> LabError {
        let target = &self.target;
        let tail = tail(&target.log(&self.home.run));
        let more = self.home.lab.command(&format!("logs {target}"));
        let waited = READY_PATIENCE.as_secs();
        LabError::Failed(format!(
            "{target} is not ready after up to {waited} s: {why}; its last lines:\n{tail}\nmore: {more}"
        ))
    }

    /// Moves the well-known name of the admin socket to the instance that now counts.
    fn point_at(&self, admin: &Path) -> Result<(), LabError> {
        let Target::Ztunnel(node) = &self.target else { return Ok(()) };
        let own = self.home.run.node(node);
        let (link, fresh) = (own.join("ztunnel-admin.sock"), own.join("ztunnel-admin.sock.new"));
        let moved = remove_if_there(&fresh)
            .and_then(|()| symlink(admin.file_name().unwrap_or(admin.as_os_str()), &fresh))
            .and_then(|()| fs::rename(&fresh, &link));
        moved.map_err(LabError::file("linking the admin socket at", link))
    }

    /// Starts a second instance beside the first, waits for it, then lets the first one drain.
    async fn replace(&mut self) -> Result<(), LabError> {
        let old = self.current.take();
        let back = |keeper: &mut Self, old: Option<Current>| {
            if let Some(failed) = keeper.current.take() {
                signal(&keeper.target, &failed.running.signaller(), Signal::SIGKILL);
            }
            let pid = old.as_ref().map(|c| c.running.pid);
            keeper.current = old;
            keeper.start_at = None;
            keeper.state.send_modify(|s| (s.pid, s.ready) = (pid, pid.is_some()));
        };
        let begun = match self.launch() {
            Ok(()) => self.wait_ready().await,
            Err(e) => Err(e),
        };
        if let Err(e) = begun {
            back(self, old);
            return Err(e);
        }
        if let Some(current) = &self.current {
            self.point_at(&current.admin)?;
        }
        if let Some(old) = old {
            self.drain(old);
        }
        Ok(())
    }

    fn drain(&mut self, old: Current) {
        let (pid, signaller) = (old.running.pid, old.running.signaller());
        signal(&self.target, &signaller, Signal::SIGTERM);
        self.draining.push(signaller);
        self.state.send_modify(|s| s.draining.push(pid));
        let state = self.state.clone();
        tasks::spawn("drained program", async move {
            let _ = old.running.ended.await;
            let _ = remove_if_there(&old.admin);
            state.send_modify(|s| s.draining.retain(|p| *p != pid));
        });
    }

    /// Ends the current instance and keeps it ended.
    async fn stop(&mut self, grace: Duration) {
        self.start_at = None;
        self.state.send_modify(|s| s.wanted = false);
        let Some(mut current) = self.current.take() else { return };
        let signaller = current.running.signaller();
        signal(&self.target, &signaller, Signal::SIGTERM);
        let mut exit = tokio::time::timeout(grace, &mut current.running.ended).await;
        if exit.is_err() {
            signal(&self.target, &signaller, Signal::SIGKILL);
            exit = Ok(current.running.ended.await);
        }
        let code = exit.ok().and_then(Result::ok).map(|e| e.code);
        self.state.send_modify(|s| (s.pid, s.ready, s.last_code) = (None, false, code));
    }

    async fn kill(&mut self) -> Result<(), LabError> {
        let Some(current) = &mut self.current else {
            let start = self.home.lab.command(&format!("start {}", self.target));
            return Err(LabError::Failed(format!("{} does not run; start it with: {start}", self.target)));
        };
        signal(&self.target, &current.running.signaller(), Signal::SIGKILL);
        let code = (&mut current.running.ended).await.map_or(255, |Exit { code }| code);
        self.after_end(code);
        Ok(())
    }

    fn after_end(&mut self, code: i32) {
        let ended = self.current.take();
        if let (Some(ended), Target::Ztunnel(_)) = (&ended, &self.target) {
            // Each instance has a socket of its own name; nobody else would remove it.
            let _ = remove_if_there(&ended.admin);
        }
        let ran = ended.map(|c| clock::monotonic() - c.since).unwrap_or_default();
        self.pause = if ran >= RAN_WELL { Duration::ZERO } else { self.pause };
        let wanted = self.state.borrow().wanted;
        self.state.send_modify(|s| (s.pid, s.ready, s.last_code) = (None, false, Some(code)));
        if wanted {
            self.start_at = Some(clock::monotonic() + self.pause);
            tracing::warn!(part = %self.target, code, again_in = ?self.pause, "ended; starting it again");
            self.pause = (self.pause * 2).clamp(BACK_OFF_FIRST, BACK_OFF_MAX);
        }
    }

    /// Starts it again unasked; nothing waits for its readiness, so that commands are still obeyed.
    fn start_again(&mut self) {
        self.state.send_modify(|s| s.restarts += 1);
        if let Err(e) = self.launch_alone() {
            tracing::warn!(part = %self.target, error = e.full(), "starting it again");
            self.start_at = Some(clock::monotonic() + self.pause.max(BACK_OFF_FIRST));
            return;
        }
        let Some(current) = &self.current else { return };
        let (admin, pid, state) = (current.admin.clone(), current.running.pid, self.state.clone());
        let (home, target) = (Arc::clone(&self.home), self.target.clone());
        tasks::spawn("program readiness", async move {
            let mut watched = state.subscribe();
            let ended = watched.wait_for(|s| s.pid != Some(pid));
            tokio::select! {
                () = ready(&home, &target, &admin) => state.send_modify(|s| s.ready |= s.pid == Some(pid)),
                _ = ended => {}
            }
        });
    }
}

async fn ended(current: &mut Option<Current>) -> i32 {
    match current {
        Some(current) => (&mut current.running.ended).await.map_or(255, |Exit { code }| code),
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Resolves when the program answers that it is ready.
async fn ready(home: &Home, target: &Target, admin: &Path) {
    loop {
        let is_ready = match (target, &home.kube) {
            (Target::Kube(part), Some(cluster)) => cluster.is_ready(*part, admin).await,
            _ => admin::client::get(admin, "/healthz/ready").await.is_ok_and(|a| a.status.is_success()),
        };
        if is_ready {
            return;
        }
        tokio::time::sleep(READY_AGAIN).await;
    }
}

fn signal(target: &Target, to: &Signaller, signal: Signal) {
    if let Err(e) = to.send(signal) {
        tracing::warn!(part = %target, %signal, error = %e, "sending a signal");
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
