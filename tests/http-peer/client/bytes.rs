//! Rows of a table, byte for byte: HTTP/1.1 as text, HTTP/2 as frames, and how the other end took it.

use std::time::Duration;

use ambit_runtime::clock;
use anyhow::Context as _;
use futures_util::{StreamExt as _, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::frames::{self, Got};

/// Longest answer, in bytes.
const ANSWER_MAX: usize = 4 << 20;
/// How much of an answer is told, in bytes.
const TOLD_MAX: usize = 2048;

/// Rows of a table.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// A JSON list of rows.
    #[arg(long)]
    file: std::path::PathBuf,
    /// Rows at once.
    #[arg(long, default_value_t = 8)]
    concurrency: usize,
}

/// One row. In its texts every character is the byte of that number, and `{{TEXT*N}}` is a text so many times.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    /// `HOST:PORT`.
    address: String,
    /// Bytes of HTTP/1.1.
    #[serde(default)]
    send: String,
    /// Frames of HTTP/2 in place of them, behind the preface.
    #[serde(default)]
    frames: Vec<Frame>,
    /// Answers have no bodies: HEAD was asked.
    #[serde(default)]
    is_head: bool,
    /// How long nothing may come until the row is over.
    #[serde(default = "patience")]
    wait_ms: u64,
}

/// A frame; by what it has, a head, a piece of a body or anything.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Frame {
    Head { head: Vec<[String; 2]>, flags: u8, stream: u32 },
    Any { kind: u8, flags: u8, stream: u32, payload: String },
}

fn patience() -> u64 {
    1500
}

/// Sends all rows; what came of each, in the file's order.
///
/// # Errors
/// If the file holds no rows.
pub(crate) async fn run(options: &Options) -> anyhow::Result<Value> {
    let text = std::fs::read(&options.file).with_context(|| format!("reading {}", options.file.display()))?;
    let rows: Vec<Row> = serde_json::from_slice(&text).context("the list of rows")?;
    let told = stream::iter(rows).map(one).buffered(options.concurrency.max(1));
    Ok(Value::Array(told.collect().await))
}

async fn one(row: Row) -> Value {
    let begun = clock::monotonic();
    let mut all = Vec::new();
    let end = match exchange(&row, &mut all).await {
        Ok(end) => end.to_owned(),
        Err(error) => format!("{error:#}"),
    };
    let took = u64::try_from((clock::monotonic() - begun).as_millis()).unwrap_or(u64::MAX);
    if row.frames.is_empty() {
        let (statuses, rest) = answers(&all, row.is_head);
        let told = String::from_utf8_lossy(&all[..all.len().min(TOLD_MAX)]).into_owned();
        return json!({"statuses": statuses, "rest": rest, "end": end, "told": told, "took_ms": took});
    }
    let mut got = Got::default();
    got.take(&all);
    let by = |codes: Vec<(u32, u32)>| -> Value {
        codes
            .into_iter()
            .map(|(stream, code)| (stream.to_string(), json!(code)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    json!({
        "statuses": by(got.statuses.iter().map(|(stream, status)| (*stream, u32::from(*status))).collect()),
        "resets": by(got.resets.into_iter().collect()),
        "goaway": got.goaway,
        "end": end,
        "took_ms": took,
    })
}

/// Sends a row and reads until the end, or until nothing comes; how it ended.
async fn exchange(row: &Row, all: &mut Vec<u8>) -> anyhow::Result<&'static str> {
    let tcp = TcpStream::connect(&row.address).await;
    let tcp = tcp.with_context(|| format!("connecting to {}", row.address))?;
    tcp.set_nodelay(true).context("a socket")?;
    let (mut reader, mut writer) = tcp.into_split();
    let sent = sent(row)?;
    let writing = async {
        // Who is refused early does not get rid of everything, and still reads what was said to it.
        let _ = writer.write_all(&sent).await;
        std::future::pending::<()>().await;
    };
    let reading = async {
        let mut piece = vec![0; 16 << 10];
        loop {
            let wait = Duration::from_millis(row.wait_ms);
            match tokio::time::timeout(wait, reader.read(&mut piece)).await {
                Err(_) => return "open",
                Ok(Err(_)) => return "reset",
                Ok(Ok(0)) => return "closed",
                Ok(Ok(_)) if all.len() > ANSWER_MAX => return "endless",
                Ok(Ok(read)) => all.extend_from_slice(&piece[..read]),
            }
        }
    };
    tokio::select! {
        end = reading => Ok(end),
        () = writing => Ok("open"),
    }
}

fn sent(row: &Row) -> anyhow::Result<Vec<u8>> {
    if row.frames.is_empty() {
        return bytes(&row.send);
    }
    let mut all = frames::preface(&[]);
    for frame in &row.frames {
        match frame {
            Frame::Head { head, flags, stream } => {
                let mut block = Vec::new();
                for [name, value] in head {
                    block.extend(frames::field(&bytes(name)?, &bytes(value)?));
                }
                all.extend(frames::head(*flags, *stream, &block));
            }
            Frame::Any { kind, flags, stream, payload } => {
                all.extend(frames::frame(*kind, *flags, *stream, &bytes(payload)?));
            }
        }
    }
    Ok(all)
}

/// The bytes that a text stands for.
///
/// # Errors
/// If a character is no byte, or a repetition is none.
pub(super) fn bytes(text: &str) -> anyhow::Result<Vec<u8>> {
    let plain = |text: &str| -> anyhow::Result<Vec<u8>> {
        text.chars()
            .map(|c| u8::try_from(u32::from(c)).with_context(|| format!("{c:?} is no byte")))
            .collect()
    };
    let (mut all, mut rest) = (Vec::new(), text);
    while let Some((before, after)) = rest.split_once("{{") {
        let (inner, behind) = after.split_once("}}").context("{{ without }}")?;
        let (what, times) = inner.rsplit_once('*').context("{{ without a number of times")?;
        all.extend(plain(before)?);
        all.extend(plain(what)?.repeat(times.parse().context("a number of times")?));
        rest = behind;
    }
    all.extend(plain(rest)?);
    Ok(all)
}

/// Statuses of the answers of HTTP/1.1 in some bytes, and how many bytes are of none.
fn answers(mut bytes: &[u8], is_head: bool) -> (Vec<u16>, usize) {
    let mut statuses = Vec::new();
    while let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let status = head.strip_prefix("http/1.").and_then(|rest| rest.get(2..5)?.parse::<u16>().ok());
        let Some(status) = status else { break };
        statuses.push(status);
        bytes = &bytes[end + 4..];
        let is_bodiless = is_head || status < 200 || [204, 304].contains(&status);
        let line = |name: &str| head.split("\r\n").find_map(|line| line.strip_prefix(name)).map(str::trim);
        let length = if is_bodiless {
            0
        } else if line("transfer-encoding:").is_some() {
            // Ours are short and come whole.
            bytes.windows(5).position(|five| five == b"0\r\n\r\n").map_or(bytes.len(), |at| at + 5)
        } else {
            line("content-length:").and_then(|length| length.parse().ok()).unwrap_or(bytes.len())
        };
        bytes = bytes.get(length..).unwrap_or_default();
    }
    (statuses, bytes.len())
}
