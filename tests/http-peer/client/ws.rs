//! A WebSocket conversation: an echo, silence, an echo again, then many bytes at once in both directions.

use std::time::Duration;

use ambit_runtime::clock;
use anyhow::Context as _;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Target, connect};
use crate::pattern::{self, Sum};
use crate::serve::empty;
use crate::websocket::{Kind, accept, read, write};

/// The key of RFC 6455's own example: nothing depends on its being fresh.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// One conversation.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// As `http://HOST[:PORT]/ws`.
    #[arg(long)]
    url: String,
    /// Seconds without a byte.
    #[arg(long, default_value_t = 0)]
    idle: u64,
    /// Bytes to send and to get back.
    #[arg(long, default_value_t = 1 << 20)]
    bytes: u64,
}

/// Converses; what came of it, also if it failed.
///
/// # Errors
/// If the URL is none.
pub(crate) async fn run(options: &Options) -> anyhow::Result<Value> {
    let target = Target::parse(&options.url)?;
    let begun = clock::monotonic();
    let outcome = converse(options, &target).await;
    let took = u64::try_from((clock::monotonic() - begun).as_millis()).unwrap_or(u64::MAX);
    Ok(match outcome {
        Ok((bytes, is_right)) => {
            json!({"error": null, "bytes": bytes, "sha256_ok": is_right, "took_ms": took})
        }
        Err(error) => json!({"error": format!("{error:#}"), "took_ms": took}),
    })
}

async fn converse(options: &Options, target: &Target) -> anyhow::Result<(u64, bool)> {
    let mut sender = connect(target, false).await?;
    let request = target
        .request("GET", false)
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, KEY)
        .body(empty())?;
    let mut answer = sender.send(request).await.context("no answer")?;
    anyhow::ensure!(answer.status() == 101, "{} instead of 101", answer.status());
    let accepted = answer.headers().get(SEC_WEBSOCKET_ACCEPT).and_then(|key| key.to_str().ok());
    anyhow::ensure!(accepted == Some(&*accept(KEY)), "the key was answered with {accepted:?}");
    let upgraded = hyper::upgrade::on(&mut answer).await.context("the upgrade")?;
    let mut stream = TokioIo::new(upgraded);
    echo(&mut stream, "hello").await?;
    if options.idle > 0 {
        tokio::time::sleep(Duration::from_secs(options.idle)).await;
        echo(&mut stream, "still there").await.context("after the silence")?;
    }
    let (mut reading, mut writing) = tokio::io::split(stream);
    let (sent, got) = tokio::join!(send(&mut writing, options.bytes), receive(&mut reading, options.bytes));
    sent.context("sending")?;
    let sum = got.context("receiving")?;
    write(&mut writing, Kind::Close, &1000_u16.to_be_bytes(), true).await.context("closing")?;
    let (kind, _) = read(&mut reading).await.context("waiting for the other end to close")?;
    anyhow::ensure!(kind == Kind::Close, "{kind:?} instead of the end");
    Ok((sum.bytes(), sum.finish() == pattern::sum_of(options.bytes)))
}

async fn echo(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), text: &str) -> anyhow::Result<()> {
    write(stream, Kind::Text, text.as_bytes(), true).await?;
    let (kind, payload) = read(stream).await?;
    anyhow::ensure!(kind == Kind::Text && payload == text.as_bytes(), "{kind:?} {payload:?} for {text:?}");
    Ok(())
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), total: u64) -> anyhow::Result<()> {
    for chunk in pattern::chunks(total) {
        write(stream, Kind::Binary, &chunk, true).await?;
    }
    Ok(())
}

async fn receive(stream: &mut (impl AsyncRead + Unpin), total: u64) -> anyhow::Result<Sum> {
    let mut sum = Sum::new();
    while sum.bytes() < total {
        let (kind, payload) = read(stream).await?;
        anyhow::ensure!(kind == Kind::Binary, "{kind:?} after {} of {total} bytes", sum.bytes());
        sum.add(&payload);
    }
    Ok(sum)
}
