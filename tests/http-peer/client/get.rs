//! One request, told in full: head, trailers, the body's sum and its beginning.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ambit_runtime::clock;
use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{Target, connect, header};
use crate::pattern::{self, Sum};
use crate::serve::{Body, listed, whole};

/// How much of a body is told, in bytes.
const TOLD_MAX: usize = 64 * 1024;

/// One request.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// As `http://HOST[:PORT]/PATH`.
    #[arg(long)]
    url: String,
    #[arg(long, default_value = "GET")]
    method: String,
    /// `NAME: VALUE`; may be said again.
    #[arg(long, value_parser = header)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// HTTP/2 by prior knowledge.
    #[arg(long)]
    http2: bool,
    /// Sends a body of so many bytes.
    #[arg(long, default_value_t = 0)]
    body_bytes: usize,
    /// Sends these bytes.
    #[arg(long, value_parser = hexadecimal, conflicts_with = "body_bytes")]
    body_hex: Option<Bytes>,
    /// Longest time until the end of the answer.
    #[arg(long, default_value = "30s")]
    timeout: humantime::Duration,
}

/// Statuses of interim answers, in order.
type Interim = Arc<Mutex<Vec<u16>>>;

/// What there is of an answer so far; an error leaves it as it was.
#[derive(Default)]
pub(super) struct Got {
    pub(super) status: u16,
    version: String,
    pub(super) headers: HeaderMap,
    pub(super) trailers: HeaderMap,
    pub(super) beginning: Vec<u8>,
    sum: Option<Sum>,
}

/// Makes the request; what came of it, also if it failed.
///
/// # Errors
/// If the URL, the method or a header is none.
pub(crate) async fn run(options: &Options) -> anyhow::Result<Value> {
    let target = Target::parse(&options.url)?;
    let (request, informational) = request(options, &target)?;
    let begun = clock::monotonic();
    let mut got = Got::default();
    let limit: Duration = *options.timeout;
    let outcome = tokio::time::timeout(limit, ask(&target, options.http2, request, &mut got)).await;
    let error = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("{error:#}")),
        Err(_) => Some(format!("timeout after {limit:?}")),
    };
    let took = u64::try_from((clock::monotonic() - begun).as_millis()).unwrap_or(u64::MAX);
    let informational = informational.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(json!({
        "error": error,
        "status": got.status,
        "version": got.version,
        "headers": listed(&got.headers),
        "trailers": listed(&got.trailers),
        "body": String::from_utf8_lossy(&got.beginning),
        "bytes": got.sum.as_ref().map_or(0, Sum::bytes),
        "sha256": got.sum.map(Sum::finish),
        "informational": informational,
        "took_ms": took,
    }))
}

/// The request, and where interim answers are noted.
fn request(options: &Options, target: &Target) -> anyhow::Result<(Request<Body>, Interim)> {
    let mut builder = target.request(&options.method, options.http2);
    for (name, value) in &options.header {
        builder = builder.header(name, value);
    }
    let body = options.body_hex.clone().unwrap_or_else(|| pattern::chunk(0, options.body_bytes));
    let mut request = builder.body(whole(body)).context("making the request")?;
    let seen = Interim::default();
    let noted = seen.clone();
    hyper::ext::on_informational(&mut request, move |answer| {
        noted.lock().unwrap_or_else(PoisonError::into_inner).push(answer.status().as_u16());
    });
    Ok((request, seen))
}

async fn ask(target: &Target, is_http2: bool, request: Request<Body>, got: &mut Got) -> anyhow::Result<()> {
    let mut sender = connect(target, is_http2).await?;
    let answer = sender.send(request).await.context("no answer")?;
    note(answer, got).await
}

/// Takes an answer to its end.
///
/// # Errors
/// If its body breaks off.
pub(super) async fn note(answer: Response<Incoming>, got: &mut Got) -> anyhow::Result<()> {
    let (head, mut body) = answer.into_parts();
    got.status = head.status.as_u16();
    got.version = format!("{:?}", head.version);
    got.headers = head.headers;
    let sum = got.sum.insert(Sum::new());
    while let Some(frame) = body.frame().await {
        match frame.context("the body")?.into_data() {
            Ok(data) => {
                sum.add(&data);
                let left = TOLD_MAX - got.beginning.len();
                got.beginning.extend_from_slice(&data[..data.len().min(left)]);
            }
            Err(frame) => got.trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    Ok(())
}

pub(crate) fn hexadecimal(text: &str) -> Result<Bytes, String> {
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0);
    let digits = digits.ok_or_else(|| format!("{text:?} is no hexadecimal"))?;
    let byte = |pair: &[u32]| u8::try_from(pair[0] * 16 + pair[1]).unwrap_or_default();
    Ok(digits.chunks_exact(2).map(byte).collect::<Vec<u8>>().into())
}
