//! One HTTP/1.1 connection, driven by whoever has it.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use ambit_runtime::clock;
use ambit_types::Identity;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::Io;
use super::destination::Held;
use super::error::SendError;
use crate::request::body::Upload;

/// Informational responses that may come before the one that counts.
pub(super) const INFORMATIONAL_MAX: u32 = 8;

type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// An HTTP/1.1 connection with what drives it.
pub(crate) struct Http1 {
    sender: http1::SendRequest<Upload>,
    /// None once it has ended.
    driver: Option<Driver>,
    /// It ended because the peer sent what belongs to no response.
    has_stray_bytes: bool,
    /// Informational responses to the request under way.
    informational: Arc<AtomicU32>,
    pub(super) caller: Identity,
    pub(super) opened: Instant,
    /// Requests it has carried.
    pub(super) carried: u32,
    held: Held,
}

impl std::fmt::Debug for Http1 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Http1")
    }
}

impl Http1 {
    /// Speaks HTTP/1.1 on a connection, with heads of so many bytes at most.
    pub(super) async fn open(
        io: Io,
        caller: Identity,
        held: Held,
        head_bytes_max: usize,
    ) -> Result<Self, SendError> {
        let (sender, connection) = http1::Builder::new()
            .max_header_size(head_bytes_max)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|error| SendError::of(&error, false))?;
        let driver: Driver = Box::pin(connection.with_upgrades());
        Ok(Self {
            sender,
            driver: Some(driver),
            has_stray_bytes: false,
            informational: Arc::default(),
            caller,
            opened: clock::monotonic(),
            carried: 0,
            held,
        })
    }

    /// Whether it is still open; looks at what has arrived since it was last used.
    pub(super) async fn is_open(&mut self) -> bool {
        poll_fn(|cx| {
            self.drive(cx);
            Poll::Ready(self.is_free())
        })
        .await
    }

    /// Whether the peer sent more than the response that is over.
    pub(super) async fn has_more_than_a_response(&mut self) -> bool {
        self.is_open().await;
        self.has_stray_bytes
    }

    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        let Some(driver) = &mut self.driver else { return };
        let Poll::Ready(ended) = driver.as_mut().poll(cx) else { return };
        self.driver = None;
        self.has_stray_bytes = ended.is_err_and(|error| is_of_stray_bytes(&error));
    }

    /// Sends a request, and drives the connection until the head of the response is there.
    pub(super) async fn exchange(
        &mut self,
        mut request: Request<Upload>,
    ) -> Result<Response<Incoming>, SendError> {
        self.informational.store(0, Ordering::Relaxed);
        let seen = self.informational.clone();
        hyper::ext::on_informational(&mut request, move |_| {
            seen.fetch_add(1, Ordering::Relaxed);
        });
        let mut answer = pin!(self.sender.try_send_request(request));
        let sent = poll_fn(|cx| {
            if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
                return Poll::Ready(Some(answer));
            }
            if let Some(driver) = &mut self.driver
                && let Poll::Ready(ended) = driver.as_mut().poll(cx)
            {
                self.driver = None;
                self.has_stray_bytes = ended.is_err_and(|error| is_of_stray_bytes(&error));
            }
            if self.informational.load(Ordering::Relaxed) > INFORMATIONAL_MAX {
                return Poll::Ready(None);
            }
            answer.as_mut().poll(cx).map(Some)
        });
        match sent.await {
            None => Err(SendError::invalid("more informational responses than a client can want")),
            Some(answer) => answer.map_err(|mut error| {
                let is_sent = error.take_message().is_none();
                SendError::of(error.error(), is_sent)
            }),
        }
    }

    /// Whether it can carry another request.
    pub(super) fn is_free(&self) -> bool {
        self.driver.is_some() && self.sender.is_ready()
    }

    /// Drives HTTP on the connection to its end, as an upgrade needs; answers with the connection's place, which whoever
    /// goes on with it has to keep.
    pub(crate) async fn finish(self) -> Held {
        let Self { driver, held, .. } = self;
        if let Some(driver) = driver {
            // Whether it went well is told by the upgrade.
            let _ = driver.await;
        }
        held
    }
}

/// Whether a connection failed for bytes that nobody asked for. The kind of such an error cannot be asked for: it is
/// the one that neither has a cause nor is any of the others that have none.
fn is_of_stray_bytes(error: &hyper::Error) -> bool {
    std::error::Error::source(error).is_none()
        && !(error.is_incomplete_message() || error.is_canceled() || error.is_closed() || error.is_user())
}
