//! The next step for a pod, as a table of what is wanted and what is there.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::enrolment::{DATAPLANE_MODE, decide};
use crate::pod::REDIRECTION;
use crate::rules::Facts;

const LIMITS: Limits = Limits {
    verify: Duration::from_secs(5),
    retry_min: Duration::from_millis(200),
    retry_max: Duration::from_secs(5),
    notice: Duration::from_secs(2),
    absence: Duration::from_secs(5),
};

/// A pod from words: `ambient`, `running`, `finished`, `host`, `no-address`, `sidecar`, `enabled`, `pending`, `ready`
/// (condition True), `unready`.
fn pod(words: &str) -> Pod {
    let mut pod = Pod {
        uid: "u1".to_owned(),
        name: "cart-0".to_owned(),
        namespace: "shop".to_owned(),
        addresses: BTreeSet::from(["10.0.0.1".parse().unwrap()]),
        ..Pod::default()
    };
    let mut annotate = |key: &str, value: &str| pod.annotations.insert(key.to_owned(), value.to_owned());
    for word in words.split_whitespace() {
        match word {
            "ambient" => {
                pod.namespace_labels =
                    Some(BTreeMap::from([(DATAPLANE_MODE.to_owned(), "ambient".to_owned())]));
            }
            "running" => pod.running = true,
            "finished" => pod.finished = true,
            "host" => pod.host_network = true,
            "no-address" => pod.addresses.clear(),
            "sidecar" => drop(annotate("sidecar.istio.io/status", "{}")),
            "enabled" | "pending" => drop(annotate(REDIRECTION, word)),
            "ready" => pod.condition = Some(Condition::captured()),
            "unready" => pod.condition = Some(Condition::not_captured(Reason::NotCaptured, "")),
            other => panic!("{other}"),
        }
    }
    pod
}

/// A record from words: what is inside, then `failed=N`, `at=SECONDS`.
fn record(words: &str) -> Record {
    let mut record = Record::default();
    for word in words.split_whitespace() {
        match word.split_once('=') {
            None => record.inside = inside(word),
            Some(("at", n)) => record.done = Duration::from_secs(n.parse().unwrap()),
            Some(("failed", n)) => {
                record.failures = n.parse().unwrap();
                record.failure =
                    Some(Failure { reason: Reason::NetnsMismatch, message: "not its own".to_owned() });
            }
            Some(other) => panic!("{other:?}"),
        }
    }
    record
}

fn inside(word: &str) -> Inside {
    match word {
        "unknown" => Inside::Unknown,
        "nothing" => Inside::Nothing,
        "capture" => Inside::Capture { stamp: rules::capture(&Facts::default()).stamp },
        "old-capture" => Inside::Capture { stamp: "0123".to_owned() },
        "residue" => Inside::Residue { since: Duration::from_secs(100), withdrawn: false },
        "withdrawn" => Inside::Residue { since: Duration::from_secs(100), withdrawn: true },
        other => panic!("{other}"),
    }
}

fn decision(pod: &Pod) -> Decision {
    decide(&pod.facts(), pod.namespace_labels.as_ref(), &BTreeSet::new())
}

#[test]
fn the_next_step_follows_from_what_is_wanted_and_what_is_there() {
    // Pod, record, seconds since the start, step.
    #[rustfmt::skip]
    let rows = [
        ("ambient running", "unknown", 100, "capture ztunnel-first"),
        ("ambient", "unknown", 100, "capture rules-first"),
        ("ambient running", "nothing at=100", 100, "capture ztunnel-first"),
        ("ambient running", "old-capture at=100", 100, "capture ztunnel-first"),
        ("ambient running", "residue at=100", 100, "capture ztunnel-first"),
        ("ambient running", "withdrawn at=100", 100, "capture ztunnel-first"),
        ("ambient no-address", "unknown", 100, "rest"),
        ("ambient running", "capture at=100", 100, "wait 105"),
        ("ambient running", "capture at=100", 105, "verify"),
        ("ambient running", "unknown at=100 failed=1", 100, "wait 100"),
        ("ambient running", "unknown at=100 failed=1", 101, "capture ztunnel-first"),
        ("ambient running", "unknown at=100 failed=60", 103, "wait 104"),
        ("ambient running", "unknown at=100 failed=60", 106, "capture ztunnel-first"),
        ("", "unknown", 100, "discover"),
        ("host", "unknown", 100, "rest"),
        ("", "nothing at=1", 100, "rest"),
        ("", "capture at=100", 100, "release"),
        ("sidecar ambient", "capture at=100", 100, "release"),
        ("", "residue at=100", 101, "wait 102"),
        ("", "residue at=100", 102, "retire"),
        ("", "withdrawn at=102", 103, "wait 107"),
        ("", "withdrawn at=102", 107, "retire"),
        ("ambient finished", "capture at=100", 100, "forget"),
        ("ambient finished", "unknown", 100, "forget"),
        ("ambient finished", "residue", 100, "forget"),
        ("ambient finished", "nothing", 100, "rest"),
    ];
    for (words, known, now, want) in rows {
        let pod = pod(words);
        let step = next_step(&pod, &decision(&pod), &record(known), Duration::from_secs(now), &LIMITS);
        let got = match step {
            Step::Rest => "rest".to_owned(),
            Step::Wait(until) => format!("wait {}", until.as_secs()),
            Step::Capture { ztunnel_first: true, .. } => "capture ztunnel-first".to_owned(),
            Step::Capture { ztunnel_first: false, .. } => "capture rules-first".to_owned(),
            Step::Verify { .. } => "verify".to_owned(),
            Step::Discover => "discover".to_owned(),
            Step::Release => "release".to_owned(),
            Step::Retire => "retire".to_owned(),
            Step::Forget => "forget".to_owned(),
        };
        assert_eq!(got, want, "pod {words:?}, {known:?} at {now}");
    }
}

