//! Rows of a table: requests as a file lists them, also such that no client library would send, each told in full.
//!
//! One process for all of them: what a table is about are the requests, not the programs that begin.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::get::{Got, hexadecimal, note};
use super::{Sender, Target, connect};
use crate::pattern;
use crate::serve::{Body, listed, whole};

mod anyone;

/// Longest answer to raw bytes, in bytes.
const ANSWER_MAX: usize = 256 * 1024;
/// Connections over which one row's requests go.
const WORKERS: u64 = 4;
/// Most different errors of a row that are told apart.
const ERRORS_MAX: usize = 5;

/// Rows of a table.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// A JSON list of rows.
    #[arg(long)]
    file: std::path::PathBuf,
    /// Rows at once.
    #[arg(long, default_value_t = 4)]
    concurrency: usize,
}

/// One row.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    /// `HOST:PORT`.
    address: String,
    /// Bytes in hexadecimal in place of everything below; the answer is read as one of HTTP/1.1 until its end.
    raw: Option<String>,
    /// TLS for this name, whoever answers, around the raw bytes.
    sni: Option<String>,
    #[serde(default)]
    method: String,
    /// Path and query.
    #[serde(default)]
    path: String,
    #[serde(default)]
    host: String,
    #[serde(default)]
    headers: Vec<[String; 2]>,
    #[serde(default)]
    http2: bool,
    #[serde(default)]
    body_bytes: usize,
    #[serde(default = "once")]
    times: u64,
    #[serde(default = "patience")]
    timeout_ms: u64,
}

fn once() -> u64 {
    1
}

fn patience() -> u64 {
    10_000
}

/// What was seen of a row's requests.
#[derive(Debug, Default)]
struct Seen {
    /// `NAME:PORT` of who answered, or the status of an answer without a name.
    by: BTreeMap<String, u64>,
    errors: BTreeMap<String, u64>,
    last: Value,
}

/// Sends all rows; what was seen of each, in the file's order.
///
/// # Errors
/// If the file holds no rows.
pub(crate) async fn run(options: &Options) -> anyhow::Result<Value> {
    let text = std::fs::read(&options.file).with_context(|| format!("reading {}", options.file.display()))?;
    let rows: Vec<Row> = serde_json::from_slice(&text).context("the list of rows")?;
    let seen = stream::iter(rows).map(|row| repeated(Arc::new(row))).buffered(options.concurrency.max(1));
    Ok(Value::Array(seen.collect().await))
}

async fn repeated(row: Arc<Row>) -> Value {
    let workers = WORKERS.min(row.times);
    let shares = (0..workers).map(|worker| {
        let times = row.times / workers + u64::from(worker < row.times % workers);
        some(&row, times)
    });
    let all = join_all(shares).await.into_iter().fold(Seen::default(), |mut sum, part| {
        part.by.into_iter().for_each(|(name, n)| *sum.by.entry(name).or_default() += n);
        part.errors.into_iter().for_each(|(name, n)| *sum.errors.entry(name).or_default() += n);
        sum.last = part.last;
        sum
    });
    json!({"by": all.by, "errors": all.errors, "last": all.last})
}

/// Some of a row's requests, one after the other.
async fn some(row: &Row, times: u64) -> Seen {
    let (mut seen, mut sender) = (Seen::default(), None);
    for _ in 0..times {
        let mut got = Got::default();
        let limit = Duration::from_millis(row.timeout_ms);
        let error = match tokio::time::timeout(limit, one(row, &mut sender, &mut got)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("{error:#}")),
            Err(_) => Some(format!("timeout after {limit:?}")),
        };
        if error.is_some() {
            sender = None;
        }
        seen.add(&got, error);
    }
    seen
}

