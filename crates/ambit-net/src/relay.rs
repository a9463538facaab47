//! Moving bytes both ways between an application's socket and its other end, until both are done.
//!
//! End of stream, half-close and reset pass through exactly as on a direct connection. Nothing is held while a
//! connection is idle: bytes are read into a slab of the thread and only what the other side cannot take is kept.

use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use tokio::io::Interest;
use tokio::net::TcpStream;

mod h2_tcp;
mod tcp_tcp;
#[cfg(test)]
mod tests;

/// Units moved before other tasks get a turn.
const TURN_UNITS: usize = 8;

/// Bytes moved so far, readable while the connection lives.
#[derive(Debug, Default)]
pub struct Counters {
    /// From the near side, delivered to the far one.
    pub from_near: AtomicU64,
    /// From the far side, delivered to the near one.
    pub from_far: AtomicU64,
}

impl Counters {
    /// Both counts: (from near, from far).
    pub fn read(&self) -> (u64, u64) {
        (self.from_near.load(Ordering::Relaxed), self.from_far.load(Ordering::Relaxed))
    }
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Both directions were closed in order.
    Closed,
    /// The near side reset the connection; the far one was reset too.
    ResetByNear,
    /// The far side reset the connection; the near one was reset too.
    ResetByFar,
}

/// The far side of a connection.
#[derive(Debug)]
pub enum Far {
    /// A plain socket.
    Tcp(TcpStream),
    /// A stream of a tunnel.
    Tunnel {
        /// Towards the peer.
        send: SendStream<Bytes>,
        /// From the peer.
        recv: RecvStream,
    },
}

/// One direction.
#[derive(Debug, Default)]
struct Direction {
    state: State,
    /// The side it goes to takes nothing now, so the side it comes from is not read.
    blocked: bool,
}

/// Where one direction stands.
#[derive(Debug, Default)]
enum State {
    /// Bytes flow.
    #[default]
    Open,
    /// These bytes wait for the other side.
    Holding(Bytes),
    /// The end was passed on, or there is nobody left to pass anything to.
    Ended,
}

impl Direction {
    fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Nothing is read from its source, so reading cannot tell that the source was reset.
    fn is_unread(&self) -> bool {
        self.blocked || self.has_ended()
    }
}

/// Both directions of a connection.
#[derive(Debug, Default)]
struct Both {
    up: Direction,
    down: Direction,
    /// The side that takes nothing any more. What it sent before is still delivered, as the kernel would.
    broken: Option<Broken>,
}

impl Both {
    /// The connection's end, once both directions have ended.
    fn outcome(&self) -> Poll<Result<(), Broken>> {
        match (self.up.has_ended() && self.down.has_ended(), self.broken) {
            (true, None) => Poll::Ready(Ok(())),
            (true, Some(broken)) => Poll::Ready(Err(broken)),
            (false, _) => Poll::Pending,
        }
    }
}

/// Why a direction broke: which side failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Near,
    Far,
}

/// Relays between a socket `near` and its other end until both directions have ended.
///
/// Dropping the future (a forced drain, a policy that changed) closes both sides with a reset, because neither
/// may take a cut connection for a complete one.
pub async fn relay(near: TcpStream, far: Far, counters: &Counters) -> End {
    let mut cut = ResetOnDrop { near: Some(near), far: Some(far) };
    let end = {
        let (Some(near), Some(far)) = (cut.near.as_ref(), cut.far.as_mut()) else { return End::Closed };
        run(near, far, counters).await
    };
    if end == End::Closed {
        cut.disarm();
    }
    end
}

async fn run(near: &TcpStream, far: &mut Far, counters: &Counters) -> End {
    let mut both = Both::default();
    // A side that is not read, because it ended or the other one takes nothing, can still tell of its reset.
    let mut near_gone = pin!(near.ready(Interest::ERROR));
    let broken = match far {
        Far::Tcp(far) => {
            let far = &*far;
            let mut far_gone = pin!(far.ready(Interest::ERROR));
            poll_fn(|cx| {
                let step = tcp_tcp::poll(cx, near, far, &mut both, counters);
                if step.is_pending() && both.up.is_unread() && near_gone.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Err(Broken::Near));
                }
                if step.is_pending() && both.down.is_unread() && far_gone.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Err(Broken::Far));
                }
                step
            })
            .await
        }
        Far::Tunnel { send, recv } => {
            poll_fn(|cx| {
                let step = h2_tcp::poll(cx, near, (send, recv), &mut both, counters);
                if step.is_pending() && both.up.is_unread() && near_gone.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Err(Broken::Near));
                }
                step
            })
            .await
        }
    };
    match broken {
        Ok(()) => End::Closed,
        Err(Broken::Near) => End::ResetByNear,
        Err(Broken::Far) => End::ResetByFar,
    }
}

/// Resets both sides unless the relay ended in order.
struct ResetOnDrop {
    near: Option<TcpStream>,
    far: Option<Far>,
}

impl ResetOnDrop {
    fn disarm(&mut self) {
        self.near = None;
        self.far = None;
    }
}

impl Drop for ResetOnDrop {
    fn drop(&mut self) {
        if let Some(near) = &self.near {
            crate::socket::reset_on_close(near);
        }
        match &mut self.far {
            Some(Far::Tcp(far)) => crate::socket::reset_on_close(far),
            // What a reset of TCP is in a tunnel (RFC 9113 section 8.5); CANCEL would read as an orderly end elsewhere.
            Some(Far::Tunnel { send, .. }) => send.send_reset(h2::Reason::CONNECT_ERROR),
            None => {}
        }
    }
}

/// Writes as much of `bytes` as the socket takes; `Ready` when all is written.
fn poll_write(cx: &mut Context<'_>, socket: &TcpStream, bytes: &mut Bytes) -> Poll<io::Result<()>> {
    while !bytes.is_empty() {
        std::task::ready!(socket.poll_write_ready(cx))?;
        match socket.try_write(bytes) {
            Ok(n) => drop(bytes.split_to(n)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Poll::Ready(Err(e)),
        }
    }
    Poll::Ready(Ok(()))
}

/// Ends the sending direction of a socket; one that is already gone has nothing to end.
fn shutdown_write(socket: &TcpStream) {
    let _ = socket2::SockRef::from(socket).shutdown(std::net::Shutdown::Write);
}
