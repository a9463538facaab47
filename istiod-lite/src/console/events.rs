//! What happens, as it happens: changed edges each second, refusals and changes of configuration at once.
//!
//! Of a reader that is slow nothing piles up: edges are told as what differs from what it has, refusals that it could
//! not be told are counted, and one that takes nothing is given up.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use ambit_runtime::admin::{Call, Reply};
use ambit_runtime::tasks;
use bytes::Bytes;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time;

use super::Parts;
use super::live::{self, TAKEN_WITHIN};
use super::looks::Following;

#[cfg(test)]
mod tests;

/// Pieces that wait for a reader; one may be as long as everything that is seen.
const WAITING: usize = 2;
/// Time without an event until a comment shows whether the reader is still there.
const QUIET: Duration = Duration::from_secs(15);

/// A stream of server-sent events.
pub(super) fn stream(parts: &Parts, call: &Call) -> Reply {
    let place = match parts.live.readers.take(call.peer) {
        Ok(place) => place,
        Err(crowded) => return live::refused(format_args!("too many readers: {crowded}")),
    };
    let (send, events) = mpsc::channel(WAITING);
    let mut changed = parts.changed.clone();
    changed.mark_unchanged();
    let sources = parts.sources.clone();
    let happening = Happening {
        edges: parts.live.looks.follow(&parts.gathered),
        refusals: parts.gathered.refusals(),
        changed,
        revision: move || sources.standing().revision,
    };
    drop(tasks::spawn("console-events", async move {
        happening.tell(send, TAKEN_WITHIN).await;
        drop(place);
    }));
    Reply::events(events)
}

/// What a reader is told of.
struct Happening<R> {
    edges: Following,
    refusals: broadcast::Receiver<Arc<str>>,
    changed: watch::Receiver<u64>,
    revision: R,
}

impl<R: Fn() -> u64> Happening<R> {
    /// Tells until there is nothing more to tell, or the reader has left, or takes nothing for longer than `within`.
    async fn tell(mut self, send: mpsc::Sender<Bytes>, within: Duration) {
        let mut quiet = time::interval(QUIET);
        quiet.reset();
        loop {
            let piece = tokio::select! {
                edges = self.edges.next() => match edges {
                    Some(edges) => edges,
                    None => return,
                },
                refusal = self.refusals.recv() => match refusal {
                    Ok(record) => event("refusal", record),
                    Err(RecvError::Lagged(count)) => event("lost", json!({ "refusals": count })),
                    Err(RecvError::Closed) => return,
                },
                changed = self.changed.changed() => match changed {
                    Ok(()) => event("config", json!({ "revision": (self.revision)() })),
                    Err(_) => return,
                },
                _ = quiet.tick() => Bytes::from_static(b": quiet\n\n"),
                () = send.closed() => return,
            };
            quiet.reset();
            if !live::told(&send, piece, within).await {
                return;
            }
        }
    }
}

/// One event as the wire has it; JSON holds no line break of its own.
fn event(name: &str, data: impl Display) -> Bytes {
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}
