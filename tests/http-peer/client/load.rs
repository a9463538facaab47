//! Many requests over a number of connections, at a rate or as fast as answers come, with exact counts.
//!
//! A connection that the other end closed between two requests is opened anew and the request, which never went out, is
//! sent on it: so does every client. Nothing else is tried again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ambit_runtime::clock;
use anyhow::Context as _;
use futures_util::future::join_all;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::{Sender, Target, connect, header};
use crate::pattern;
use crate::serve::{Body, whole};

/// Most different errors that are told apart.
const ERRORS_MAX: usize = 20;
/// Most times that one request is taken to a new connection before it counts as failed.
const RECONNECTS_MAX: u32 = 3;

/// Many requests.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// As `http://HOST[:PORT]/PATH`; `{n}` stands for the request's number.
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
    /// How many; without it, until `--duration` is over.
    #[arg(long, required_unless_present = "duration")]
    requests: Option<u64>,
    #[arg(long)]
    duration: Option<humantime::Duration>,
    /// Requests begun in a second, over all connections.
    #[arg(long)]
    rate: Option<u32>,
    /// Connections.
    #[arg(long, default_value_t = 1)]
    concurrency: usize,
    /// A connection for each request.
    #[arg(long)]
    fresh: bool,
    /// Length of each request's body in bytes.
    #[arg(long, default_value_t = 0)]
    body_bytes: usize,
    /// Longest time for one request.
    #[arg(long, default_value = "10s")]
    timeout: humantime::Duration,
}

/// What all workers share.
struct Shared {
    options: Options,
    start: Instant,
    next: AtomicU64,
    has_answer: AtomicBool,
}

/// What was seen.
#[derive(Debug, Default)]
struct Seen {
    sent: u64,
    resent: u64,
    by_status: BTreeMap<u16, u64>,
    by_peer: BTreeMap<String, u64>,
    by_reason: BTreeMap<String, u64>,
    errors: BTreeMap<String, u64>,
    took_us: Vec<u32>,
}

/// Sends all of them; the counts.
///
/// # Errors
/// If the URL, the method or a header is none.
pub(crate) async fn run(options: Options) -> anyhow::Result<Value> {
    let target = Target::parse(&options.url.replace("{n}", "0"))?;
    drop(request(&options, &target)?);
    let concurrency = options.concurrency.max(1);
    let (next, has_answer) = (AtomicU64::new(0), AtomicBool::new(false));
    let shared = Arc::new(Shared { options, start: clock::monotonic(), next, has_answer });
    let workers = (0..concurrency).map(|_| worker(&shared));
    let all = join_all(workers).await;
    let took = clock::monotonic() - shared.start;
    Ok(all.into_iter().fold(Seen::default(), Seen::plus).told(took))
}

async fn worker(shared: &Shared) -> Seen {
    let (mut seen, mut sender) = (Seen::default(), None);
    while let Some(number) = turn(shared).await {
        if shared.options.fresh {
            sender = None;
        }
        seen.sent += 1;
        let begun = clock::monotonic();
        let limit: Duration = *shared.options.timeout;
        let outcome = tokio::time::timeout(limit, one(shared, number, &mut sender, &mut seen)).await;
        let error = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("{error:#}")),
            Err(_) => Some(format!("timeout after {limit:?}")),
        };
        if let Some(error) = error {
            sender = None;
            seen.failed(&error);
            continue;
        }
        let took = (clock::monotonic() - begun).as_micros();
        seen.took_us.push(u32::try_from(took).unwrap_or(u32::MAX));
        if !shared.has_answer.swap(true, Ordering::Relaxed) {
            eprintln!("first answer");
        }
    }
    seen
}

