//! A connection to an endpoint: a stream of a tunnel, or a plain socket where there is no tunnel.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use ambit_net::pool_driver::Lease;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::tunnel::TunnelKey;
use crate::stream::Stream;

/// A connection to an application.
#[derive(Debug)]
pub(crate) enum Io {
    /// Through its proxy.
    Tunnel {
        /// The stream.
        stream: Stream,
        /// Its slot on the tunnel, given back with it.
        _lease: Box<Lease<TunnelKey>>,
    },
    /// Straight to it, without encryption.
    Plain(TcpStream),
}

macro_rules! either {
    ($self:ident, $way:ident => $act:expr) => {
        match $self.get_mut() {
            Io::Tunnel { stream, .. } => {
                let $way = Pin::new(stream);
                $act
            }
            Io::Plain(tcp) => {
                let $way = Pin::new(tcp);
                $act
            }
        }
    };
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, way => way.poll_read(cx, into))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, way => way.poll_write(cx, from))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, way => way.poll_write_vectored(cx, from))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, way => way.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, way => way.poll_shutdown(cx))
    }
}
