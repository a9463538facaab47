//! Socket to socket.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::net::TcpStream;

use super::{Both, Broken, Counters, Direction, State, TURN_UNITS, poll_write, shutdown_write};
use crate::slab::Slab;

/// Moves what can be moved now in both directions.
pub(super) fn poll(
    cx: &mut Context<'_>,
    near: &TcpStream,
    far: &TcpStream,
    both: &mut Both,
    counters: &Counters,
) -> Poll<Result<(), Broken>> {
    let orderly = both.broken.is_none();
    match pump(cx, (near, far), &mut both.up, &counters.from_near, orderly) {
        Ok(()) => {}
        Err(Failed::Source) => return Poll::Ready(Err(Broken::Near)),
        Err(Failed::Sink) => both.broken = Some(Broken::Far),
    }
    let orderly = both.broken.is_none();
    match pump(cx, (far, near), &mut both.down, &counters.from_far, orderly) {
        Ok(()) => {}
        Err(Failed::Source) => return Poll::Ready(Err(Broken::Far)),
        Err(Failed::Sink) => both.broken = Some(Broken::Near),
    }
    both.outcome()
}

/// Which side of one direction failed.
enum Failed {
    Source,
    Sink,
}

/// Moves one direction as far as it goes now; after a failed sink there is nothing left to do in it.
fn pump(
    cx: &mut Context<'_>,
    (source, sink): (&TcpStream, &TcpStream),
    direction: &mut Direction,
    count: &AtomicU64,
    orderly: bool,
) -> Result<(), Failed> {
    direction.blocked = false;
    for _ in 0..TURN_UNITS {
        match &mut direction.state {
            State::Ended => return Ok(()),
            State::Holding(bytes) => {
                let held = bytes.len();
                let written = poll_write(cx, sink, bytes);
                count.fetch_add((held - bytes.len()) as u64, Ordering::Relaxed);
                match written {
                    Poll::Pending => {
                        direction.blocked = true;
                        return Ok(());
                    }
                    Poll::Ready(Ok(())) => direction.state = State::Open,
                    Poll::Ready(Err(_)) => {
                        direction.state = State::Ended;
                        return Err(Failed::Sink);
                    }
                }
            }
            State::Open => {
                let Poll::Ready(ready) = source.poll_read_ready(cx) else { return Ok(()) };
                ready.map_err(|_| Failed::Source)?;
                match step(source, sink, count) {
                    Ok(Moved::All) => {}
                    Ok(Moved::Part(rest)) => direction.state = State::Holding(rest),
                    Ok(Moved::End) => {
                        if orderly {
                            shutdown_write(sink);
                        }
                        direction.state = State::Ended;
                    }
                    Err(Failed::Source) => return Err(Failed::Source),
                    Err(Failed::Sink) => {
                        direction.state = State::Ended;
                        return Err(Failed::Sink);
                    }
                }
            }
        }
    }
    cx.waker().wake_by_ref();
    Ok(())
}

enum Moved {
    All,
    Part(Bytes),
    End,
}

/// One read and one write; what the sink does not take is kept.
fn step(source: &TcpStream, sink: &TcpStream, count: &AtomicU64) -> Result<Moved, Failed> {
    let mut slab = Slab::take();
    let n = match source.try_read(slab.room()) {
        Ok(0) => return Ok(Moved::End),
        Ok(n) => n,
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Moved::All),
        Err(_) => return Err(Failed::Source),
    };
    slab.filled(n);
    let written = match sink.try_write(slab.as_ref()) {
        Ok(written) => written,
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
        Err(_) => return Err(Failed::Sink),
    };
    count.fetch_add(written as u64, Ordering::Relaxed);
    if written == n {
        Ok(Moved::All)
    } else {
        Ok(Moved::Part(Bytes::copy_from_slice(&slab.as_ref()[written..])))
    }
}
