//! Rows of what is due when.

use super::*;

const IDLE: Duration = Duration::from_secs(300);
const RATE: Rate = Rate { bytes_min: 2000, window: Duration::from_secs(20) };

#[expect(clippy::disallowed_methods, reason = "a place to count from; no test waits")]
fn start() -> Instant {
    Instant::now()
}

fn seen(moved: u64, received: u64, is_starved: bool) -> Seen {
    Seen { moved, received, is_starved }
}

/// Looks whenever it is time to, at what `happened` tells of a second; the second at which something is due.
fn due(mut ledger: Ledger, begun: Instant, happened: impl Fn(u64) -> Seen) -> (Due, u64) {
    let mut now = begun;
    loop {
        let next = ledger.next(now);
        assert!(next > now, "it would spin");
        now = next;
        let second = now.duration_since(begun).as_secs();
        assert!(second < 100_000, "nothing is ever due");
        if let Some(due) = ledger.judge(now, happened(second)) {
            return (due, second);
        }
    }
}

#[test]
fn silence_ends_a_request_and_bytes_do_not() {
    let begun = start();
    assert_eq!(due(Ledger::new(begun, IDLE, None), begun, |_| Seen::default()), (Due::Idle, 300));
    // Something moves every minute for an hour.
    let (what, at) =
        due(Ledger::new(begun, IDLE, None), begun, |second| seen(second.min(3600) / 60, 0, false));
    assert_eq!(what, Due::Idle);
    assert!((3900..=3975).contains(&at), "{at}");
}

#[test]
fn a_limit_counts_whatever_moves() {
    let begun = start();
    for (limit, after) in [(Limit::Request, 7), (Limit::Try, 400)] {
        let mut ledger = Ledger::new(begun, IDLE, None);
        ledger.over = Some((begun + Duration::from_secs(after), limit));
        let got = due(ledger, begun, |second| seen(second, second, false));
        assert_eq!(got, (Due::Over(limit), after));
    }
}

#[test]
fn a_body_has_to_come_as_long_as_it_is_waited_for() {
    let begun = start();
    let ledger = |rate| Ledger::new(begun, IDLE, rate);
    let slow = |second| seen(second, second * 99, true);
    assert_eq!(due(ledger(Some(RATE)), begun, slow), (Due::Slow, 20));
    // Quick at first: what came before does not pay for what comes now.
    let tired = |second: u64| seen(second, second.min(60) * 1_000_000 + second, true);
    let (what, at) = due(ledger(Some(RATE)), begun, tired);
    assert_eq!(what, Due::Slow);
    assert!((80..=100).contains(&at), "{at}");
    // Quick enough, or nobody waits for it, until it falls silent.
    for is_starved in [true, false] {
        let bytes = if is_starved { 100 } else { 1 };
        let happened = |second: u64| seen(second.min(500), second * bytes, is_starved);
        assert_eq!(due(ledger(Some(RATE)), begun, happened).0, Due::Idle, "starved: {is_starved}");
    }
    let (what, _) = due(ledger(None), begun, |second| seen(second.min(500), second, true));
    assert_eq!(what, Due::Idle, "as slowly as it likes");
}
