//! A socket read in large units on behalf of TLS, which takes one record at a time.
//!
//! Bulk traffic costs one system call for many records instead of one for each. What was read ahead is held in a
//! slab only while records of it are left, so an idle connection holds none. Writes pass
//! through untouched.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::slab::Slab;

/// Bytes that were read and not taken yet; never empty.
struct Ahead {
    slab: Slab,
    taken: usize,
}

/// A TCP stream that reads ahead.
pub struct ReadAhead {
    tcp: TcpStream,
    ahead: Option<Ahead>,
}

impl std::fmt::Debug for ReadAhead {
    /// Never shows what was read.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadAhead").field("tcp", &self.tcp).finish_non_exhaustive()
    }
}

impl ReadAhead {
    /// Reads `tcp` ahead from here on.
    pub fn new(tcp: TcpStream) -> Self {
        Self { tcp, ahead: None }
    }

    /// The socket below.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Gives `buf` what is there of the bytes read earlier.
    fn serve(&mut self, buf: &mut ReadBuf<'_>) {
        let Some(ahead) = &mut self.ahead else { return };
        let left = &ahead.slab.as_ref()[ahead.taken..];
        let n = buf.remaining().min(left.len());
        buf.put_slice(&left[..n]);
        ahead.taken += n;
        if ahead.taken == ahead.slab.as_ref().len() {
            self.ahead = None;
        }
    }
}

impl AsyncRead for ReadAhead {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_none() {
            let mut slab = Slab::take();
            let mut read = ReadBuf::new(slab.room());
            ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut read))?;
            let n = read.filled().len();
            if n == 0 {
                return Poll::Ready(Ok(()));
            }
            slab.filled(n);
            self.ahead = Some(Ahead { slab, taken: 0 });
        }
        self.serve(buf);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ReadAhead {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
