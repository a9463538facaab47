//! The opening side of a tunnel.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use ambit_runtime::tasks;
use ambit_types::{Identity, Reason};
use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use h2::{RecvStream, SendStream};
use http::{Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tracing::{debug, warn};

use super::keepalive::{Abandon, Heard, Listening, until_silent};
use super::{RESET_MEMORY, RESET_STREAMS_MAX, TunnelSettings};
use crate::socket::SocketError;
use crate::tls::{TlsError, client::Connected, store::CertificateError};

/// Why a tunnel, or a stream on it, could not be opened.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TunnelError {
    /// TCP did not come about.
    #[error("{0}; nothing was sent")]
    Connect(#[source] Arc<SocketError>),
    /// TLS did not come about.
    #[error("{0}")]
    Tls(#[source] Arc<TlsError>),
    /// There is no certificate to show.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// HTTP/2 failed.
    #[error("HTTP/2 with {peer} failed")]
    Http2 {
        /// The peer.
        peer: SocketAddr,
        /// The cause.
        #[source]
        cause: Arc<h2::Error>,
    },
    /// The peer did not answer in time.
    #[error("{peer} did not answer the tunnel request in time")]
    Timeout {
        /// The peer.
        peer: SocketAddr,
    },
    /// The peer refused the tunnel.
    #[error("{peer} refused the tunnel with status {status} ({reason})")]
    Refused {
        /// The peer.
        peer: SocketAddr,
        /// Its status.
        status: StatusCode,
        /// Its reason, or what the status means.
        reason: Reason,
    },
    /// The request could not be put together.
    #[error("{0}")]
    Request(String),
    /// The tunnel closed before it could be used.
    #[error("the tunnel to {peer} closed before it could be used")]
    Closed {
        /// The peer.
        peer: SocketAddr,
    },
    /// The peer refused the stream before it looked at it.
    #[error("{peer} takes no further stream on this tunnel")]
    StreamRefused {
        /// The peer.
        peer: SocketAddr,
    },
}

impl TunnelError {
    /// The code of this failure.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Connect(cause) if cause.is_refusal() => Reason::ConnectRefused,
            Self::Connect(cause) if cause.is_descriptor_shortage() => Reason::FdExhausted,
            Self::Connect(cause) if cause.is_port_shortage() => Reason::PortsExhausted,
            Self::Connect(cause) if cause.is_conntrack_shortage() => Reason::ConntrackFull,
            Self::Connect(_) => Reason::ConnectTimeout,
            Self::Tls(cause) => cause.reason(),
            Self::Certificate(cause) => cause.reason(),
            Self::Http2 { .. } | Self::Request(_) => Reason::TunnelProtocol,
            Self::Timeout { .. } | Self::Closed { .. } => Reason::PeerSilent,
            Self::StreamRefused { .. } => Reason::TunnelRejected,
            Self::Refused { reason, .. } => *reason,
        }
    }

    /// Whether no byte of the application can have reached anybody, so that another endpoint may be tried.
    pub fn is_before_any_byte(&self) -> bool {
        match self {
            Self::Connect(_)
            | Self::Tls(_)
            | Self::Closed { .. }
            | Self::StreamRefused { .. }
            | Self::Http2 { .. }
            | Self::Timeout { .. } => true,
            // A refusal by policy is an answer, not an outage; a dead application behind the peer is one.
            Self::Refused { reason, .. } => matches!(
                reason,
                Reason::ConnectRefused
                    | Reason::ConnectTimeout
                    | Reason::ConntrackFull
                    | Reason::Draining
                    | Reason::AuthorityNotOwned
            ),
            Self::Certificate(_) | Self::Request(_) => false,
        }
    }

    /// Whether the tunnel itself is unusable, as opposed to one answer on it.
    pub fn is_of_the_tunnel(&self) -> bool {
        !matches!(self, Self::Refused { .. } | Self::Request(_))
    }

    /// Whether the peer is leaving this tunnel or has enough of it, so that another one to it may do.
    pub fn is_of_a_spent_tunnel(&self) -> bool {
        matches!(self, Self::Closed { .. } | Self::StreamRefused { .. })
    }
}

