//! Serving the console and its API over TCP: guarded, bounded, and with headers that keep browsers from doing more.
//!
//! Where others than this machine can call it is served by TLS, with the certificate of our own server.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ambit_runtime::admin::{Peer, Reply, Routes};
use ambit_runtime::drain::Drain;
use ambit_runtime::tasks;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::assets;
use super::guard::Guard;
use super::places::Places;
use super::stall::Stalling;

#[cfg(test)]
mod tests;

/// Connections at once, and of one caller; a browser opens six.
const CONNECTIONS_MAX: usize = 64;
const CONNECTIONS_EACH_MAX: usize = 48;
/// Longest time in which a caller may take nothing of what it is sent.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);
/// Longest handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Longest wait for a request's head, also on a connection that is kept.
const HEAD: Duration = Duration::from_secs(30);
/// Longest head.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Pause after a failed accept, so that exhausted descriptors do not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Everything below is data.
const API: &str = "/api/";

/// Scripts, styles and data come from here alone; no frame may hold us, and no text becomes a script.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";

/// What every answer carries.
const HEADERS: [(HeaderName, &str); 7] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Serves the console and `routes` on a listener until `drain` begins; by plain HTTP.
pub fn serve(listener: TcpListener, routes: Routes, guard: Guard, drain: &Drain) {
    let desk = Desk { routes, guard, tls: None };
    serve_within(TAKEN_WITHIN, listener, desk, drain);
}

/// The same by TLS, with settings as [`crate::tls::settings`] makes them.
pub fn serve_tls(listener: TcpListener, mut tls: ServerConfig, routes: Routes, guard: Guard, drain: &Drain) {
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let desk = Desk { routes, guard, tls: Some(TlsAcceptor::from(Arc::new(tls))) };
    serve_within(TAKEN_WITHIN, listener, desk, drain);
}

/// Serves, with a bound for callers that take nothing.
fn serve_within(within: Duration, listener: TcpListener, desk: Desk, drain: &Drain) {
    let desk = Arc::new(desk);
    let (places, drain) = (Places::new(CONNECTIONS_MAX, CONNECTIONS_EACH_MAX), drain.clone());
    drop(tasks::spawn("console", async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = drain.draining() => return,
            };
            let Some((stream, peer)) = taken(accepted).await else { continue };
            let Ok(place) = places.take(Some(peer.ip())) else {
                metrics::counter!("ambit_console_connections_refused_total").increment(1);
                continue;
            };
            let (desk, drain) = (desk.clone(), drain.clone());
            drop(tasks::spawn("console-connection", async move {
                tokio::select! {
                    () = welcome(Stalling::new(stream, within), peer.ip(), desk) => {}
                    // Streams have no end of their own; what else is under way takes milliseconds.
                    () = drain.draining() => {}
                }
                drop(place);
            }));
        }
    }));
}

async fn taken(accepted: io::Result<(TcpStream, SocketAddr)>) -> Option<(TcpStream, SocketAddr)> {
    match accepted {
        Ok(accepted) => Some(accepted),
        Err(error) => {
            warn!(%error, "accepting a connection of the console failed");
            time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// What answers.
struct Desk {
    routes: Routes,
    guard: Guard,
    tls: Option<TlsAcceptor>,
}

/// A connection from its first byte on.
async fn welcome(stream: Stalling<TcpStream>, peer: IpAddr, desk: Arc<Desk>) {
    let Some(tls) = desk.tls.clone() else { return connection(stream, peer, desk).await };
    match time::timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => connection(stream, peer, desk).await,
        Ok(Err(error)) => {
            metrics::counter!("ambit_handshakes_failed_total").increment(1);
            debug!(%peer, %error, "a handshake of the console failed");
        }
        Err(_) => {
            metrics::counter!("ambit_handshakes_failed_total").increment(1);
            debug!(%peer, "a handshake of the console took too long");
        }
    }
}

async fn connection<S>(stream: S, peer: IpAddr, desk: Arc<Desk>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |mut request: Request<Incoming>| {
        let desk = desk.clone();
        request.extensions_mut().insert(Peer(peer));
        async move { Ok::<_, Infallible>(desk.answer(request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        debug!(%error, "a connection of the console ended early");
    }
}

impl Desk {
    async fn answer(&self, request: Request<Incoming>) -> Response<BoxBody<Bytes, Infallible>> {
        let is_data = request.uri().path().starts_with(API);
        let mut response = match self.guard.check(request.method(), request.headers(), is_data) {
            Err((status, words)) => Reply::text(status, words).into_response(),
            // Only the API of the routes is offered here, whatever else they hold.
            Ok(()) if is_data => self.routes.answer(request).await,
            Ok(()) => match assets::file(request.uri().path()) {
                Some(file) => file.into_response(),
                None => Reply::text(StatusCode::NOT_FOUND, "no such page\n").into_response(),
            },
        };
        let headers = response.headers_mut();
        for (name, value) in HEADERS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if response.status() == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
