//! An API server of a test's own making: a function from requests to answers.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, stream};
use http::header::ACCEPT;
use http::{Method, Request, Response};
use http_body_util::StreamBody;
use hyper::body::Frame;
use kube::Client;
use kube::client::Body;
use serde_json::Value;
use tokio::sync::mpsc;

/// What is asked.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    /// What kind of answer is wanted.
    pub(crate) accept: String,
    pub(crate) body: Value,
}

impl Asked {
    /// Whether the query has this pair, as it is on the wire.
    pub(crate) fn has(&self, pair: &str) -> bool {
        self.query.split('&').any(|one| one == pair)
    }
}

/// What is answered.
pub(crate) enum Reply {
    Json(u16, Value),
    /// Events as they come; the end of the channel ends the answer.
    Events(mpsc::Receiver<Value>),
    /// Nothing, ever.
    Never,
}

impl Reply {
    /// A failure as API servers word it.
    pub(crate) fn status(code: u16, reason: &str) -> Self {
        Self::Json(code, status(code, reason))
    }
}

pub(crate) fn status(code: u16, reason: &str) -> Value {
    serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "code": code, "reason": reason, "message": format!("told so: {reason}"),
    })
}

type Lines = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

/// A client of that server.
pub(crate) fn client(answer: impl Fn(Asked) -> Reply + Clone + Send + Sync + 'static) -> Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let answer = answer.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap_or_default();
            let accept = parts.headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
            let asked = Asked {
                method: parts.method,
                path: parts.uri.path().to_owned(),
                query: parts.uri.query().unwrap_or_default().to_owned(),
                accept: accept.to_owned(),
                body: serde_json::from_slice(&body).unwrap_or_default(),
            };
            Ok::<_, Infallible>(respond(answer(asked)).await)
        }
    });
    Client::new(service, "default")
}

async fn respond(reply: Reply) -> Response<Lines> {
    let frame = |value: &Value| Ok(Frame::data(Bytes::from(format!("{value}\n"))));
    let (code, lines) = match reply {
        Reply::Json(code, value) => (code, stream::iter([frame(&value)]).boxed()),
        Reply::Events(events) => {
            let lines = stream::unfold(events, |mut events| async move {
                let event = events.recv().await?;
                Some((Ok(Frame::data(Bytes::from(format!("{event}\n")))), events))
            });
            (200, lines.boxed())
        }
        Reply::Never => std::future::pending().await,
    };
    Response::builder().status(code).body(StreamBody::new(lines)).expect("a response")
}
