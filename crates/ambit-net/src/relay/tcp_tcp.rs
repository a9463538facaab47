//! Socket to socket.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::net::TcpStream;

use super::{Broken, Counters, Direction, TURN_UNITS, poll_write, shutdown_write};
use crate::slab::Slab;

/// Moves what can be moved now in both directions.
pub(super) fn poll(
    cx: &mut Context<'_>,
    near: &TcpStream,
    far: &TcpStream,
    (up, down): (&mut Direction, &mut Direction),
    counters: &Counters,
) -> Poll<Result<(), Broken>> {
    let up = pump(cx, near, far, up, &counters.from_near);
    let down = pump(cx, far, near, down, &counters.from_far);
    match (up, down) {
        (Poll::Ready(Err(Failed::Source)), _) | (_, Poll::Ready(Err(Failed::Sink))) => {
            Poll::Ready(Err(Broken::Near))
        }
        (Poll::Ready(Err(Failed::Sink)), _) | (_, Poll::Ready(Err(Failed::Source))) => {
            Poll::Ready(Err(Broken::Far))
        }
        (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
        (Poll::Ready(Ok(())) | Poll::Pending, Poll::Ready(Ok(())) | Poll::Pending) => Poll::Pending,
    }
}

/// Which side of one direction failed.
enum Failed {
    Source,
    Sink,
}

fn pump(
    cx: &mut Context<'_>,
    source: &TcpStream,
    sink: &TcpStream,
    state: &mut Direction,
    count: &AtomicU64,
) -> Poll<Result<(), Failed>> {
    for _ in 0..TURN_UNITS {
        match state {
            Direction::Ended => return Poll::Ready(Ok(())),
            Direction::Holding(bytes) => {
                let held = bytes.len();
                let written = poll_write(cx, sink, bytes);
                count.fetch_add((held - bytes.len()) as u64, Ordering::Relaxed);
                std::task::ready!(written).map_err(|_| Failed::Sink)?;
                *state = Direction::Open;
            }
            Direction::Open => {
                std::task::ready!(source.poll_read_ready(cx)).map_err(|_| Failed::Source)?;
                match step(source, sink, count) {
                    Ok(Moved::All) => {}
                    Ok(Moved::Part(rest)) => *state = Direction::Holding(rest),
                    Ok(Moved::End) => {
                        shutdown_write(sink);
                        *state = Direction::Ended;
                    }
                    Err(failed) => return Poll::Ready(Err(failed)),
                }
            }
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
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
