//! The clients' connection: TCP, HTTP/1.1 or HTTP/2 by prior knowledge, and what an error of it says.

use std::time::Duration;

use ambit_runtime::tasks;
use anyhow::Context as _;
use http::{HeaderName, HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::serve::Body;

pub(crate) mod attack;
pub(crate) mod bytes;
mod frames;
pub(crate) mod get;
pub(crate) mod load;
pub(crate) mod rows;
pub(crate) mod transfer;
pub(crate) mod ws;

/// Longest time for a TCP connection to come about.
const CONNECT: Duration = Duration::from_secs(10);

/// Where a request goes.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    uri: Uri,
    address: String,
    host: String,
}

impl Target {
    /// Reads `http://HOST[:PORT]/PATH`.
    ///
    /// # Errors
    /// If it is none, or another scheme.
    pub(crate) fn parse(url: &str) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("reading the URL {url:?}"))?;
        anyhow::ensure!(uri.scheme_str() == Some("http"), "{url:?} is no http:// URL");
        let authority = uri.authority().with_context(|| format!("{url:?} names no host"))?;
        let port = authority.port_u16().unwrap_or(80);
        let address = format!("{}:{port}", authority.host());
        let host = authority.as_str().to_owned();
        Ok(Self { address, host, uri })
    }

    /// Path and query.
    pub(crate) fn path(&self) -> &str {
        self.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)
    }

    /// What stands in `Host`.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// A request's builder: its target and host as the version writes them.
    pub(crate) fn request(&self, method: &str, is_http2: bool) -> http::request::Builder {
        let builder = Request::builder().method(method);
        if is_http2 {
            builder.uri(self.uri.clone())
        } else {
            builder.uri(self.path()).header("host", self.host())
        }
    }
}

/// A connection's sender.
pub(crate) enum Sender {
    /// HTTP/1.1.
    One(http1::SendRequest<Body>),
    /// HTTP/2.
    Two(http2::SendRequest<Body>),
}

impl Sender {
    /// Whether another request can go out on it.
    pub(crate) async fn is_ready(&mut self) -> bool {
        match self {
            Self::One(sender) => sender.ready().await.is_ok(),
            Self::Two(sender) => sender.ready().await.is_ok(),
        }
    }

    /// Sends a request.
    ///
    /// # Errors
    /// What hyper says; `is_canceled` if it never went out.
    pub(crate) async fn send(&mut self, request: Request<Body>) -> Result<Response<Incoming>, hyper::Error> {
        match self {
            Self::One(sender) => sender.send_request(request).await,
            Self::Two(sender) => sender.send_request(request).await,
        }
    }
}

/// Connects.
///
/// # Errors
/// If nobody answers, or not in time.
pub(crate) async fn connect(target: &Target, is_http2: bool) -> anyhow::Result<Sender> {
    let connecting = tokio::time::timeout(CONNECT, TcpStream::connect(&target.address));
    let tcp = connecting.await.context("connecting took too long")?;
    let tcp = tcp.with_context(|| format!("connecting to {}", target.address))?;
    // Only a delay, if it fails.
    let _ = tcp.set_nodelay(true);
    let io = TokioIo::new(tcp);
    if is_http2 {
        let handshake = http2::Builder::new(TokioExecutor::new()).adaptive_window(true).handshake(io);
        let (sender, connection) = handshake.await.context("HTTP/2 handshake")?;
        tasks::spawn("peer-client", async move {
            // Whoever waits for an answer is told.
            let _ = connection.await;
        });
        return Ok(Sender::Two(sender));
    }
    let (sender, connection) = http1::handshake(io).await.context("HTTP/1.1 handshake")?;
    tasks::spawn("peer-client", async move {
        // Whoever waits for an answer is told.
        let _ = connection.with_upgrades().await;
    });
    Ok(Sender::One(sender))
}

/// A header as the command line has it: `NAME: VALUE`.
///
/// # Errors
/// If it is none.
pub(crate) fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or_else(|| format!("{text:?} is no NAME: VALUE"))?;
    let name = HeaderName::try_from(name.trim()).map_err(|error| format!("{name:?}: {error}"))?;
    let value = HeaderValue::try_from(value.trim()).map_err(|error| format!("{value:?}: {error}"))?;
    Ok((name, value))
}
