//! What an HTTP/2 connection writes at about the same time, gathered to go out at once.
//!
//! The library writes and flushes each frame of 256 bytes or more, and is run for each stream that sends something:
//! left to itself, each response is a frame, a TLS record and a system call of its own at every layer below. So small
//! writes are held until the worker has run whatever else is ready, which is when all that is about to be written has
//! been. Where nothing joins what is held, as on a connection with one request at a time, writes go out as they come,
//! but for a try now and then. Large ones are never copied.
//!
//! For a stream that one task drives and that is flushed, read or shut down whenever that task is woken, as the library
//! does: the task is woken when the wait is over. Who drops it without shutting it down gives up what is held.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};

use ambit_net::tunnel::keepalive::Abandon;
use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

#[cfg(test)]
mod tests;

/// Most bytes that are held: four TLS records, which one system call takes.
const HELD_BYTES_MAX: usize = 64 << 10;

/// The least that is allocated to hold something.
const HELD_BYTES_MIN: usize = 4 << 10;

/// A TLS record's worth: from here on copying costs about what is saved.
const LARGE_BYTES: usize = 16 << 10;

/// Pieces of a write that go out together with what is held; the library's have two.
const PIECES_MAX: usize = 8;

/// Waits in a row that may bring nothing before writes go out as they come.
const PATIENCE: u8 = 16;

/// Writes that go out as they come before it is tried again.
const TRY_AFTER: u8 = 16;

/// Whether it is worth waiting: by what came of it before.
#[derive(Debug, Default)]
struct Worth {
    /// Waits that are still worth it if nothing joins in them.
    patience: u8,
    /// Writes that have gone out as they came since then.
    passed: u8,
}

impl Worth {
    fn is_given(&self) -> bool {
        self.patience > 0 || self.passed >= TRY_AFTER
    }

    /// A write has gone out as it came.
    fn passed(&mut self) {
        self.passed = self.passed.saturating_add(1);
    }

    /// A wait is over.
    fn waited(&mut self, is_joined: bool) {
        self.passed = 0;
        self.patience = if is_joined { PATIENCE } else { self.patience.saturating_sub(1) };
    }
}

/// Waits until the worker has run whatever is ready, and wakes a task.
#[derive(Debug)]
struct Wait {
    is_over: AtomicBool,
    task: Waker,
}

impl Wait {
    /// Begins to wait on behalf of `task`, which is being run by a worker.
    fn begin(task: &Waker) -> Arc<Self> {
        let wait = Arc::new(Self { is_over: AtomicBool::new(false), task: task.clone() });
        let waker = Waker::from(wait.clone());
        // The runtime keeps the waker of who yields until nothing is ready, or for some tens of tasks, and wakes no other
        // worker for it.
        let yielded = pin!(tokio::task::yield_now());
        let _ = yielded.poll(&mut Context::from_waker(&waker));
        wait
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }
}

impl Wake for Wait {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_over.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

/// A stream whose small writes are gathered.
#[derive(Debug)]
pub(crate) struct Outbox<S> {
    stream: S,
    held: BytesMut,
    /// Since the wait began, or since the first of what is held.
    writes: u32,
    wait: Option<Arc<Wait>>,
    worth: Worth,
}

impl<S> Outbox<S> {
    /// From here on.
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, held: BytesMut::new(), writes: 0, wait: None, worth: Worth::default() }
    }

    /// Whether a write of so many bytes is held, or goes out.
    fn is_to_hold(&self, bytes: usize) -> bool {
        let is_small = bytes < LARGE_BYTES && self.held.len() + bytes <= HELD_BYTES_MAX;
        // What comes after what is held must not overtake it.
        is_small && (!self.held.is_empty() || self.worth.is_given())
    }

    fn hold(&mut self, from: &[IoSlice<'_>], bytes: usize) {
        if self.held.is_empty() {
            self.held.reserve(bytes.max(HELD_BYTES_MIN));
        }
        for piece in from {
            self.held.extend_from_slice(piece);
        }
        self.writes = self.writes.saturating_add(1);
    }

    /// Whether what is held stays so for now. The task is woken when it has to go.
    fn waits(&mut self, cx: &Context<'_>) -> bool {
        match &self.wait {
            Some(wait) if wait.is_over() => false,
            Some(wait) if wait.task.will_wake(cx.waker()) => true,
            // Or a wait that wakes who drove the connection before, and not who does now.
            Some(_) | None => {
                self.wait = Some(Wait::begin(cx.waker()));
                true
            }
        }
    }

    fn is_due(&self) -> bool {
        !self.held.is_empty() && self.wait.as_ref().is_some_and(|wait| wait.is_over())
    }

    /// Nothing is held any more. A wait that is not over goes on: more may come in it.
    fn emptied(&mut self) {
        // An idle connection has no memory for what it may send.
        self.held = BytesMut::new();
        if self.wait.take_if(|wait| wait.is_over()).is_some() {
            self.worth.waited(self.writes > 1);
            self.writes = 0;
        }
    }
}

impl<S: AsyncWrite + Unpin> Outbox<S> {
    fn poll_take(&mut self, cx: &mut Context<'_>, from: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let bytes = from.iter().map(|piece| piece.len()).sum();
        if bytes == 0 {
            return Poll::Ready(Ok(0));
        }
        if self.is_to_hold(bytes) {
            self.hold(from, bytes);
            return Poll::Ready(Ok(bytes));
        }
        if let Some(written) = ready!(self.poll_held(cx, from))? {
            return Poll::Ready(Ok(written));
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, from))?;
        if bytes < LARGE_BYTES {
            self.worth.passed();
        }
        Poll::Ready(Ok(written))
    }

    /// Ready when nothing is held any more; with how much of `next` went with the last of it, if any did.
    fn poll_held(&mut self, cx: &mut Context<'_>, next: &[IoSlice<'_>]) -> Poll<io::Result<Option<usize>>> {
        let mut of_next = 0;
        while !self.held.is_empty() {
            let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
            pieces[0] = IoSlice::new(&self.held);
            for (piece, next) in pieces[1..].iter_mut().zip(next) {
                *piece = IoSlice::new(next);
            }
            let count = PIECES_MAX.min(1 + next.len());
            let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &pieces[..count]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_held = written.min(self.held.len());
            self.held.advance(of_held);
            of_next = written - of_held;
        }
        self.emptied();
        Poll::Ready(Ok((of_next > 0).then_some(of_next)))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Outbox<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Whoever is woken and only reads, as at the beginning of a connection, would leave it for good.
        if this.is_due()
            && let Poll::Ready(Err(error)) = this.poll_held(cx, &[])
        {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut this.stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Outbox<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_take(cx, &[IoSlice::new(from)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_take(cx, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Ready while something is held: it goes out when the wait is over.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.held.is_empty() && this.waits(cx) {
            return Poll::Ready(Ok(()));
        }
        ready!(this.poll_held(cx, &[]))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_held(cx, &[]))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

impl<S: Abandon> Abandon for Outbox<S> {
    fn abandon(&self) {
        self.stream.abandon();
    }

    fn tcp(&self) -> Option<&TcpStream> {
        self.stream.tcp()
    }
}
