//! How long a request may take, watched from before its first attempt to the last byte of its response.
//!
//! There is one timer for each request and no task: it is polled by whoever waits, first beside the attempts
//! ([`Watch::during`]), then inside the body of the response. Bytes are counted as they pass and looked at only when
//! the timer runs out, so that a frame costs an addition and no timer is moved for it; silence is noticed between the
//! limit and a quarter more.
//!
//! What this cannot see is a client that takes nothing: nobody polls a body that has nowhere to go. Whoever drives the
//! client's stream has to end it then, and asks the body until when it may go on ([`super::Outgoing::until`]).
//!
//! A body that comes too slowly is ended as long as its answer is waited for. gRPC is left out, and so is what follows
//! an answer: there a stream may well be silent in one direction.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use ambit_route::timeout::Limit;
use ambit_runtime::clock;
use tokio::time::Sleep;

use super::Replay;

#[cfg(test)]
mod tests;

/// Why a request has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// A limit of time is over.
    Over(Limit),
    /// Nothing moved for too long.
    Idle,
    /// The request's body comes too slowly.
    Slow,
}

/// What has happened so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Frames in both directions.
    pub(crate) moved: u64,
    /// Bytes of the request's body.
    pub(crate) received: u64,
    /// Whether somebody waits for more of it.
    pub(crate) is_starved: bool,
}

/// How slowly a body may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Bytes that have to come in each window in which somebody waits for them.
    pub(crate) bytes_min: u64,
    /// How long a window is.
    pub(crate) window: Duration,
}

/// Limits of one request, and how it does by them.
#[derive(Debug, Clone)]
struct Ledger {
    over: Option<(Instant, Limit)>,
    idle: Duration,
    rate: Option<Rate>,
    /// Frames at the last look that found more of them.
    moved: u64,
    moved_at: Instant,
    /// When the window at hand began, and the bytes that there were.
    window: (Instant, u64),
}

/// Watches one request.
#[derive(Debug)]
pub(crate) struct Watch {
    ledger: Ledger,
    timer: Pin<Box<Sleep>>,
}

impl Ledger {
    fn new(now: Instant, idle: Duration, rate: Option<Rate>) -> Self {
        Self { over: None, idle, rate, moved: 0, moved_at: now, window: (now, 0) }
    }

    /// Whether the request has to end, by what has happened until `now`.
    fn judge(&mut self, now: Instant, seen: Seen) -> Option<Due> {
        if let Some((at, limit)) = self.over
            && now >= at
        {
            return Some(Due::Over(limit));
        }
        if seen.moved != self.moved {
            (self.moved, self.moved_at) = (seen.moved, now);
        } else if now.saturating_duration_since(self.moved_at) >= self.idle {
            return Some(Due::Idle);
        }
        let rate = self.rate?;
        let (begun, bytes) = self.window;
        if now.saturating_duration_since(begun) >= rate.window {
            if seen.is_starved && seen.received.saturating_sub(bytes) < rate.bytes_min {
                return Some(Due::Slow);
            }
            self.window = (now, seen.received);
        }
        None
    }

    /// When to look again. Always later than `now` if nothing is due then.
    fn next(&self, now: Instant) -> Instant {
        let silent = self.moved_at + self.idle;
        // If something has moved since, it is not known when.
        let mut next = silent.min(now + self.idle / 4).max(now + Duration::from_millis(1));
        if let Some(rate) = self.rate {
            next = next.min(self.window.0 + rate.window);
        }
        self.over.map_or(next, |(at, _)| next.min(at))
    }
}

impl Watch {
    /// Watches a request from `now` on. `idle` is the longest silence, `rate` is none if its body may come as slowly
    /// as it likes.
    pub(crate) fn new(now: Instant, idle: Duration, rate: Option<Rate>) -> Self {
        let ledger = Ledger::new(now, idle, rate);
        let timer = Box::pin(tokio::time::sleep_until(ledger.next(now).into()));
        Self { ledger, timer }
    }

    /// An attempt begins, which may take until then, its whole response included.
    pub(crate) fn begin(&mut self, now: Instant, over: Option<(Instant, Limit)>) {
        self.ledger.moved_at = now;
        self.ledger.over = over;
        self.arm(now);
    }

    /// The answer has begun.
    pub(crate) fn answered(&mut self, now: Instant) {
        self.ledger.rate = None;
        self.ledger.moved_at = now;
    }

    /// Until when the request may take, if there is such a limit.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.ledger.over.map(|(at, _)| at)
    }

    /// The limit that is over, for who never has to wait.
    pub(crate) fn over(&self) -> Option<Due> {
        self.ledger.over.filter(|(at, _)| clock::monotonic() >= *at).map(|(_, limit)| Due::Over(limit))
    }

    /// Ready once the request has to end; looks at what has happened only now and then.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, seen: impl Fn() -> Seen) -> Poll<Due> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let now = clock::monotonic().max(self.timer.deadline().into_std());
            if let Some(due) = self.ledger.judge(now, seen()) {
                return Poll::Ready(due);
            }
            self.timer.as_mut().reset(self.ledger.next(now).into());
        }
    }

    /// Does some work unless the request has to end before. It is pinned by the caller, as it would be held twice here.
    pub(crate) async fn during<T>(
        &mut self,
        upload: Option<&Replay>,
        mut work: Pin<&mut impl Future<Output = T>>,
    ) -> Result<T, Due> {
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending => self.poll(cx, || upload.map(Replay::seen).unwrap_or_default()).map(Err),
        })
        .await
    }

    /// Has the timer run out in time for what is due next; one that runs out earlier does no harm.
    fn arm(&mut self, now: Instant) {
        let next = tokio::time::Instant::from_std(self.ledger.next(now));
        if next < self.timer.deadline() {
            self.timer.as_mut().reset(next);
        }
    }
}
