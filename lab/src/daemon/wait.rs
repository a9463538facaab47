//! Waiting until a change is in force: watches objects and control plane until nothing is missing, or time is up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ambit_runtime::{admin, clock};
use tokio::sync::{mpsc, watch};

use super::force::{Demand, Look, Mesh, Missing, Outlook, missing, warnings};
use super::served;
use crate::control::Line;
use crate::error::LabError;
use crate::programs::{Home, Part, Programs, Target};
use crate::store::{Snapshot, Store};

/// Pause between two questions to the control plane when no object changes.
const ASK_AGAIN: Duration = Duration::from_millis(25);
/// What is missing is told at most this often.
const TELL_AGAIN: Duration = Duration::from_secs(5);

/// The most warnings of the control plane that one command shows.
const WARNINGS_MAX: usize = 10;

/// Everything a wait looks at.
#[derive(Clone)]
pub(super) struct Watch {
    pub(super) home: Arc<Home>,
    pub(super) store: Arc<Store>,
    pub(super) programs: Arc<Programs>,
    pub(super) outlook: watch::Receiver<Outlook>,
    pub(super) demand: Demand,
}

/// Waits until what is demanded of the store is in force, at most `limit`.
///
/// # Errors
/// [`LabError::NotInForce`] with what is missing.
pub(super) async fn in_force(
    watch: &Watch,
    limit: Duration,
    lines: &mpsc::Sender<Line>,
) -> Result<(), LabError> {
    let begun = clock::monotonic();
    let mut objects = watch.store.subscribe();
    let mut wanted = None;
    let mut told: Option<Instant> = None;
    loop {
        let snapshot = objects.borrow_and_update().clone();
        let left = look(watch, &snapshot, &mut wanted).await;
        if left.what.is_empty() {
            let told = warnings(&ask(watch).await).into_iter().chain(left.remarks);
            for warning in told.take(WARNINGS_MAX) {
                let _ = lines.try_send(Line::Progress(format!("warning: {warning}")));
            }
            return Ok(());
        }
        let waited = clock::monotonic() - begun;
        if left.hopeless || waited >= limit || lines.is_closed() {
            return Err(LabError::NotInForce { waited_seconds: waited.as_secs(), missing: left.what });
        }
        if told.is_none_or(|t| clock::monotonic() - t >= TELL_AGAIN) {
            if told.is_some() {
                let line = Line::Progress(format!("waiting for {}", in_short(&left.what)));
                // A slow reader loses progress lines, not the answer.
                let _ = lines.try_send(line);
            }
            told = Some(clock::monotonic());
        }
        let _ = tokio::time::timeout(ASK_AGAIN, objects.changed()).await;
    }
}

/// The first things that are missing, and how many more there are.
fn in_short(what: &[String]) -> String {
    const SHOWN: usize = 2;
    let shown = what[..what.len().min(SHOWN)].join("; ");
    if what.len() > SHOWN { format!("{shown}; and {} more", what.len() - SHOWN) } else { shown }
}

/// One look: first everything but the control plane, then its acknowledgement of that very revision.
async fn look(watch: &Watch, snapshot: &Snapshot, wanted: &mut Option<u64>) -> Missing {
    let nodes = &running_proxies(watch);
    let mut outlook = watch.outlook.borrow().clone();
    if watch.home.kube.is_some() {
        served::look_ahead(&mut outlook, snapshot, watch.home.config.families);
    }
    let mesh = ask(watch).await;
    let look = Look { lab: &watch.home.lab, snapshot, mesh: &mesh, nodes, demand: &watch.demand };
    let mut left = missing(look, wanted.unwrap_or(0));
    left.what.extend(watch.demand.left_of(&outlook));
    if left.what.is_empty() && wanted.is_none() {
        *wanted = Some(snapshot.revision);
        left = missing(look, snapshot.revision);
    }
    left
}

/// Nodes whose proxy is meant to run and does.
fn running_proxies(watch: &Watch) -> Vec<String> {
    let runs = |(target, part): (&Target, &Part)| match target {
        Target::Ztunnel(node) => part.state.borrow().wanted.then(|| node.clone()),
        Target::Kube(_)
        | Target::Istiod
        | Target::Replica(_)
        | Target::Cni(_)
        | Target::Pod { .. }
        | Target::Waypoint { .. } => None,
    };
    watch.programs.iter().filter_map(runs).collect()
}

async fn ask(watch: &Watch) -> Mesh {
    if !watch.home.config.mesh {
        return Mesh::None;
    }
    if watch.home.kube.is_some() {
        return served::ask(&watch.home, &watch.programs).await;
    }
    let Ok(part) = watch.programs.part(&Target::Istiod) else { return Mesh::None };
    if !part.state.borrow().wanted {
        return Mesh::Stopped;
    }
    let socket = watch.home.run.istiod().join("admin.sock");
    match admin::client::get(&socket, "/sync").await {
        Ok(answer) => match serde_json::from_slice(&answer.body) {
            Ok(sync) => Mesh::Sync(sync),
            Err(e) => Mesh::Silent(format!("its /sync is no JSON: {e}")),
        },
        Err(e) => Mesh::Silent(e.to_string()),
    }
}
