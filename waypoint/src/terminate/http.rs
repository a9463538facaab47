//! HTTP on one connection of a client: hyper with every limit set, and an end for clients that abuse it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use ambit_runtime::tasks;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Duration;
use tracing::debug;

use super::Call;
use crate::request::{self, Client, framing::Framed};
use crate::stream::Stream;

/// Interval and patience of HTTP/2's own keepalive.
const PING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(20));

/// Streams that we had to reset ourselves before a client is dismissed (MadeYouReset).
const LOCAL_RESETS_MAX: usize = 100;

/// Streams reset before we have seen them (rapid reset).
const PENDING_RESETS_MAX: usize = 20;

/// Runs hyper's streams as tasks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tasks;

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, work: F) {
        tasks::spawn("waypoint-http2", work);
    }
}

/// Serves HTTP/1.1 until the client leaves.
pub(super) async fn serve_http1(call: Arc<Call>, stream: Stream) {
    let limits = &call.waypoint.limits;
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_header_size(limits.head_bytes_max)
        .max_buf_size(limits.head_bytes_max.max(8192))
        .half_close(false);
    let client = Arc::new(Client::new(call.clone(), http::Version::HTTP_11));
    let service = service_fn(|asked: http::Request<Incoming>| {
        let client = client.clone();
        async move { Ok::<_, Infallible>(request::serve(client, asked).await) }
    });
    let io = TokioIo::new(Framed::new(stream));
    let mut connection = pin!(builder.serve_connection(io, service).with_upgrades());
    let drain = &call.waypoint.drain;
    let mut leaving = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                ended.unwrap_or_else(|error| note(&error));
                return client.finish().await;
            }
            () = drain.draining(), if !leaving => {
                leaving = true;
                connection.as_mut().graceful_shutdown();
            }
            () = drain.forced() => return,
        }
    }
}

/// Serves HTTP/2 until the client leaves or has to.
pub(super) async fn serve_http2(call: Arc<Call>, stream: Stream) {
    let limits = &call.waypoint.limits;
    let mut builder = http2::Builder::new(Tasks);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX))
        .max_send_buf_size(limits.send_buffer)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(LOCAL_RESETS_MAX)
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1);
    let client = Arc::new(Client::new(call.clone(), http::Version::HTTP_2));
    let served = client.clone();
    let service = service_fn(move |asked: http::Request<Incoming>| {
        let client = served.clone();
        async move { Ok::<_, Infallible>(request::serve(client, asked).await) }
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let drain = &call.waypoint.drain;
    let mut leaving = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => return ended.unwrap_or_else(|error| note(&error)),
            () = drain.draining(), if !leaving => {
                leaving = true;
                connection.as_mut().graceful_shutdown();
            }
            () = client.dismissed() => {
                debug!(peer = %call.peer.address, "a client cancels too much and is dismissed");
                metrics::counter!("ambit_waypoint_clients_dismissed_total", "cause" => "resets").increment(1);
                return;
            }
            () = drain.forced() => return,
        }
    }
}

fn note(error: &hyper::Error) {
    debug!(%error, "a client's connection ended");
}
