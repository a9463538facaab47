//! Serving [`Routes`].

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::unistd::Uid;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use super::{Call, Peer, Reply, ReplyBody, Routes};
use crate::drain::Drain;
use crate::tasks;

/// Longest wait for a request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest head of a request, the least that hyper takes. Nothing here has a longer one, and every caller may have such
/// a buffer.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Largest body of a POST: a question, or a few manifests.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// Longest wait for the whole of it.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Calls of one listener at once. One more ends the oldest, so that callers who hold on keep no prober out.
const CALLS_MAX: usize = 64;

/// Longest call over TCP, where anybody may call and then not read; a scrape takes milliseconds.
const TCP_CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause after a failed accept, so that exhausted descriptors do not become a busy loop (G35).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why the admin surface could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// The socket could not be made.
    #[error("opening the admin socket {path}; is its directory there and writable?")]
    Bind {
        /// Where.
        path: PathBuf,
        /// The system's answer.
        #[source]
        cause: io::Error,
    },
}

/// Serves `routes` on a Unix socket (mode 0600, replacing a stale one) until `drain` begins.
///
/// # Errors
/// [`AdminError::Bind`].
pub fn serve_unix(path: &Path, routes: Routes, drain: &Drain) -> Result<(), AdminError> {
    let fail = |cause| AdminError::Bind { path: path.to_owned(), cause };
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(fail(e)),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(fail)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(fail)?;
    let drain = drain.clone();
    tasks::spawn("admin", async move {
        let mut calls = Calls::default();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = drain.draining() => return,
            };
            match accepted {
                Ok((stream, _)) => match stream.peer_cred() {
                    Ok(peer) if is_permitted(peer.uid()) => {
                        calls.start(serve(stream, routes.clone()));
                    }
                    Ok(peer) => {
                        warn!(uid = peer.uid(), "refused a caller of the admin socket: not root nor our user")
                    }
                    Err(error) => {
                        warn!(%error, "refused a caller of the admin socket: who it is cannot be told")
                    }
                },
                Err(error) => pause(&error).await,
            }
        }
    });
    Ok(())
}

/// Serves `routes` on a TCP listener until `drain` is forced, so that probes see the draining program.
pub fn serve_tcp(listener: TcpListener, routes: Routes, drain: &Drain) {
    serve_tcp_within(TCP_CALL_TIMEOUT, listener, routes, drain);
}

/// The same with another bound for a call.
pub(super) fn serve_tcp_within(longest: Duration, listener: TcpListener, routes: Routes, drain: &Drain) {
    let drain = drain.clone();
    tasks::spawn("admin-tcp", async move {
        let mut calls = Calls::default();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = drain.forced() => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    let call = serve(stream, routes.clone());
                    calls.start(async move {
                        // A caller that does not read is not told that it took too long.
                        let _ = tokio::time::timeout(longest, call).await;
                    });
                }
                Err(error) => pause(&error).await,
            }
        }
    });
}

/// The calls of one listener, oldest first.
#[derive(Default)]
struct Calls(VecDeque<JoinHandle<()>>);

impl Calls {
    fn start(&mut self, call: impl Future<Output = ()> + Send + 'static) {
        self.0.retain(|call| !call.is_finished());
        if self.0.len() >= CALLS_MAX
            && let Some(oldest) = self.0.pop_front()
        {
            metrics::counter!("ambit_admin_calls_cut_total").increment(1);
            oldest.abort();
        }
        self.0.push_back(tasks::spawn("admin-call", call));
    }
}

async fn pause(error: &io::Error) {
    warn!(%error, "accepting an admin connection failed");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

fn is_permitted(uid: u32) -> bool {
    uid == 0 || uid == Uid::effective().as_raw()
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, routes: Routes) {
    let service = service_fn(move |request| {
        let routes = routes.clone();
        async move { Ok::<_, Infallible>(routes.answer(request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        // One call a connection: an idle one would count as a call.
        .keep_alive(false)
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        debug!(%error, "an admin call ended early");
    }
}

impl Routes {
    /// What a request is answered; for servers that decide for themselves who may ask.
    pub async fn answer(&self, request: Request<Incoming>) -> Response<BoxBody<Bytes, Infallible>> {
        let reading = matches!(*request.method(), Method::GET | Method::HEAD);
        let table = if reading { &self.get } else { &self.post };
        let path = request.uri().path();
        let reply = match table.get(path) {
            Some(route) if reading => route(call(&request)).await,
            Some(route) if *request.method() == Method::POST => match posted(request).await {
                Ok(call) => route(call).await,
                Err(refusal) => refusal,
            },
            Some(_) | None if self.get.contains_key(path) || self.post.contains_key(path) => {
                Reply::text(StatusCode::METHOD_NOT_ALLOWED, "this path does not take that method\n")
            }
            Some(_) | None => Reply::text(StatusCode::NOT_FOUND, "no such path\n"),
        };
        reply.into_response()
    }
}

fn call(request: &Request<Incoming>) -> Call {
    let accepted = request.headers().get_all(header::ACCEPT).iter();
    Call {
        query: parse_query(request.uri().query().unwrap_or_default()),
        takes_openmetrics: accepted
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.contains("application/openmetrics-text")),
        body: Bytes::new(),
        peer: request.extensions().get::<Peer>().map(|Peer(address)| *address),
    }
}

/// The call of a POST with its body, or why that was not taken.
async fn posted(request: Request<Incoming>) -> Result<Call, Reply> {
    let mut call = call(&request);
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect();
    let refused = |status, words: &str| Err(Reply::text(status, words));
    match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => {
            call.body = body.to_bytes();
            Ok(call)
        }
        Ok(Err(cause)) if cause.is::<LengthLimitError>() => {
            refused(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 1 MiB\n")
        }
        Ok(Err(_)) => refused(StatusCode::BAD_REQUEST, "the body broke off\n"),
        Err(_) => refused(StatusCode::REQUEST_TIMEOUT, "the body took too long\n"),
    }
}

impl Reply {
    /// The answer as HTTP has it.
    pub fn into_response(self) -> Response<BoxBody<Bytes, Infallible>> {
        let body = match self.body {
            ReplyBody::Whole(bytes) => Full::new(bytes).boxed(),
            ReplyBody::Stream(lines) => {
                let frames = stream::unfold(lines, |mut lines| async move {
                    lines.recv().await.map(|bytes| (Ok(Frame::data(bytes)), lines))
                });
                BodyExt::boxed(StreamBody::new(frames))
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let content_type = http::HeaderValue::from_static(self.content_type);
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        response
    }
}

/// `a=1&b` becomes `{a: 1, b: ""}`; `%XX` and `+` are decoded.
fn parse_query(query: &str) -> std::collections::BTreeMap<String, String> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (decode(key), decode(value)))
        .collect()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|t| u8::from_str_radix(t, 16).ok());
        match (first, tail.get(..2).and_then(hex)) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = tail;
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
