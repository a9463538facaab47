//! HTTP to an endpoint over a connection of its own, kept for later requests of the same caller.
//!
//! An HTTP/1.1 connection belongs to one request at a time and is driven by that request's task: nothing is handed
//! to another one. HTTP/2 connections are shared, each with a task. Connections are never shared between callers,
//! because the endpoint's proxy was told on the CONNECT whose they are. Whoever waits for a connection waits for a
//! bounded time, and what one caller leaves idle gives way to what another one needs.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::{Arc, LazyLock, Weak};
use std::time::Duration;

use ambit_route::limit::Overflow;
use ambit_route::model::DestinationPolicy;
use ambit_runtime::{clock, tasks};
use ambit_types::Identity;
use http::{Request, Response, StatusCode};
use hyper::body::Body as _;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::destination::Held;
use super::download::{Download, Kept};
use super::endpoint::Spared;
use super::error::SendError;
use super::http1::Http1;
use super::line::{Active, Http2, Line, Share, Turn};
use super::preface::{Room, Watched};
use super::{Caller, Destination, Endpoint, Io, valid};
use crate::request::body::Upload;
use crate::terminate::Tasks;
use crate::{State, Waypoint};

/// How often a connection with requests under way is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(10);

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

/// What an HTTP/1.1 request goes on with.
enum Http1Claim {
    /// A connection that is open.
    Idle(Http1),
    /// The place of a new one.
    Place(Held),
}

/// What an HTTP/2 request goes on with.
enum Http2Claim {
    /// A connection with room, and the request's place on it.
    Line(Http2, Active),
    /// A connection that another request is opening.
    Join(watch::Receiver<Option<SendError>>),
    /// The right to open one, and its place.
    Open(Turn, Held),
}

