//! HTTP to an endpoint over a connection of its own, kept for later requests of the same caller.
//!
//! An HTTP/1.1 connection belongs to one request at a time and is driven by that request's task: nothing is handed
//! to another one. HTTP/2 connections are shared, each with a task. Connections are never shared between callers,
//! because the endpoint's proxy was told on the CONNECT whose they are.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{MutexGuard, PoisonError};
use std::task::{Context, Poll};

use ambit_net::tunnel::client::TunnelError;
use ambit_route::limit::Overflow;
use ambit_route::model::DestinationPolicy;
use ambit_route::retry::Outcome;
use ambit_runtime::{clock, tasks};
use ambit_types::{Identity, Reason};
use http::{Request, Response};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::destination::Held;
use super::download::{Active, Download, Kept};
use super::{Caller, Destination, Endpoint, Io};
use crate::request::body::Upload;
use crate::terminate::Tasks;
use crate::{State, Waypoint};

/// Requests at a time on one shared connection; what every server is expected to admit (RFC 9113 section 6.5.2).
const STREAMS_MAX: u32 = 100;

type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// An HTTP/1.1 connection with what drives it.
pub(crate) struct Http1 {
    sender: http1::SendRequest<Upload>,
    /// None once it has ended.
    driver: Option<Driver>,
    caller: Identity,
    /// Requests it has carried.
    carried: u32,
    _held: Held,
}

/// An HTTP/2 connection that requests share.
#[derive(Clone)]
pub(crate) struct Http2 {
    sender: http2::SendRequest<Upload>,
    caller: Identity,
    active: Arc<AtomicU32>,
    carried: Arc<AtomicU32>,
}

impl std::fmt::Debug for Http1 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Http1")
    }
}

impl std::fmt::Debug for Http2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Http2")
    }
}

/// Why there is no response.
#[derive(Debug)]
pub(crate) struct SendError {
    /// How the attempt ended.
    pub(crate) outcome: Outcome,
    /// The destination has as many connections as it may.
    pub(crate) overflow: Option<Overflow>,
    /// Whether a byte of the request may have been sent.
    pub(crate) is_sent: bool,
    /// The code for the record.
    pub(crate) reason: Reason,
    /// In words, for the record.
    pub(crate) text: String,
}

/// What sending needs besides the request.
#[derive(Clone, Copy)]
pub(crate) struct Sending<'a> {
    pub(crate) waypoint: &'a Waypoint,
    pub(crate) state: &'a State,
    pub(crate) destination: &'a Arc<Destination>,
    pub(crate) policy: &'a DestinationPolicy,
    pub(crate) endpoint: &'a Arc<Endpoint>,
    pub(crate) caller: &'a Caller<'a>,
    /// Whether the endpoint is spoken to in HTTP/2.
    pub(crate) is_http2: bool,
}

