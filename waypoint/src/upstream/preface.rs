//! An HTTP/2 connection to an endpoint, watched as it is read: whether the endpoint's settings have arrived, how many
//! streams it admits, and that no response has more heads than a client can want.
//!
//! A connection is shared only after that. One whose settings never come is given up before a request is lost on it,
//! and none gets more requests than its peer takes at a time.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use super::Io;
use super::heads::{HEAD_BYTES, Heads};
use crate::outbox::Outbox;

#[cfg(test)]
mod tests;

/// The type of SETTINGS frames.
const SETTINGS: u8 = 4;

/// How many streams the peer of one connection admits.
#[derive(Debug)]
pub(super) struct Room {
    streams_max: AtomicU32,
    /// Settings have been read, and what they say may have changed.
    pub(super) news: Notify,
}

impl Room {
    /// None before the peer's settings are known.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { streams_max: AtomicU32::new(0), news: Notify::new() })
    }

    /// Streams at a time.
    pub(super) fn streams_max(&self) -> u32 {
        self.streams_max.load(Ordering::Relaxed)
    }

    /// Takes note of what the connection goes by; true if it is something else than before.
    pub(super) fn set(&self, streams_max: usize) -> bool {
        let streams_max = u32::try_from(streams_max).unwrap_or(u32::MAX);
        self.streams_max.swap(streams_max, Ordering::Relaxed) != streams_max
    }
}

/// A connection whose frames are watched.
#[derive(Debug)]
pub(super) struct Watched {
    io: Outbox<Io>,
    greeting: Greeting,
    heads: Heads,
    room: Arc<Room>,
}

/// How much of the peer's settings has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Greeting {
    /// So many bytes of the first frame's head.
    Head([u8; HEAD_BYTES], usize),
    /// All but so many bytes of its payload.
    Payload(usize),
    /// All; it is in force when more is asked for.
    Read,
    /// It is in force.
    Told,
    /// The first frame is another one. The connection never becomes usable.
    Wrong,
}

impl Watched {
    pub(super) fn new(io: Io, room: Arc<Room>) -> Self {
        let greeting = Greeting::Head([0; HEAD_BYTES], 0);
        Self { io: Outbox::new(io), greeting, heads: Heads::default(), room }
    }

    /// More is asked for, so all that was read before has been acted on.
    fn asked(&mut self) {
        match self.greeting {
            Greeting::Read => {
                self.greeting = Greeting::Told;
                self.room.news.notify_one();
            }
            // Somebody may be waiting for the first stream.
            Greeting::Told if self.room.streams_max() == 0 => self.room.news.notify_one(),
            Greeting::Told | Greeting::Head(..) | Greeting::Payload(_) | Greeting::Wrong => {}
        }
    }
}

impl Greeting {
    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self {
                Self::Head(head, read) => {
                    let taken = bytes.len().min(HEAD_BYTES - *read);
                    head[*read..*read + taken].copy_from_slice(&bytes[..taken]);
                    *read += taken;
                    bytes = &bytes[taken..];
                    if *read == HEAD_BYTES {
                        let next = Self::after(head);
                        *self = next;
                    }
                }
                Self::Payload(left) => {
                    let taken = bytes.len().min(*left);
                    *left -= taken;
                    bytes = &bytes[taken..];
                    if *left == 0 {
                        *self = Self::Read;
                    }
                }
                Self::Read | Self::Told | Self::Wrong => return,
            }
        }
    }

    fn after(head: &[u8; HEAD_BYTES]) -> Self {
        let [high, middle, low, kind, ..] = *head;
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        match (kind, length) {
            (SETTINGS, 0) => Self::Read,
            (SETTINGS, length) => Self::Payload(length),
            (_, _) => Self::Wrong,
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.asked();
        let before = into.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, into))?;
        let read = &into.filled()[before..];
        this.greeting.take(read);
        if !this.heads.take(read) {
            // One stream alone cannot be ended from here: the library does not tell which request has which.
            let text = "more informational responses than a client can want";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::QuotaExceeded, text)));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, from)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
