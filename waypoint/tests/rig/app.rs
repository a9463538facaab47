//! Applications behind the waypoint: hyper servers that note what they get.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use super::ca::TestCa;
use super::proxy::Proxy;
use super::{APP_PORT, fresh_ip, identity, start};

pub(crate) type Body = BoxBody<Bytes, hyper::Error>;
type Answering = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;
type Handler = dyn Fn(usize, Request<Incoming>) -> Answering + Send + Sync;

/// A body of a text.
pub(crate) fn text(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed()
}

pub(crate) fn answer(status: u16, body: &'static str) -> Response<Body> {
    Response::builder().status(status).body(text(body)).expect("a response")
}

/// The head of a request as an application got it.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub(crate) line: String,
    pub(crate) headers: http::HeaderMap,
}

/// An application in a pod with its proxy.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) ip: IpAddr,
    pub(crate) proxy: Proxy,
    got: Arc<Mutex<Vec<Got>>>,
    pub(crate) connections: Arc<AtomicUsize>,
}

impl App {
    /// Endpoint `NAME-N` of a service, answering by a function of how many requests there were before.
    pub(crate) async fn start<F, A>(name: &str, is_http2: bool, handler: F) -> Self
    where
        F: Fn(usize, Request<Incoming>) -> A + Send + Sync + 'static,
        A: Future<Output = Response<Body>> + Send + 'static,
    {
        let handler: Arc<Handler> = Arc::new(move |n, request| Box::pin(handler(n, request)));
        let (app, listener) = Self::bind(name).await;
        let serving = app.clone();
        start(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                serving.connections.fetch_add(1, Ordering::SeqCst);
                start(serving.clone().serve(tcp, is_http2, handler.clone()));
            }
        });
        app
    }

    /// One that does with each connection what it likes.
    pub(crate) async fn raw<F, A>(name: &str, handler: F) -> Self
    where
        F: Fn(TcpStream) -> A + Send + Sync + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        let (app, listener) = Self::bind(name).await;
        let connections = app.connections.clone();
        start(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                start(handler(tcp));
            }
        });
        app
    }

    async fn bind(name: &str) -> (Self, TcpListener) {
        let ip = fresh_ip();
        let proxy = Proxy::start(&TestCa::shared(), &identity("shop", name), ip).await;
        let listener = TcpListener::bind((ip, APP_PORT)).await.expect("loopback");
        (Self { ip, proxy, got: Arc::default(), connections: Arc::default() }, listener)
    }

    async fn serve(self, tcp: TcpStream, is_http2: bool, handler: Arc<Handler>) {
        let _ = tcp.set_nodelay(true);
        let io = TokioIo::new(tcp);
        let service = service_fn(move |request: Request<Incoming>| {
            let n = self.note(&request);
            let answering = handler(n, request);
            async move { Ok::<_, Infallible>(answering.await) }
        });
        if is_http2 {
            let _ = hyper::server::conn::http2::Builder::new(Executor).serve_connection(io, service).await;
        } else {
            let builder = hyper::server::conn::http1::Builder::new();
            let _ = builder.serve_connection(io, service).with_upgrades().await;
        }
    }

    fn note(&self, request: &Request<Incoming>) -> usize {
        let mut got = self.got.lock().unwrap_or_else(PoisonError::into_inner);
        let line = format!("{} {}", request.method(), request.uri());
        got.push(Got { line, headers: request.headers().clone() });
        got.len() - 1
    }

    /// Waits for so many requests to have arrived.
    pub(crate) async fn until_got(&self, n: usize) {
        super::within(async {
            while self.got().len() < n {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    /// Requests so far.
    pub(crate) fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Executor;

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, work: F) {
        start(work);
    }
}
