//! A service that calls the next one on behalf of its caller, as applications do: trace headers are handed on.

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Value, json};

use super::empty;
use crate::client::{self, Target};

/// Headers that an application has to hand on so that its calls belong to one trace.
const HANDED_ON: [&str; 5] = ["traceparent", "tracestate", "x-request-id", "b3", "baggage"];
/// Longest answer of the next one that is told on, in bytes.
const ANSWER_MAX: usize = 1 << 20;

/// Calls `url` with the trace headers of a request; what came of it.
pub(super) async fn call(url: &str, headers: &HeaderMap) -> Value {
    match ask(url, headers).await {
        Ok(told) => told,
        Err(error) => json!({"error": format!("{error:#}")}),
    }
}

async fn ask(url: &str, headers: &HeaderMap) -> anyhow::Result<Value> {
    let target = Target::parse(url)?;
    let mut request = Request::builder().method(Method::GET).uri(target.path()).header("host", target.host());
    for name in HANDED_ON {
        for value in headers.get_all(name) {
            request = request.header(name, value);
        }
    }
    let mut sender = client::connect(&target, false).await?;
    let answer = sender.send(request.body(empty())?).await?;
    let status = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
    let body: Bytes = body.map_err(|error| anyhow::anyhow!("the answer of {url}: {error}"))?.to_bytes();
    let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
    let next: Value = serde_json::from_slice(&body).unwrap_or_else(|_| text());
    Ok(json!({"status": status, "answer": next}))
}
