//! One port of such a service, in clear, for HTTP/1.1 and HTTP/2.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};

use ambit_runtime::tasks;
use anyhow::Context as _;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tonic::codegen::Service;

use crate::serve::{Body, whole};

/// What an answer comes to; an error ends the connection or the stream.
pub(super) type Answered = io::Result<Response<Body>>;

/// Serves a port until the program is ended from outside.
///
/// # Errors
/// If the port cannot be had, or accepting fails for good.
pub(super) async fn listen<F, A>(name: &str, port: u16, answer: F) -> anyhow::Result<()>
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
    A: Future<Output = Answered> + Send + 'static,
{
    // Of IPv6 and, as the kernel is set by default, IPv4.
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let listener = TcpListener::bind(address).await.with_context(|| format!("listening at {address}"))?;
    eprintln!("{name} listens at {address}");
    loop {
        let (tcp, _) = listener.accept().await.context("accepting a connection")?;
        tasks::spawn("peer-connection", connection(tcp, answer.clone()));
    }
}

async fn connection<F, A>(tcp: TcpStream, answer: F)
where
    F: Fn(Request<Incoming>) -> A + Send + 'static,
    A: Future<Output = Answered> + Send + 'static,
{
    // Only a delay, if it fails.
    let _ = tcp.set_nodelay(true);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder.http2().timer(TokioTimer::new());
    if let Err(error) = builder.serve_connection(TokioIo::new(tcp), service_fn(answer)).await {
        eprintln!("connection ended: {error}");
    }
}

/// Has a gRPC service answer.
///
/// # Errors
/// Never: what fails is told in gRPC.
pub(super) async fn grpc<S>(mut server: S, request: Request<Incoming>) -> Answered
where
    S: Service<Request<Incoming>, Response = Response<tonic::body::Body>, Error = Infallible>,
{
    match server.call(request).await {
        Ok(answer) => Ok(answer.map(|body| body.map_err(Into::into).boxed_unsync())),
        Err(never) => match never {},
    }
}

/// Whether it is a call of gRPC.
pub(super) fn is_grpc(request: &Request<Incoming>) -> bool {
    let content = request.headers().get(CONTENT_TYPE);
    content.is_some_and(|content| content.as_bytes().starts_with(b"application/grpc"))
}

/// An answer of JSON.
pub(super) fn as_json(value: &Value) -> Response<Body> {
    let mut answer = Response::new(whole(value.to_string()));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// An answer of a status and a text.
pub(super) fn as_text(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    let mut answer = Response::new(whole(text.into()));
    *answer.status_mut() = status;
    answer
}
