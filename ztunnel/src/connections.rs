//! The live connections: who is talking, and cutting those that a new policy refuses.
//!
//! An inbound connection is entered *before* its first decision, so that a change in between cannot be missed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ambit_runtime::tasks;
use ambit_state::{Open, explain, reauthorize};
use ambit_types::{Reason, Uid};
use tokio::sync::Notify;

use crate::flow::{Flow, Outcome};
use crate::mesh::Mesh;
use crate::proxy::Place;
use crate::telemetry::{PlaintextMode, Telemetry};

/// How long a live connection may wait for a policy that is named but has not arrived: control planes announce the
/// name first. New connections wait for it as well, before they are decided.
const UNRESOLVED_GRACE: Duration = Duration::from_secs(2);

/// Every live connection of the node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Connections {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    next: AtomicU64,
    inbound: Mutex<BTreeMap<Uid, BTreeMap<u64, Live>>>,
    outbound: Mutex<BTreeMap<u64, Arc<Flow>>>,
    telemetry: Telemetry,
}

#[derive(Debug, Clone)]
struct Live {
    open: Arc<Open>,
    flow: Arc<Flow>,
    cut: Arc<Notify>,
}

/// An entered connection; leaves the books and writes its record when dropped.
#[derive(Debug)]
pub struct Entered {
    number: u64,
    workload: Option<Uid>,
    flow: Arc<Flow>,
    cut: Option<Arc<Notify>>,
    connections: Connections,
    outcome: Option<Outcome>,
    opened: bool,
    /// Given back together with the entry.
    place: Option<Place>,
}

impl Connections {
    /// No connections.
    pub fn new(telemetry: Telemetry) -> Self {
        let inner = Inner {
            next: AtomicU64::new(1),
            inbound: Mutex::default(),
            outbound: Mutex::default(),
            telemetry,
        };
        Self { inner: Arc::new(inner) }
    }

    /// A number for a connection that is about to be entered.
    pub fn number(&self) -> u64 {
        self.inner.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Enters an inbound connection, before it is decided; `open.id` is its number.
    pub fn enter_inbound(&self, open: Open, flow: Arc<Flow>) -> Entered {
        let cut = Arc::new(Notify::new());
        let (number, workload) = (open.id, open.workload.clone());
        let live = Live { open: Arc::new(open), flow: flow.clone(), cut: cut.clone() };
        let mut inbound = self.inner.inbound.lock().unwrap_or_else(PoisonError::into_inner);
        inbound.entry(workload.clone()).or_default().insert(number, live);
        drop(inbound);
        self.entered(number, Some(workload), flow, Some(cut))
    }

    /// Enters an outbound connection.
    pub fn enter_outbound(&self, flow: Arc<Flow>) -> Entered {
        let number = self.number();
        self.inner.outbound.lock().unwrap_or_else(PoisonError::into_inner).insert(number, flow.clone());
        self.entered(number, None, flow, None)
    }

    fn entered(
        &self,
        number: u64,
        workload: Option<Uid>,
        flow: Arc<Flow>,
        cut: Option<Arc<Notify>>,
    ) -> Entered {
        let connections = self.clone();
        Entered { number, workload, flow, cut, connections, outcome: None, opened: false, place: None }
    }

    /// All live connections.
    pub fn flows(&self) -> Vec<Arc<Flow>> {
        let inbound = self.inner.inbound.lock().unwrap_or_else(PoisonError::into_inner);
        let mut flows: Vec<_> =
            inbound.values().flat_map(|c| c.values().map(|live| live.flow.clone())).collect();
        drop(inbound);
        flows.extend(self.inner.outbound.lock().unwrap_or_else(PoisonError::into_inner).values().cloned());
        flows
    }

    /// Decides live connections again whenever the world changes, until the process ends (G1).
    pub fn watch(&self, mesh: Mesh) {
        let connections = self.clone();
        tasks::spawn("reauthorize", async move {
            let mut changes = mesh.changes();
            loop {
                // The mesh holds the sender; it lives as long as the process.
                if changes.changed().await.is_err() {
                    return;
                }
                connections.reauthorize(&mesh, mesh.take_affected(), true);
            }
        });
    }

    fn reauthorize(&self, mesh: &Mesh, affected: BTreeSet<Uid>, grace: bool) {
        let live = self.live_of(&affected);
        if live.is_empty() {
            return;
        }
        let snapshot = mesh.snapshot();
        let mut waiting = BTreeSet::new();
        for (id, decision) in reauthorize(&snapshot, live.values().map(|live| &*live.open)) {
            let Some(connection) = live.get(&id) else { continue };
            if grace && decision.reason == Some(Reason::PolicyUnresolved) {
                waiting.insert(connection.open.workload.clone());
                continue;
            }
            let own = snapshot.workload(&connection.open.workload);
            let told = |own: &Arc<ambit_types::Workload>| {
                Outcome::refused(&explain(&snapshot, own, &connection.open.facts(&snapshot)))
            };
            let mut outcome = own.map_or_else(|| Outcome::decided(&decision), told);
            // A workload that became somebody else keeps its own reason.
            if decision.reason != Some(Reason::IdentityMismatch) {
                let was = outcome.error.take().unwrap_or_default();
                outcome.error = Some(format!("cut by a change: {was} ({decision})"));
                outcome.reason = Some(Reason::PolicyChanged);
            }
            connection.flow.cut(outcome);
            connection.cut.notify_one();
        }
        if !waiting.is_empty() {
            let (connections, mesh) = (self.clone(), mesh.clone());
            tasks::spawn("reauthorize-grace", async move {
                tokio::time::sleep(UNRESOLVED_GRACE).await;
                connections.reauthorize(&mesh, waiting, false);
            });
        }
    }

    fn live_of(&self, affected: &BTreeSet<Uid>) -> BTreeMap<u64, Live> {
        let inbound = self.inner.inbound.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |uid: &Uid| inbound.get(uid).into_iter().flatten().map(|(id, live)| (*id, live.clone()));
        affected.iter().flat_map(of).collect()
    }

    fn leave(&self, number: u64, workload: Option<&Uid>) {
        match workload {
            Some(uid) => {
                let mut inbound = self.inner.inbound.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(of) = inbound.get_mut(uid) {
                    of.remove(&number);
                    if of.is_empty() {
                        inbound.remove(uid);
                    }
                }
            }
            None => {
                self.inner.outbound.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
            }
        }
    }
}

impl Entered {
    /// The connection's flow.
    pub fn flow(&self) -> &Arc<Flow> {
        &self.flow
    }

