//! Whether one more request, or connection, is too many: token buckets by key, and counts against limits.
//!
//! State is bounded: keys beyond the bound share one bucket, so that inventing keys gains nothing. Asking a rate
//! limit service is the waypoint's; what it is asked comes from here.

mod bucket;
mod keys;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub use bucket::{Bucket, Rate};
pub use keys::{Caller, descriptor, key};

use crate::model::Connections;

/// The buckets of one limit.
#[derive(Debug, Clone)]
pub struct Limiter {
    rate: Rate,
    buckets: BTreeMap<Box<[u8]>, Bucket>,
    /// Of all keys beyond the bound.
    shared: Bucket,
    keys_max: usize,
    /// When it is worth looking for buckets that are full again.
    sweep_at: Instant,
}

/// An answer of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Within the limit.
    Admitted {
        /// How many more would be, now.
        remaining: u64,
    },
    /// Beyond it.
    Limited {
        /// After how long one would be admitted.
        retry_after: Duration,
    },
}

impl Limiter {
    /// A limiter that tells so many keys apart.
    pub fn new(rate: Rate, keys_max: usize, now: Instant) -> Self {
        Self {
            rate,
            buckets: BTreeMap::new(),
            shared: Bucket::full(),
            keys_max,
            sweep_at: now + rate.refill(),
        }
    }

    /// Counts one request under a key, see [`key`].
    pub fn admit(&mut self, key: &[u8], now: Instant) -> Admission {
        if let Some(bucket) = self.buckets.get_mut(key) {
            return bucket.take(&self.rate, now);
        }
        if self.buckets.len() >= self.keys_max && now >= self.sweep_at {
            let rate = self.rate;
            self.buckets.retain(|_, bucket| !bucket.is_full(now));
            self.sweep_at = now + rate.refill();
        }
        if self.buckets.len() >= self.keys_max {
            return self.shared.take(&self.rate, now);
        }
        self.buckets.entry(key.into()).or_insert_with(Bucket::full).take(&self.rate, now)
    }

    /// Forgets keys whose buckets are full again. False if it remembers nothing then: a new limiter would do the same.
    pub fn sweep(&mut self, now: Instant) -> bool {
        self.buckets.retain(|_, bucket| !bucket.is_full(now));
        !self.buckets.is_empty() || !self.shared.is_full(now)
    }

    /// How many keys are told apart now.
    pub fn keys(&self) -> usize {
        self.buckets.len()
    }
}

/// What is under way to a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UnderWay {
    /// Connections to its endpoints.
    pub connections: u32,
    /// Requests that wait for one.
    pub pending: u32,
    /// Requests that have been sent and not been answered wholly.
    pub requests: u32,
}

/// Which limit of a destination is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Overflow {
    /// Requests under way.
    Requests,
    /// Requests that wait, where no further connection may be opened.
    Pending,
}

/// Whether a destination may get one more request. `needs_connection` says that none is open which could carry it.
///
/// # Errors
/// [`Overflow`] if not: the client is answered 503 at once.
pub fn admit(limits: &Connections, under_way: &UnderWay, needs_connection: bool) -> Result<Way, Overflow> {
    let reached = |count: u32, limit: u32| limit > 0 && count >= limit;
    if reached(under_way.requests, limits.requests_max) {
        return Err(Overflow::Requests);
    }
    match (needs_connection, reached(under_way.connections, limits.connections_max)) {
        (false, _) => Ok(Way::Send),
        (true, false) => Ok(Way::Connect),
        (true, true) if reached(under_way.pending, limits.pending_max) => Err(Overflow::Pending),
        (true, true) => Ok(Way::Wait),
    }
}

/// How an admitted request goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Way {
    /// On a connection that is open.
    Send,
    /// On a new connection.
    Connect,
    /// On the next connection that is free.
    Wait,
}