impl Sending<'_> {
    /// Sends a request and waits for the head of its response. Dropping it takes the request back.
    pub(crate) async fn send(&self, request: Request<Upload>) -> Result<Response<Download>, SendError> {
        if self.is_http2 { self.send_http2(request).await } else { self.send_http1(request).await }
    }

    async fn send_http1(&self, request: Request<Upload>) -> Result<Response<Download>, SendError> {
        let mut connection = self.http1().await?;
        connection.carried = connection.carried.saturating_add(1);
        let answer = connection.exchange(request).await?;
        let most = self.policy.connections.requests_per_connection_max;
        let may_stay = most == 0 || connection.carried < most;
        let home = may_stay.then(|| (self.endpoint.clone(), self.destination.clone()));
        let limits = &self.waypoint.limits;
        let mut kept = Kept::new(connection, home, limits.idle_max);
        // What has no body is over already; only an upgrade still needs its connection.
        if answer.body().is_end_stream() && answer.status() != http::StatusCode::SWITCHING_PROTOCOLS {
            kept.release_now().await;
        }
        Ok(answer.map(|body| Download::Http1(body, kept)))
    }

    /// An idle connection that is still open, or a new one.
    async fn http1(&self) -> Result<Http1, SendError> {
        let peer = self.peer();
        loop {
            while let Some(mut idle) = self.endpoint.take_idle(peer, self.waypoint.limits.idle_keep) {
                if idle.is_open().await {
                    return Ok(idle);
                }
            }
            if let Some(held) = self.destination.hold(self.policy).await.map_err(SendError::overflow)? {
                let io = self.connect().await?;
                let (sender, connection) = http1::Builder::new()
                    .max_header_size(self.waypoint.limits.head_bytes_max)
                    .handshake(TokioIo::new(io))
                    .await
                    .map_err(|error| SendError::of(&error, false))?;
                let driver: Driver = Box::pin(connection.with_upgrades());
                let driver = Some(driver);
                return Ok(Http1 { sender, driver, caller: peer.clone(), carried: 0, _held: held });
            }
        }
    }

    async fn send_http2(&self, request: Request<Upload>) -> Result<Response<Download>, SendError> {
        let mut connection = self.http2().await?;
        let active = Active::new(&connection.active);
        connection.carried.fetch_add(1, Ordering::Relaxed);
        let sent = connection.sender.try_send_request(request).await;
        let answer = sent.map_err(|mut error| {
            let is_sent = error.take_message().is_none();
            SendError::of(error.error(), is_sent)
        })?;
        Ok(answer.map(|body| Download::Http2(body, active)))
    }

    /// A shared connection with room, or a new one that others will share.
    async fn http2(&self) -> Result<Http2, SendError> {
        if let Some(found) = self.endpoint.roomy(self.peer(), self.policy) {
            return Ok(found);
        }
        // One opens, the others wait for what it opens.
        let turn = self.endpoint.opening.acquire().await;
        if let Some(found) = self.endpoint.roomy(self.peer(), self.policy) {
            return Ok(found);
        }
        loop {
            if let Some(held) = self.destination.hold(self.policy).await.map_err(SendError::overflow)? {
                let opened = self.open_http2(held).await?;
                drop(turn);
                return Ok(opened);
            }
        }
    }

    async fn open_http2(&self, held: Held) -> Result<Http2, SendError> {
        let limits = &self.waypoint.limits;
        let io = self.connect().await?;
        let (sender, connection) = http2::Builder::new(Tasks)
            .timer(TokioTimer::new())
            .initial_stream_window_size(limits.stream_window)
            .initial_connection_window_size(limits.connection_window)
            .max_header_list_size(u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX))
            .max_send_buf_size(limits.send_buffer)
            .keep_alive_interval(std::time::Duration::from_secs(10))
            .handshake(TokioIo::new(io))
            .await
            .map_err(|error| SendError::of(&error, false))?;
        tasks::spawn("waypoint-upstream", async move {
            let _held = held;
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to an endpoint ended");
            }
        });
        let (active, carried) = (Arc::default(), Arc::default());
        let opened = Http2 { sender, caller: self.peer().clone(), active, carried };
        if !self.endpoint.is_gone() {
            lock(&self.endpoint.shared).push(opened.clone());
        }
        Ok(opened)
    }

    async fn connect(&self) -> Result<Io, SendError> {
        let opened = self.waypoint.upstream.connect(self.waypoint, self.state, self.endpoint, self.caller);
        opened.await.map_err(|error| SendError::of_tunnel(&error))
    }

    /// Whose connections may be used.
    fn peer(&self) -> &Identity {
        self.caller.peer.unwrap_or(&ANYBODY)
    }
}

/// Stands for callers without identity.
static ANYBODY: std::sync::LazyLock<Identity> =
    std::sync::LazyLock::new(|| Identity::new(ambit_types::TrustDomain::default(), "", ""));

