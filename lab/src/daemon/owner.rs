//! The loop that owns the lab: compares what the objects ask with what runs, and acts on the difference.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ambit_runtime::{clock, tasks};
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{Notify, mpsc, watch};

use super::force::Outlook;
use super::{Built, DOWN_GRACE, commands, health, network, nodes, pods, served, waypoints};
use crate::control::Call;
use crate::error::LabError;
use crate::fault::LinkFault;
use crate::kubelet::PodHealth;
use crate::pod::life::{End, Life};
use crate::pod::sandbox::Site;
use crate::programs::{Command, Home, Programs};
use crate::schedule::ObjectName;
use crate::store::Store;

/// How long changes are gathered at least before they are acted on together.
const GATHER_MIN: Duration = Duration::from_millis(2);
/// How long changes are gathered at most, when there is much to do.
const GATHER_MAX: Duration = Duration::from_millis(100);

/// A pod that runs, with what it was started from.
pub(super) struct Live {
    pub(super) life: Life,
    pub(super) uid: String,
    pub(super) spec_hash: u64,
    pub(super) health: watch::Receiver<PodHealth>,
}

/// Work of a task beside the loop that only the loop can do.
pub(super) type Later = Box<dyn FnOnce(&mut Owner) + Send>;

/// Such work that waits before its senders do.
const LATER_WAITING: usize = 64;

/// The lab as its daemon holds it.
pub(super) struct Owner {
    pub(super) home: Arc<Home>,
    pub(super) sites: BTreeMap<String, Arc<Site>>,
    pub(super) programs: Arc<Programs>,
    pub(super) store: Arc<Store>,
    pub(super) lives: BTreeMap<ObjectName, Live>,
    pub(super) links: BTreeMap<String, LinkFault>,
    pub(super) outlook: watch::Sender<Outlook>,
    pub(super) wake: Arc<Notify>,
    pub(super) network: network::Network,
    pub(super) later: mpsc::Sender<Later>,
    due: mpsc::Receiver<Later>,
}

impl Owner {
    pub(super) fn new(built: Built) -> Result<Self, LabError> {
        let sites: BTreeMap<String, Arc<Site>> =
            built.sites.into_iter().map(|s| (s.node.name.clone(), s)).collect();
        let wake = Arc::new(Notify::new());
        let network = network::Network::begin(&sites, &wake)?;
        let (later, due) = mpsc::channel(LATER_WAITING);
        let owner = Self {
            home: built.home,
            sites,
            programs: Arc::new(built.programs),
            store: built.store,
            lives: BTreeMap::new(),
            links: BTreeMap::new(),
            outlook: watch::channel(Outlook::default()).0,
            wake,
            network,
            later,
            due,
        };
        if owner.home.kube.is_none() {
            nodes::declare(&owner)?;
        }
        Ok(owner)
    }

    /// Obeys and reconciles until the calls end.
    pub(super) async fn run(&mut self, mut calls: mpsc::Receiver<Call>) {
        let mut objects = self.store.subscribe();
        objects.mark_changed();
        let (mut rest, mut due) = (GATHER_MIN, None::<Instant>);
        loop {
            let at = due.unwrap_or_else(clock::monotonic);
            tokio::select! {
                call = calls.recv() => match call {
                    Some(call) => commands::take(self, call),
                    None => return,
                },
                // The owner itself holds a sender, so this never ends.
                Some(work) = self.due.recv() => work(self),
                changed = objects.changed(), if due.is_none() => match changed {
                    Ok(()) => due = Some(clock::monotonic() + rest),
                    Err(_) => return,
                },
                () = self.wake.notified(), if due.is_none() => due = Some(clock::monotonic() + rest),
                () = tokio::time::sleep_until(at.into()), if due.is_some() => {
                    due = None;
                    objects.mark_unchanged();
                    let begun = clock::monotonic();
                    self.reconcile();
                    // At most half of the time is spent here, however many objects there are.
                    rest = (clock::monotonic() - begun).clamp(GATHER_MIN, GATHER_MAX);
                }
            }
        }
    }

    /// Does everything that the objects ask for and that is not so yet.
    pub(super) fn reconcile(&mut self) {
        // File writes and process starts inside: the loop's thread is handed over to them for that long.
        tokio::task::block_in_place(|| {
            let done = match self.home.kube {
                None => self.reconcile_once(),
                Some(_) => served::reconcile(self),
            };
            if let Err(error) = done {
                tracing::error!(error = error.full(), "bringing the lab to what its objects ask");
            }
        });
    }

    fn reconcile_once(&mut self) -> Result<(), LabError> {
        nodes::complete(self)?;
        pods::report(self)?;
        let problems = waypoints::derive(self)?;
        let mut outlook = pods::schedule(self)?;
        pods::converge(self)?;
        outlook.problems.extend(problems);
        outlook.problems.extend(network::describe(self)?);
        waypoints::report(self)?;
        outlook.rules = network::carry_out(self);
        self.outlook.send_if_modified(|now| {
            let changed = *now != outlook;
            *now = outlook;
            changed
        });
        Ok(())
    }

    /// Addresses of pods that still exist although the store may not hold them any more.
    pub(super) fn occupied(&self) -> BTreeSet<IpAddr> {
        self.lives.values().flat_map(|l| l.life.plan.addresses.iter().copied()).collect()
    }

    /// Remembers a pod that was begun, and wakes the loop on each of its changes.
    pub(super) fn adopt(&mut self, name: ObjectName, pod: &Pod, life: Life) {
        let health = health::watch(self, &life);
        let (mut state, mut probed, wake) = (life.state.clone(), health.clone(), Arc::clone(&self.wake));
        tasks::spawn("pod watch", async move {
            let mut probing = true;
            loop {
                tokio::select! {
                    changed = state.changed() => if changed.is_err() { break },
                    changed = probed.changed(), if probing => probing = changed.is_ok(),
                }
                wake.notify_one();
            }
            wake.notify_one();
        });
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        self.lives.insert(name, Live { life, uid, spec_hash: crate::schedule::spec_hash(pod), health });
    }
}

/// Ends pods and programs together, as well as the short grace allows.
pub(super) async fn end_everything(owner: &Owner) {
    for live in owner.lives.values() {
        live.life.end(End { grace: DOWN_GRACE });
    }
    let ends = owner.programs.iter().map(|(_, part)| part.tell(Command::End));
    let pods = owner.lives.values().map(|live| {
        let mut state = live.life.state.clone();
        async move { _ = state.wait_for(|s| s.gone).await }
    });
    let all = async {
        futures_util::future::join_all(ends).await;
        if let Some(cluster) = &owner.home.kube {
            cluster.end();
        }
        futures_util::future::join_all(pods).await;
    };
    // What is left after this is killed with the daemon.
    let _ = tokio::time::timeout(DOWN_GRACE * 2, all).await;
}
