//! When to connect again. Every failure waits, whatever it was (G47), and no two nodes wait alike (G32).

#[cfg(test)]
mod tests;

use std::time::Duration;

/// Waits between attempts: doubling, spread by a draw, begun anew after a stream that was healthy.
#[derive(Debug, Clone)]
pub struct Backoff {
    limits: Limits,
    next: Duration,
}

/// Bounds of the waits.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Wait after the first failure, before spreading; default 20 ms.
    pub first: Duration,
    /// Longest wait, before spreading; default 800 ms, so that a control plane that is back is found within 2 s.
    pub longest: Duration,
    /// How long a stream must last to count as healthy; default 10 s.
    pub healthy: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(20),
            longest: Duration::from_millis(800),
            healthy: Duration::from_secs(10),
        }
    }
}

impl Backoff {
    /// A node that has not failed yet.
    pub fn new(limits: Limits) -> Self {
        Self { limits, next: limits.first }
    }

    /// The wait before the next attempt, after one that failed or a stream that ended.
    ///
    /// `lasted` is the life of the stream, zero if there was none; `draw` is uniform over all values. The wait is
    /// half to one and a half of the doubling value, never zero.
    pub fn after(&mut self, lasted: Duration, draw: u32) -> Duration {
        if lasted >= self.limits.healthy {
            self.next = self.limits.first;
        }
        let base = self.next;
        self.next = (base * 2).min(self.limits.longest);
        let share = 0.5 + f64::from(draw) / f64::from(u32::MAX);
        base.mul_f64(share).max(Duration::from_millis(1))
    }
}
