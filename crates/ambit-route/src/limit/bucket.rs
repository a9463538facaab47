//! A token bucket in one number: the time at which it will be full ("generic cell rate algorithm").

use std::time::{Duration, Instant};

use super::Admission;
use crate::model::LimitScope;

/// How fast tokens come back, and how many there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Time for one token, in nanoseconds.
    token_nanos: u64,
    /// Tokens of a full bucket.
    burst: u32,
}

/// A bucket; what it lacks is the time until it is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    full_at: Option<Instant>,
}

impl Rate {
    /// So many requests in each interval, and so many at once; a burst of 0 stands for as many as the interval has.
    pub fn new(requests: u32, interval: Duration, burst: u32) -> Self {
        let requests = requests.max(1);
        let token_nanos = u64::try_from(interval.as_nanos() / u128::from(requests)).unwrap_or(u64::MAX);
        Self { token_nanos, burst: if burst == 0 { requests } else { burst } }
    }

    /// The rate of a limit that this waypoint counts itself.
    pub fn of(scope: &LimitScope) -> Option<Self> {
        match scope {
            LimitScope::Local { requests, interval, burst } => Some(Self::new(*requests, *interval, *burst)),
            LimitScope::Global { .. } => None,
        }
    }

    /// How long an empty bucket takes to be full.
    pub fn refill(&self) -> Duration {
        Duration::from_nanos(self.token_nanos.saturating_mul(u64::from(self.burst)))
    }
}

impl Bucket {
    /// With all its tokens.
    pub fn full() -> Self {
        Self { full_at: None }
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self, rate: &Rate, now: Instant) -> Admission {
        let token = Duration::from_nanos(rate.token_nanos);
        let lacks = self.lacks(now) + token;
        let capacity = rate.refill();
        if lacks > capacity {
            return Admission::Limited { retry_after: lacks - capacity };
        }
        self.full_at = Some(now + lacks);
        let remaining = (capacity - lacks).as_nanos() / u128::from(rate.token_nanos.max(1));
        Admission::Admitted { remaining: u64::try_from(remaining).unwrap_or(u64::MAX) }
    }

    /// Whether nothing is lacking, so that it need not be remembered.
    pub fn is_full(&self, now: Instant) -> bool {
        self.lacks(now).is_zero()
    }

    fn lacks(&self, now: Instant) -> Duration {
        self.full_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
    }
}
