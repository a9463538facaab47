//! Whether a request is sent again, and when.
//!
//! What a backend may have acted on is repeated only for methods that are idempotent by definition, or with the
//! author's consent. What no backend has seen is always safe to repeat. Nothing is repeated once the client has a
//! part of a response, or without the body at hand.

mod budget;

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

pub use budget::Budget;

use crate::draw::scale;
use crate::model::{Backoff, Consent, Retry};

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// There was no connection to send on.
    ConnectFailure,
    /// The peer said that it has not looked at the request: REFUSED_STREAM, or GOAWAY with a lower last stream.
    RefusedStream,
    /// The connection ended, or the stream was reset, before a response.
    Reset,
    /// The attempt's own limit passed before a response.
    TryTimeout,
    /// A response came.
    Response {
        /// Its status.
        status: u16,
        /// Its gRPC status, if it is one without messages ("trailers only").
        grpc_status: Option<u32>,
        /// How long it asks to wait (`retry-after`, in seconds).
        retry_after: Option<Duration>,
    },
}

/// An attempt that has ended, and what it means for the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt<'a> {
    /// Method of the request.
    pub method: &'a str,
    /// How many attempts there have been, this one included.
    pub made: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether a byte of the request was sent on it.
    pub is_sent: bool,
    /// Whether the whole request can be sent again: no body, or one that is still held.
    pub is_replayable: bool,
    /// Whether the client has been sent a byte of a response.
    pub is_answered: bool,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Another attempt after this time, if possible at another endpoint.
    Again(Duration),
    /// The client gets what there is.
    Stop(Stop),
}

/// Why there is no other attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stop {
    /// Nothing that the rule repeats for: mostly, a good answer.
    NotListed,
    /// All attempts are used up.
    AttemptsUsed,
    /// The client has a part of the response.
    Answered,
    /// The backend may have acted on it, and repeating that is not consented to.
    Unsafe,
    /// The body is gone.
    BodyGone,
    /// There is no time for it, or the response asks for more than a repetition may wait.
    NoTime,
    /// The destination's budget of repetitions is used up.
    BudgetSpent,
}

/// Decides what follows an attempt. `left` is the time left for the request, `draw` is uniform over all of `u64`.
/// Only an attempt that is really made is taken from the budget.
pub fn next(
    policy: &Retry,
    attempt: &Attempt<'_>,
    left: Option<Duration>,
    budget: &mut Budget,
    now: Instant,
    draw: u64,
) -> Next {
    let stop = |stop| Next::Stop(stop);
    let Some(listing) = listing(policy, attempt) else { return stop(Stop::NotListed) };
    if attempt.is_answered {
        return stop(Stop::Answered);
    }
    if attempt.made > policy.attempts {
        return stop(Stop::AttemptsUsed);
    }
    if !may_repeat(policy, attempt, listing) {
        return stop(Stop::Unsafe);
    }
    if attempt.is_sent && !attempt.is_replayable {
        return stop(Stop::BodyGone);
    }
    let Some(pause) = pause(&policy.backoff, attempt, draw) else { return stop(Stop::NoTime) };
    if left.is_some_and(|left| pause >= left) {
        return stop(Stop::NoTime);
    }
    if budget.take(now) { Next::Again(pause) } else { stop(Stop::BudgetSpent) }
}

/// By what an outcome is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listing {
    /// The backend has not seen the request.
    Unseen,
    /// Its gRPC status.
    GrpcStatus,
    /// Anything else.
    Other,
}

fn listing(policy: &Retry, attempt: &Attempt<'_>) -> Option<Listing> {
    let on = &policy.conditions;
    let any_failure = on.server_error || on.gateway_error;
    let other = |listed: bool| listed.then_some(Listing::Other);
    match attempt.outcome {
        // A connection that ended before a byte was sent on it was none.
        Outcome::Reset if !attempt.is_sent => (on.connect_failure || any_failure).then_some(Listing::Unseen),
        Outcome::ConnectFailure => (on.connect_failure || any_failure).then_some(Listing::Unseen),
        Outcome::RefusedStream => (on.refused_stream || any_failure).then_some(Listing::Unseen),
        Outcome::Reset => other(on.reset || any_failure),
        Outcome::TryTimeout => other(on.try_timeout || any_failure),
        Outcome::Response { status, grpc_status, .. } => {
            let grpc = grpc_status.is_some_and(|code| policy.grpc_codes.contains(&code));
            let gateway = on.gateway_error && matches!(status, 502..=504);
            let server = on.server_error && (500..=599).contains(&status);
            let listed = gateway || server || policy.codes.contains(&status);
            if grpc { Some(Listing::GrpcStatus) } else { other(listed) }
        }
    }
}

/// Whether repeating does no harm that nobody agreed to.
fn may_repeat(policy: &Retry, attempt: &Attempt<'_>, listing: Listing) -> bool {
    match (listing, policy.consent) {
        // gRPC has no method but POST: a list of its codes can only be meant as consent.
        (Listing::Unseen | Listing::GrpcStatus, _) | (Listing::Other, Consent::AnyMethod) => true,
        (Listing::Other, Consent::Idempotent) => is_idempotent(attempt.method),
    }
}

/// Methods that are idempotent by definition (RFC 9110 section 9.2.2). Others are not, whatever they are called.
pub fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}

/// Twice as long after each attempt, up to the most, and up to half as much again by chance; never less than a
/// response asks for. None if that is longer than the most: a backend must not be able to park requests here, and the
/// client can wait as well as we can.
fn pause(backoff: &Backoff, attempt: &Attempt<'_>, draw: u64) -> Option<Duration> {
    let doublings = attempt.made.saturating_sub(1).min(31);
    let most = backoff.max.max(backoff.base);
    let pause = backoff.base.saturating_mul(1 << doublings).min(most);
    let half = u64::try_from(pause.as_nanos() / 2).unwrap_or(u64::MAX);
    let pause = pause.saturating_add(Duration::from_nanos(scale(draw, half)));
    match attempt.outcome {
        Outcome::Response { retry_after: Some(asked), .. } => (asked <= most).then(|| pause.max(asked)),
        Outcome::Response { retry_after: None, .. }
        | Outcome::ConnectFailure
        | Outcome::RefusedStream
        | Outcome::Reset
        | Outcome::TryTimeout => Some(pause),
    }
}
