//! Large bodies in either direction, made and summed as they pass; nothing is held.

use ambit_runtime::clock;
use anyhow::Context as _;
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Value, json};

use super::{Target, connect};
use crate::pattern::{self, Sum};
use crate::serve::{empty, pattern as patterned};

/// Longest answer to an upload, in bytes.
const ANSWER_MAX: usize = 64 * 1024;

/// One transfer.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// As `http://HOST[:PORT]/upload` or `…/bytes/N`.
    #[arg(long)]
    url: String,
    /// How much to send, or how much is expected.
    #[arg(long)]
    bytes: u64,
    /// HTTP/2 by prior knowledge.
    #[arg(long)]
    http2: bool,
}

/// Sends the pattern; what the other end summed.
///
/// # Errors
/// If the URL is none.
pub(crate) async fn upload(options: &Options) -> anyhow::Result<Value> {
    let target = Target::parse(&options.url)?;
    let begun = clock::monotonic();
    let outcome = send(options, &target).await;
    let took = u64::try_from((clock::monotonic() - begun).as_millis()).unwrap_or(u64::MAX);
    Ok(match outcome {
        Ok((status, told)) => {
            let sum = pattern::sum_of(options.bytes);
            json!({
                "error": null, "status": status, "bytes": told["bytes"],
                "sha256_ok": told["sha256"] == sum.as_str(), "told": told, "took_ms": took,
            })
        }
        Err(error) => json!({"error": format!("{error:#}"), "took_ms": took}),
    })
}

async fn send(options: &Options, target: &Target) -> anyhow::Result<(u16, Value)> {
    let mut sender = connect(target, options.http2).await?;
    let request = target.request("POST", options.http2).body(patterned(options.bytes))?;
    let answer = sender.send(request).await.context("no answer")?;
    let status = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("the answer's body: {error}"))?.to_bytes();
    let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
    Ok((status, serde_json::from_slice(&body).unwrap_or_else(|_| text())))
}

/// Fetches and sums.
///
/// # Errors
/// If the URL is none.
pub(crate) async fn download(options: &Options) -> anyhow::Result<Value> {
    let target = Target::parse(&options.url)?;
    let begun = clock::monotonic();
    let mut sum = Sum::new();
    let outcome = fetch(options, &target, &mut sum).await;
    let took = u64::try_from((clock::monotonic() - begun).as_millis()).unwrap_or(u64::MAX);
    let (status, error) = match outcome {
        Ok(status) => (status, None),
        Err(error) => (0, Some(format!("{error:#}"))),
    };
    let (bytes, sha256) = (sum.bytes(), sum.finish());
    let is_right = bytes == options.bytes && sha256 == pattern::sum_of(options.bytes);
    Ok(json!({"error": error, "status": status, "bytes": bytes, "sha256_ok": is_right, "took_ms": took}))
}

async fn fetch(options: &Options, target: &Target, sum: &mut Sum) -> anyhow::Result<u16> {
    let mut sender = connect(target, options.http2).await?;
    let request = target.request("GET", options.http2).body(empty())?;
    let answer = sender.send(request).await.context("no answer")?;
    let (head, mut body) = answer.into_parts();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.context("the body")?.into_data() {
            sum.add(&data);
        }
    }
    Ok(head.status.as_u16())
}
