//! The accepting side of a tunnel.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ambit_runtime::{clock, drain::Drain, tasks};
use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{RecvStream, SendStream};
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};

use super::keepalive::{Abandon, Heard, Listening, until_silent};
use super::{RESET_MEMORY, RESET_STREAMS_MAX, TunnelSettings};

/// A stream a peer opened, not answered yet.
#[derive(Debug)]
pub struct Asking {
    /// The request's head.
    pub request: Request<()>,
    /// Whether it was an extended CONNECT.
    pub extended: bool,
    recv: RecvStream,
    respond: SendResponse<Bytes>,
    heard: Heard,
}

impl Asking {
    /// What is known of the tunnel it came in, also once that has ended.
    pub fn tunnel(&self) -> Heard {
        self.heard.clone()
    }

    /// Resolves when the peer gives the stream up or the tunnel ends. May be dropped.
    pub async fn given_up(&mut self) {
        // Which of the two it was changes nothing for who waits.
        let _ = poll_fn(|cx| self.respond.poll_reset(cx)).await;
    }

    /// Answers with 200 and hands the stream over.
    ///
    /// # Errors
    /// The library's answer when the peer has gone away.
    pub fn accept(mut self, response: Response<()>) -> Result<(SendStream<Bytes>, RecvStream), h2::Error> {
        let send = self.respond.send_response(response, false)?;
        Ok((send, self.recv))
    }

    /// Answers with an error and ends the stream.
    pub fn refuse(mut self, response: Response<()>) {
        // A peer that is gone needs no answer.
        let _ = self.respond.send_response(response, true);
    }
}

/// Serves one tunnel until the peer leaves, falls silent, or `drain` ends it.
///
/// `accept` gets every stream and must return at once; `usable_until` (seconds since 1970) is when the peer's or our
/// certificate runs out: from then on no new streams are taken, open ones go on. A tunnel that had no stream for
/// `idle_timeout` is ended, at the latest when twice that time is over.
///
/// # Errors
/// The library's answer when the peer breaks the protocol or the link.
pub async fn serve<S>(
    stream: S,
    peer: SocketAddr,
    usable_until: u64,
    settings: Arc<TunnelSettings>,
    drain: &Drain,
    mut accept: impl FnMut(Asking) + Send,
) -> Result<(), h2::Error>
where
    S: AsyncRead + AsyncWrite + Abandon + Unpin + Send + 'static,
{
    let heard = Heard::now();
    let handshake = builder(&settings).handshake(Listening::new(stream, heard.clone()));
    let mut connection = tokio::time::timeout(settings.handshake_timeout, handshake)
        .await
        .map_err(|_| h2::Error::from(h2::Reason::SETTINGS_TIMEOUT))??;
    let silence = silence(&mut connection, heard.clone(), &settings);
    let life = Duration::from_secs(usable_until.saturating_sub(clock::unix_seconds()));
    let expiry = tokio::time::sleep(life);
    let look = tokio::time::sleep(settings.idle_timeout);
    tokio::pin!(silence, expiry, look);
    let mut leaving = false;
    // Whether it had no stream at the last look, and got none since.
    let mut idle = false;
    loop {
        tokio::select! {
            asked = poll_fn(|cx| connection.poll_accept(cx)) => match asked {
                None => return Ok(()),
                Some(Err(error)) => return Err(error),
                Some(Ok((request, respond))) => {
                    idle = false;
                    accept(asking(request, respond, heard.clone()));
                }
            },
            () = drain.draining(), if !leaving => {
                leaving = true;
                connection.graceful_shutdown();
            }
            () = &mut expiry, if !leaving => {
                leaving = true;
                connection.graceful_shutdown();
            }
            () = &mut look => {
                let next = look.deadline() + settings.idle_timeout;
                look.as_mut().reset(next);
                let was_idle = std::mem::replace(&mut idle, !connection.has_streams());
                if was_idle && idle {
                    if leaving {
                        // Told to go a whole period ago, and still here.
                        return Ok(());
                    }
                    leaving = true;
                    connection.graceful_shutdown();
                }
            }
            () = drain.forced() => return Ok(()),
            () = &mut silence => {
                heard.give_up();
                tracing::debug!(%peer, "a tunnel's peer fell silent");
                return Ok(());
            }
        }
    }
}

fn asking(request: Request<RecvStream>, respond: SendResponse<Bytes>, heard: Heard) -> Asking {
    let extended = request.extensions().get::<h2::ext::Protocol>().is_some();
    let (parts, recv) = request.into_parts();
    Asking { request: Request::from_parts(parts, ()), extended, recv, respond, heard }
}

fn silence<S>(
    connection: &mut Connection<Listening<S>, Bytes>,
    heard: Heard,
    settings: &Arc<TunnelSettings>,
) -> impl Future<Output = ()> + Send + use<S>
where
    S: AsyncRead + AsyncWrite + Abandon + Unpin + Send + 'static,
{
    let pings = connection.ping_pong();
    let settings = settings.clone();
    async move {
        match pings {
            Some(pings) => until_silent(pings, heard, &settings).await,
            None => std::future::pending().await,
        }
    }
}

fn builder(settings: &TunnelSettings) -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_frame_size(settings.frame_bytes_max)
        .max_header_list_size(16 << 10)
        .header_table_size(0)
        .max_concurrent_streams(settings.streams_max)
        .max_send_buffer_size(settings.send_buffer)
        .max_concurrent_reset_streams(RESET_MEMORY)
        .max_local_error_reset_streams(Some(RESET_STREAMS_MAX))
        .max_pending_accept_reset_streams(RESET_MEMORY);
    builder
}

/// Starts a task for one stream under the tunnel's drain.
pub fn spawn_stream<F>(drain: &Drain, work: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    tasks::spawn("tunnel-stream", drain.track(work));
}
