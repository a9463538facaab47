//! A connection that an application may end with a reset, and on which it may say something ahead of its answer.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What an application may ask of its connection.
#[derive(Debug, Default)]
pub(crate) struct Control {
    resets: AtomicBool,
    is_clear: bool,
    ahead: Mutex<Vec<u8>>,
}

impl Control {
    /// Has the connection end with a reset when it is dropped.
    pub(crate) fn reset(&self) {
        self.resets.store(true, Ordering::SeqCst);
    }

    /// Has bytes sent before whatever is written next; false where TLS is in the way.
    pub(crate) fn say_ahead(&self, bytes: &[u8]) -> bool {
        if self.is_clear {
            self.ahead.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        }
        self.is_clear
    }
}

/// A TCP connection under control.
#[derive(Debug)]
pub(crate) struct Wire {
    tcp: TcpStream,
    control: Arc<Control>,
}

impl Wire {
    pub(crate) fn new(tcp: TcpStream, is_clear: bool) -> Self {
        Self { tcp, control: Arc::new(Control { is_clear, ..Control::default() }) }
    }

    pub(crate) fn control(&self) -> Arc<Control> {
        self.control.clone()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.control.resets.load(Ordering::SeqCst) {
            // Without it, it ends in order: the test then sees no reset and says so.
            let _ = SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let control = self.control.clone();
        let mut ahead = control.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        while !ahead.is_empty() {
            let written = ready!(Pin::new(&mut self.tcp).poll_write(cx, &ahead))?;
            ahead.drain(..written);
        }
        drop(ahead);
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
