//! Everything that only one of several control planes does: it makes waypoints, writes status and Events, and publishes
//! the roots of the mesh.
//!
//! Level-triggered: each part compares what is wanted with what was written whenever anything changed, and looks at
//! everything again from time to time. Losing the leadership drops all of it at once, with the calls under way; a new
//! leader begins by looking at what is there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ambit_manifest::Problem;
use ambit_runtime::drain::Drain;
use ambit_runtime::{clock, tasks};
use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

use crate::world::World;

mod api;
mod class;
pub mod events;
mod ledger;
mod root;
pub mod status;
#[cfg(test)]
mod tests;
pub mod waypoint;

use api::{ApiError, Server};
use events::Notice;

/// Objects that are looked at in one turn.
const TURN: usize = 256;
/// Calls under way at once, in each part.
const PARALLEL: usize = 8;
/// Least time between two turns for changes: bursts are one turn.
const PAUSE: Duration = Duration::from_millis(100);
/// Events that wait to be written; further ones are dropped.
const NOTICES_MAX: usize = 256;

/// What the parts of a leader are told once.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Namespace of the control plane.
    pub root_namespace: String,
    /// Domain of service names.
    pub cluster_domain: String,
    /// Name of this replica's pod, for Events.
    pub instance: String,
    /// How waypoints are made; nothing if nobody said with which image: Gateways are told so.
    pub waypoints: Option<waypoint::objects::Settings>,
}

/// What a leader works with.
pub struct LeadParts {
    /// The API server.
    pub client: Client,
    /// Whether this replica leads.
    pub leader: watch::Receiver<bool>,
    /// The mesh.
    pub world: Arc<World>,
    /// Differs after each update of the mesh.
    pub changed: watch::Receiver<u64>,
    /// The roots of the mesh, PEM.
    pub bundle: watch::Receiver<Arc<str>>,
    /// Objects that cannot be read and what is wrong with them, the whole list; changes before `changed` does.
    pub problems: watch::Receiver<Arc<[Problem]>>,
    /// What is told once.
    pub settings: Settings,
    /// Ends everything.
    pub drain: Drain,
}

/// Starts the parts of a leader; they work while this replica leads. Ends with the drain, or when nobody can say any
/// more who leads.
pub fn start(parts: LeadParts) -> JoinHandle<()> {
    tasks::spawn("lead", run(parts))
}

async fn run(parts: LeadParts) {
    let LeadParts { client, mut leader, world, changed, bundle, problems, settings, drain } = parts;
    let server = Server::new(client);
    loop {
        tokio::select! {
            () = drain.draining() => return,
            gained = leader.wait_for(|leads| *leads) => if gained.is_err() { return },
        }
        info!("leading: waypoints, status and roots are written by this replica");
        let (notices, noticed) = mpsc::channel(NOTICES_MAX);
        let (server, world, settings) = (&server, &*world, &settings);
        let lead = Lead { server, world, settings, notices };
        // Whichever comes first drops the others, and with them the calls under way.
        tokio::select! {
            biased;
            () = drain.draining() => return,
            lost = leader.wait_for(|leads| !*leads) => if lost.is_err() { return },
            () = work(&lead, noticed, &changed, &bundle, &problems) => {}
        }
        info!("leading no more");
    }
}

async fn work(
    lead: &Lead<'_>,
    noticed: mpsc::Receiver<Notice>,
    changed: &watch::Receiver<u64>,
    bundle: &watch::Receiver<Arc<str>>,
    problems: &watch::Receiver<Arc<[Problem]>>,
) {
    tokio::join!(
        waypoint::run(lead, changed.clone()),
        status::run(lead, changed.clone(), problems.clone()),
        root::run(lead, changed.clone(), bundle.clone()),
        class::run(lead, changed.clone()),
        events::run(lead, noticed),
    );
}

/// What every part of a leader needs.
struct Lead<'a> {
    server: &'a Server,
    world: &'a World,
    settings: &'a Settings,
    notices: mpsc::Sender<Notice>,
}

impl Lead<'_> {
    /// Has an Event written, if there is room.
    fn notice(&self, notice: Notice) {
        if self.notices.try_send(notice).is_err() {
            metrics::counter!("ambit_lead_events_dropped_total").increment(1);
        }
    }
}

/// Counts what became of writing an object, and logs the first of several failures.
fn told(what: &dyn std::fmt::Display, failures: u32, error: &ApiError) {
    metrics::counter!("ambit_lead_failures_total").increment(1);
    if failures <= 1 {
        warn!(object = %what, error = %chain(error), "an object cannot be written; it is tried again");
    } else {
        debug!(object = %what, error = %chain(error), failures, "an object cannot be written still");
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(&format!(": {next}"));
        cause = next.source();
    }
    text
}

/// Waits for a change or a time, whichever comes first, and then a little for further changes.
async fn rest(changed: &mut watch::Receiver<u64>, until: Instant) {
    let until = tokio::time::Instant::from_std(until);
    tokio::select! {
        told = changed.changed() => if told.is_err() {
            // Nothing will ever change again; what failed is still tried again.
            tokio::time::sleep_until(until).await;
        },
        () = tokio::time::sleep_until(until) => {}
    }
    tokio::time::sleep(PAUSE).await;
}

/// The time, as the API writes it.
fn stamp() -> String {
    humantime::format_rfc3339_seconds(clock::wall()).to_string()
}
