//! Health of a pod's containers: startup, liveness and readiness probes, sent from the pod's node.
//!
//! What to probe is parsed once ([`Probes`]), when to probe and what follows is decided by a pure machine, and
//! the rest here carries it out. Starting, restarting and ending containers belongs to the pod's life; this only
//! asks for a restart.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use ambit_runtime::{clock, tasks};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::watch;

use crate::link::Place;
use crate::pod::plan::{ContainerPlan, PodPlan};
use crate::pod::state::{ContainerReport, ContainerState, PodState};

mod grpc;
mod machine;
mod probe;
mod send;
mod tls;

pub use machine::{Kind, Machine, Step};
pub use probe::{Check, Probe, Probes};

use send::Prober;

/// Runs a command inside a container; its exit code, or why it could not be run.
///
/// Dropping the future has to end the command: that is how a probe's timeout is kept.
pub type ExecInPod =
    Arc<dyn Fn(String, Vec<String>) -> BoxFuture<'static, Result<i32, String>> + Send + Sync>;

/// Asks for the restart of a container, with the reason.
pub type AskRestart = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// What the probes say of one container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerHealth {
    /// Whether it runs and its startup probe has succeeded; without one, whether it runs.
    pub started: bool,
    /// Whether it has started and its readiness probe holds; without one, whether it has started.
    pub ready: bool,
    /// Why it is not ready, for a person; empty if it is, or if it does not run.
    pub why: Option<String>,
}

/// What the probes say of a pod: its containers by name.
pub type PodHealth = BTreeMap<String, ContainerHealth>;

/// What a pod's probes need.
#[derive(Clone)]
pub struct Patient {
    /// The pod.
    pub plan: Arc<PodPlan>,
    /// Where its probes go unless they name a host: the pod's first address, or its node's.
    pub address: IpAddr,
    /// The namespace the probes come from.
    pub node: Arc<Place>,
    /// What its containers do.
    pub state: watch::Receiver<PodState>,
    /// Runs a command inside a container.
    pub exec: ExecInPod,
    /// Called when a liveness or startup probe has failed too often.
    pub restart: AskRestart,
}

/// Watches a pod's containers for as long as the pod lives, each on a task of its own.
pub fn watch(patient: Patient) -> watch::Receiver<PodHealth> {
    let names = patient.plan.containers.iter().map(|c| (c.name.clone(), ContainerHealth::default()));
    let (health, told) = watch::channel(names.collect());
    let health = Arc::new(health);
    for container in patient.plan.containers.clone() {
        let ward = Ward { patient: patient.clone(), container, health: Arc::clone(&health) };
        tasks::spawn("probes", ward.keep());
    }
    told
}

/// One container under watch.
struct Ward {
    patient: Patient,
    container: ContainerPlan,
    health: Arc<watch::Sender<PodHealth>>,
}

impl Ward {
    /// Follows run after run of the container.
    async fn keep(self) {
        let mut state = self.patient.state.clone();
        let mut seen = None;
        loop {
            let name = self.container.name.clone();
            let next = state
                .wait_for(|s| s.gone || self.is_other_run(s, seen))
                .await
                .map(|s| (s.gone, pid_of(&s, &name)));
            let Ok((false, Some(pid))) = next else { return };
            seen = Some(pid);
            let mut end = state.clone();
            tokio::select! {
                () = self.follow() => {}
                _ = end.wait_for(|s| s.gone || pid_of(s, &name) != Some(pid)) => {}
            }
            // After a restart was asked for, nothing is said until this run is over.
            let _ = end.wait_for(|s| s.gone || pid_of(s, &name) != Some(pid)).await;
            self.tell(ContainerHealth::default());
        }
    }

    fn is_other_run(&self, state: &PodState, seen: Option<u32>) -> bool {
        let pid = pid_of(state, &self.container.name);
        pid.is_some() && pid != seen
    }

    /// Probes one run of the container; returns when it has to be restarted.
    async fn follow(&self) {
        let probes = match Probes::of(&self.container.declared) {
            Ok(probes) => probes,
            Err(why) => {
                self.tell(ContainerHealth { why: Some(why), ..ContainerHealth::default() });
                return std::future::pending().await;
            }
        };
        let prober = Prober::new(&self.patient, &self.container.name);
        let mut machine = Machine::new(&probes);
        let begun = clock::monotonic();
        let mut running = FuturesUnordered::new();
        loop {
            self.tell(machine.health());
            let wake = match machine.poll(clock::monotonic() - begun) {
                Step::Run(kind, probe) => {
                    let prober = &prober;
                    running.push(async move { (kind, prober.run(&probe).await) });
                    continue;
                }
                Step::WaitUntil(at) => Some(begun + at),
                Step::Idle => None,
            };
            let outcome = tokio::select! {
                Some(outcome) = running.next() => outcome,
                () = until(wake) => continue,
            };
            let (kind, result) = outcome;
            if let Err(why) = &result {
                tracing::debug!(
                    pod = self.patient.plan.name,
                    container = self.container.name,
                    ?kind,
                    why,
                    "a probe failed"
                );
            }
            if let Some(why) = machine.handle_result(kind, clock::monotonic() - begun, result) {
                self.tell(machine.health());
                tracing::info!(
                    pod = self.patient.plan.name,
                    container = self.container.name,
                    why,
                    "restarting"
                );
                (self.patient.restart)(&self.container.name, &why);
                return;
            }
        }
    }

    fn tell(&self, new: ContainerHealth) {
        self.health.send_if_modified(|all| {
            let place = all.entry(self.container.name.clone()).or_default();
            let changed = *place != new;
            *place = new;
            changed
        });
    }
}

/// The first process of a container that runs; it tells one run from the next.
fn pid_of(state: &PodState, container: &str) -> Option<u32> {
    let report: &ContainerReport = state.containers.get(container)?;
    match report.state {
        ContainerState::Running { pid, .. } => Some(pid),
        ContainerState::Waiting { .. } | ContainerState::Ended { .. } => None,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
