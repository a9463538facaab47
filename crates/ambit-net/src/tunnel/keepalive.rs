//! Finding a silent peer: PING only when nothing was heard, give up when nothing answers (P13).
//!
//! Whatever arrives is a sign of life, so a tunnel that carries data is not pinged, and one whose answer waits behind
//! data is not given up. What is sent says nothing of the peer. What does not get on is looked at when something
//! arrives: it may be too large for the path.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use ambit_runtime::clock;
use h2::{Ping, PingPong};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{client, server};

use super::{TunnelSettings, path};
use crate::linux::sockopt::{TcpCounts, tcp_counts};
use crate::socket::reset_on_close;
use crate::tls::ahead::ReadAhead;

/// At most so often a connection on which something arrives is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// When a peer was last heard.
#[derive(Debug, Clone)]
pub struct Heard {
    since: Instant,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Milliseconds after `since`.
    last: AtomicU64,
    given_up: AtomicBool,
    large_vanished: AtomicBool,
}

impl Heard {
    /// A peer that is heard just now.
    pub fn now() -> Self {
        Self { since: clock::monotonic(), shared: Arc::default() }
    }

    fn note(&self, now: Instant) {
        let after = now.saturating_duration_since(self.since);
        self.shared.last.store(u64::try_from(after.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn quiet_at(&self, now: Instant) -> Duration {
        let last = self.since + Duration::from_millis(self.shared.last.load(Ordering::Relaxed));
        now.saturating_duration_since(last)
    }

    /// The peer is given up: its stream ends with a reset, because an orderly end would wait behind whatever it has
    /// not acknowledged.
    pub fn give_up(&self) {
        self.shared.given_up.store(true, Ordering::Relaxed);
    }

    /// Whether the connection has ended because large segments vanish on its path and small ones pass.
    pub fn has_lost_large(&self) -> bool {
        self.shared.large_vanished.load(Ordering::Relaxed)
    }
}

/// A stream that can be ended without waiting for the peer, and whose socket can be looked at.
pub trait Abandon {
    /// Makes closing it a reset.
    fn abandon(&self);

    /// The socket below, if it is one of TCP.
    fn tcp(&self) -> Option<&TcpStream>;
}

impl Abandon for client::TlsStream<ReadAhead> {
    fn abandon(&self) {
        reset_on_close(self.get_ref().0.tcp());
    }

    fn tcp(&self) -> Option<&TcpStream> {
        Some(self.get_ref().0.tcp())
    }
}

impl Abandon for server::TlsStream<ReadAhead> {
    fn abandon(&self) {
        reset_on_close(self.get_ref().0.tcp());
    }

    fn tcp(&self) -> Option<&TcpStream> {
        Some(self.get_ref().0.tcp())
    }
}

/// A stream that notes when something arrives on it.
#[derive(Debug)]
pub struct Listening<S: Abandon> {
    stream: S,
    heard: Heard,
    /// When it was last looked at what gets on.
    looked: Option<Instant>,
    /// What was counted then, if nothing got on.
    stuck: Option<TcpCounts>,
}

impl<S: Abandon> Drop for Listening<S> {
    fn drop(&mut self) {
        if self.heard.shared.given_up.load(Ordering::Relaxed) {
            self.end();
            self.stream.abandon();
        }
    }
}

impl<S: Abandon> Listening<S> {
    /// Notes in `heard` what arrives on `stream`.
    pub fn new(stream: S, heard: Heard) -> Self {
        Self { stream, heard, looked: None, stuck: None }
    }

    fn counts(&self) -> Option<TcpCounts> {
        // A kernel that does not count it says nothing of the path.
        tcp_counts(self.stream.tcp()?).ok()
    }

    /// Something has arrived.
    fn arrived(&mut self) {
        let now = clock::monotonic();
        self.heard.note(now);
        if self.looked.is_none_or(|at| now.saturating_duration_since(at) >= LOOK_EVERY) {
            self.looked = Some(now);
            self.stuck = self.counts().filter(path::is_stuck);
        }
    }

    /// The connection has ended; called before anybody else learns of it.
    fn end(&self) {
        let Some(stuck) = &self.stuck else { return };
        if self.counts().is_some_and(|now| path::large_vanished(stuck, &now)) {
            self.heard.shared.large_vanished.store(true, Ordering::Relaxed);
        }
    }

    fn noting<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if matches!(result, Poll::Ready(Err(_))) {
            self.end();
        }
        result
    }
}

impl<S: AsyncRead + Abandon + Unpin> AsyncRead for Listening<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, into));
        match &read {
            Ok(()) if into.filled().len() > before => self.arrived(),
            Ok(()) | Err(_) => self.end(),
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Abandon + Unpin> AsyncWrite for Listening<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, from);
        self.noting(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, from);
        self.noting(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.noting(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What to do about a peer.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Look again after this time.
    Wait(Duration),
    Ping,
    GiveUp,
}

/// Decides by how long the peer has been quiet, and how long a PING has been without answer, if one is.
fn next(quiet: Duration, unanswered: Option<Duration>, settings: &TunnelSettings) -> Step {
    let (silence, bound, then) = match unanswered {
        None => (quiet, settings.ping_after, Step::Ping),
        Some(unanswered) => (quiet.min(unanswered), settings.pong_timeout, Step::GiveUp),
    };
    match bound.saturating_sub(silence) {
        Duration::ZERO => then,
        left => Step::Wait(left),
    }
}

/// Resolves when the peer has been silent for the time the settings allow, or the tunnel has ended.
pub async fn until_silent(mut pings: PingPong, heard: Heard, settings: &TunnelSettings) {
    let mut pinged: Option<Instant> = None;
    loop {
        let now = clock::monotonic();
        let unanswered = pinged.map(|at| now.saturating_duration_since(at));
        match next(heard.quiet_at(now), unanswered, settings) {
            Step::Wait(left) if pinged.is_none() => tokio::time::sleep(left).await,
            Step::Wait(left) => match tokio::time::timeout(left, poll_fn(|cx| pings.poll_pong(cx))).await {
                Ok(Ok(_)) => pinged = None,
                Ok(Err(_)) => return,
                Err(_) => {}
            },
            Step::Ping if pings.send_ping(Ping::opaque()).is_err() => return,
            Step::Ping => pinged = Some(now),
            Step::GiveUp => return,
        }
    }
}

#[cfg(test)]
mod tests;
