//! A connection whose other end has to take what it is sent: one that does not is ended, and what waits for it is free.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

#[cfg(test)]
mod tests;

/// What a reader has to take within its limit, so that it counts as one that reads.
const TAKEN_MIN: usize = 16 << 10;

/// A wait for the other end.
#[derive(Debug)]
struct Wait {
    over: Pin<Box<Sleep>>,
    /// What was taken since it began.
    taken: usize,
}

/// A stream that fails once its other end has taken next to nothing for as long as it may.
#[derive(Debug)]
pub(super) struct Stalling<S> {
    stream: S,
    within: Duration,
    wait: Option<Wait>,
}

impl<S> Stalling<S> {
    /// Fails after `within` in which something waits to be taken and is not.
    pub(super) fn new(stream: S, within: Duration) -> Self {
        Self { stream, within, wait: None }
    }

    /// Judges one attempt to write `wanted` bytes.
    fn judge(
        &mut self,
        cx: &mut Context<'_>,
        wanted: usize,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match (&written, &mut self.wait) {
            // Who takes a little is asked for the rest at once, and the wait goes on.
            (Poll::Ready(Ok(bytes)), Some(wait)) if *bytes < wanted && wait.taken + bytes < TAKEN_MIN => {
                wait.taken += bytes;
            }
            (Poll::Ready(_), wait) => *wait = None,
            (Poll::Pending, wait) => {
                let within = self.within;
                let wait = wait.get_or_insert_with(|| Wait { over: Box::pin(sleep(within)), taken: 0 });
                if wait.over.as_mut().poll(cx).is_ready() {
                    metrics::counter!("ambit_console_readers_cut_total").increment(1);
                    let words = format!("the reader took nothing for {within:?}");
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, words)));
                }
            }
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stalling<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stalling<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, from);
        this.judge(cx, from.len(), written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, from);
        this.judge(cx, from.iter().map(|slice| slice.len()).sum(), written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
