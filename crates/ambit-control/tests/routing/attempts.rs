//! Attempts of a row in time that is only counted: what a backend does, when a limit ends it, what follows.

use std::time::{Duration, Instant};

use ambit_route::backend::Failure;
use ambit_route::model::{Retry, RetryBudget, Timeouts};
use ambit_route::retry::{Attempt, Budget, Next, Outcome, Stop, next};
use ambit_route::timeout::{Deadline, Limit, parse_duration, parse_grpc_timeout};
use ambit_route::{Headers, Request};
use serde_json::Value;

use crate::schema::Row;

/// Longest time a gRPC caller may ask for.
const GRPC_TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// How a request ended.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    status: u16,
    pub(crate) grpc: Option<u32>,
    /// In place of a response.
    pub(crate) failure: Option<Failure>,
    pub(crate) attempts: u32,
}

impl Ended {
    /// The status that the client sees.
    pub(crate) fn status(&self, is_grpc: bool) -> u16 {
        match self.failure {
            Some(_) if is_grpc => 200,
            Some(failure) => failure.status(),
            None => self.status,
        }
    }
}

/// What a backend does with one attempt.
struct Deed {
    after: Duration,
    outcome: Outcome,
}

impl Deed {
    /// `503`, `refused`, `refusedStream`, `reset`, `hang`, or `{status, grpc, retryAfter, after}`.
    fn read(value: &Value) -> Self {
        let response =
            |status, grpc_status, retry_after| Outcome::Response { status, grpc_status, retry_after };
        let at_once = |outcome| Self { after: Duration::ZERO, outcome };
        if let Some(status) = value.as_u64() {
            return at_once(response(u16::try_from(status).expect("a status"), None, None));
        }
        match value.as_str() {
            Some("refused") => return at_once(Outcome::ConnectFailure),
            Some("refusedStream") => return at_once(Outcome::RefusedStream),
            Some("reset") => return at_once(Outcome::Reset),
            Some("hang") => return Self { after: Duration::from_secs(86_400), outcome: Outcome::Reset },
            Some(other) => panic!("upstream {other}"),
            None => {}
        }
        let text = |key: &str| value.get(key).and_then(Value::as_str).map(duration);
        let number = |key: &str| value.get(key).and_then(Value::as_u64);
        let status = number("status").map_or(200, |status| u16::try_from(status).expect("a status"));
        let grpc = number("grpc").map(|code| u32::try_from(code).expect("a code"));
        let after = text("after").unwrap_or_default();
        Self { after, outcome: response(status, grpc, text("retryAfter")) }
    }
}

fn duration(text: &str) -> Duration {
    parse_duration(text).unwrap_or_else(|error| panic!("{error}"))
}

#[expect(clippy::disallowed_methods, reason = "a place to count from; nothing waits")]
fn start() -> Instant {
    Instant::now()
}

/// Runs the attempts of one request.
pub(crate) fn run(
    row: &Row,
    request: &Request<'_, Vec<(String, String)>>,
    timeouts: &Timeouts,
    retry: &Retry,
    draw: u64,
) -> Ended {
    let begun = start();
    let asked = request.headers.lines("grpc-timeout").next();
    let asked = asked.and_then(|value| parse_grpc_timeout(value, GRPC_TIMEOUT_MAX).ok());
    let deadline = Deadline::new(timeouts, asked, begun);
    let mut budget = Budget::new(RetryBudget::default(), begun);
    let (mut now, mut made) = (begun, 0);
    loop {
        let at = usize::try_from(made).expect("few").min(row.upstream.len().saturating_sub(1));
        let deed = row.upstream.get(at).map_or_else(|| Deed::read(&Value::from(200)), Deed::read);
        made += 1;
        let limit = deadline.of_attempt(now);
        let ended = |failure| Ended { failure: Some(failure), attempts: made, ..Ended::default() };
        let outcome = match limit.filter(|(most, _)| deed.after >= *most) {
            Some((_, Limit::Request)) => return ended(Failure::Timeout),
            Some((most, Limit::Try)) => {
                now += most;
                Outcome::TryTimeout
            }
            None => {
                now += deed.after;
                deed.outcome
            }
        };
        let attempt = Attempt {
            method: request.method,
            made,
            outcome,
            is_sent: outcome != Outcome::ConnectFailure,
            is_replayable: row.request.body.as_deref() != Some("gone"),
            is_answered: false,
        };
        match next(retry, &attempt, deadline.remaining(now), &mut budget, now, draw) {
            Next::Again(pause) => now += pause,
            Next::Stop(Stop::BudgetSpent) => return ended(Failure::Unreachable),
            Next::Stop(_) => return last(outcome, made),
        }
    }
}

/// What the client gets of the last attempt.
fn last(outcome: Outcome, attempts: u32) -> Ended {
    match outcome {
        Outcome::Response { status, grpc_status, .. } => {
            Ended { status, grpc: grpc_status, failure: None, attempts }
        }
        Outcome::TryTimeout => Ended { failure: Some(Failure::Timeout), attempts, ..Ended::default() },
        Outcome::ConnectFailure | Outcome::RefusedStream | Outcome::Reset => {
            Ended { failure: Some(Failure::Unreachable), attempts, ..Ended::default() }
        }
    }
}