impl Sending<'_> {
    /// Sends a request and waits for the head of its response. Dropping it takes the request back.
    pub(crate) async fn send(&self, request: Request<Upload>) -> Result<Response<Download>, SendError> {
        let sent =
            if self.is_http2 { self.send_http2(request).await } else { self.send_http1(request).await };
        if let Err(error) = &sent
            && error.is_invalid
        {
            let (endpoint, text) = (&self.endpoint.workload.uid, &error.text);
            tracing::debug!(%endpoint, text, "a response of an endpoint is none that may be passed on");
        }
        sent
    }

    async fn send_http1(&self, request: Request<Upload>) -> Result<Response<Download>, SendError> {
        let mut connection = self.http1().await?;
        connection.carried = connection.carried.saturating_add(1);
        let answer = connection.exchange(request).await?;
        if let Some(fault) = valid::fault(answer.status(), answer.headers()) {
            return Err(SendError::invalid(fault));
        }
        // What has no body is over already; only an upgrade still needs its connection.
        let is_over = answer.body().is_end_stream() && answer.status() != StatusCode::SWITCHING_PROTOCOLS;
        if is_over && connection.has_more_than_a_response().await {
            return Err(SendError::invalid("bytes after a response that has no body"));
        }
        let most = self.policy.connections.requests_per_connection_max;
        let may_stay = most == 0 || connection.carried < most;
        let home = may_stay.then(|| (self.endpoint.clone(), self.destination.clone()));
        let mut kept = Kept::new(connection, home, self.waypoint.limits.idle_max);
        if is_over {
            kept.release_now().await;
        }
        Ok(answer.map(|body| Download::Http1(body, kept)))
    }

    async fn send_http2(&self, request: Request<Upload>) -> Result<Response<Download>, SendError> {
        let (mut connection, active) = self.http2().await?;
        let sent = connection.sender.try_send_request(request).await;
        let answer = sent.map_err(|mut error| {
            let is_sent = error.take_message().is_none();
            SendError::of(error.error(), is_sent)
        })?;
        if let Some(fault) = valid::fault(answer.status(), answer.headers()) {
            return Err(SendError::invalid(fault));
        }
        if valid::is_bodiless(answer.status()) {
            // Whatever follows is not read; dropping the body resets the stream if it has not ended.
            return Ok(answer.map(|_| Download::Empty));
        }
        Ok(answer.map(|body| Download::Http2(body, active)))
    }

    /// An idle connection that is still open, or a new one.
    async fn http1(&self) -> Result<Http1, SendError> {
        let claim = match self.claim_http1().await {
            Some(claim) => claim,
            None => self.wait_http1().await?,
        };
        match claim {
            Http1Claim::Idle(idle) => Ok(idle),
            Http1Claim::Place(held) => {
                let io = self.connect().await?;
                let head_bytes_max = self.waypoint.limits.head_bytes_max;
                Http1::open(io, self.peer().clone(), held, head_bytes_max).await
            }
        }
    }

    /// Never waits.
    async fn claim_http1(&self) -> Option<Http1Claim> {
        while let Some(mut idle) = self.endpoint.take_idle(self.peer(), self.waypoint.limits.idle_keep) {
            if idle.is_open().await {
                return Some(Http1Claim::Idle(idle));
            }
        }
        self.place().map(Http1Claim::Place)
    }

    async fn wait_http1(&self) -> Result<Http1Claim, SendError> {
        let deadline = self.deadline();
        let queue = self.destination.queue(self.policy).map_err(SendError::overflow)?;
        loop {
            let mut freed = pin!(queue.freed());
            // In the queue before looking, so that nothing becomes free in between unseen.
            freed.as_mut().enable();
            if let Some(claim) = self.claim_http1().await {
                return Ok(claim);
            }
            timeout_at(deadline, freed).await.map_err(|_| SendError::overflow(Overflow::Pending))?;
        }
    }

    /// A shared connection with room, or a new one that others will share; and the request's place on it.
    async fn http2(&self) -> Result<(Http2, Active), SendError> {
        let mut deadline = None;
        loop {
            let claim = match self.claim_http2() {
                Some(claim) => claim,
                None => self.wait_http2(*deadline.get_or_insert_with(|| self.deadline())).await?,
            };
            match claim {
                Http2Claim::Line(found, active) => return Ok((found, active)),
                Http2Claim::Join(outcome) => {
                    joined(outcome, *deadline.get_or_insert_with(|| self.deadline())).await?;
                }
                Http2Claim::Open(turn, held) => {
                    // As large as what it makes is rare.
                    if let Some(opened) = Box::pin(self.open_http2(turn, held)).await? {
                        return Ok(opened);
                    }
                    if self.endpoint.is_gone() {
                        return Err(SendError::overflow(Overflow::Pending));
                    }
                }
            }
        }
    }

    /// Never waits.
    fn claim_http2(&self) -> Option<Http2Claim> {
        let requests_max = self.policy.connections.requests_per_connection_max;
        let share = |may_open| self.endpoint.share(self.peer(), requests_max, may_open);
        let (share, held) = match share(false) {
            Share::Missing => {
                let held = self.place()?;
                (share(true), Some(held))
            }
            found @ (Share::Line(..) | Share::Join(_) | Share::Open(_) | Share::Full) => (found, None),
        };
        match (share, held) {
            (Share::Line(found, active), _) => Some(Http2Claim::Line(found, active)),
            (Share::Join(outcome), _) => Some(Http2Claim::Join(outcome)),
            (Share::Open(turn), Some(held)) => Some(Http2Claim::Open(turn, held)),
            (Share::Open(_), None) | (Share::Missing | Share::Full, _) => None,
        }
    }

    async fn wait_http2(&self, deadline: Instant) -> Result<Http2Claim, SendError> {
        let queue = self.destination.queue(self.policy).map_err(SendError::overflow)?;
        loop {
            let (mut freed, mut roomy) = (pin!(queue.freed()), pin!(self.endpoint.roomy.notified()));
            // As for HTTP/1.1; besides, a stream of the caller's own connections may end.
            freed.as_mut().enable();
            roomy.as_mut().enable();
            if let Some(claim) = self.claim_http2() {
                return Ok(claim);
            }
            let either = async {
                tokio::select! {
                    () = freed => {}
                    () = roomy => {}
                }
            };
            timeout_at(deadline, either).await.map_err(|_| SendError::overflow(Overflow::Pending))?;
        }
    }

    /// None if the peer admits no stream for now.
    async fn open_http2(&self, turn: Turn, held: Held) -> Result<Option<(Http2, Active)>, SendError> {
        match self.greet_http2(held).await {
            Ok(opened) => {
                let requests_max = self.policy.connections.requests_per_connection_max;
                Ok(turn.opened(&opened, requests_max).map(|active| (opened, active)))
            }
            Err(error) => Err(turn.failed(error)),
        }
    }

    /// Opens a connection and waits until the peer's settings are in force.
    async fn greet_http2(&self, held: Held) -> Result<Http2, SendError> {
        let limits = &self.waypoint.limits;
        let io = self.connect().await?;
        let room = Room::new();
        let watched = Watched::new(io, room.clone());
        let greeted = async {
            let (sender, connection) = http2::Builder::new(Tasks)
                .timer(TokioTimer::new())
                .initial_stream_window_size(limits.stream_window)
                .initial_connection_window_size(limits.connection_window)
                .max_header_list_size(u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX))
                .max_send_buf_size(limits.send_buffer)
                .keep_alive_interval(PING_INTERVAL)
                .handshake(TokioIo::new(watched))
                .await
                .map_err(|error| SendError::of(&error, false))?;
            let (endpoint, roomy) = (Arc::downgrade(self.endpoint), self.endpoint.roomy.clone());
            let opened = Http2::new(sender, self.peer().clone(), room.clone(), roomy.clone(), held);
            let line = Arc::downgrade(opened.line());
            let (told, hears) = oneshot::channel();
            tasks::spawn("waypoint-upstream", async move {
                drive(connection, &room, told, &roomy).await;
                ended(&endpoint, &line);
            });
            hears.await.map_err(|_| SendError::closed())?;
            Ok(opened)
        };
        let greeted = timeout(limits.connect_timeout, greeted).await;
        greeted.unwrap_or_else(|_| Err(SendError::silent("no settings of HTTP/2 came")))
    }

    async fn connect(&self) -> Result<Io, SendError> {
        let opened = self.waypoint.upstream.connect(self.waypoint, self.state, self.endpoint, self.caller);
        // Larger than all the rest of a request together, and rare: not a part of every request's future.
        Box::pin(opened).await.map_err(|error| SendError::of_tunnel(&error))
    }

    /// The place of a new connection, if there is one or can be.
    fn place(&self) -> Option<Held> {
        let spared = Spared { endpoint: self.endpoint, caller: self.peer(), is_http2: self.is_http2 };
        self.destination.place_or_evict(self.policy, Some(&spared))
    }

    /// Until when a connection is waited for that others have or open.
    fn deadline(&self) -> Instant {
        Instant::from_std(clock::monotonic()) + self.waypoint.limits.connect_timeout
    }

    /// Whose connections may be used.
    fn peer(&self) -> &Identity {
        self.caller.peer.unwrap_or(&ANYBODY)
    }
}

