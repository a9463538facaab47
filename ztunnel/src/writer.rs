//! The one writer of the world: batches of discovery, and the end of passes (break-glass) that nobody else may be there
//! to end.
//!
//! A pass ends by this node's own clocks, with or without a control plane; what only it let in is decided again as after
//! any other change.

use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use ambit_runtime::{clock, tasks};
use ambit_state::{Change, Moment, Passes, World};
use tokio::sync::watch;
use tracing::warn;

use crate::mesh::Mesh;

/// The longest wait at a time while a pass is open: the wall clock may be set meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Writes the world of a [`Mesh`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Writer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    mesh: Mesh,
    state: Mutex<State>,
    /// When the first pass ends at the latest.
    first_end: watch::Sender<Option<Instant>>,
}

#[derive(Debug)]
struct State {
    world: World,
    passes: Passes,
    /// Wall time since 1970 that it is not before, whatever the clock says.
    not_before: Duration,
}

impl State {
    fn now(&self) -> Moment {
        let wall = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        Moment { wall: wall.max(self.not_before), monotonic: clock::monotonic() }
    }
}

impl Writer {
    /// A writer for a mesh that knows nothing yet, seen from `node`; ends passes until the process ends.
    pub fn start(mesh: Mesh, node: &str) -> Self {
        let state = State { world: World::new(node), passes: Passes::default(), not_before: Duration::ZERO };
        let inner = Inner { mesh, state: Mutex::new(state), first_end: watch::Sender::new(None) };
        let writer = Self { inner: Arc::new(inner) };
        tasks::spawn("passes", writer.clone().end_passes());
        writer
    }

    /// It is not before this time, in seconds since 1970: a clock that was set back does not prolong a pass.
    pub fn not_before(&self, seconds: u64) {
        let mut state = self.lock();
        state.not_before = state.not_before.max(Duration::from_secs(seconds));
    }

    /// Puts a batch in force. Passes in it are in force only while there is time left of them.
    pub fn apply(&self, changes: Vec<Change>) {
        let mut state = self.lock();
        let now = state.now();
        let changes = state.passes.take(changes, now);
        self.put(&mut state, changes);
    }

    fn end_due(&self) {
        let mut state = self.lock();
        let now = state.now();
        let due = state.passes.due(now);
        if !due.is_empty() {
            self.put(&mut state, due);
        }
    }

    /// Applies and publishes while the state is held, so that worlds are published in the order in which they are made.
    fn put(&self, state: &mut State, changes: Vec<Change>) {
        for change in &changes {
            if let Change::PolicyEnded(policy) = change {
                warn!(%policy, "a break-glass has ended, has no end, or is in doubt: it lets nobody in");
            }
        }
        self.inner.mesh.publish(state.world.apply(changes));
        self.inner.first_end.send_replace(state.passes.next_end());
    }

    async fn end_passes(self) {
        let mut changed = self.inner.first_end.subscribe();
        loop {
            let first = *changed.borrow_and_update();
            tokio::select! {
                // The sender lives in self.
                _ = changed.changed() => {}
                () = until(first) => self.end_due(),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for a time, but not for long; for ever if there is none. May be dropped.
async fn until(time: Option<Instant>) {
    let Some(time) = time else { return pending().await };
    let left = time.saturating_duration_since(clock::monotonic());
    tokio::time::sleep(left.min(LOOK_AGAIN)).await;
}