/// An open tunnel; cheap to clone, closed when the last clone and stream are gone.
#[derive(Clone)]
pub struct Tunnel {
    requests: SendRequest<Bytes>,
    peer: SocketAddr,
    identity: Identity,
    usable_until: u64,
    closed: watch::Receiver<bool>,
    heard: Heard,
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel")
            .field("peer", &self.peer)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// A stream whose CONNECT was answered with 200.
#[derive(Debug)]
pub struct Opened {
    /// Towards the peer.
    pub send: SendStream<Bytes>,
    /// From the peer.
    pub recv: RecvStream,
    /// The answer's head.
    pub response: Response<()>,
}

/// Performs the HTTP/2 handshake and starts the tunnel's task.
///
/// `own_not_after` is the end of our own certificate, in seconds since 1970.
///
/// # Errors
/// [`TunnelError::Http2`] or [`TunnelError::Timeout`].
pub async fn open<S>(
    connected: Connected<S>,
    peer: SocketAddr,
    own_not_after: u64,
    settings: Arc<TunnelSettings>,
) -> Result<Tunnel, TunnelError>
where
    S: AsyncRead + AsyncWrite + Abandon + Unpin + Send + 'static,
{
    let usable_until = own_not_after.min(connected.peer_not_after);
    let heard = Heard::now();
    let stream = Listening::new(connected.stream, heard.clone());
    let handshake = builder(&settings).handshake::<_, Bytes>(stream);
    let (requests, connection) = tokio::time::timeout(settings.handshake_timeout, handshake)
        .await
        .map_err(|_| TunnelError::Timeout { peer })?
        .map_err(|cause| TunnelError::Http2 { peer, cause: Arc::new(cause) })?;
    let (gone, closed) = watch::channel(false);
    tasks::spawn("tunnel-client", drive(connection, gone, heard.clone(), peer, settings));
    Ok(Tunnel { requests, peer, identity: connected.peer, usable_until, closed, heard })
}

fn builder(settings: &TunnelSettings) -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_frame_size(settings.frame_bytes_max)
        .max_header_list_size(16 << 10)
        .max_send_buffer_size(settings.send_buffer)
        .initial_max_send_streams(100)
        .max_concurrent_reset_streams(RESET_MEMORY)
        .max_local_error_reset_streams(Some(RESET_STREAMS_MAX))
        .header_table_size(0)
        .enable_push(false);
    builder
}

async fn drive<S>(
    mut connection: Connection<Listening<S>, Bytes>,
    gone: watch::Sender<bool>,
    heard: Heard,
    peer: SocketAddr,
    settings: Arc<TunnelSettings>,
) where
    S: AsyncRead + AsyncWrite + Abandon + Unpin + Send + 'static,
{
    let silent = connection.ping_pong().map(|pings| until_silent(pings, heard.clone(), &settings));
    {
        // Pinned, so that it ends after it is given up and not before.
        tokio::pin!(connection);
        tokio::select! {
            outcome = &mut connection => {
                if let Err(error) = outcome {
                    debug!(%peer, %error, "a tunnel ended");
                }
            }
            () = async { match silent { Some(silent) => silent.await, None => std::future::pending().await } } => {
                heard.give_up();
                debug!(%peer, code = Reason::PeerSilent.code(), "a tunnel's peer fell silent");
            }
        }
    }
    if heard.has_lost_large() {
        warn!(%peer, code = Reason::PathMtu.code(), "large segments to the peer vanish and small ones pass");
    }
    // Receivers may all be gone already; then nobody has to be told.
    let _ = gone.send(true);
}

impl Tunnel {
    /// Who is at the other end.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether it has ended because large segments vanish on its path and small ones pass.
    pub fn has_lost_large(&self) -> bool {
        self.heard.has_lost_large()
    }

    /// Streams the peer lets us have at once.
    pub fn streams_max(&self) -> u32 {
        u32::try_from(self.requests.current_max_send_streams()).unwrap_or(u32::MAX)
    }

    /// Whether new streams may still be opened at `now` (seconds since 1970).
    pub fn is_usable(&self, now: u64) -> bool {
        !*self.closed.borrow() && now < self.usable_until && !self.is_spent()
    }

    /// Whether the peer has said that it leaves, or the tunnel's stream numbers are used up.
    fn is_spent(&self) -> bool {
        let asked = self.requests.clone().poll_ready(&mut Context::from_waker(Waker::noop()));
        matches!(asked, Poll::Ready(Err(_)))
    }

    /// Resolves when the tunnel is closed; does not keep it open.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut closed = self.closed.clone();
        async move {
            // A sender that is gone without a word has closed as well.
            let _ = closed.wait_for(|closed| *closed).await;
        }
    }

    /// Opens a stream and waits for its answer.
    ///
    /// # Errors
    /// [`TunnelError`].
    pub fn connect(
        &self,
        request: Request<()>,
        settings: &TunnelSettings,
    ) -> impl Future<Output = Result<Opened, TunnelError>> + Send + use<> {
        let (requests, peer, wait) = (self.requests.clone(), self.peer, settings.connect_timeout);
        async move {
            let opened = tokio::time::timeout(wait, ask(requests, request, peer));
            opened.await.map_err(|_| TunnelError::Timeout { peer })?
        }
    }
}

async fn ask(
    requests: SendRequest<Bytes>,
    request: Request<()>,
    peer: SocketAddr,
) -> Result<Opened, TunnelError> {
    let http2 = |cause: h2::Error| {
        if cause.is_go_away() || cause.is_io() {
            TunnelError::Closed { peer }
        } else if cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM) {
            TunnelError::StreamRefused { peer }
        } else {
            TunnelError::Http2 { peer, cause: Arc::new(cause) }
        }
    };
    let mut requests = requests.ready().await.map_err(http2)?;
    let (answer, send) = requests.send_request(request, false).map_err(http2)?;
    drop(requests);
    let (parts, recv) = answer.await.map_err(http2)?.into_parts();
    let response = Response::from_parts(parts, ());
    if response.status() != StatusCode::OK {
        let reason = ambit_hbone::response::reason_of(&response);
        return Err(TunnelError::Refused { peer, status: response.status(), reason });
    }
    Ok(Opened { send, recv, response })
}
