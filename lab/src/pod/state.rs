//! What a pod is doing, as its own life reports it. Values only.

use std::collections::BTreeMap;
use std::time::SystemTime;

/// Why a container waits that was stopped by command.
pub const STOPPED: &str = "Stopped";

/// What one container is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerState {
    /// Not running yet, or waiting to be started again.
    Waiting {
        /// A word as the kubelet uses it (`ContainerCreating`, `CrashLoopBackOff`), or [`STOPPED`].
        reason: &'static str,
        /// For a person; may be empty.
        message: String,
    },
    /// Running.
    Running {
        /// Its first process, on this machine.
        pid: u32,
        /// Since when.
        since: SystemTime,
    },
    /// Ended for good.
    Ended {
        /// Exit code.
        code: i32,
    },
}

/// One container with its history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerReport {
    /// What it does now.
    pub state: ContainerState,
    /// How often it was started again.
    pub restarts: u32,
    /// Exit code of the last run, if there was one.
    pub last_code: Option<i32>,
}

impl Default for ContainerReport {
    fn default() -> Self {
        let state = ContainerState::Waiting { reason: "ContainerCreating", message: String::new() };
        Self { state, restarts: 0, last_code: None }
    }
}

/// Everything a pod reports about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodState {
    /// Why the pod cannot begin; empty once it has.
    pub blocked: Option<String>,
    /// Whether its namespace and links exist.
    pub sandbox: bool,
    /// Whether every init container has ended well.
    pub initialized: bool,
    /// Init containers by name.
    pub init: BTreeMap<String, ContainerReport>,
    /// Containers by name.
    pub containers: BTreeMap<String, ContainerReport>,
    /// Whether it is being ended.
    pub ending: bool,
    /// Whether everything of it is gone.
    pub gone: bool,
}

impl PodState {
    /// The process whose namespaces a command in this pod joins: a named container's, or the first that runs.
    pub fn process(&self, container: Option<&str>) -> Option<u32> {
        let running = |report: &ContainerReport| match report.state {
            ContainerState::Running { pid, .. } => Some(pid),
            ContainerState::Waiting { .. } | ContainerState::Ended { .. } => None,
        };
        match container {
            Some(name) => self.containers.get(name).or_else(|| self.init.get(name)).and_then(running),
            None => self.containers.values().chain(self.init.values()).find_map(running),
        }
    }

    /// The containers that run, with their processes.
    pub fn running(&self) -> BTreeMap<String, u32> {
        let pid = |(name, report): (&String, &ContainerReport)| match report.state {
            ContainerState::Running { pid, .. } => Some((name.clone(), pid)),
            ContainerState::Waiting { .. } | ContainerState::Ended { .. } => None,
        };
        self.containers.iter().filter_map(pid).collect()
    }

    /// Whether nothing of a pod that was told to stop runs any more, or will before it is told to start.
    pub fn stopped(&self) -> bool {
        let rests = |r: &ContainerReport| match r.state {
            ContainerState::Waiting { reason, .. } => reason == STOPPED,
            ContainerState::Running { .. } => false,
            ContainerState::Ended { .. } => true,
        };
        let runs = |r: &ContainerReport| matches!(r.state, ContainerState::Running { .. });
        match self.initialized {
            true => self.containers.values().all(rests),
            // Those that have not begun ask before they do.
            false => !self.init.values().any(runs),
        }
    }

    /// Whether every container has ended for good.
    pub fn finished(&self) -> bool {
        let ended = |r: &ContainerReport| matches!(r.state, ContainerState::Ended { .. });
        !self.containers.is_empty() && self.containers.values().all(ended)
    }
}
