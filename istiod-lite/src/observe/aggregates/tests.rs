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
        aggregates.take(1, "n1", false, summary(vec![pair("web", "db")]), begin + minute * 60);
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
        aggregates.take(1, "n1", false, summary(vec![busy]), begin + second);
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
        aggregates.take(1, "n1", false, summary(vec![one]), 1_000_000_000 + number);
    }
    assert!(aggregates.pairs.len() <= 100);
    assert_eq!(aggregates.pairs.len() as u64 + aggregates.forgotten, 1000);
    let held: usize = aggregates.pairs.values().map(Series::held).sum();
    assert_eq!(aggregates.held, held);
    let newest = aggregates.seen(3600, 1_000_001_000).any(|seen| seen.name.source.workload == "web-999");
    assert!(newest, "the newest stay");
}

#[test]
fn a_proxy_speaks_only_for_its_own_end() {
    let mut aggregates = Aggregates::default();
    let now = 1_000_000_000;
    let forged = Pair { reporter: Reporter::Waypoint.into(), requests: 3, ..pair("web", "db") };
    aggregates.take(1, "n1", false, summary(vec![forged]), now);
    assert_eq!((aggregates.seen(60, now).count(), aggregates.lost), (0, 3));
    let mut elsewhere = pair("web", "db");
    elsewhere.destination.as_mut().unwrap().node = "n2".to_owned();
    aggregates.take(1, "n1", false, summary(vec![elsewhere]), now);
    assert_eq!(aggregates.seen(60, now).next().unwrap().ends[1].node, "n1");
}

#[test]
fn what_is_open_is_shown_until_it_ends_or_its_proxy_goes() {
    let mut aggregates = Aggregates::default();
    let now = 1_000_000_000;
    aggregates.take(1, "n1", false, summary(vec![Pair { open: 2, ..pair("web", "db") }]), now);
    let later = now + 7200;
    assert_eq!(aggregates.seen(60, later).map(|seen| seen.open).collect::<Vec<_>>(), [2]);
    aggregates.gone(1);
    assert_eq!(aggregates.seen(60, later).count(), 0);
}
