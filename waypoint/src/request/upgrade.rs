//! Another protocol on a connection, such as WebSocket: only after the endpoint has agreed, and then unread.
//!
//! It keeps its request's place until it ends, and it ends when nothing has moved in either direction for long.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ambit_net::tunnel::server::spawn_stream;
use ambit_types::Reason;
use bytes::Bytes;
use http::Response;
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};

use super::answer::Refusal;
use super::body::Outgoing;
use super::sanitize::{Wishes, clean_response};
use super::{Client, Finish};
use crate::upstream::Download;

/// Bytes of each direction's buffer.
const BUFFER_BYTES: usize = 16 << 10;

/// Looks at an idle connection in the time after which it is given up.
const LOOKS: u32 = 4;

/// Joins both connections once the client has been told that the endpoint agrees. `idle` is the longest silence, if a
/// rule says so.
///
/// # Errors
/// 502 if nobody asked for another protocol, or it is another than the one asked for.
pub(super) fn switch(
    client: &Arc<Client>,
    wishes: &Wishes,
    near: OnUpgrade,
    idle: Option<Duration>,
    mut response: Response<Download>,
    finish: &mut Finish,
) -> Result<Response<Outgoing>, Refusal> {
    let agreed = response.headers().get(UPGRADE).cloned();
    let is_asked = wishes
        .upgrade
        .as_ref()
        .zip(agreed.as_ref())
        .is_some_and(|(asked, agreed)| asked.as_bytes().eq_ignore_ascii_case(agreed.as_bytes()));
    let (Some(protocol), true) = (agreed, is_asked) else {
        return Err(Refusal::new(502, Some(Reason::ConnectRefused), "upgrade_not_asked_for"));
    };
    let far = hyper::upgrade::on(&mut response);
    let (mut parts, body) = response.into_parts();
    let connection = body.into_connection();
    clean_response(&mut parts.headers);
    parts.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    parts.headers.insert(UPGRADE, protocol);
    let drain = client.call.waypoint.drain.clone();
    let endpoint = finish.record.endpoint.clone();
    // The destination with them: as long as somebody has it, it follows the mesh and tells its endpoints.
    let held = (finish.ticket.take(), finish.place.take(), finish.record.destination.clone());
    let limits = &client.call.waypoint.limits;
    let (idle, grace) = (idle.unwrap_or(limits.upgraded_idle_timeout), limits.gone_grace);
    let work = async move {
        let _held = held;
        let (far, _seat) = tokio::join!(far, async {
            match connection {
                Some(connection) => Some(connection.finish().await),
                None => None,
            }
        });
        let (Ok(near), Ok(far)) = (near.await, far) else { return };
        let cut = async {
            match &endpoint {
                Some(endpoint) => endpoint.cut(grace).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = copy(near, far, idle) => {}
            () = cut => {}
        }
    };
    let forced = drain.clone();
    spawn_stream(&drain, async move {
        tokio::select! {
            () = work => {}
            () = forced.forced() => {}
        }
    });
    Ok(Response::from_parts(parts, Outgoing::own(Bytes::new())))
}

async fn copy(near: Upgraded, far: Upgraded, idle: Duration) {
    let moved = Arc::new(AtomicU64::new(0));
    let mut near = Counted { io: TokioIo::new(near), moved: moved.clone() };
    let mut far = TokioIo::new(far);
    tokio::select! {
        copied = copy_bidirectional_with_sizes(&mut near, &mut far, BUFFER_BYTES, BUFFER_BYTES) => {
            if let Ok((up, down)) = copied {
                metrics::counter!("ambit_waypoint_upgraded_bytes_total", "direction" => "up").increment(up);
                metrics::counter!("ambit_waypoint_upgraded_bytes_total", "direction" => "down").increment(down);
            }
        }
        () = silence(&moved, idle) => {
            metrics::counter!("ambit_waypoint_upgraded_idle_total").increment(1);
        }
    }
}

/// Resolves when nothing has moved for so long, or up to a quarter longer.
async fn silence(moved: &AtomicU64, idle: Duration) {
    let (mut before, mut silent) = (moved.load(Ordering::Relaxed), 0);
    while silent < LOOKS {
        tokio::time::sleep(idle / LOOKS).await;
        let now = moved.load(Ordering::Relaxed);
        silent = if now == before { silent + 1 } else { 0 };
        before = now;
    }
}

/// The client's side of a connection, with its bytes counted in both directions.
struct Counted {
    io: TokioIo<Upgraded>,
    moved: Arc<AtomicU64>,
}

impl Counted {
    fn count(&self, bytes: usize) {
        self.moved.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, into))?;
        self.count(into.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, from))?;
        self.count(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, from))?;
        self.count(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
