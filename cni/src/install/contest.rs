//! Two programs that undo each other's changes: noticed, and slowed down.

use std::collections::VecDeque;
use std::time::Duration;

/// Changes within [`WINDOW`] that are no accident any more.
const MANY: usize = 4;
/// How long a change counts.
const WINDOW: Duration = Duration::from_secs(300);
/// First pause; doubles with each further change.
const PAUSE_MIN: Duration = Duration::from_secs(2);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The changes we made lately.
#[derive(Debug, Default)]
pub(super) struct Contest {
    changes: VecDeque<Duration>,
    rounds: u32,
}

impl Contest {
    /// Notes a change; returns how long to wait before the next if there were too many.
    pub(super) fn note(&mut self, now: Duration) -> Option<Duration> {
        self.changes.push_back(now);
        self.changes.retain(|at| now.saturating_sub(*at) < WINDOW);
        if self.changes.len() < MANY {
            self.rounds = 0;
            return None;
        }
        while self.changes.len() > MANY {
            self.changes.pop_front();
        }
        let pause = PAUSE_MIN.saturating_mul(1 << self.rounds.min(8)).min(PAUSE_MAX);
        self.rounds = self.rounds.saturating_add(1);
        Some(pause)
    }
}