/// Waits for the time of the next request; its number, or none if there is none left.
async fn turn(shared: &Shared) -> Option<u64> {
    let number = shared.next.fetch_add(1, Ordering::Relaxed);
    if shared.options.requests.is_some_and(|all| number >= all) {
        return None;
    }
    if let Some(rate) = shared.options.rate {
        // Not more than 2^32 requests at one a second or more: this does not overflow.
        let at = shared.start + Duration::from_micros(number * 1_000_000 / u64::from(rate.max(1)));
        tokio::time::sleep_until(at.into()).await;
    }
    let over = shared.options.duration.is_some_and(|limit| clock::monotonic() - shared.start >= *limit);
    (!over).then_some(number)
}

/// One request to the end of its answer.
async fn one(
    shared: &Shared,
    number: u64,
    sender: &mut Option<Sender>,
    seen: &mut Seen,
) -> anyhow::Result<()> {
    let options = &shared.options;
    let target = Target::parse(&options.url.replace("{n}", &number.to_string()))?;
    let mut attempts = 0;
    let answer = loop {
        let is_ready = match sender.as_mut() {
            Some(open) => open.is_ready().await,
            None => false,
        };
        let open = match sender {
            Some(open) if is_ready => open,
            Some(_) | None => sender.insert(connect(&target, options.http2).await?),
        };
        match open.send(request(options, &target)?).await {
            Err(error) if error.is_canceled() && attempts < RECONNECTS_MAX => {
                attempts += 1;
                seen.resent += 1;
                *sender = None;
            }
            Err(error) => return Err(error).context("no answer"),
            Ok(answer) => break answer,
        }
    };
    let (head, mut body) = answer.into_parts();
    while let Some(frame) = body.frame().await {
        frame.context("the body")?;
    }
    seen.answered(head.status.as_u16(), &head.headers);
    Ok(())
}

fn request(options: &Options, target: &Target) -> anyhow::Result<Request<Body>> {
    let mut builder = target.request(&options.method, options.http2);
    for (name, value) in &options.header {
        builder = builder.header(name, value);
    }
    builder.body(whole(pattern::chunk(0, options.body_bytes))).context("making the request")
}

impl Seen {
    fn answered(&mut self, status: u16, headers: &HeaderMap) {
        *self.by_status.entry(status).or_default() += 1;
        for (name, counts) in [("x-peer", &mut self.by_peer), ("x-ambit-reason", &mut self.by_reason)] {
            if let Some(value) = headers.get(name) {
                let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                *counts.entry(value).or_default() += 1;
            }
        }
    }

    fn failed(&mut self, error: &str) {
        add_error(&mut self.errors, error, 1);
    }

    fn plus(mut self, other: Self) -> Self {
        self.sent += other.sent;
        self.resent += other.resent;
        other.by_status.into_iter().for_each(|(k, n)| *self.by_status.entry(k).or_default() += n);
        other.by_peer.into_iter().for_each(|(k, n)| *self.by_peer.entry(k).or_default() += n);
        other.by_reason.into_iter().for_each(|(k, n)| *self.by_reason.entry(k).or_default() += n);
        other.errors.iter().for_each(|(k, n)| add_error(&mut self.errors, k, *n));
        self.took_us.extend(other.took_us);
        self
    }

    fn told(mut self, took: Duration) -> Value {
        self.took_us.sort_unstable();
        let of = |per_mille: usize| {
            let last = self.took_us.len().saturating_sub(1);
            self.took_us.get(last * per_mille / 1000).copied().unwrap_or_default()
        };
        json!({
            "sent": self.sent,
            "answered": self.by_status.values().sum::<u64>(),
            "failed": self.errors.values().sum::<u64>(),
            "resent": self.resent,
            "by_status": self.by_status,
            "by_peer": self.by_peer,
            "by_reason": self.by_reason,
            "errors": self.errors,
            "p50_us": of(500),
            "p99_us": of(990),
            "max_us": of(1000),
            "took_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        })
    }
}

fn add_error(errors: &mut BTreeMap<String, u64>, error: &str, count: u64) {
    let name = if errors.len() < ERRORS_MAX || errors.contains_key(error) { error } else { "others" };
    *errors.entry(name.to_owned()).or_default() += count;
}