#[test]
fn what_is_said_is_what_was_proven() {
    use Holding::{Held, NoZtunnel, Waiting};
    // Pod, record, the ztunnel, for how long absent, annotation and condition; "-" where nothing changes.
    #[rustfmt::skip]
    let rows = [
        ("ambient", "capture", Held, 0, "enabled Captured"),
        ("ambient enabled ready", "capture", Held, 0, "-"),
        ("ambient pending unready", "capture", Held, 0, "enabled Captured"),
        ("ambient", "capture", Waiting, 0, "pending AMB1101"),
        ("ambient pending unready", "capture", Waiting, 60, "-"),
        ("ambient", "capture", NoZtunnel, 0, "pending AMB1101"),
        ("ambient enabled ready", "capture", NoZtunnel, 4, "-"),
        ("ambient enabled ready", "capture", NoZtunnel, 5, "enabled AMB1101"),
        ("ambient enabled ready", "capture", Waiting, 60, "enabled AMB1101"),
        ("ambient enabled ready", "unknown", NoZtunnel, 60, "-"),
        ("ambient enabled ready", "unknown failed=1", Held, 0, "none AMB1003"),
        ("ambient", "unknown failed=1", NoZtunnel, 0, "none AMB1003"),
        ("ambient no-address", "unknown", NoZtunnel, 0, "none AMB1101"),
        ("", "unknown", NoZtunnel, 0, "-"),
        ("", "nothing", NoZtunnel, 0, "-"),
        ("enabled ready", "nothing", Held, 0, "none AMB1001"),
        ("enabled ready", "residue", Held, 0, "none AMB1001"),
        ("enabled ready", "capture", Held, 0, "-"),
        ("enabled", "unknown", NoZtunnel, 0, "none AMB1001"),
        ("ambient sidecar", "nothing", NoZtunnel, 0, "none AMB1002"),
        ("ambient finished enabled ready", "nothing", NoZtunnel, 0, "none AMB1001"),
    ];
    for (words, known, holding, absent, want) in rows {
        let pod = pod(words);
        let absent = Duration::from_secs(absent);
        let said = announcement(&pod, &decision(&pod), &record(known), &holding, absent, &LIMITS);
        let got = said.map_or_else(
            || "-".to_owned(),
            |said| {
                let condition = said.condition.map_or_else(|| "-".to_owned(), |c| c.reason);
                format!("{} {condition}", said.redirection.unwrap_or("none"))
            },
        );
        assert_eq!(got, want, "pod {words:?}, {known:?}, {holding:?}");
    }
}

#[test]
fn pauses_double_are_capped_and_spread() {
    let of =
        |uid: &str, failures| pause(uid, &Record { failures, ..Record::default() }, &LIMITS).as_secs_f64();
    assert!(of("u", 0) == 0.0);
    for (failures, plain) in [(1, 0.2), (2, 0.4), (3, 0.8), (6, 5.0), (40, 5.0), (u32::MAX, 5.0)] {
        let pause = of("u", failures);
        assert!((0.8 * plain..=1.2 * plain).contains(&pause), "{failures}: {pause}");
    }
    assert!((0..20).any(|i| of(&format!("u{i}"), 9) != of("u", 9)));
}