impl Endpoint {
    /// An idle connection of a caller, the one used last. Those that have been idle too long are closed.
    fn take_idle(&self, caller: &Identity, keep: std::time::Duration) -> Option<Http1> {
        let now = clock::monotonic();
        let mut idle = lock(&self.idle);
        idle.retain(|(_, since)| now.saturating_duration_since(*since) < keep);
        let at = idle.iter().rposition(|(connection, _)| connection.caller == *caller)?;
        Some(idle.remove(at).0)
    }

    /// A shared connection of a caller with room for a request.
    fn roomy(&self, caller: &Identity, policy: &DestinationPolicy) -> Option<Http2> {
        let most = policy.connections.requests_per_connection_max;
        let mut shared = lock(&self.shared);
        shared.retain(|c| !c.sender.is_closed() && (most == 0 || c.carried.load(Ordering::Relaxed) < most));
        let room = |c: &&Http2| {
            c.caller == *caller && c.sender.is_ready() && c.active.load(Ordering::Relaxed) < STREAMS_MAX
        };
        shared.iter().find(room).cloned()
    }
}

impl Http1 {
    /// Whether it is still open; looks at what has arrived since it was last used.
    async fn is_open(&mut self) -> bool {
        poll_fn(|cx| {
            self.drive(cx);
            Poll::Ready(self.is_free())
        })
        .await
    }

    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(driver) = &mut self.driver
            && driver.as_mut().poll(cx).is_ready()
        {
            self.driver = None;
        }
    }

    /// Sends a request, and drives the connection until the head of the response is there.
    async fn exchange(&mut self, request: Request<Upload>) -> Result<Response<Incoming>, SendError> {
        let mut answer = pin!(self.sender.try_send_request(request));
        let sent = poll_fn(|cx| {
            if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
                return Poll::Ready(answer);
            }
            if let Some(driver) = &mut self.driver
                && driver.as_mut().poll(cx).is_ready()
            {
                self.driver = None;
            }
            answer.as_mut().poll(cx)
        });
        sent.await.map_err(|mut error| {
            let is_sent = error.take_message().is_none();
            SendError::of(error.error(), is_sent)
        })
    }

    /// Whether it can carry another request.
    pub(super) fn is_free(&self) -> bool {
        self.driver.is_some() && self.sender.is_ready()
    }

    /// Drives the connection to its end, as an upgrade needs.
    pub(crate) async fn finish(mut self) {
        if let Some(driver) = self.driver.take() {
            let _ = driver.await;
        }
    }
}

impl SendError {
    fn overflow(overflow: Overflow) -> Self {
        Self {
            outcome: Outcome::ConnectFailure,
            overflow: Some(overflow),
            is_sent: false,
            reason: Reason::NoHealthyEndpoint,
            text: "the destination has as many connections as it may".to_owned(),
        }
    }

    fn of_tunnel(error: &TunnelError) -> Self {
        let (reason, text) = (error.reason(), error.to_string());
        Self { outcome: Outcome::ConnectFailure, overflow: None, is_sent: false, reason, text }
    }

    fn of(error: &hyper::Error, is_sent: bool) -> Self {
        let refused = h2_cause(error).is_some_and(|cause| {
            let unseen = cause.is_go_away() && cause.is_remote();
            unseen || cause.reason() == Some(h2::Reason::REFUSED_STREAM)
        });
        let outcome = if refused { Outcome::RefusedStream } else { Outcome::Reset };
        let (reason, text) = (Reason::ConnectRefused, error.to_string());
        Self { outcome, overflow: None, is_sent, reason, text }
    }
}

fn h2_cause(error: &hyper::Error) -> Option<&h2::Error> {
    let mut cause = std::error::Error::source(error);
    while let Some(found) = cause {
        if let Some(h2) = found.downcast_ref() {
            return Some(h2);
        }
        cause = found.source();
    }
    None
}

pub(super) fn lock<T>(held: &std::sync::Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}
