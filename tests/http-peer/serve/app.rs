//! The application: a description of the request on any path, and paths that behave as their name says.
//!
//! `/status/CODE` `/sleep/MS` `/hang` `/reset` `/reset-before` `/drip/BYTES/MS` `/bytes/N` `/upload` `/refuse-body`
//! `/fail/N/CODE?key=K` `/only/NAME/CODE` `/burst/BAD/GOOD/CODE?key=K` `/ws` `/trailers` `/early-hints` `/chain?to=URL` `/count`
//! `/count/reset`, and gRPC's `ambit.test.Echo`. A request with `x-peer-row` says itself what becomes of it
//! ([`script`](super::script)).

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, TRAILER};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tonic::codegen::Service as _;

use super::tally::Tally;
use super::wire::Control;
use super::{Body, bodies, chain, conversation, script, whole};
use crate::grpc::proto::echo_server::EchoServer;
use crate::grpc::service::Echo;
use crate::pattern::Sum;

/// One server's application.
#[derive(Clone)]
pub(super) struct App {
    pub(super) name: Arc<str>,
    peer: HeaderValue,
    /// Where its connections come in.
    pub(super) port: u16,
    pub(super) tally: Tally,
    echo: EchoServer<Echo>,
}

/// What an answer comes to; an error ends the connection or the stream.
pub(super) type Answered = io::Result<Response<Body>>;

impl App {
    pub(super) fn new(name: &str) -> Self {
        let peer = HeaderValue::from_str(name).unwrap_or_else(|_| HeaderValue::from_static("unnamed"));
        let echo = EchoServer::new(Echo::new(name));
        Self { name: name.into(), peer, port: 0, tally: Tally::default(), echo }
    }

    /// The same application at a port.
    pub(super) fn at(&self, port: u16) -> Self {
        Self { port, ..self.clone() }
    }

