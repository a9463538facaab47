//! Rows of a table: a request says itself what becomes of its attempts, and what arrived is told in every answer.
//!
//! `x-peer-row: KEY [DEED]…`. The first request of a key that comes to a port gets the first deed, and so on; the last
//! one goes on. A deed is made of `STATUS`, `after=MS`, `retry=SECONDS` and `grpc=CODE` with commas between, or it is
//! `reset` or `hang`. Without deeds it is 200 at once.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER, SERVER};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::Value;

use super::app::{Answered, App, as_json};
use super::wire::Control;
use super::{Body, bodies, empty};

/// The header that says it.
pub(super) const ROW: &str = "x-peer-row";

/// What becomes of one attempt.
#[derive(Debug, Default, PartialEq, Eq)]
struct Deed {
    is_reset: bool,
    hangs: bool,
    status: Option<StatusCode>,
    after: Duration,
    retry_after: Option<u32>,
    grpc: u32,
}

impl Deed {
    /// Reads one; what cannot be read is told as an error, which ends the connection and so fails the row.
    fn read(text: &str) -> io::Result<Self> {
        let wrong = || io::Error::other(format!("{text:?} is no deed"));
        let mut deed = Self::default();
        for part in text.split(',') {
            match part.split_once('=') {
                None if part == "reset" => deed.is_reset = true,
                None if part == "hang" => deed.hangs = true,
                None => deed.status = Some(part.parse().map_err(|_| wrong())?),
                Some(("after", ms)) => deed.after = Duration::from_millis(ms.parse().map_err(|_| wrong())?),
                Some(("retry", seconds)) => deed.retry_after = Some(seconds.parse().map_err(|_| wrong())?),
                Some(("grpc", code)) => deed.grpc = code.parse().map_err(|_| wrong())?,
                Some(_) => return Err(wrong()),
            }
        }
        Ok(deed)
    }
}

impl App {
    /// Answers as the row asks.
    pub(super) async fn by_script(
        &self,
        row: &str,
        is_grpc: bool,
        request: Request<Incoming>,
        control: &Arc<Control>,
    ) -> Answered {
        let mut words = row.split_whitespace();
        let key = words.next().unwrap_or_default();
        let before = usize::try_from(self.tally.seen(&format!("{key} {}", self.port))).unwrap_or(usize::MAX);
        let deeds: Vec<&str> = words.collect();
        let deed = match deeds.get(before).or_else(|| deeds.last()) {
            Some(text) => Deed::read(text)?,
            None => Deed::default(),
        };
        if deed.is_reset {
            control.reset();
            return Err(io::Error::other("ended without an answer, as asked"));
        }
        if deed.hangs {
            return std::future::pending().await;
        }
        tokio::time::sleep(deed.after).await;
        let told = self.description(request).await?;
        let mut answer = if is_grpc { call(&told, deed.grpc) } else { as_json(&told) };
        let headers = answer.headers_mut();
        headers.insert(SERVER, HeaderValue::from_static("echo"));
        headers.insert("x-peer-port", HeaderValue::from(self.port));
        if let Some(seconds) = deed.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(status) = deed.status {
            if status.is_redirection() {
                headers.insert(LOCATION, HeaderValue::from_static("/elsewhere"));
            }
            *answer.status_mut() = status;
        }
        Ok(answer)
    }
}

/// The answer of a gRPC call: what arrived as its only message, or a status without one.
fn call(told: &Value, code: u32) -> Response<Body> {
    let mut answer = if code == 0 {
        let text = told.to_string();
        let mut message = BytesMut::with_capacity(5 + text.len());
        message.put_u8(0);
        message.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
        message.put_slice(text.as_bytes());
        let trailers = HeaderMap::from_iter([(STATUS, HeaderValue::from_static("0"))]);
        Response::new(bodies::with_trailers(message.freeze(), trailers))
    } else {
        let mut answer = Response::new(empty());
        answer.headers_mut().insert(STATUS, HeaderValue::from(code));
        answer
    };
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    answer
}

/// The status of a call.
const STATUS: http::HeaderName = http::HeaderName::from_static("grpc-status");
