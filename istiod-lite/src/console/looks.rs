//! One look at all pairs a second, for everybody who reads: what differs is written once, and all are sent the same
//! bytes.
//!
//! Nobody looks while nobody reads. A reader that missed a look is told what differs from the last one that it had, so
//! that nothing has to wait for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use ambit_runtime::tasks;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{self, MissedTickBehavior};
use tracing::warn;

use super::Gathered;

#[cfg(test)]
pub(super) mod tests;

/// What edges are told of.
const WINDOW: Duration = Duration::from_secs(300);
const TICK: Duration = Duration::from_secs(1);
/// Edges of one look or answer, as JSON: some thirty thousand of them.
pub(super) const EDGES_BYTES_MAX: usize = 32 << 20;

/// Edges as JSON, by their id.
type Edges = BTreeMap<String, Bytes>;

/// What was seen at one moment.
#[derive(Debug, Default)]
struct Look {
    /// Grows by one with each look that saw something new.
    number: u64,
    edges: Edges,
    left_out: usize,
    /// What differs from the look before, as an event.
    delta: Option<Bytes>,
    /// Everything, as an event, for those who are new.
    whole: OnceLock<Option<Bytes>>,
}

impl Look {
    /// The look that follows `before`; none if nothing differs.
    fn after(before: &Self, mut edges: Vec<Value>) -> Option<Self> {
        let left_out = newest_within(&mut edges, EDGES_BYTES_MAX);
        let named = |edge: &Value| {
            let id = edge["id"].as_str().unwrap_or_default().to_owned();
            let text = edge.to_string();
            // What did not change is held once.
            let known = before.edges.get(&id).filter(|known| ***known == *text.as_bytes());
            let text = known.cloned().unwrap_or_else(|| Bytes::from(text));
            (id, text)
        };
        let edges: Edges = edges.iter().map(named).collect();
        let delta = Some(delta(&before.edges, &edges, left_out)?);
        Some(Self { number: before.number + 1, edges, left_out, delta, whole: OnceLock::new() })
    }

    /// Nothing is seen any more.
    fn emptied(&self) -> Self {
        Self { number: self.number + 1, ..Self::default() }
    }

    /// What differs from a look that is known, as an event; none if nothing does.
    fn since(&self, known: &Self) -> Option<Bytes> {
        if known.number == self.number {
            return None;
        }
        if known.number + 1 == self.number {
            return self.delta.clone();
        }
        if known.edges.is_empty() {
            return self.whole.get_or_init(|| delta(&known.edges, &self.edges, self.left_out)).clone();
        }
        delta(&known.edges, &self.edges, self.left_out)
    }
}

/// What differs between two looks, as an event; none if nothing does.
fn delta(known: &Edges, now: &Edges, left_out: usize) -> Option<Bytes> {
    let is_new = |(id, edge): &(&String, &Bytes)| known.get(*id) != Some(*edge);
    let items: Vec<&Bytes> = now.iter().filter(is_new).map(|(_, edge)| edge).collect();
    let removed: Vec<&String> = known.keys().filter(|id| !now.contains_key(*id)).collect();
    if items.is_empty() && removed.is_empty() {
        return None;
    }
    let mut text = b"event: edges\ndata: {\"items\":[".to_vec();
    text.reserve(items.iter().map(|item| item.len() + 1).sum());
    for (n, item) in items.into_iter().enumerate() {
        if n > 0 {
            text.push(b',');
        }
        text.extend_from_slice(item);
    }
    // Written as JSON, names hold no line break that could end the event.
    let rest = format!("],\"left_out\":{left_out},\"removed\":{}}}\n\n", json!(removed));
    text.extend_from_slice(rest.as_bytes());
    Some(Bytes::from(text))
}

/// Keeps as many edges as `bytes_max` bytes of JSON hold, those that were seen last; how many are left out. The order
/// stays.
pub(super) fn newest_within(edges: &mut Vec<Value>, bytes_max: usize) -> usize {
    let sizes: Vec<usize> = edges.iter().map(|edge| edge.to_string().len() + 1).collect();
    if sizes.iter().sum::<usize>() <= bytes_max {
        return 0;
    }
    let seen = |at: usize| edges.get(at).and_then(|edge| edge["last_seen"].as_str()).unwrap_or_default();
    let mut newest: Vec<usize> = (0..sizes.len()).collect();
    // Times of one form compare as texts.
    newest.sort_by(|one, other| seen(*other).cmp(seen(*one)));
    let mut kept = vec![false; sizes.len()];
    let mut bytes = 0;
    for at in newest {
        bytes += sizes[at];
        if bytes > bytes_max {
            break;
        }
        kept[at] = true;
    }
    let before = edges.len();
    let mut kept = kept.into_iter();
    edges.retain(|_| kept.next().unwrap_or(false));
    before - edges.len()
}

#[derive(Debug)]
struct Inner {
    newest: watch::Sender<Arc<Look>>,
    /// Whether the task that looks is there.
    is_looking: Mutex<bool>,
}

/// The looks, and those who follow them. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Looks {
    inner: Arc<Inner>,
}

impl Default for Looks {
    fn default() -> Self {
        let newest = watch::Sender::new(Arc::default());
        Self { inner: Arc::new(Inner { newest, is_looking: Mutex::new(false) }) }
    }
}

impl Looks {
    /// Follows from now on; the first to do so begins the looking, the last one ends it.
    pub(super) fn follow(&self, gathered: &Arc<dyn Gathered>) -> Following {
        let mut is_looking = self.is_looking();
        let mut newest = self.inner.newest.subscribe();
        // What others were told last is news to this one.
        newest.mark_changed();
        if !*is_looking {
            *is_looking = true;
            drop(tasks::spawn("console-looks", keep_looking(self.clone(), gathered.clone())));
        }
        Following { newest, known: Arc::default() }
    }

    fn is_looking(&self) -> MutexGuard<'_, bool> {
        self.inner.is_looking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody follows any more; then whoever comes next begins anew, and nothing is held until then.
    fn is_over(&self) -> bool {
        let mut is_looking = self.is_looking();
        if self.inner.newest.receiver_count() > 0 {
            return false;
        }
        *is_looking = false;
        self.inner.newest.send_modify(|newest| *newest = Arc::new(newest.emptied()));
        true
    }

    /// Looks once, where it holds up nobody: there may be very many pairs.
    async fn look(&self, gathered: &Arc<dyn Gathered>) {
        let (before, gathered) = (self.inner.newest.borrow().clone(), gathered.clone());
        let look = tokio::task::spawn_blocking(move || Look::after(&before, gathered.edges(WINDOW)));
        match look.await {
            Ok(Some(look)) => drop(self.inner.newest.send_replace(Arc::new(look))),
            Ok(None) => {}
            Err(cause) => warn!(%cause, "looking at who talks to whom failed; it is tried again"),
        }
    }
}

async fn keep_looking(looks: Looks, gathered: Arc<dyn Gathered>) {
    let mut tick = time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if looks.is_over() {
            return;
        }
        looks.look(&gathered).await;
    }
}

/// One who follows.
#[derive(Debug)]
pub(super) struct Following {
    newest: watch::Receiver<Arc<Look>>,
    /// What it was told last.
    known: Arc<Look>,
}

impl Following {
    /// What differs from what was told before, as an event; first everything. None once there are no more looks. May be
    /// dropped.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.newest.changed().await.ok()?;
            let newest = self.newest.borrow_and_update().clone();
            let event = newest.since(&self.known);
            self.known = newest;
            if event.is_some() {
                return event;
            }
        }
    }
}
