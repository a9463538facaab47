//! Counts a peer's HTTP/2 frames that carry nothing of a user, and ends the connection of a peer that only costs.
//!
//! PING, SETTINGS, PRIORITY, WINDOW_UPDATE and empty DATA each cost the library work, and some an answer
//! (CVE-2019-9512, -9513, -9515, -9518). Only frame headers are read, of both directions: what goes to and fro of users
//! pays for the frames that keep it flowing. Who goes beyond it is given a frame that ends any connection, in place of
//! what it sends, so that the library itself says GOAWAY.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use ambit_net::tunnel::keepalive::Abandon;
use ambit_runtime::clock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

#[cfg(test)]
mod tests;

/// Bytes of a frame's header.
const HEADER_BYTES: usize = 9;

/// What a client sends before its first frame: `PRI * HTTP/2.0` and so on.
const PREFACE_BYTES: usize = 24;

/// Frames that are read before others have their turn: what drives a connection reads on as long as there is anything.
const TURN_FRAMES: u32 = 256;

/// Frames of control that each frame of a user pays for, and each KiB in it one more.
const CREDIT: u32 = 8;

/// WINDOW_UPDATE by nothing: a connection error in RFC 9113 section 6.9.
const POISON: [u8; 13] = [0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0];

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;

/// A frame's header, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    length: usize,
    kind: u8,
    flags: u8,
}

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weight {
    /// It carries something of a user, so many bytes.
    User(usize),
    /// It carries nothing.
    Control,
    /// It ends or goes on with what was counted, or is bounded elsewhere.
    Neither,
}

impl Head {
    fn weight(self) -> Weight {
        match self.kind {
            HEADERS => Weight::User(self.length),
            DATA if self.length > 0 => Weight::User(self.length),
            DATA if self.flags & END_STREAM == 0 => Weight::Control,
            // The library bounds resets of streams and pieces of heads by itself.
            DATA | RST_STREAM | CONTINUATION => Weight::Neither,
            // SETTINGS, PING, WINDOW_UPDATE and whatever nobody knows.
            _ => Weight::Control,
        }
    }
}

/// Where one direction stands between its frames.
#[derive(Debug)]
struct Frames {
    /// Bytes to come that are no header.
    left: usize,
    header: [u8; HEADER_BYTES],
    held: usize,
}

impl Frames {
    fn behind(preface: usize) -> Self {
        Self { left: preface, header: [0; HEADER_BYTES], held: 0 }
    }

    /// Whether the next byte begins a frame.
    fn is_between(&self) -> bool {
        self.left == 0 && self.held == 0
    }

    /// Takes at least one byte, and at most to the end of a header or a payload; the header if it is whole now.
    fn step(&mut self, bytes: &[u8]) -> (usize, Option<Head>) {
        if self.left > 0 {
            let taken = self.left.min(bytes.len());
            self.left -= taken;
            return (taken, None);
        }
        let taken = (HEADER_BYTES - self.held).min(bytes.len());
        self.header[self.held..self.held + taken].copy_from_slice(&bytes[..taken]);
        self.held += taken;
        if self.held < HEADER_BYTES {
            return (taken, None);
        }
        self.held = 0;
        let [a, b, c, kind, flags, ..] = self.header;
        self.left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        (taken, Some(Head { length: self.left, kind, flags }))
    }
}

/// Frames of control in the second at hand that nothing has paid for.
#[derive(Debug)]
struct Count {
    since: Instant,
    unpaid: u32,
    most: u32,
}

impl Count {
    /// Whether a frame is one too many. `now` is asked only where it matters.
    fn is_excess(&mut self, weight: Weight, now: impl FnOnce() -> Instant) -> bool {
        match weight {
            Weight::Neither => false,
            Weight::User(bytes) => {
                let more = u32::try_from(bytes >> 10).unwrap_or(u32::MAX);
                self.unpaid = self.unpaid.saturating_sub(CREDIT.saturating_add(more));
                false
            }
            Weight::Control => {
                let now = now();
                if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
                    (self.since, self.unpaid) = (now, 0);
                }
                self.unpaid += 1;
                self.unpaid > self.most
            }
        }
    }
}

