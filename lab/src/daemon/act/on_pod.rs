//! Stopping, starting, restarting and killing the containers of a pod, and waiting for the outcome.
//!
//! The pod itself stays: its object, its namespace, its addresses. It is made and removed by its object alone.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::sync::{mpsc, watch};

use super::Work;
use crate::control::{Action, Line};
use crate::daemon::force::Demand;
use crate::daemon::owner::Owner;
use crate::daemon::wait::{Watch, in_force};
use crate::daemon::{commands, pods};
use crate::error::LabError;
use crate::pod::life::Order;
use crate::pod::state::{ContainerReport, PodState};
use crate::schedule::ObjectName;

/// How long a started pod may take until it is ready.
const READY_PATIENCE: Duration = Duration::from_secs(60);

/// Begins an action on a pod.
pub(super) fn begin(
    owner: &Owner,
    action: Action,
    pod: &ObjectName,
    lines: mpsc::Sender<Line>,
) -> Result<Work, LabError> {
    let life = &pods::find(owner, &pod.namespace, &pod.name)?.life;
    let (state, hold) = (life.state.clone(), life.holder());
    if state.borrow().finished() && action != Action::Stop {
        return Err(LabError::Failed(format!(
            "pod {pod} has finished, its restartPolicy ends it there; delete it and apply it again: {}",
            owner.home.lab.command(&format!("delete pod {} -n {}", pod.name, pod.namespace))
        )));
    }
    match action {
        Action::Stop => {
            hold(true);
            Ok(Box::pin(async move {
                stopped(state).await;
                Ok(())
            }))
        }
        Action::Start => {
            hold(false);
            let started = Started::of(owner, pod, state);
            Ok(Box::pin(started.ready(lines)))
        }
        Action::Restart => {
            hold(true);
            let started = Started::of(owner, pod, state.clone());
            Ok(Box::pin(async move {
                stopped(state).await;
                hold(false);
                started.ready(lines).await
            }))
        }
        Action::Kill => {
            let running = state.borrow().running();
            if running.is_empty() {
                let start = owner.home.lab.command(&format!("start pod/{pod}"));
                return Err(LabError::Failed(format!(
                    "no container of pod {pod} runs; start it with: {start}"
                )));
            }
            life.order(None, Order::Signal(Signal::SIGKILL));
            Ok(Box::pin(async move {
                ended(state, running).await;
                Ok(())
            }))
        }
    }
}

/// Waits until nothing of a pod that was told to stop runs. Its grace period and SIGKILL bound that.
async fn stopped(mut state: watch::Receiver<PodState>) {
    // A lost sender is a pod that is gone.
    let _ = state.wait_for(|s| s.gone || s.stopped()).await;
}

/// Waits until none of these processes is a container's any more.
async fn ended(mut state: watch::Receiver<PodState>, before: BTreeMap<String, u32>) {
    let is_gone = |s: &PodState| {
        let running = s.running();
        before.iter().all(|(name, pid)| running.get(name) != Some(pid))
    };
    let _ = state.wait_for(|s| s.gone || is_gone(s)).await;
}

/// A pod that is being started.
struct Started {
    pod: ObjectName,
    watch: Watch,
    state: watch::Receiver<PodState>,
}

impl Started {
    fn of(owner: &Owner, pod: &ObjectName, state: watch::Receiver<PodState>) -> Self {
        Self { pod: pod.clone(), watch: commands::watch(owner, Demand::default()), state }
    }

    /// Waits until the pod's object says that these runs of its containers are ready, and every node knows.
    async fn ready(mut self, lines: mpsc::Sender<Line>) -> Result<(), LabError> {
        let restarts = |(name, report): (&String, &ContainerReport)| (name.clone(), report.restarts);
        let runs = self.state.borrow().containers.iter().map(restarts).collect();
        let outlook = self.watch.outlook.borrow().clone();
        self.watch.demand = Demand::pod(&self.pod, &outlook, runs);
        in_force(&self.watch, READY_PATIENCE, &lines).await
    }
}
