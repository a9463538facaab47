//! A stream of a tunnel as something to read and write.
//!
//! Windows open again only for bytes that were taken, so that a slow reader slows the sender and nothing queues.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most bytes that are asked to be sent at a time.
const UNIT_BYTES: usize = 64 << 10;

/// One stream, both directions.
#[derive(Debug)]
pub struct Stream {
    send: SendStream<Bytes>,
    recv: RecvStream,
    /// Arrived and not taken.
    held: Bytes,
    read_end: bool,
    write_end: bool,
}

impl Stream {
    /// Both directions of one stream.
    pub fn new(send: SendStream<Bytes>, recv: RecvStream) -> Self {
        Self { send, recv, held: Bytes::new(), read_end: false, write_end: false }
    }

    /// What has arrived and not been taken.
    pub fn held(&self) -> &[u8] {
        &self.held
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
                Some(Ok(data)) if self.held.is_empty() => {
                    self.held = data;
                    return Poll::Ready(Ok(true));
                }
                Some(Ok(data)) => {
                    let mut both = BytesMut::with_capacity(self.held.len() + data.len());
                    both.extend_from_slice(&self.held);
                    both.extend_from_slice(&data);
                    self.held = both.freeze();
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
                return Poll::Ready(Ok(room));
            }
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
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
        if this.held.is_empty() && !ready!(this.poll_more(cx))? {
            return Poll::Ready(Ok(()));
        }
        let taken = this.held.len().min(into.remaining());
        into.put_slice(&this.held[..taken]);
        this.held.advance(taken);
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
