//! When to renew a certificate, and until when to keep it. Pure: times and randomness are arguments.

use std::time::Duration;

/// Shortest wait between two fetches of one identity, so that a broken validity cannot spin against the CA.
const WAIT_MIN: Duration = Duration::from_secs(1);
/// First wait after a failed fetch.
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// Longest wait after failed fetches.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// Wait from `now` until a certificate that runs out at `not_after` is renewed: half of what is left.
///
/// `draw` spreads the moment by a tenth either way, so that a node's certificates are not renewed at once (G32).
pub fn renew_after(now: u64, not_after: u64, draw: u64) -> Duration {
    let left = Duration::from_secs(not_after.saturating_sub(now));
    spread(left / 2, draw).max(WAIT_MIN)
}

/// Wait after the `failures`-th failure in a row, never past the moment the old certificate runs out.
pub fn retry_after(failures: u32, draw: u64) -> Duration {
    let doubled = BACKOFF_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16));
    spread(doubled.min(BACKOFF_MAX), draw)
}

/// How long an identity stays if nobody asks for it; as long as it is there if a pod of this node has it (`own`).
///
/// `idle` is the time since somebody last asked, `bound` the longest such time for what no pod has.
pub fn kept_for(own: bool, idle: Duration, bound: Duration) -> Option<Duration> {
    (!own).then(|| bound.saturating_sub(idle))
}

/// `wait` with up to a tenth more or less.
fn spread(wait: Duration, draw: u64) -> Duration {
    let tenth = wait / 10;
    let part = u32::try_from(draw % 2001).unwrap_or(1000);
    wait - tenth + tenth * part / 1000
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{kept_for, renew_after, retry_after};

    #[test]
    fn renewal_is_near_half_of_what_is_left() {
        for draw in [0, 1, 1000, 2000, u64::MAX] {
            let wait = renew_after(1_000, 1_000 + 86_400, draw);
            assert!(wait >= Duration::from_secs(38_880) && wait <= Duration::from_secs(47_520), "{wait:?}");
        }
        assert_ne!(renew_after(0, 100, 0), renew_after(0, 100, 2000), "jitter spreads");
        assert_eq!(renew_after(50, 40, 7), Duration::from_secs(1), "an expired one does not spin");
    }

    #[test]
    fn what_no_pod_has_is_kept_for_a_while_after_the_last_caller() {
        let seconds = Duration::from_secs;
        let rows = [
            ("own", true, 0, None),
            ("own, never asked for", true, 9999, None),
            ("just asked for", false, 0, Some(600)),
            ("asked for lately", false, 599, Some(1)),
            ("not asked for", false, 600, Some(0)),
            ("long not asked for", false, 9999, Some(0)),
        ];
        for (name, own, idle, kept) in rows {
            assert_eq!(kept_for(own, seconds(idle), seconds(600)), kept.map(seconds), "{name}");
        }
    }

    #[test]
    fn retries_double_up_to_a_minute() {
        assert_eq!(retry_after(1, 1000), Duration::from_millis(500));
        assert_eq!(retry_after(3, 1000), Duration::from_secs(2));
        assert_eq!(retry_after(40, 1000), Duration::from_secs(60));
    }
}
