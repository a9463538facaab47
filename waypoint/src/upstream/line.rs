//! HTTP/2 connections to one endpoint, shared by the requests of one caller, and the openings of more of them.
//!
//! A caller's requests wait for a connection that one of them opens, and learn together that it failed. Callers do
//! not wait for each other. Requests are counted under the lock that finds their connection, so that none gets more
//! than its peer admits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ambit_runtime::clock;
use ambit_types::Identity;
use hyper::client::conn::http2;
use tokio::sync::{Notify, watch};

use super::destination::Held;
use super::endpoint::Endpoint;
use super::error::SendError;
use super::lock;
use super::preface::Room;
use crate::request::body::Upload;

/// Requests at a time on one shared connection; what every server is expected to admit (RFC 9113 section 6.5.2).
pub(super) const STREAMS_MAX: u32 = 100;

/// An HTTP/2 connection that requests share.
#[derive(Clone)]
pub(super) struct Http2 {
    pub(super) sender: http2::SendRequest<Upload>,
    line: Arc<Line>,
}

impl std::fmt::Debug for Http2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Http2")
    }
}

/// What is known of a shared connection, as long as it is offered or a request is under way on it.
#[derive(Debug)]
pub(super) struct Line {
    caller: Identity,
    room: Arc<Room>,
    active: AtomicU32,
    carried: AtomicU32,
    opened: Instant,
    /// Milliseconds after `opened` when its last request ended.
    idle_since: AtomicU64,
    /// Told when it was full and is not any more.
    roomy: Arc<Notify>,
    held: Held,
}

/// A request under way on a shared connection.
#[derive(Debug)]
pub(crate) struct Active(Arc<Line>);

/// The shared connections of an endpoint.
#[derive(Debug, Default)]
pub(super) struct Shared {
    lines: Vec<Http2>,
    openings: Vec<Opening>,
    openings_made: u64,
}

/// A connection that is being opened.
#[derive(Debug)]
struct Opening {
    id: u64,
    caller: Identity,
    /// Requests that wait for it and will find room on it.
    room: u32,
    outcome: watch::Receiver<Option<SendError>>,
}

/// How a request gets to a shared connection.
#[derive(Debug)]
pub(super) enum Share {
    /// One with room.
    Line(Http2, Active),
    /// One that another request is opening; what is sent is why it failed.
    Join(watch::Receiver<Option<SendError>>),
    /// One that has to be opened, by who has a place for it.
    Missing,
    /// One that has to be opened, by this request.
    Open(Turn),
    /// None: the peer admits no stream, and another connection would not change that.
    Full,
}

/// The right to open a connection for a caller. Dropping it lets another request try.
#[derive(Debug)]
pub(super) struct Turn {
    endpoint: Arc<Endpoint>,
    id: u64,
    outcome: watch::Sender<Option<SendError>>,
}

impl Http2 {
    pub(super) fn new(
        sender: http2::SendRequest<Upload>,
        caller: Identity,
        room: Arc<Room>,
        roomy: Arc<Notify>,
        held: Held,
    ) -> Self {
        let line = Line {
            caller,
            room,
            active: AtomicU32::new(0),
            carried: AtomicU32::new(0),
            opened: clock::monotonic(),
            idle_since: AtomicU64::new(0),
            roomy,
            held,
        };
        Self { sender, line: Arc::new(line) }
    }

    /// What tells it from others.
    pub(super) fn line(&self) -> &Arc<Line> {
        &self.line
    }

    /// Counts one more request, if it has room for one. Only under the lock of its list, or before it is on it.
    fn begin(&self) -> Option<Active> {
        // Who ends at the same time only makes room.
        if self.line.active.load(Ordering::Acquire) >= self.line.streams_max() {
            return None;
        }
        self.line.active.fetch_add(1, Ordering::Relaxed);
        self.line.carried.fetch_add(1, Ordering::Relaxed);
        Some(Active(self.line.clone()))
    }

    fn is_spent(&self, requests_max: u32) -> bool {
        requests_max != 0 && self.line.carried.load(Ordering::Relaxed) >= requests_max
    }
}

impl Line {
    fn streams_max(&self) -> u32 {
        STREAMS_MAX.min(self.room.streams_max())
    }

    fn is_idle(&self) -> bool {
        self.active.load(Ordering::Acquire) == 0
    }

