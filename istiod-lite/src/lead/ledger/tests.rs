//! Turns, waits, and what is forgotten.

use super::*;

fn wanted(all: &[(&'static str, u32)]) -> BTreeMap<&'static str, u32> {
    all.iter().copied().collect()
}

fn start() -> Instant {
    ambit_runtime::clock::monotonic()
}

#[test]
fn only_what_differs_is_due() {
    let (now, mut ledger) = (start(), Ledger::default());
    ledger.want(wanted(&[("a", 1), ("b", 1)]));
    assert_eq!(ledger.due(now, 8), [("a", Some(1)), ("b", Some(1))]);
    ledger.done(&"a", Some(1));
    ledger.done(&"b", Some(0));
    assert_eq!(ledger.due(now, 8), [("b", Some(1))], "found otherwise than wanted");
    ledger.done(&"b", Some(1));
    ledger.want(wanted(&[("a", 1), ("b", 2)]));
    assert_eq!(ledger.due(now, 8), [("b", Some(2))]);
    ledger.doubt("a");
    assert_eq!(ledger.due(now, 8), [("a", Some(1)), ("b", Some(2))]);
}

#[test]
fn what_is_not_wanted_any_more_is_taken_back_and_forgotten() {
    let (now, mut ledger) = (start(), Ledger::default());
    ledger.want(wanted(&[("a", 1)]));
    ledger.done(&"a", Some(1));
    ledger.want(wanted(&[]));
    assert_eq!(ledger.due(now, 8), [("a", None)]);
    ledger.done(&"a", None);
    assert_eq!(ledger.due(now, 8), []);
    assert!(ledger.entries.is_empty(), "nothing is held of it");
    ledger.doubt("found");
    assert_eq!(ledger.due(now, 8), [("found", None)], "left by somebody before us");
}

#[test]
fn a_failure_waits_longer_each_time_and_holds_up_nobody() {
    let (now, mut ledger) = (start(), Ledger::default());
    ledger.want(wanted(&[("a", 1), ("b", 1)]));
    assert_eq!(ledger.failed(&"a", now, false), 1);
    assert_eq!(ledger.due(now, 8), [("b", Some(1))]);
    assert_eq!(ledger.next(), Some(now + WAIT_MIN));
    let later = now + WAIT_MIN;
    assert_eq!(ledger.due(later, 8), [("a", Some(1)), ("b", Some(1))]);
    assert_eq!(ledger.failed(&"a", later, false), 2);
    assert_eq!(ledger.next(), Some(later + WAIT_MIN * 2));
    for _ in 0..40 {
        ledger.failed(&"a", later, false);
    }
    assert_eq!(ledger.next(), Some(later + WAIT_MAX));
    ledger.want(wanted(&[("a", 2), ("b", 1)]));
    assert_eq!(ledger.next(), None, "something else is tried at once");
    ledger.failed(&"b", later, true);
    assert_eq!(ledger.next(), Some(later + WAIT_MAX), "hopeless");
}

#[test]
fn the_turn_goes_round() {
    let (now, mut ledger) = (start(), Ledger::default());
    ledger.want(wanted(&[("a", 1), ("b", 1), ("c", 1)]));
    let turn = |ledger: &mut Ledger<&'static str, u32>| -> Vec<&'static str> {
        ledger.due(now, 2).into_iter().map(|(key, _)| key).collect()
    };
    assert_eq!(turn(&mut ledger), ["a", "b"]);
    assert_eq!(turn(&mut ledger), ["c", "a"], "nobody said that those were done");
    ledger.done(&"a", Some(1));
    assert_eq!(turn(&mut ledger), ["b", "c"]);
}
