//! What a day of summaries keeps, forgets and counts.

use super::*;

fn pair(source: &str, destination: &str) -> Pair {
    let end = |workload: &str| {
        Some(End { namespace: "shop".to_owned(), workload: workload.to_owned(), ..End::default() })
    };
    Pair {
        reporter: Reporter::Destination.into(),
        source: end(source),
        destination: end(destination),
        port: 80,
        path: "hbone".to_owned(),
        opened: 1,
        ..Pair::default()
    }
}

fn summary(pairs: Vec<Pair>) -> Summary {
    Summary { number: 1, covers_ms: 1000, pairs, ..Summary::default() }
}

fn opened(aggregates: &Aggregates, window: u64, now: u64) -> u64 {
    aggregates.seen(window, now).map(|seen| seen.counts.opened).sum()
}

#[test]
fn a_day_is_kept_and_each_window_has_what_belongs_to_it() {
    let mut aggregates = Aggregates::default();
    let begin = 1_000_000_000;
    // One connection a minute for a day and a bit.
    let minutes = 25 * 60;
    for minute in 0..minutes {
        aggregates.take(1, summary(vec![pair("web", "db")]), begin + minute * 60);
    }
    let now = begin + (minutes - 1) * 60;
    for (window, wanted, slack) in [(300, 5, 1), (3600, 60, 1), (6 * 3600, 360, 10), (24 * 3600, 1440, 10)] {
        let found = opened(&aggregates, window, now);
        assert!(found.abs_diff(wanted) <= slack, "{found} in {window} s instead of {wanted}");
    }
    assert!(
        aggregates.held <= LEVELS.iter().map(|(_, keep)| keep).sum::<usize>(),
        "{} counts held",
        aggregates.held
    );
    assert_eq!(opened(&aggregates, 300, now + 3600), 0, "what is long over is in no recent window");
}

#[test]
fn rates_of_a_recent_window_are_those_of_its_end() {
    let mut aggregates = Aggregates::default();
    let begin = 1_000_000_000;
    for second in 0..100 {
        let busy = Pair { opened: 10, ..pair("web", "db") };
        aggregates.take(1, summary(vec![busy]), begin + second);
    }
    let now = begin + 99;
    let seconds = aggregates.rate_seconds(300, now);
    let recent = aggregates.seen(300, now).next().unwrap().recent.opened;
    let rate = recent / seconds;
    assert!((9..=12).contains(&rate), "{rate} per second instead of 10");
    assert_eq!(
        aggregates.rate_seconds(300, begin + 5),
        6,
        "no rate is taken over a time nothing was heard in"
    );
}

#[test]
fn bounds_hold_and_what_was_forgotten_is_counted() {
    let mut aggregates = Aggregates::within(Bounds { pairs: 100, counts: 10_000 });
    for number in 0..1000_u64 {
        let one = pair(&format!("web-{number}"), "db");
        aggregates.take(1, summary(vec![one]), 1_000_000_000 + number);
    }
    assert!(aggregates.pairs.len() <= 100);
    assert_eq!(aggregates.pairs.len() as u64 + aggregates.forgotten, 1000);
    let held: usize = aggregates.pairs.values().map(Series::held).sum();
    assert_eq!(aggregates.held, held);
    let newest = aggregates.seen(3600, 1_000_001_000).any(|seen| seen.name.source.end.workload == "web-999");
    assert!(newest, "the newest stay");
}

/// Whoever scans ports is refused at most of them, and is no reason to forget anybody else.
#[test]
fn who_tries_every_port_evicts_only_its_own_pairs() {
    let mut aggregates = Aggregates::within(Bounds { pairs: 100, counts: 10_000 });
    let now = 1_000_000_000;
    aggregates.take(1, summary(vec![pair("web", "db")]), now);
    let scan = |port: u32| Pair { denied: true, opened: 0, ended: 1, port, ..pair("scanner", "db") };
    aggregates.take(1, summary((1..=5000).map(scan).collect()), now + 3600);
    let seen = |aggregates: &Aggregates, workload: &str| {
        let all = aggregates.seen(24 * 3600, now + 3600);
        all.filter(|seen| seen.name.source.end.workload == workload).count()
    };
    assert_eq!((seen(&aggregates, "web"), seen(&aggregates, "scanner")), (1, 5));
    assert_eq!(aggregates.forgotten, 4995);
    assert_eq!(aggregates.callers.values().sum::<usize>(), aggregates.pairs.len());
}

#[test]
fn of_all_pairs_refused_ones_are_forgotten_first() {
    let mut aggregates = Aggregates::within(Bounds { pairs: 100, counts: 10_000 });
    let now = 1_000_000_000;
    aggregates.take(1, summary(vec![pair("web", "db")]), now);
    let refused = |number: u64| Pair { denied: true, ended: 1, ..pair(&format!("many-{number}"), "db") };
    aggregates.take(1, summary((0..500).map(refused).collect()), now + 3600);
    assert!(aggregates.pairs.len() <= 100);
    assert!(aggregates.seen(24 * 3600, now + 3600).any(|seen| seen.name.source.end.workload == "web"));
}

#[test]
fn callers_outside_the_mesh_are_pairs_of_their_own_up_to_a_bound() {
    let mut aggregates = Aggregates::within(Bounds { pairs: 50, counts: 10_000 });
    let from = |last: u8| Pair {
        source: Some(End { address: format!("192.0.2.{last}:1000"), ..End::default() }),
        of_one_address: true,
        ..pair("", "db")
    };
    aggregates.take(1, summary((1..=20).map(from).collect()), 1_000_000_000);
    let mut told: BTreeMap<String, u64> = BTreeMap::new();
    for seen in aggregates.seen(60, 1_000_000_000) {
        *told.entry(seen.name.source.address.clone()).or_default() += seen.counts.opened;
    }
    assert_eq!((told.len(), told[""], told["192.0.2.1"]), (11, 10, 1));
    // A proxy of before folds them itself, and says of one address that it is an example.
    let folded = Pair { of_one_address: false, ..from(99) };
    aggregates.take(1, summary(vec![folded]), 1_000_000_000);
    assert_eq!(aggregates.pairs.len(), 11);
}

#[test]
fn one_workload_under_two_identities_is_two_pairs() {
    let mut aggregates = Aggregates::default();
    let as_who = |account: &str| {
        let mut one = pair("web", "db");
        one.source.as_mut().unwrap().identity = format!("spiffe://m/ns/shop/sa/{account}");
        one
    };
    aggregates.take(1, summary(["a", "b", "a"].map(as_who).to_vec()), 1_000_000_000);
    let told: Vec<u64> = aggregates.seen(60, 1_000_000_000).map(|seen| seen.counts.opened).collect();
    assert_eq!(told, [2, 1]);
}

#[test]
fn what_is_open_is_shown_until_it_ends_or_its_proxy_goes() {
    let mut aggregates = Aggregates::default();
    let now = 1_000_000_000;
    aggregates.take(1, summary(vec![Pair { open: 2, ..pair("web", "db") }]), now);
    let later = now + 7200;
    assert_eq!(aggregates.seen(60, later).map(|seen| seen.open).collect::<Vec<_>>(), [2]);
    aggregates.gone(1);
    assert_eq!(aggregates.seen(60, later).count(), 0);
}
