//! A client in a pod with its proxy: streams to what it calls, and HTTP on them.

use std::sync::Arc;

use ambit_hbone::ConnId;
use ambit_hbone::request::Connect;
use ambit_net::tls;
use ambit_net::tunnel::TunnelSettings;
use ambit_net::tunnel::client::{Tunnel, TunnelError, open};
use ambit_types::Identity;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use waypoint::stream::Stream;

use super::app::{Body, Executor};
use super::{Rig, identity, start, within};

/// A response that was read to its end.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    pub(crate) trailers: HeaderMap,
}

impl Read {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}

impl Rig {
    /// A tunnel of an identity to the waypoint.
    pub(crate) async fn tunnel_of(&self, identity: &Identity) -> Tunnel {
        let credential = self.ca.credential(identity);
        let tcp = TcpStream::connect(self.address).await.expect("the waypoint listens");
        let _ = tcp.set_nodelay(true);
        let expected = [super::identity("shop", "waypoint")];
        let settings = Arc::new(TunnelSettings::default());
        let timeout = settings.handshake_timeout;
        let connected = tls::client::connect(&credential, &expected, tcp, self.address, timeout).await;
        let connected = connected.expect("TLS with the waypoint");
        open(connected, self.address, credential.not_after(), settings).await.expect("a tunnel")
    }

    /// The tunnel of client shop/cart.
    pub(crate) async fn tunnel(&self) -> &Tunnel {
        self.tunnel.get_or_init(|| async { self.tunnel_of(&identity("shop", "cart")).await }).await
    }

    /// A stream to an authority, with more headers on the CONNECT.
    pub(crate) async fn connect_with(
        &self,
        tunnel: &Tunnel,
        authority: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Stream, TunnelError> {
        let connect = Connect {
            authority,
            baggage: "service.name=cart",
            forwarded: "for=\"1.2.3.4:5\"",
            conn_id: ConnId::from_random(7),
            span: 1,
        };
        let mut request = connect.request().expect("a request");
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).expect("a value");
            request.headers_mut().insert(HeaderName::from_static(name), value);
        }
        let opened = within(tunnel.connect(request, &TunnelSettings::default())).await?;
        Ok(Stream::new(opened.send, opened.recv))
    }

    /// A stream to the first service.
    pub(crate) async fn connect(&self) -> Stream {
        let tunnel = self.tunnel().await;
        self.connect_with(tunnel, "10.9.0.1:80", &[]).await.expect("the waypoint serves it")
    }

    /// HTTP/1.1 to the first service.
    pub(crate) async fn http1(&self) -> http1::SendRequest<Body> {
        let io = TokioIo::new(self.connect().await);
        let (sender, connection) = http1::handshake(io).await.expect("HTTP/1.1");
        start(connection.with_upgrades());
        sender
    }

    /// HTTP/2 to the first service.
    pub(crate) async fn http2(&self) -> http2::SendRequest<Body> {
        let io = TokioIo::new(self.connect().await);
        let (sender, connection) = http2::handshake(Executor, io).await.expect("HTTP/2");
        start(connection);
        sender
    }

    /// One HTTP/1.1 request on a connection of its own.
    pub(crate) async fn ask(&self, request: Request<Body>) -> Read {
        let mut sender = self.http1().await;
        read(within(sender.send_request(request)).await.expect("a response")).await
    }

    /// `METHOD PATH`, with headers.
    pub(crate) async fn get(&self, line: &str, headers: &[(&str, &str)]) -> Read {
        self.ask(request(line, headers, super::app::text(""))).await
    }

    /// Bytes as they are, and all that comes back.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        within(async {
            // The waypoint may have closed before it has read all.
            let _ = stream.write_all(bytes).await;
            let mut all = Vec::new();
            let _ = stream.read_to_end(&mut all).await;
            String::from_utf8_lossy(&all).into_owned()
        })
        .await
    }
}

/// A request to `web`; an empty body is none.
pub(crate) fn request(line: &str, headers: &[(&str, &str)], body: Body) -> Request<Body> {
    let (method, path) = line.split_once(' ').expect("METHOD PATH");
    let mut request = Request::builder().method(method).uri(path).header("host", "web.shop");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body).expect("a request")
}

/// A request in HTTP/2.
pub(crate) fn request2(line: &str, headers: &[(&str, &str)], body: Body) -> Request<Body> {
    let mut request = request(line, headers, body);
    let uri = format!("http://web.shop{}", request.uri());
    *request.uri_mut() = uri.parse().expect("a URI");
    request.headers_mut().remove("host");
    request
}

pub(crate) async fn read(response: Response<Incoming>) -> Read {
    let (parts, body) = response.into_parts();
    let collected = within(body.collect()).await.expect("a whole body");
    let trailers = collected.trailers().cloned().unwrap_or_default();
    let body: Bytes = collected.to_bytes();
    let body = String::from_utf8_lossy(&body).into_owned();
    Read { status: parts.status.as_u16(), headers: parts.headers, body, trailers }
}
