//! The kubelet's probes for one pod: where they go, how a command runs in it, what asks for a restart.

use std::sync::Arc;

use futures_util::FutureExt as _;
use nix::sys::signal::Signal;
use tokio::sync::watch;

use super::owner::Owner;
use crate::kubelet::{self, ExecInPod, Patient, PodHealth};
use crate::pod::life::Life;
use crate::pod::state::PodState;
use crate::process::{self, Signaller};

/// Begins to watch a pod's health.
pub(super) fn watch(owner: &Owner, life: &Life) -> watch::Receiver<PodHealth> {
    let plan = Arc::clone(&life.plan);
    let site = &owner.sites[&plan.node];
    let own = plan.addresses.first().copied();
    let nodes = site.node.index.fabric(site.families);
    let address = own.or_else(|| nodes.first().copied()).expect("a lab has at least one address family");
    let restart = life.restarter();
    kubelet::watch(Patient {
        plan,
        address,
        node: Arc::clone(&site.place),
        state: life.state.clone(),
        exec: exec(owner.home.runner.clone(), life.state.clone()),
        restart: Arc::new(move |container: &str, _: &str| restart(container)),
    })
}

/// Runs a command in a container as a probe does: nothing is read from it but its exit code.
fn exec(runner: std::path::PathBuf, state: watch::Receiver<PodState>) -> ExecInPod {
    Arc::new(move |container: String, argv: Vec<String>| {
        let (runner, pid) = (runner.clone(), state.borrow().process(Some(&container)));
        async move {
            let pid = pid.ok_or_else(|| format!("container {container} does not run"))?;
            let started = tokio::task::spawn_blocking(move || process::start_beside(runner, pid, argv)).await;
            let running = started.map_err(|e| e.to_string())?.map_err(|e| e.full())?;
            let guard = EndWithProbe(running.signaller());
            let exit = running.ended.await.map_err(|_| "the command was lost".to_owned())?;
            drop(guard);
            Ok(exit.code)
        }
        .boxed()
    })
}

/// Kills a probe's command when nobody waits for it any more.
struct EndWithProbe(Signaller);

impl Drop for EndWithProbe {
    fn drop(&mut self) {
        if let Err(error) = self.0.send(Signal::SIGKILL) {
            tracing::warn!(%error, "ending a probe's command");
        }
    }
}