/// Says that a connection has to end; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sentence(Arc<AtomicBool>);

impl Sentence {
    /// The connection ends with GOAWAY at the end of the frame at hand. Whoever drives it has to poll it again.
    pub(crate) fn pass(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_passed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The accepting side of an HTTP/2 connection, with its frames counted.
#[derive(Debug)]
pub(crate) struct Metered<S> {
    stream: S,
    received: Frames,
    sent: Frames,
    count: Count,
    /// Frames that have been received since others had their turn.
    in_turn: u32,
    /// Streams that the peer began and has not reset.
    resettable: u64,
    sentence: Sentence,
    /// What is left to be given in place of what the peer sends.
    poison: &'static [u8],
}

impl<S> Metered<S> {
    /// From the client's preface on; `most` frames of control a second are free.
    pub(crate) fn new(stream: S, most: u32) -> Self {
        Self {
            stream,
            received: Frames::behind(PREFACE_BYTES),
            sent: Frames::behind(0),
            count: Count { since: clock::monotonic(), unpaid: 0, most },
            in_turn: 0,
            resettable: 0,
            sentence: Sentence::default(),
            poison: &POISON,
        }
    }

    /// With which the connection can be ended from outside.
    pub(crate) fn sentence(&self) -> Sentence {
        self.sentence.clone()
    }

    /// What a received frame is for. The library passes over resets of streams that are over, however many come: a peer
    /// that resets more than it began only costs.
    fn weight(&mut self, head: Head) -> Weight {
        match head.kind {
            HEADERS => self.resettable = self.resettable.saturating_add(1),
            RST_STREAM if self.resettable == 0 => return Weight::Control,
            RST_STREAM => self.resettable -= 1,
            _ => {}
        }
        head.weight()
    }

    /// Follows what was received, to the end of the frame at which the connection ends, if it does.
    fn received(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            if self.sentence.is_passed() && self.received.is_between() {
                break;
            }
            let (taken, head) = self.received.step(&bytes[at..]);
            at += taken;
            let Some(head) = head else { continue };
            self.in_turn = self.in_turn.saturating_add(1);
            let weight = self.weight(head);
            if self.count.is_excess(weight, clock::monotonic) && !self.sentence.is_passed() {
                metrics::counter!("ambit_waypoint_clients_dismissed_total", "cause" => "control_frames")
                    .increment(1);
                self.sentence.pass();
            }
        }
        at
    }

    /// Follows what was sent: what it carries of users pays for frames received.
    fn sent(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (taken, head) = self.sent.step(bytes);
            bytes = &bytes[taken..];
            if let Some(Weight::User(length)) = head.map(Head::weight) {
                self.count.is_excess(Weight::User(length), clock::monotonic);
            }
        }
    }

    /// Gives of the poison what fits; nothing once it is used up, which is the end.
    fn end(&mut self, into: &mut ReadBuf<'_>) {
        let part = self.poison.len().min(into.remaining());
        let (given, left) = self.poison.split_at(part);
        into.put_slice(given);
        self.poison = left;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.in_turn >= TURN_FRAMES {
            this.in_turn = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if !(this.sentence.is_passed() && this.received.is_between()) {
            let before = into.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(cx, into))?;
            let all = into.filled().len();
            let followed = this.received(&into.filled()[before..]);
            if before + followed == all {
                return Poll::Ready(Ok(()));
            }
            into.set_filled(before + followed);
        }
        this.end(into);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, from))?;
        self.sent(from.get(..written).unwrap_or(from));
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, from))?;
        let mut left = written;
        for slice in from {
            let part = left.min(slice.len());
            self.sent(&slice[..part]);
            left -= part;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: Abandon> Abandon for Metered<S> {
    fn abandon(&self) {
        self.stream.abandon();
    }

    fn tcp(&self) -> Option<&TcpStream> {
        self.stream.tcp()
    }
}
