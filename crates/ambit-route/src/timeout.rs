//! How long a request and its attempts may take, and how durations are written.
//!
//! Reads no clock: deadlines are made from the time at which the request began.

use std::time::{Duration, Instant};

use crate::model::Timeouts;

#[cfg(test)]
mod tests;

/// When a request and its current attempt have to be over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    request: Option<Instant>,
    per_try: Option<Duration>,
    is_callers: bool,
}

/// Which limit ends an attempt first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Limit {
    /// The request's own: nothing more is tried.
    Request,
    /// The attempt's: another one may follow.
    Try,
}

impl Deadline {
    /// The deadlines of a request whose first byte came at `begun`.
    ///
    /// `asked` is what the caller allows (`grpc-timeout`). The shorter of it and the rule's limit counts.
    pub fn new(timeouts: &Timeouts, asked: Option<Duration>, begun: Instant) -> Self {
        let given = |limit: Option<Duration>| limit.filter(|limit| !limit.is_zero());
        // A caller that allows no time has none; a rule that says 0 sets no limit.
        let rule = given(timeouts.request);
        let request = rule.into_iter().chain(asked).min();
        Self {
            is_callers: asked.is_some_and(|asked| rule.is_none_or(|rule| asked < rule)),
            request: request.and_then(|limit| begun.checked_add(limit)),
            per_try: given(timeouts.backend_request),
        }
    }

    /// Whether the request's limit is what its caller allows, which says nothing about a backend that does not keep it.
    pub fn is_callers(&self) -> bool {
        self.is_callers
    }

    /// What is left for the request; none without a limit.
    pub fn remaining(&self, now: Instant) -> Option<Duration> {
        self.request.map(|at| at.saturating_duration_since(now))
    }

    /// How long an attempt that begins now may take, and which limit that is; none without a limit.
    pub fn of_attempt(&self, now: Instant) -> Option<(Duration, Limit)> {
        match (self.remaining(now), self.per_try) {
            (Some(left), Some(per_try)) if per_try < left => Some((per_try, Limit::Try)),
            (Some(left), Some(_) | None) => Some((left, Limit::Request)),
            (None, Some(per_try)) => Some((per_try, Limit::Try)),
            (None, None) => None,
        }
    }
}

/// A duration that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no duration such as {example:?}")]
pub struct DurationError {
    /// As written.
    pub text: String,
    /// What one looks like.
    pub example: &'static str,
}

/// Reads a duration of the Gateway API, such as `1h30m` or `500ms` (GEP-2257: one to four numbers of one to five
/// digits, each with its unit `h`, `m`, `s` or `ms`).
///
/// # Errors
/// [`DurationError`] if it is anything else.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let error = || DurationError { text: text.to_owned(), example: "1m30s" };
    let mut total = Duration::ZERO;
    let mut rest = text;
    let mut parts = 0;
    while !rest.is_empty() || parts == 0 {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().map_err(|_| error())?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_lowercase).count();
        let unit = match &rest[..letters] {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1_000,
            "ms" => 1,
            _ => return Err(error()),
        };
        rest = &rest[letters..];
        parts += 1;
        if digits > 5 || parts > 4 {
            return Err(error());
        }
        total += Duration::from_millis(number * unit);
    }
    Ok(total)
}

/// Reads a `grpc-timeout` header: up to eight digits and a unit `H`, `M`, `S`, `m`, `u` or `n`. More than `most`
/// counts as `most`, so that no arithmetic on deadlines can overflow.
///
/// # Errors
/// [`DurationError`] if it is anything else. Spec: gRPC over HTTP2, Requests.
pub fn parse_grpc_timeout(value: &[u8], most: Duration) -> Result<Duration, DurationError> {
    let error = || DurationError { text: String::from_utf8_lossy(value).into_owned(), example: "250m" };
    let (unit, digits) = value.split_last().ok_or_else(error)?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(error());
    }
    // At most 99 999 999 hours, which a Duration holds.
    let number = digits.iter().fold(0_u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    let duration = match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return Err(error()),
    };
    Ok(duration.min(most))
}

/// Writes what is left as a `grpc-timeout` header, as finely as eight digits allow and never longer than it is.
pub fn format_grpc_timeout(left: Duration) -> String {
    let units = [
        (left.as_nanos(), 'n'),
        (left.as_micros(), 'u'),
        (left.as_millis(), 'm'),
        (u128::from(left.as_secs()), 'S'),
        (u128::from(left.as_secs() / 60), 'M'),
    ];
    let fits = units.into_iter().find(|(number, _)| *number < 100_000_000);
    let (number, unit) = fits.unwrap_or_else(|| (u128::from(left.as_secs() / 3600).min(99_999_999), 'H'));
    format!("{number}{unit}")
}
