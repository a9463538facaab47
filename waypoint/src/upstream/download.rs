//! The body of a response as it arrives, and what becomes of its connection afterwards.
//!
//! Reading drives an HTTP/1.1 connection; its last byte gives the connection back to the endpoint. One that is left
//! in the middle of a response is closed with it and never used again.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ambit_runtime::clock;
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::http1::Http1;
use super::line::Active;
use super::{Destination, Endpoint};

/// A connection whose response is being read, and where it goes then.
#[derive(Debug)]
pub(crate) struct Kept {
    connection: Option<Http1>,
    home: Option<(Arc<Endpoint>, Arc<Destination>)>,
    idle_max: usize,
}

impl Kept {
    /// Keeps a connection for its endpoint, or for nobody, with so many idle ones at most.
    pub(super) fn new(
        connection: Http1,
        home: Option<(Arc<Endpoint>, Arc<Destination>)>,
        idle_max: usize,
    ) -> Self {
        Self { connection: Some(connection), home, idle_max }
    }

    /// As [`Kept::release`], for a response without a body.
    pub(super) async fn release_now(&mut self) {
        poll_fn(|cx| {
            self.release(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// The response is over: keeps the connection if it can carry another request.
    fn release(&mut self, cx: &mut Context<'_>) {
        let Some(mut connection) = self.connection.take() else { return };
        let Some((endpoint, destination)) = self.home.take() else { return };
        connection.drive(cx);
        if connection.is_free() && !destination.has_too_many() {
            endpoint.keep(connection, self.idle_max, clock::monotonic());
            destination.freed();
        }
    }
}

/// The body of a response as it arrives.
#[derive(Debug)]
pub(crate) enum Download {
    /// Over a connection of its own.
    Http1(Incoming, Kept),
    /// Over a shared one.
    Http2(Incoming, #[expect(dead_code, reason = "counts as long as it is held")] Active),
    /// There is none, over a shared one.
    Empty,
}

impl Download {
    /// The connection, for who speaks another protocol on it from now on.
    pub(crate) fn into_connection(self) -> Option<Http1> {
        match self {
            Self::Http1(_, mut kept) => kept.connection.take(),
            Self::Http2(..) | Self::Empty => None,
        }
    }

    /// Closes the connection when the response is over, whatever it looks like.
    pub(crate) fn close_after(&mut self) {
        match self {
            Self::Http1(_, kept) => kept.home = None,
            Self::Http2(..) | Self::Empty => {}
        }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Http2(body, _) => Pin::new(body).poll_frame(cx),
            Self::Http1(body, kept) => {
                let mut polled = Pin::new(&mut *body).poll_frame(cx);
                if polled.is_pending()
                    && let Some(connection) = &mut kept.connection
                {
                    // What is asked for now may be there already.
                    connection.drive(cx);
                    polled = Pin::new(&mut *body).poll_frame(cx);
                }
                if matches!(polled, Poll::Ready(None)) || body.is_end_stream() {
                    kept.release(cx);
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        // The connection is given back by who polls, so an end is told only once that has happened.
        match self {
            Self::Http1(body, kept) => kept.connection.is_none() && body.is_end_stream(),
            Self::Http2(body, _) => body.is_end_stream(),
            Self::Empty => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body, _) | Self::Http2(body, _) => body.size_hint(),
            Self::Empty => SizeHint::with_exact(0),
        }
    }
}
