//! Small pieces of a request's body, joined before they go on.
//!
//! Each piece that goes on costs a record of TLS, a frame and a wake-up at every hop behind us, however little is in it.
//! So pieces that are there together go on together. HTTP/1.1 hands over one chunk at a time: of a body that comes in
//! very many small ones ([`Pace`]) they are held back for a moment, and beyond a bound its client is not read for that
//! long. In HTTP/2 the library bounds small frames by itself.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use ambit_runtime::clock;
use bytes::{Bytes, BytesMut};
use tokio::time::Sleep;

#[cfg(test)]
mod tests;

/// Shorter pieces cost more to carry than what is in them, and are joined.
pub(super) const SMALL_BYTES: usize = 256;

/// Most bytes of pieces that go on together.
const UNIT_BYTES: usize = 16 << 10;

/// Most pieces that go on together, so that nobody is kept from its turn by taking them.
const UNIT_PIECES: usize = 256;

/// Over how long small pieces are counted, and how long they are held back for.
const WINDOW: Duration = Duration::from_millis(10);

/// Behind such a pause a body counts as any other again.
const CALM: Duration = Duration::from_millis(50);

/// Small pieces of a window that go on as they come.
const FREE: u32 = 64;

/// Small pieces that are taken in a window.
const MOST: u32 = 1024;

/// Pieces on their way to be one.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    /// A piece that is alone is not copied.
    first: Bytes,
    /// All of them, once there are several.
    all: BytesMut,
    count: usize,
}

impl Pieces {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn len(&self) -> usize {
        self.first.len() + self.all.len()
    }

    /// Whether so many more bytes may go on together with these.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.len() + bytes <= UNIT_BYTES
    }

    pub(super) fn is_full(&self) -> bool {
        self.count >= UNIT_PIECES || self.len() >= UNIT_BYTES
    }

    pub(super) fn push(&mut self, piece: Bytes) {
        self.count += 1;
        if self.count == 1 {
            self.first = piece;
            return;
        }
        let first = std::mem::take(&mut self.first);
        self.all.extend_from_slice(&first);
        self.all.extend_from_slice(&piece);
    }

    /// What they are together, and how many they were.
    pub(super) fn take(&mut self) -> (Bytes, usize) {
        let Self { first, all, count } = std::mem::take(self);
        (if all.is_empty() { first } else { all.freeze() }, count)
    }
}

/// How fast small pieces come.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When the window at hand ends.
    until: Option<Instant>,
    pieces: u32,
    is_excessive: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    /// A small piece has come.
    pub(super) fn took(&mut self, now: Instant) {
        if self.until.is_none_or(|until| now >= until) {
            self.turn(now);
        }
        self.pieces += 1;
        self.is_excessive |= self.pieces > FREE;
    }

    /// Whether pieces are held back until the window is over.
    pub(super) fn is_excessive(&self) -> bool {
        self.is_excessive
    }

    /// Whether none is taken any more until the window is over.
    pub(super) fn is_spent(&self) -> bool {
        self.pieces >= MOST
    }

    /// Ready when the window is over.
    pub(super) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(until) = self.until else { return Poll::Ready(()) };
        let due = tokio::time::Instant::from_std(until);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        ready!(timer.as_mut().poll(cx));
        self.turn(clock::monotonic().max(until));
        Poll::Ready(())
    }

    /// Another window begins. Who had too many in the one before has none free in this one.
    fn turn(&mut self, now: Instant) {
        let is_calm = self.until.is_none_or(|until| now >= until + CALM);
        self.is_excessive = !is_calm && self.pieces > FREE;
        (self.until, self.pieces) = (Some(now + WINDOW), 0);
    }
}
