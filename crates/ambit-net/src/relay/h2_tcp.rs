//! Socket to a stream of a tunnel and back.

use std::io;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use tokio::net::TcpStream;

use super::{Both, Broken, Counters, State, TURN_UNITS, poll_write, shutdown_write};
use crate::slab::{SLAB_BYTES, Slab};

/// Units from this size on are sent without a copy: a slab then holds little more than its bytes.
const KEEP_FROM: usize = SLAB_BYTES / 4 * 3;

/// Moves what can be moved now in both directions.
pub(super) fn poll(
    cx: &mut Context<'_>,
    near: &TcpStream,
    (send, recv): (&mut SendStream<Bytes>, &mut RecvStream),
    both: &mut Both,
    counters: &Counters,
) -> Poll<Result<(), Broken>> {
    match to_tunnel(cx, near, send, both, counters) {
        Ok(()) => {}
        Err(Broken::Near) => return Poll::Ready(Err(Broken::Near)),
        Err(Broken::Far) => {
            both.up.state = State::Ended;
            both.broken = Some(Broken::Far);
        }
    }
    match from_tunnel(cx, recv, near, both, counters) {
        Ok(()) => {}
        Err(Broken::Far) => return Poll::Ready(Err(Broken::Far)),
        Err(Broken::Near) => {
            both.down.state = State::Ended;
            both.broken = Some(Broken::Near);
        }
    }
    if both.down.is_unread() && !(both.down.has_ended() && both.up.has_ended()) {
        // Nothing is read from the tunnel now, so only this tells of a peer that gave up.
        match send.poll_reset(cx) {
            // NO_ERROR after the peer's end means that it wants no more, not that data was lost (RFC 9113, 8.1).
            Poll::Ready(Ok(h2::Reason::NO_ERROR)) if both.down.blocked => {}
            Poll::Ready(Ok(h2::Reason::NO_ERROR)) if both.broken.is_none() => return Poll::Ready(Ok(())),
            Poll::Ready(Ok(_) | Err(_)) => return Poll::Ready(Err(both.broken.unwrap_or(Broken::Far))),
            Poll::Pending => {}
        }
    }
    both.outcome()
}

/// Reads from the socket only what flow control lets go, so that nothing queues here.
fn to_tunnel(
    cx: &mut Context<'_>,
    near: &TcpStream,
    send: &mut SendStream<Bytes>,
    both: &mut Both,
    counters: &Counters,
) -> Result<(), Broken> {
    let orderly = both.broken.is_none();
    let direction = &mut both.up;
    direction.blocked = false;
    for _ in 0..TURN_UNITS {
        if direction.has_ended() {
            return Ok(());
        }
        let Poll::Ready(ready) = near.poll_read_ready(cx) else { return Ok(()) };
        ready.map_err(|_| Broken::Near)?;
        // Window is asked for only when there is something to send: idle streams must not hold any.
        send.reserve_capacity(SLAB_BYTES);
        let room = match send.capacity() {
            0 => match send.poll_capacity(cx) {
                Poll::Ready(Some(Ok(0))) => continue,
                Poll::Ready(Some(Ok(room))) => room,
                Poll::Ready(Some(Err(_)) | None) => return Err(Broken::Far),
                Poll::Pending => {
                    direction.blocked = true;
                    return Ok(());
                }
            },
            room => room,
        };
        match read_unit(near, room) {
            Ok(Some(unit)) => {
                counters.from_near.fetch_add(unit.len() as u64, Ordering::Relaxed);
                send.send_data(unit, false).map_err(|_| Broken::Far)?;
            }
            Ok(None) => {
                direction.state = State::Ended;
                if orderly {
                    send.send_data(Bytes::new(), true).map_err(|_| Broken::Far)?;
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => send.reserve_capacity(0),
            Err(_) => return Err(Broken::Near),
        }
    }
    cx.waker().wake_by_ref();
    Ok(())
}

/// At most `room` bytes of what has arrived; `None` at the end.
///
/// A large unit keeps its slab until it was sent; a small one is copied, so that what waits holds little more
/// memory than it has bytes.
fn read_unit(near: &TcpStream, room: usize) -> io::Result<Option<Bytes>> {
    let mut slab = Slab::take();
    let room = room.min(SLAB_BYTES);
    let n = near.try_read(&mut slab.room()[..room])?;
    slab.filled(n);
    Ok(match n {
        0 => None,
        n if n < KEEP_FROM => Some(Bytes::copy_from_slice(slab.as_ref())),
        _ => Some(Bytes::from_owner(slab)),
    })
}

fn from_tunnel(
    cx: &mut Context<'_>,
    recv: &mut RecvStream,
    near: &TcpStream,
    both: &mut Both,
    counters: &Counters,
) -> Result<(), Broken> {
    let orderly = both.broken.is_none();
    let direction = &mut both.down;
    direction.blocked = false;
    for _ in 0..TURN_UNITS {
        match &mut direction.state {
            State::Ended => return Ok(()),
            State::Holding(bytes) => {
                let held = bytes.len();
                let written = poll_write(cx, near, bytes);
                let moved = held - bytes.len();
                counters.from_far.fetch_add(moved as u64, Ordering::Relaxed);
                // The window opens again only for what the application has taken: end-to-end back-pressure.
                recv.flow_control().release_capacity(moved).map_err(|_| Broken::Far)?;
                let Poll::Ready(written) = written else {
                    direction.blocked = true;
                    return Ok(());
                };
                written.map_err(|_| Broken::Near)?;
                direction.state = State::Open;
            }
            State::Open => match recv.poll_data(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Some(Ok(bytes))) => direction.state = State::Holding(bytes),
                Poll::Ready(None) => {
                    if orderly {
                        shutdown_write(near);
                    }
                    direction.state = State::Ended;
                }
                Poll::Ready(Some(Err(_))) => return Err(Broken::Far),
            },
        }
    }
    cx.waker().wake_by_ref();
    Ok(())
}