    /// Whether it is old, or has been idle too long.
    fn is_stale(&self, now: Instant, keep: Duration, age_max: Duration) -> bool {
        let age = now.saturating_duration_since(self.opened);
        let since = Duration::from_millis(self.idle_since.load(Ordering::Relaxed));
        age >= age_max || (self.is_idle() && age.saturating_sub(since) >= keep)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        let line = &self.0;
        let before = line.active.fetch_sub(1, Ordering::AcqRel);
        if before == 1 {
            let age = clock::monotonic().saturating_duration_since(line.opened).as_millis();
            line.idle_since.store(u64::try_from(age).unwrap_or(u64::MAX), Ordering::Relaxed);
            // Somebody else may have its place now.
            line.held.tell();
        }
        if before >= line.streams_max() {
            line.roomy.notify_waiters();
        }
    }
}

impl Endpoint {
    /// A shared connection of a caller with room for a request, or how there will be one. Only who has a place for a
    /// connection may open one, so that nobody waits for an opening that cannot go on.
    pub(super) fn share(self: &Arc<Self>, caller: &Identity, requests_max: u32, may_open: bool) -> Share {
        let mut shared = lock(&self.shared);
        let mut is_starved = false;
        for at in 0..shared.lines.len() {
            let one = &shared.lines[at];
            if one.line.caller != *caller || !one.sender.is_ready() || one.is_spent(requests_max) {
                continue;
            }
            let Some(active) = one.begin() else {
                is_starved |= one.line.room.streams_max() == 0;
                continue;
            };
            let found = one.clone();
            if found.is_spent(requests_max) {
                shared.lines.swap_remove(at);
            }
            return Share::Line(found, active);
        }
        if is_starved {
            return Share::Full;
        }
        let joined = shared.openings.iter_mut().find(|one| one.room > 0 && one.caller == *caller);
        if let Some(opening) = joined {
            opening.room -= 1;
            return Share::Join(opening.outcome.clone());
        }
        if !may_open {
            return Share::Missing;
        }
        let (sender, outcome) = watch::channel(None);
        shared.openings_made += 1;
        let id = shared.openings_made;
        // Whoever opens it takes one stream itself.
        let room = self.streams_seen.load(Ordering::Relaxed).saturating_sub(1);
        shared.openings.push(Opening { id, caller: caller.clone(), room, outcome });
        Share::Open(Turn { endpoint: self.clone(), id, outcome: sender })
    }

    /// An idle shared connection gives its place to somebody else; one of `spared` does not.
    pub(super) fn evict_shared(&self, spared: Option<&Identity>) -> bool {
        let mut shared = lock(&self.shared);
        let may_go = |one: &Http2| one.line.is_idle() && spared != Some(&one.line.caller);
        let Some(at) = shared.lines.iter().position(may_go) else { return false };
        let evicted = shared.lines.swap_remove(at);
        drop(shared);
        drop(evicted);
        true
    }

    /// A shared connection has ended.
    pub(super) fn forget(&self, ended: &std::sync::Weak<Line>) {
        let mut shared = lock(&self.shared);
        let at = shared.lines.iter().position(|one| std::ptr::eq(Arc::as_ptr(&one.line), ended.as_ptr()));
        let forgotten = at.map(|at| shared.lines.swap_remove(at));
        drop(shared);
        drop(forgotten);
    }
}

impl Turn {
    /// The connection is there: the opener's own request is counted on it, then others find it. None if the peer
    /// admits no stream for now.
    pub(super) fn opened(self, opened: &Http2, requests_max: u32) -> Option<Active> {
        let active = opened.begin();
        let endpoint = &self.endpoint;
        endpoint.streams_seen.store(opened.line.streams_max().max(1), Ordering::Relaxed);
        let mut shared = lock(&endpoint.shared);
        // Under the lock, as who retires the endpoint empties the list only once.
        if !endpoint.is_gone() && !opened.is_spent(requests_max) {
            shared.lines.push(opened.clone());
        }
        drop(shared);
        // Those who found no place for one of their own are waiting for room.
        endpoint.roomy.notify_waiters();
        active
    }

    /// Tells all who wait for it.
    pub(super) fn failed(self, error: SendError) -> SendError {
        // Nobody may be waiting.
        let _ = self.outcome.send(Some(error.clone()));
        error
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        lock(&self.endpoint.shared).openings.retain(|one| one.id != self.id);
    }
}

impl Shared {
    /// Takes out what is closed, old, or has been idle too long; requests under way on it go on.
    pub(super) fn expire(&mut self, now: Instant, keep: Duration, age_max: Duration) -> Vec<Http2> {
        let stale = |one: &mut Http2| one.sender.is_closed() || one.line.is_stale(now, keep, age_max);
        self.lines.extract_if(.., stale).collect()
    }

    /// Takes all out.
    pub(super) fn clear(&mut self) -> Vec<Http2> {
        std::mem::take(&mut self.lines)
    }
}
