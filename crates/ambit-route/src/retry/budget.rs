//! How much of what is sent to a destination may be repetition, so that retries cannot make an overload worse
//! (GEP-3388).
//!
//! Requests and repetitions are counted in ten slices of the interval, of which the oldest is forgotten as time
//! goes on.

use std::time::{Duration, Instant};

use crate::model::RetryBudget;

/// Parts of the interval that are forgotten at a time.
const SLICES: usize = 10;

/// The budget of one destination.
#[derive(Debug, Clone)]
pub struct Budget {
    policy: RetryBudget,
    requests: Window,
    retries: Window,
    /// Repetitions in any case.
    minimum: Window,
}

/// Counts over a time that moves.
#[derive(Debug, Clone)]
struct Window {
    counts: [u64; SLICES],
    slice: Duration,
    newest: usize,
    began: Instant,
}

impl Budget {
    /// A budget that begins now, with nothing counted.
    pub fn new(policy: RetryBudget, now: Instant) -> Self {
        Self {
            policy,
            requests: Window::new(policy.interval, now),
            retries: Window::new(policy.interval, now),
            minimum: Window::new(policy.min_interval, now),
        }
    }

    /// Counts a request, once however often it is sent.
    pub fn request(&mut self, now: Instant) {
        self.requests.add(now);
    }

    /// Takes one repetition, if it is in the budget: within the percentage of the requests of the interval, or within
    /// the number that is free in any case.
    pub fn take(&mut self, now: Instant) -> bool {
        let (requests, retries) = (self.requests.sum(now), self.retries.sum(now));
        let in_share = (retries + 1) * 100 <= requests * u64::from(self.policy.percent);
        let is_free = self.minimum.sum(now) < u64::from(self.policy.min_retries);
        if in_share || is_free {
            self.retries.add(now);
            self.minimum.add(now);
        }
        in_share || is_free
    }
}

impl Window {
    fn new(length: Duration, now: Instant) -> Self {
        let slices = u32::try_from(SLICES).expect("ten");
        // A window of no length would never move on.
        let slice = (length / slices).max(Duration::from_millis(1));
        Self { counts: [0; SLICES], slice, newest: 0, began: now }
    }

    fn add(&mut self, now: Instant) {
        self.move_to(now);
        self.counts[self.newest] += 1;
    }

    fn sum(&mut self, now: Instant) -> u64 {
        self.move_to(now);
        self.counts.iter().sum()
    }

    fn move_to(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.began).as_nanos() / self.slice.as_nanos();
        let steps = usize::try_from(passed).unwrap_or(usize::MAX);
        for _ in 0..steps.min(SLICES) {
            self.newest = (self.newest + 1) % SLICES;
            self.counts[self.newest] = 0;
        }
        if steps >= SLICES {
            self.began = now;
        } else {
            self.began += self.slice * u32::try_from(steps).expect("fewer than ten");
        }
    }
}
