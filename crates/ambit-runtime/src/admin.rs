//! The admin surface: HTTP/1.1 over a Unix socket for people, over TCP only for what reads: metrics, readiness, and on
//! loopback a dump for tools.
//!
//! A Unix socket asks the kernel who is calling and serves root and the program's own user; nothing that changes
//! a program is ever offered on TCP (T-61).

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;

pub mod client;
pub mod server;
#[cfg(test)]
mod tests;

/// What a route is called with.
#[derive(Debug, Clone, Default)]
pub struct Call {
    /// Query parameters, last one wins.
    pub query: BTreeMap<String, String>,
    /// Whether the caller names OpenMetrics among what it takes.
    pub takes_openmetrics: bool,
    /// What a POST carries, at most [`server::BODY_BYTES_MAX`]; empty otherwise.
    pub body: Bytes,
    /// Where it comes from, if the server that took it says so by a [`Peer`]; none at the Unix socket.
    pub peer: Option<IpAddr>,
}

/// Extension of a request: the address that it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

/// What a route answers.
#[derive(Debug)]
pub struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) content_type: &'static str,
    pub(crate) body: ReplyBody,
}

#[derive(Debug)]
pub(crate) enum ReplyBody {
    Whole(Bytes),
    Stream(tokio::sync::mpsc::Receiver<Bytes>),
}

impl Reply {
    /// Plain text.
    pub fn text(status: StatusCode, text: impl Into<String>) -> Self {
        let body = ReplyBody::Whole(Bytes::from(text.into()));
        Self { status, content_type: "text/plain; charset=utf-8", body }
    }

    /// Metrics: OpenMetrics text, under the name that the caller takes it by.
    fn metrics(text: String, call: &Call) -> Self {
        let content_type = match call.takes_openmetrics {
            true => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            false => "text/plain; charset=utf-8",
        };
        Self { status: StatusCode::OK, content_type, body: ReplyBody::Whole(Bytes::from(text)) }
    }

    /// A page for a browser.
    pub fn html(page: impl Into<String>) -> Self {
        let body = ReplyBody::Whole(Bytes::from(page.into()));
        Self { status: StatusCode::OK, content_type: "text/html; charset=utf-8", body }
    }

    /// A value as JSON; 500 if it cannot be written as such.
    pub fn json(value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(bytes) => Self {
                status: StatusCode::OK,
                content_type: "application/json",
                body: ReplyBody::Whole(Bytes::from(bytes)),
            },
            Err(e) => Self::text(StatusCode::INTERNAL_SERVER_ERROR, format!("writing JSON: {e}\n")),
        }
    }

    /// Lines that are sent as they come, until the sender goes away (newline-delimited JSON).
    pub fn stream(lines: tokio::sync::mpsc::Receiver<Bytes>) -> Self {
        Self { status: StatusCode::OK, content_type: "application/x-ndjson", body: ReplyBody::Stream(lines) }
    }

    /// Events that are sent as they come, until the sender goes away; each piece is one, as server-sent events are
    /// written.
    pub fn events(events: tokio::sync::mpsc::Receiver<Bytes>) -> Self {
        Self { status: StatusCode::OK, content_type: "text/event-stream", body: ReplyBody::Stream(events) }
    }

    /// Bytes of a kind that the program itself holds.
    pub fn file(content_type: &'static str, bytes: &'static [u8]) -> Self {
        Self { status: StatusCode::OK, content_type, body: ReplyBody::Whole(Bytes::from_static(bytes)) }
    }
}

type Answer = Pin<Box<dyn Future<Output = Reply> + Send>>;
type Route = Arc<dyn Fn(Call) -> Answer + Send + Sync>;

/// Paths and what they answer. GET reads; POST is only for routes that change something.
#[derive(Clone, Default)]
pub struct Routes {
    get: BTreeMap<&'static str, Route>,
    post: BTreeMap<&'static str, Route>,
}

impl std::fmt::Debug for Routes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Routes").field("get", &self.get.keys()).field("post", &self.post.keys()).finish()
    }
}

impl Routes {
    /// No routes: everything is 404.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a route that reads.
    #[must_use]
    pub fn get<F, R>(mut self, path: &'static str, route: F) -> Self
    where
        F: Fn(Call) -> R + Send + Sync + 'static,
        R: Future<Output = Reply> + Send + 'static,
    {
        self.get.insert(path, Arc::new(move |call| Box::pin(route(call))));
        self
    }

    /// Adds a route that changes something.
    #[must_use]
    pub fn post<F, R>(mut self, path: &'static str, route: F) -> Self
    where
        F: Fn(Call) -> R + Send + Sync + 'static,
        R: Future<Output = Reply> + Send + 'static,
    {
        self.post.insert(path, Arc::new(move |call| Box::pin(route(call))));
        self
    }

    /// Adds the routes of another set; of two for one path, the other's counts.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.get.extend(other.get);
        self.post.extend(other.post);
        self
    }

    /// Adds `/healthz/ready`, `/healthz/live` and `/healthz/startup` (`?verbose` lists every part as JSON).
    #[must_use]
    pub fn health(self, readiness: &crate::readiness::Readiness) -> Self {
        let ready = readiness.clone();
        let startup = readiness.clone();
        self.get("/healthz/live", |_| async { Reply::text(StatusCode::OK, "alive\n") })
            .get("/healthz/startup", move |call| std::future::ready(health_reply(&startup, &call)))
            .get("/healthz/ready", move |call| std::future::ready(health_reply(&ready, &call)))
    }

    /// Adds `/metrics` and `/stats/prometheus`.
    #[must_use]
    pub fn metrics(self, registry: &crate::metrics::Registry) -> Self {
        let (one, two) = (registry.clone(), registry.clone());
        self.get("/metrics", move |call| std::future::ready(Reply::metrics(one.render(), &call)))
            .get("/stats/prometheus", move |call| std::future::ready(Reply::metrics(two.render(), &call)))
    }

    /// Adds `/logging`: GET shows the filter, POST `?level=` replaces it.
    #[must_use]
    pub fn logging(self, control: &crate::logging::LogControl) -> Self {
        let (show, change) = (control.clone(), control.clone());
        self.get("/logging", move |_| {
            std::future::ready(Reply::text(StatusCode::OK, format!("{}\n", show.current())))
        })
        .post("/logging", move |call| std::future::ready(set_level(&change, &call)))
    }
}

fn set_level(control: &crate::logging::LogControl, call: &Call) -> Reply {
    let Some(level) = call.query.get("level") else {
        return Reply::text(StatusCode::BAD_REQUEST, "say which: POST /logging?level=debug\n");
    };
    match control.set(level) {
        Ok(()) => Reply::text(StatusCode::OK, format!("{}\n", control.current())),
        Err(e) => Reply::text(StatusCode::BAD_REQUEST, format!("{e}\n")),
    }
}

fn health_reply(readiness: &crate::readiness::Readiness, call: &Call) -> Reply {
    let pending = readiness.pending();
    let status = if pending.is_empty() { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
    if call.query.contains_key("verbose") {
        let mut reply = Reply::json(&readiness.parts());
        reply.status = status;
        return reply;
    }
    match pending.is_empty() {
        true => {
            let remarks = readiness.remarks().into_iter().map(|remark| remark + "\n");
            Reply::text(status, std::iter::once("ready\n".to_owned()).chain(remarks).collect::<String>())
        }
        false => Reply::text(status, format!("not ready, pending: {}\n", pending.join(", "))),
    }
}
