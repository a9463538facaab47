//! How long to wait before the next attempt.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

/// First and longest wait. An API server that is back is noticed within the latter.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_millis(1500);

/// Waits that double up to a limit; each is shortened by a random part of its half, so that not everybody comes back
/// at once.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    random: RandomState,
    count: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST, random: RandomState::new(), count: 0 }
    }
}

impl Backoff {
    /// The next wait.
    pub(super) fn next(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(LONGEST);
        self.count = self.count.wrapping_add(1);
        let mut hasher = self.random.build_hasher();
        hasher.write_u64(self.count);
        let part = u32::try_from(hasher.finish() % 1000).unwrap_or_default();
        wait - wait / 2 * part / 1000
    }

    /// All is well again.
    pub(super) fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_start_anew() {
        let mut backoff = Backoff::default();
        for _ in 0..20 {
            assert!(backoff.next() <= LONGEST);
        }
        assert!(backoff.next() >= LONGEST / 2);
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }
}
