//! Faults put in on purpose, to see what callers make of them.

use std::time::Duration;

use super::mirror::is_drawn;
use crate::model::{Abort, Fault};

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Injection {
    /// Wait first.
    pub pause: Option<Duration>,
    /// Then answer this.
    pub abort: Option<Abort>,
}

/// Draws the faults of one request; the two draws are independent of each other.
pub fn inject(fault: &Fault, pause_draw: u64, abort_draw: u64) -> Injection {
    Injection {
        pause: fault.delay.filter(|delay| is_drawn(delay.fraction, pause_draw)).map(|delay| delay.pause),
        abort: fault.abort.filter(|(_, fraction)| is_drawn(*fraction, abort_draw)).map(|(abort, _)| abort),
    }
}
