//! What happens, as it happens: changed edges each second, refusals and changes of configuration at once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ambit_runtime::admin::Reply;
use ambit_runtime::tasks;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::time::{self, MissedTickBehavior};

use super::Parts;

#[cfg(test)]
mod tests;

/// Streams at once; each compares all edges every second.
const STREAMS_MAX: usize = 16;
/// Events that wait for a reader.
const WAITING: usize = 64;
const TICK: Duration = Duration::from_secs(1);
/// Seconds without an event until a comment shows whether the reader is still there.
const QUIET: u32 = 15;
/// What edges are told of.
const WINDOW: Duration = Duration::from_secs(300);

static OPEN: AtomicUsize = AtomicUsize::new(0);

/// A place among the streams that are open; given back when dropped.
struct Place;

impl Place {
    fn take() -> Option<Self> {
        let taken = OPEN.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| {
            (open < STREAMS_MAX).then_some(open + 1)
        });
        taken.ok().map(|_| Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream of server-sent events.
pub(super) fn stream(parts: &Parts) -> Reply {
    let Some(place) = Place::take() else {
        return Reply::text(StatusCode::SERVICE_UNAVAILABLE, "too many consoles are open; close one\n");
    };
    let (send, events) = mpsc::channel(WAITING);
    let parts = parts.clone();
    drop(tasks::spawn("console-events", async move {
        follow(parts, send).await;
        drop(place);
    }));
    Reply::events(events)
}

async fn follow(mut parts: Parts, send: mpsc::Sender<Bytes>) {
    let mut known = BTreeMap::new();
    let mut refusals = parts.gathered.refusals();
    parts.changed.mark_unchanged();
    let mut quiet = 0;
    let mut tick = time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let piece = tokio::select! {
            _ = tick.tick() => match delta(&mut known, parts.gathered.edges(WINDOW)) {
                Some(delta) => Some(event("edges", &delta)),
                None => {
                    quiet += 1;
                    (quiet >= QUIET).then(|| Bytes::from_static(b": quiet\n\n"))
                }
            },
            refusal = refusals.recv() => match refusal {
                Ok(record) => Some(event("refusal", &record)),
                Err(RecvError::Lagged(count)) => Some(event("lost", &json!({ "refusals": count }))),
                Err(RecvError::Closed) => return,
            },
            changed = parts.changed.changed() => match changed {
                Ok(()) => Some(event("config", &json!({ "revision": parts.sources.standing().revision }))),
                Err(_) => return,
            },
            () = send.closed() => return,
        };
        let Some(piece) = piece else { continue };
        quiet = 0;
        if send.send(piece).await.is_err() {
            return;
        }
    }
}

/// One event as the wire has it; JSON holds no line break of its own.
fn event(name: &str, data: &Value) -> Bytes {
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}

/// What differs from what is known; none if nothing does.
fn delta(known: &mut BTreeMap<String, Value>, edges: Vec<Value>) -> Option<Value> {
    let id = |edge: &Value| edge["id"].as_str().unwrap_or_default().to_owned();
    let now: BTreeMap<String, Value> = edges.into_iter().map(|edge| (id(&edge), edge)).collect();
    let items: Vec<&Value> =
        now.iter().filter(|(id, edge)| known.get(*id) != Some(edge)).map(|(_, edge)| edge).collect();
    let removed: Vec<&String> = known.keys().filter(|id| !now.contains_key(*id)).collect();
    let told =
        (!items.is_empty() || !removed.is_empty()).then(|| json!({ "items": items, "removed": removed }));
    *known = now;
    told
}