impl Seen {
    fn add(&mut self, got: &Got, error: Option<String>) {
        let told = |name: &str| got.headers.get(name).and_then(|value| value.to_str().ok());
        let name = match (told("x-peer"), told("x-peer-port")) {
            (Some(peer), Some(port)) => format!("{peer}:{port}"),
            (Some(_) | None, _) => got.status.to_string(),
        };
        *self.by.entry(name).or_default() += 1;
        if let Some(error) = &error {
            let name = if self.errors.len() < ERRORS_MAX { error } else { "others" };
            *self.errors.entry(name.to_owned()).or_default() += 1;
        }
        self.last = json!({
            "error": error,
            "status": got.status,
            "headers": listed(&got.headers),
            "trailers": listed(&got.trailers),
            "body": String::from_utf8_lossy(&got.beginning),
        });
    }
}

async fn one(row: &Row, sender: &mut Option<Sender>, got: &mut Got) -> anyhow::Result<()> {
    if let Some(raw) = &row.raw {
        let bytes = hexadecimal(raw).map_err(anyhow::Error::msg)?;
        let tcp = TcpStream::connect(&row.address).await;
        let tcp = tcp.with_context(|| format!("connecting to {}", row.address))?;
        return match &row.sni {
            None => exchange(tcp, &bytes, got).await,
            Some(name) => {
                let connector = TlsConnector::from(anyone::config()?);
                let name =
                    rustls::pki_types::ServerName::try_from(name.clone()).context("the server's name")?;
                let stream = connector.connect(name, tcp).await.context("TLS handshake")?;
                exchange(stream, &bytes, got).await
            }
        };
    }
    let target = Target { uri: http::Uri::default(), address: row.address.clone(), host: row.host.clone() };
    let is_ready = match sender.as_mut() {
        Some(open) => open.is_ready().await,
        None => false,
    };
    let open = match sender {
        Some(open) if is_ready => open,
        Some(_) | None => sender.insert(connect(&target, row.http2).await?),
    };
    let answer = open.send(request(row)?).await.context("no answer")?;
    note(answer, got).await
}

fn request(row: &Row) -> anyhow::Result<Request<Body>> {
    let mut builder = Request::builder().method(row.method.as_str());
    builder = if row.http2 {
        builder.uri(format!("http://{}{}", row.host, row.path))
    } else {
        builder.uri(row.path.as_str()).header("host", &row.host)
    };
    for [name, value] in &row.headers {
        builder = builder.header(name, value);
    }
    builder.body(whole(pattern::chunk(0, row.body_bytes))).context("making the request")
}

/// Sends bytes and reads an answer of HTTP/1.1 until the other end closes.
async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    bytes: &Bytes,
    got: &mut Got,
) -> anyhow::Result<()> {
    stream.write_all(bytes).await.context("sending")?;
    let mut answer = Vec::new();
    let mut limited = stream.take(ANSWER_MAX as u64);
    // What came before an end that is not in order is still looked at.
    let ended = limited.read_to_end(&mut answer).await;
    match read(&answer, got) {
        Some(()) => Ok(()),
        None => {
            ended.context("no answer")?;
            anyhow::bail!("no answer of HTTP/1.1 in {} bytes", answer.len())
        }
    }
}

/// Reads an answer's head and body; none if it has no whole head.
fn read(answer: &[u8], got: &mut Got) -> Option<()> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let mut lines = head.split("\r\n");
    got.status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':')?;
        headers.append(HeaderName::try_from(name).ok()?, HeaderValue::try_from(value.trim()).ok()?);
    }
    let is_chunked = headers.get("transfer-encoding").is_some_and(|value| value == "chunked");
    let body = &answer[end + 4..];
    got.beginning = if is_chunked { joined(body) } else { body.to_vec() };
    got.headers = headers;
    Some(())
}

/// The bytes of a chunked body, as far as it came.
fn joined(mut body: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(end) = body.windows(2).position(|bytes| bytes == b"\r\n") {
        let size =
            std::str::from_utf8(&body[..end]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let Some(size) = size.filter(|size| *size > 0) else { break };
        let Some(chunk) = body.get(end + 2..).and_then(|rest| rest.get(..size)) else { break };
        all.extend_from_slice(chunk);
        body = body.get(end + 2 + size + 2..).unwrap_or_default();
    }
    all
}