    /// Holds the connection's place in the pod's quota for as long as it is in the books.
    pub fn hold(&mut self, place: Place) {
        self.place = Some(place);
    }

    /// The connection was let in: it counts as opened from now on.
    pub fn opened(&mut self) {
        self.opened = true;
        self.connections.inner.telemetry.opened(self.number, &self.flow, self.outcome.as_ref());
    }

    /// An inbound connection was let in, as what was noted so far says: it counts as opened from now on. `plaintext` is
    /// what its port asks of that, if it is some.
    pub fn let_in(&mut self, plaintext: Option<PlaintextMode>) {
        self.opened();
        let reason = self.outcome.as_ref().and_then(|outcome| outcome.reason);
        self.connections.inner.telemetry.let_in(&self.flow, reason, plaintext);
    }

    /// Resolves when a change of policy ends the connection; never for outbound ones.
    pub async fn cut(&self) {
        match &self.cut {
            Some(cut) => cut.notified().await,
            None => std::future::pending().await,
        }
    }

    /// The connection ended by itself: what was noted so far stands.
    pub fn finished(&mut self) {
        self.outcome.get_or_insert_default();
    }

    /// What will stand in the record, unless the connection is cut.
    pub fn end(&mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.connections.leave(self.number, self.workload.as_ref());
        let drained = || Outcome::failed(Reason::Draining, "closed because the proxy or the pod is leaving");
        let outcome =
            self.flow.cut_outcome().cloned().or_else(|| self.outcome.take()).unwrap_or_else(drained);
        let telemetry = &self.connections.inner.telemetry;
        if self.opened {
            telemetry.ended(self.number, &self.flow, outcome);
        } else if outcome.reason == Some(Reason::PodQuota) {
            // Without a place nothing was decided about it.
            telemetry.refused(&self.flow, outcome);
        } else {
            telemetry.failed(&self.flow, outcome);
        }
    }
}
