//! A stream of a tunnel as something to read and write.
//!
//! Windows open again only for bytes that were taken, so that a slow reader slows the sender and nothing queues.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ambit_runtime::clock;
use bytes::{Buf as _, Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Most bytes that are asked to be sent at a time.
const UNIT_BYTES: usize = 64 << 10;

/// Bytes a second below which a peer that has something to take counts as taking nothing.
const TAKEN_MIN: u64 = 100;

/// One stream, both directions.
#[derive(Debug)]
pub struct Stream {
    send: SendStream<Bytes>,
    recv: RecvStream,
    /// Arrived and not taken.
    held: Bytes,
    /// The same, gathered of several pieces because somebody looks at it; never both.
    gathered: BytesMut,
    read_end: bool,
    write_end: bool,
    stall: Option<Stall>,
}

/// How long a peer may keep us from sending what there is.
#[derive(Debug)]
struct Stall {
    within: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    is_waiting: bool,
    /// Bytes it took since the timer began.
    taken: u64,
}

impl Stall {
    /// The peer took so many bytes of those there were.
    fn took(&mut self, bytes: usize, wanted: usize) {
        self.taken = self.taken.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        // Who takes all at once does not keep us waiting; who takes less is asked for more at once.
        self.is_waiting &= bytes < wanted;
    }

    /// Ready when the peer has taken next to nothing for as long as it may.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let due = Instant::from_std(clock::monotonic()) + self.within;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if !std::mem::replace(&mut self.is_waiting, true) {
            self.taken = 0;
            timer.as_mut().reset(due);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if self.taken < TAKEN_MIN.saturating_mul(self.within.as_secs()).max(1) {
                return Poll::Ready(());
            }
            self.taken = 0;
            timer.as_mut().reset(due);
        }
    }
}

impl Stream {
    /// Both directions of one stream.
    pub fn new(send: SendStream<Bytes>, recv: RecvStream) -> Self {
        let (held, gathered) = (Bytes::new(), BytesMut::new());
        Self { send, recv, held, gathered, read_end: false, write_end: false, stall: None }
    }

    /// Fails to write once the peer has taken next to nothing of what there is to send for so long.
    pub fn unless_stalled(mut self, within: Duration) -> Self {
        self.stall = Some(Stall { within, timer: None, is_waiting: false, taken: 0 });
        self
    }

    /// What has arrived and not been taken.
    pub fn held(&self) -> &[u8] {
        if self.gathered.is_empty() { &self.held } else { &self.gathered }
    }

    fn is_empty(&self) -> bool {
        self.held.is_empty() && self.gathered.is_empty()
    }

    /// Resolves when the peer gives the stream up or the tunnel ends, not when it has sent all it has to send. May be
    /// dropped.
    pub async fn given_up(&mut self) {
        // Which of the two it was changes nothing for who waits.
        let _ = std::future::poll_fn(|cx| self.send.poll_reset(cx)).await;
    }

    /// Waits for more than what is held; false at the end. May be dropped.
    pub async fn more(&mut self) -> io::Result<bool> {
        std::future::poll_fn(|cx| self.poll_more(cx)).await
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            if self.read_end {
                return Poll::Ready(Ok(false));
            }
            match ready!(self.recv.poll_data(cx)) {
                None => self.read_end = true,
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) if self.is_empty() => {
                    self.held = data;
                    return Poll::Ready(Ok(true));
                }
                Some(Ok(data)) => {
                    // Grows by doubling, so that many small pieces cost no more than they are.
                    let held = std::mem::take(&mut self.held);
                    self.gathered.extend_from_slice(&held);
                    self.gathered.extend_from_slice(&data);
                    return Poll::Ready(Ok(true));
                }
                Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => self.read_end = true,
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            }
        }
    }

    /// How many of `wanted` bytes may be sent now.
    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        if self.write_end {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let wanted = wanted.min(UNIT_BYTES);
        self.send.reserve_capacity(wanted);
        loop {
            let room = self.send.capacity().min(wanted);
            if room > 0 {
                if let Some(stall) = &mut self.stall {
                    stall.took(room, wanted);
                }
                return Poll::Ready(Ok(room));
            }
            match self.send.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(broken(error))),
                Poll::Ready(None) => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                Poll::Pending => {
                    let Some(stall) = &mut self.stall else { return Poll::Pending };
                    ready!(stall.poll(cx));
                    metrics::counter!("ambit_waypoint_clients_dismissed_total", "cause" => "stalled")
                        .increment(1);
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
    }
}

fn broken(error: h2::Error) -> io::Error {
    if error.is_io() {
        error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())
    } else {
        io::Error::new(io::ErrorKind::ConnectionReset, error)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.is_empty() && !ready!(this.poll_more(cx))? {
            return Poll::Ready(Ok(()));
        }
        let taken = this.held().len().min(into.remaining());
        into.put_slice(&this.held()[..taken]);
        if this.gathered.is_empty() {
            this.held.advance(taken);
        } else {
            this.gathered.advance(taken);
            if this.gathered.is_empty() {
                // What was looked at is done with, and so is its memory.
                this.gathered = BytesMut::new();
            }
        }
        this.recv.flow_control().release_capacity(taken).map_err(broken)?;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        if from.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(self.poll_room(cx, from.len()))?;
        self.send.send_data(Bytes::copy_from_slice(&from[..room]), false).map_err(broken)?;
        Poll::Ready(Ok(room))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = from.iter().map(|slice| slice.len()).sum();
        if all == 0 {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(self.poll_room(cx, all))?;
        let mut unit = BytesMut::with_capacity(room);
        for slice in from {
            let part = slice.len().min(room - unit.len());
            unit.extend_from_slice(&slice[..part]);
        }
        self.send.send_data(unit.freeze(), false).map_err(broken)?;
        Poll::Ready(Ok(room))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.write_end, true) {
            self.send.send_data(Bytes::new(), true).map_err(broken)?;
        }
        Poll::Ready(Ok(()))
    }
}
