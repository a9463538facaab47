//! The mesh's programs: starting, watching, replacing and ending them.
//!
//! Each has a task of its own that obeys commands in order and starts the program again when it ends
//! unasked, as a kubelet would. What the programs do is their own business; only `/healthz/ready` is asked.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::LabConfig;
use crate::error::LabError;
use crate::kube::{Cluster, KubePart, Source};
use crate::link::Place;
use crate::name::LabName;
use crate::paths::RunDir;
use crate::topology::Node;

mod part;
pub mod spec;

pub use spec::Target;

/// Commands that wait for one program's task.
const COMMANDS_WAITING: usize = 8;

/// Where the programs run and what they are started from.
#[derive(Debug, Clone)]
pub struct Home {
    /// The lab.
    pub lab: LabName,
    /// Its files.
    pub run: RunDir,
    /// How it was started.
    pub config: LabConfig,
    /// Directory of the mesh's programs.
    pub binaries: PathBuf,
    /// Our own binary.
    pub runner: PathBuf,
    /// The fabric's namespace.
    pub fabric: Arc<Place>,
    /// Namespaces of the nodes.
    pub nodes: BTreeMap<String, (Node, Arc<Place>)>,
    /// The cluster's own control plane, if objects live in an API server.
    pub kube: Option<Arc<Cluster>>,
}

/// What one program is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PartState {
    /// Its process, if it runs.
    pub pid: Option<u32>,
    /// Whether it has been ready since it started.
    pub ready: bool,
    /// Whether it is meant to run.
    pub wanted: bool,
    /// How often it was started again without being asked.
    pub restarts: u32,
    /// Exit code of the last run that ended.
    pub last_code: Option<i32>,
    /// Processes of replaced instances that still serve old connections.
    pub draining: Vec<u32>,
}

/// What a program's task can be told; the answer says when it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Start it and wait until it is ready; nothing if it runs.
    Start,
    /// SIGTERM, SIGKILL after its grace; it stays stopped.
    Stop,
    /// A new instance; for ztunnel beside the old one, which then drains.
    Restart,
    /// SIGKILL; it comes back by itself.
    Kill,
    /// End everything of it at once, for good.
    End,
}

type Told = (Command, oneshot::Sender<Result<(), LabError>>);

/// One program as the daemon holds it.
#[derive(Debug)]
pub struct Part {
    /// What it is doing.
    pub state: watch::Receiver<PartState>,
    commands: mpsc::Sender<Told>,
}

impl Part {
    /// Tells the program's task something; await the result outside the daemon's loop.
    pub fn tell(&self, command: Command) -> impl Future<Output = Result<(), LabError>> + Send + use<> {
        let commands = self.commands.clone();
        async move {
            let (reply, answer) = oneshot::channel();
            let lost = || LabError::Failed("the program's task is gone; the lab is going down".to_owned());
            commands.send((command, reply)).await.map_err(|_| lost())?;
            answer.await.map_err(|_| lost())?
        }
    }
}

/// All programs of a lab.
#[derive(Debug, Default)]
pub struct Programs {
    parts: BTreeMap<Target, Part>,
}

impl Programs {
    /// Prepares the programs of a mesh, if there is to be one; none of them runs yet. The cluster's own do.
    ///
    /// # Errors
    /// [`LabError::ProgramMissing`] for the first program that is not beside our own.
    pub fn of(home: &Arc<Home>) -> Result<Self, LabError> {
        let needed = ["istiod-lite", "ambit-cni", "ztunnel"];
        for program in needed.into_iter().filter(|_| home.config.mesh) {
            let path = home.binaries.join(program);
            if !path.is_file() {
                return Err(LabError::ProgramMissing { program, path });
            }
        }
        let parts = Self::targets(home).into_iter().map(|target| {
            let (commands, inbox) = mpsc::channel(COMMANDS_WAITING);
            let (told, state) = watch::channel(PartState::default());
            part::begin(Arc::clone(home), target.clone(), inbox, told);
            (target, Part { state, commands })
        });
        Ok(Self { parts: parts.collect() })
    }

    fn targets(home: &Home) -> Vec<Target> {
        let mut targets = Vec::new();
        if home.kube.is_some() {
            targets.extend(KubePart::ALL.map(Target::Kube));
        }
        if home.config.mesh {
            let is_kube = home.config.source == Source::Kube;
            let replicas = if is_kube { home.config.kube.istiod_replicas } else { 1 };
            targets.extend((0..replicas).map(Target::istiod));
            for node in home.nodes.keys() {
                targets.extend([Target::Cni(node.clone()), Target::Ztunnel(node.clone())]);
            }
        }
        targets
    }

    /// One program.
    ///
    /// # Errors
    /// Names the programs there are.
    pub fn part(&self, target: &Target) -> Result<&Part, LabError> {
        self.parts.get(target).ok_or_else(|| {
            let known: Vec<String> = self.parts.keys().map(ToString::to_string).collect();
            let known =
                if known.is_empty() { "none, it runs without a mesh".to_owned() } else { known.join(", ") };
            LabError::Failed(format!("the lab has no {target}; its programs are: {known}"))
        })
    }

    /// All programs, control planes first.
    pub fn iter(&self) -> impl Iterator<Item = (&Target, &Part)> {
        self.parts.iter()
    }
}
