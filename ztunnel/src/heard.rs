//! When the control plane was last heard, and for how long it has been away.
//!
//! The time is the wall clock's, since a sealed state may be older than this process. What is bounded by it must not
//! hang on that clock alone: one that steps back would make an old state young. So the age is the larger of two: what
//! the wall clock says now, and what it said when we learnt of the absence plus what the monotonic clock has counted
//! since. A wall clock that was wrong already at a start is not found out.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use ambit_runtime::clock;
use ambit_runtime::metrics::Source;
use ambit_runtime::metrics::text::single;

use crate::telemetry::StaleFor;

/// When the control plane was last heard, and whether what is in force is what was sealed then.
#[derive(Debug, Default)]
pub struct LastHeard(Mutex<Last>);

#[derive(Debug, Default)]
struct Last {
    /// None while it is there.
    away: Option<Away>,
    sealed: bool,
}

/// An absence.
#[derive(Debug, Clone, Copy)]
struct Away {
    /// When it was last heard by the wall clock, seconds since 1970.
    since: u64,
    /// How long it had been away when we learnt of it, in seconds.
    age: u64,
    /// When we learnt of it.
    learnt: Instant,
}

impl Away {
    /// One since `since`, learnt of at `wall`, which is `now`.
    fn new(since: u64, wall: u64, now: Instant) -> Self {
        Self { since, age: wall.saturating_sub(since), learnt: now }
    }

    /// Seconds of it at `wall`, which is `now`.
    fn seconds(&self, wall: u64, now: Instant) -> u64 {
        let counted = now.saturating_duration_since(self.learnt).as_secs();
        wall.saturating_sub(self.since).max(self.age.saturating_add(counted))
    }
}

impl LastHeard {
    /// Not heard yet, at `now`, seconds since 1970.
    pub fn new(now: u64) -> Self {
        let away = Away::new(now, now, clock::monotonic());
        Self(Mutex::new(Last { away: Some(away), sealed: false }))
    }

    /// The control plane is there, and what it says is in force.
    pub fn here(&self) {
        self.with(|last| *last = Last::default());
    }

    /// The control plane has just gone away.
    pub fn gone(&self) {
        let (wall, now) = (clock::unix_seconds(), clock::monotonic());
        // Already away keeps the earlier moment.
        self.with(|last| {
            last.away.get_or_insert_with(|| Away::new(wall, wall, now));
        });
    }

    /// What is in force was sealed when the control plane was heard at `at`, seconds since 1970.
    pub fn sealed(&self, at: u64) {
        let away = Away::new(at, clock::unix_seconds(), clock::monotonic());
        self.with(|last| *last = Last { away: Some(away), sealed: true });
    }

    /// When it was heard last, seconds since 1970; `None` while it is there.
    pub fn since(&self) -> Option<u64> {
        self.with(|last| last.away.map(|away| away.since))
    }

    /// Whether a sealed state is in force.
    pub fn is_sealed(&self) -> bool {
        self.with(|last| last.sealed)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Last) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Source for LastHeard {
    fn write(&self, text: &mut String) {
        single(text, "ambit_control_plane_away_seconds", "gauge", self.stale_for().unwrap_or(0));
    }
}

impl StaleFor for LastHeard {
    fn stale_for(&self) -> Option<u64> {
        let away = self.with(|last| last.away)?;
        Some(away.seconds(clock::unix_seconds(), clock::monotonic()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_absence_is_as_old_as_the_clock_says_by_which_it_is_older() {
        let start = clock::monotonic();
        // Heard at, wall clock when it was learnt of, wall clock later, seconds counted until then, seconds away.
        for (since, learnt, wall, counted, want, what) in [
            (1000, 1000, 1060, 60, 60, "both clocks go on alike"),
            (1000, 1000, 400, 60, 60, "the wall clock steps back"),
            (1000, 1000, 1000, 60, 60, "it stands still"),
            (1000, 1000, 9000, 60, 8000, "it steps ahead"),
            (1000, 4600, 4660, 60, 3660, "sealed an hour before the start"),
            (1000, 4600, 1000, 60, 3660, "sealed before, and the wall clock steps back to then"),
            (1000, 900, 960, 60, 60, "sealed in what the wall clock has as the future"),
        ] {
            let away = Away::new(since, learnt, start);
            assert_eq!(away.seconds(wall, start + Duration::from_secs(counted)), want, "{what}");
        }
    }

    #[test]
    fn what_was_heard_ends_an_absence_and_a_loss_keeps_the_first_moment() {
        let heard = LastHeard::new(7);
        assert_eq!((heard.since(), heard.is_sealed()), (Some(7), false));
        heard.gone();
        assert_eq!(heard.since(), Some(7), "it was away already");
        heard.sealed(5);
        assert_eq!((heard.since(), heard.is_sealed()), (Some(5), true));
        assert!(heard.stale_for().is_some());
        heard.here();
        assert_eq!((heard.since(), heard.stale_for(), heard.is_sealed()), (None, None, false));
        heard.gone();
        assert!(heard.since().is_some());
    }
}