    /// Answers one request.
    pub(super) async fn answer(&self, request: Request<Incoming>, control: &Arc<Control>) -> Answered {
        let path = request.uri().path().to_owned();
        if path == "/count" {
            return Ok(as_json(&self.tally.told()));
        }
        if path == "/count/reset" {
            self.tally.reset();
            return Ok(as_json(&self.tally.told()));
        }
        let _open = self.tally.begin(&path);
        let is_grpc = request
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|t| t.as_bytes().starts_with(b"application/grpc"));
        let row = request.headers().get(script::ROW).and_then(|row| row.to_str().ok()).map(str::to_owned);
        let mut answer = match row {
            Some(row) => self.by_script(&row, is_grpc, request, control).await?,
            None if is_grpc => self.grpc(request).await,
            None => self.act(&path, request, control).await?,
        };
        answer.headers_mut().insert("x-peer", self.peer.clone());
        Ok(answer)
    }

    async fn grpc(&self, request: Request<Incoming>) -> Response<Body> {
        let mut echo = self.echo.clone();
        match echo.call(request).await {
            Ok(answer) => answer.map(|body| body.map_err(Into::into).boxed_unsync()),
            Err(never) => match never {},
        }
    }

    async fn act(&self, path: &str, request: Request<Incoming>, control: &Arc<Control>) -> Answered {
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        Ok(match *segments {
            ["status", code] => of_status(code),
            ["sleep", pause] => {
                tokio::time::sleep(Duration::from_millis(number(pause))).await;
                self.describe(request).await?
            }
            ["hang"] => std::future::pending().await,
            ["reset"] => broken(control),
            ["reset-before"] => {
                control.reset();
                return Err(io::Error::other("ended without an answer, as asked"));
            }
            ["drip", total, pause] => {
                Response::new(bodies::drip(number(total), Duration::from_millis(number(pause))))
            }
            ["bytes", total] => sized(number(total)),
            ["upload"] => as_json(&summed(request.into_body()).await?),
            ["refuse-body"] => of_status("417"),
            ["fail", times, code] => self.fail(&request, number(times), u64::MAX, code),
            ["burst", bad, good, code] => self.fail(&request, number(bad), number(good), code),
            ["only", name, code] if name == &*self.name => of_status(code),
            ["ws"] => conversation::upgrade(request),
            ["trailers"] => trailers(),
            ["early-hints"] => {
                // After HTTP/2 or TLS there is no way to say it; the client then sees none.
                control.say_ahead(b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n");
                self.describe(request).await?
            }
            ["chain"] => self.chain(&request).await,
            _ => self.describe(request).await?,
        })
    }

    /// The first `bad` of a key's requests get the code, the next `good` are answered, and so on.
    fn fail(&self, request: &Request<Incoming>, bad: u64, good: u64, code: &str) -> Response<Body> {
        let query = request.uri().query().unwrap_or_default();
        let seen = self.tally.seen(&format!("{} {query}", request.uri().path()));
        let place = seen % bad.saturating_add(good).max(1);
        if place < bad { of_status(code) } else { as_json(&json!({"name": *self.name, "before": seen})) }
    }

    async fn chain(&self, request: &Request<Incoming>) -> Response<Body> {
        let query = request.uri().query().unwrap_or_default();
        // Everything after it, so that a chain may be longer than one without any quoting.
        let next = query.split_once("to=").map(|(_, url)| url);
        let next = match next {
            Some(url) => chain::call(url, request.headers()).await,
            None => Value::Null,
        };
        as_json(&json!({"name": *self.name, "headers": listed(request.headers()), "next": next}))
    }

    /// What arrived.
    async fn describe(&self, request: Request<Incoming>) -> Answered {
        Ok(as_json(&self.description(request).await?))
    }

    /// What arrived, in words.
    pub(super) async fn description(&self, request: Request<Incoming>) -> io::Result<Value> {
        let (head, body) = request.into_parts();
        let host = head.headers.get(HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
        let authority = head.uri.authority().map(ToString::to_string);
        let body = summed(body).await?;
        Ok(json!({
            "name": *self.name,
            "port": self.port,
            "method": head.method.as_str(),
            "path": head.uri.path_and_query().map(ToString::to_string),
            "host": authority.or(host),
            "version": format!("{:?}", head.version),
            "headers": listed(&head.headers),
            "body": body,
        }))
    }
}

/// Reads a body as it comes; how much it was.
async fn summed(mut body: Incoming) -> io::Result<Value> {
    let (mut sum, mut trailers) = (Sum::new(), HeaderMap::new());
    while let Some(frame) = body.frame().await {
        match frame.map_err(io::Error::other)?.into_data() {
            Ok(data) => sum.add(&data),
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    Ok(json!({"bytes": sum.bytes(), "sha256": sum.finish(), "trailers": listed(&trailers)}))
}

/// Headers by name, every value.
pub(crate) fn listed(headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        all.entry(name.to_string()).or_default().push(value);
    }
    all
}

pub(super) fn as_json(value: &Value) -> Response<Body> {
    let mut answer = Response::new(whole(value.to_string()));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

pub(super) fn of_status(code: &str) -> Response<Body> {
    let status = code.parse().ok().and_then(|code: u16| StatusCode::from_u16(code).ok());
    let mut answer = Response::new(whole(format!("{code} as asked\n")));
    *answer.status_mut() = status.unwrap_or(StatusCode::BAD_REQUEST);
    answer
}

fn sized(total: u64) -> Response<Body> {
    let mut answer = Response::new(bodies::pattern(total));
    answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(total));
    answer
}

fn broken(control: &Arc<Control>) -> Response<Body> {
    let mut answer = Response::new(bodies::broken(control.clone()));
    answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(bodies::BROKEN_BYTES));
    answer
}

fn trailers() -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("of all"));
    let mut answer =
        Response::new(bodies::with_trailers(Bytes::from_static(b"before the trailers\n"), trailers));
    answer.headers_mut().insert(TRAILER, HeaderValue::from_static("x-sum"));
    answer
}

/// A number of a path; 0 if it is none.
fn number(text: &str) -> u64 {
    text.parse().unwrap_or_default()
}
