//! HTTP on one connection of a client: hyper with every limit set, and an end for clients that abuse it.

mod course;
mod trust;

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use ambit_runtime::{clock, tasks};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::{Duration, Instant};
use tracing::debug;

use super::Call;
use super::meter::Metered;
use super::relays::{Facts, Upgraded};
use crate::request::{self, Client, framing::Framed};
use crate::stream::Stream;
use course::Watched;
pub(crate) use course::{Course, Tally};

/// Interval and patience of HTTP/2's own keepalive.
const PING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(20));

/// Streams that we had to reset ourselves before a client is dismissed (MadeYouReset).
const LOCAL_RESETS_MAX: usize = 100;

/// Streams reset before we have seen them (rapid reset).
const PENDING_RESETS_MAX: usize = 20;

/// How long a connection of HTTP/1.1 may stay idle once the waypoint ends.
const IDLE_END: Duration = Duration::from_secs(5);

/// How long a client that is dismissed has to take the GOAWAY.
const DISMISSAL_TIME: Duration = Duration::from_secs(1);

/// Runs hyper's streams as tasks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tasks;

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, work: F) {
        tasks::spawn("waypoint-http2", work);
    }
}

/// Runs a client's streams as tasks, each no longer than its client takes what it is sent.
#[derive(Debug, Clone, Copy)]
struct Streams {
    stall_timeout: Duration,
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, work: F) {
        tasks::spawn("waypoint-http2", course::unless_stalled(work, self.stall_timeout));
    }
}

/// Serves HTTP/1.1 until the client leaves.
pub(super) async fn serve_http1(call: Arc<Call>, stream: Stream) {
    let limits = &call.waypoint.limits;
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // It would run before the first byte of a head: heads are timed where they are read.
        .header_read_timeout(None)
        .max_header_size(limits.head_bytes_max)
        .max_buf_size(limits.head_bytes_max.max(8192))
        .half_close(false);
    let client = Arc::new(Client::new(call.clone(), http::Version::HTTP_11));
    let course = Arc::new(Course::default());
    let service = service_fn(|asked: http::Request<Incoming>| {
        let (client, course) = (client.clone(), course.clone());
        async move { Ok::<_, Infallible>(answer(&client, &course, asked).await) }
    });
    let stream = stream.unless_stalled(limits.stall_timeout);
    let framed = Framed::new(stream, course.clone(), limits.head_timeout, limits.keep_alive_timeout);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(framed), service).with_upgrades());
    let drain = &call.waypoint.drain;
    // A connection in use is told to end by the next response: one that is closed while it is idle may be closed into
    // the face of a request. What stays idle is closed after a while.
    let idle_end = async {
        drain.draining().await;
        tokio::time::sleep(IDLE_END).await;
    };
    let mut idle_end = pin!(idle_end);
    let mut leaving = false;
    loop {
        tokio::select! {
            // What has arrived is read before the connection is told to end.
            biased;
            ended = connection.as_mut() => {
                ended.unwrap_or_else(|error| note(&error));
                return client.finish().await;
            }
            () = drain.forced() => return,
            () = idle_end.as_mut(), if !leaving => {
                leaving = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Serves HTTP/2 until the client leaves or has to.
pub(super) async fn serve_http2(call: Arc<Call>, stream: Stream) {
    let limits = &call.waypoint.limits;
    let mut builder = http2::Builder::new(Streams { stall_timeout: limits.stall_timeout });
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
    let course = Arc::new(Course::default());
    let served = (client.clone(), course.clone());
    let service = service_fn(move |asked: http::Request<Incoming>| {
        let (client, course) = served.clone();
        async move { Ok::<_, Infallible>(answer(&client, &course, asked).await) }
    });
    let metered = Metered::new(stream.unless_stalled(limits.stall_timeout), limits.control_frames_max);
    let sentence = metered.sentence();
    let mut connection = pin!(builder.serve_connection(TokioIo::new(metered), service));
    let drain = &call.waypoint.drain;
    let (mut leaving, mut ending) = (false, false);
    let mut end = pin!(tokio::time::sleep(DISMISSAL_TIME));
    let dismissed = async {
        tokio::select! {
            () = client.dismissed() => {}
            () = course.dismissed.cancelled() => {}
        }
    };
    let mut dismissed = pin!(dismissed);
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => return ended.unwrap_or_else(|error| note(&error)),
            () = drain.forced() => return,
            () = end.as_mut(), if ending => return,
            () = dismissed.as_mut(), if !ending => {
                debug!(peer = %call.peer.address, "a client cancels too much and is dismissed");
                metrics::counter!("ambit_waypoint_clients_dismissed_total", "cause" => "resets").increment(1);
                sentence.pass();
                ending = true;
                end.as_mut().reset(Instant::from_std(clock::monotonic()) + DISMISSAL_TIME);
            }
            () = drain.draining(), if !leaving => {
                leaving = true;
                connection.as_mut().graceful_shutdown();
            }
            () = course.misdirected.cancelled(), if !leaving => {
                leaving = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Answers one request of a connection, and sees to it that the connection goes on only if it may.
async fn answer(
    client: &Arc<Client>,
    course: &Arc<Course>,
    asked: http::Request<Incoming>,
) -> http::Response<Watched> {
    let call = &client.call;
    let is_http2 = asked.version() == http::Version::HTTP_2;
    let tally = is_http2.then(|| (call.peer.tally.clone(), call.waypoint.limits.resets_max));
    let mut under_way = course.begin(tally);
    if is_http2 {
        // Of a request that is given up before its turn nothing has been read, and nothing is told.
        under_way.turn().await;
    }
    let state = call.waypoint.state();
    let asks_for_other = asked.headers().contains_key(UPGRADE);
    let kept = (asks_for_other && !is_http2).then(|| Upgraded::new(&asked, call, &state)).flatten();
    drop(state);
    let mut response = request::serve(client.clone(), asked).await;
    // What is called has moved away, or the endpoint says so of itself: either way not on this connection. gRPC callers
    // are told in their own words, so the status does not say it all.
    let is_misdirected = response.status() == http::StatusCode::MISDIRECTED_REQUEST
        || call.waypoint.state().governing(&call.target).is_none();
    if response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
        match kept {
            Some(kept) => {
                let facts = Facts::Upgraded(Box::new(kept));
                let entered = call.waypoint.relays.enter(call.clone(), facts);
                entered.review();
                course.upgrade(entered);
            }
            // It was asked for by nobody, or by one who is not served: nothing of it is copied.
            None => course.refuse_upgrade(),
        }
    } else if !is_http2 && (asks_for_other || is_misdirected || call.waypoint.drain.is_draining()) {
        // What follows was not meant for whoever reads requests here, or not for much longer.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if is_misdirected {
        course.misdirected.cancel();
    }
    response.map(|body| Watched::new(body, under_way))
}

fn note(error: &hyper::Error) {
    debug!(%error, "a client's connection ended");
}