/// Stands for callers without identity.
static ANYBODY: LazyLock<Identity> =
    LazyLock::new(|| Identity::new(ambit_types::TrustDomain::default(), "", ""));

/// Waits for a connection that another request opens; fails as that fails.
async fn joined(mut outcome: watch::Receiver<Option<SendError>>, deadline: Instant) -> Result<(), SendError> {
    match timeout_at(deadline, outcome.changed()).await {
        Err(_) => Err(SendError::silent("a connection did not come about in time")),
        // It is there, or whoever opened it has gone.
        Ok(Err(_)) => Ok(()),
        Ok(Ok(())) => outcome.borrow().clone().map_or(Ok(()), Err),
    }
}

/// Drives a connection to its end; tells once when the peer's settings are in force.
async fn drive(
    connection: http2::Connection<TokioIo<Watched>, Upload, Tasks>,
    room: &Room,
    told: oneshot::Sender<()>,
    roomy: &Notify,
) {
    let (mut connection, mut told) = (Box::pin(connection), Some(told));
    loop {
        let ended = tokio::select! {
            biased;
            () = room.news.notified() => None,
            ended = poll_fn(|cx| {
                let polled = connection.as_mut().poll(cx);
                if told.is_none() {
                    // Each request comes by here, and the peer may have changed its mind since the last one.
                    room.set(connection.current_max_send_streams());
                }
                polled
            }) => Some(ended),
        };
        match ended {
            Some(Ok(())) => return,
            Some(Err(error)) => return tracing::debug!(%error, "a connection to an endpoint ended"),
            None => {
                if room.set(connection.current_max_send_streams()) {
                    roomy.notify_waiters();
                }
                if let Some(told) = told.take() {
                    // Who opened it may have gone.
                    let _ = told.send(());
                }
            }
        }
    }
}

/// Nobody is to find a connection that has ended.
fn ended(endpoint: &Weak<Endpoint>, line: &Weak<Line>) {
    if let Some(endpoint) = endpoint.upgrade() {
        endpoint.forget(line);
    }
}
