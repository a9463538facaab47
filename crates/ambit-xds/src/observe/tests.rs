//! What the pairs count, and where their bound is.

use std::net::IpAddr;

use ambit_types::Reason;

use super::*;
use crate::proto::ambit::observe::v1::Reporter;

fn key(workload: &str) -> Key {
    Key {
        reporter: Reporter::Source,
        source: Side { namespace: "shop".into(), workload: workload.into(), ..Side::default() },
        destination: Side { namespace: "shop".into(), workload: "db".into(), ..Side::default() },
        service: "".into(),
        port: 5432,
        path: "hbone",
        is_denied: false,
        reason: None,
        policy: None,
        client: None,
    }
}

fn ends() -> [Example; 2] {
    [Example { pod: "web-1".into(), address: "10.0.0.1:40000".to_owned() }, Example::default()]
}

#[test]
fn what_is_taken_is_counted_once_and_what_is_open_stays() {
    let tally = Tally::default();
    let cell = tally.cell(key("web"), ends).unwrap();
    cell.open();
    cell.moved(3, 4);
    drop(cell);
    let (pairs, lost) = tally.take();
    assert_eq!((pairs.len(), lost), (1, 0));
    assert_eq!((pairs[0].opened, pairs[0].open, pairs[0].bytes_sent, pairs[0].bytes_received), (1, 1, 3, 4));
    assert_eq!(pairs[0].source.as_ref().unwrap().pod, "web-1");
    assert_eq!(tally.take().0, Vec::new(), "still open, nothing new");
    tally.retell();
    let (pairs, _) = tally.take();
    assert_eq!((pairs[0].opened, pairs[0].open), (0, 1), "somebody new hears that it is open");
    tally.cell(key("web"), ends).unwrap().close();
    let (pairs, _) = tally.take();
    assert_eq!((pairs[0].opened, pairs[0].open), (0, 0), "that it is closed is news");
    tally.retell();
    assert_eq!(tally.take().0, Vec::new(), "nothing is left of a pair that is closed and taken");
}

#[test]
fn pairs_beyond_the_bound_are_lost_and_said_so() {
    let tally = Tally::new(2);
    for workload in ["a", "b", "c", "d", "a"] {
        if let Some(cell) = tally.cell(key(workload), ends) {
            cell.end();
        }
    }
    let (pairs, lost) = tally.take();
    let ended: u64 = pairs.iter().map(|pair| pair.ended).sum();
    assert_eq!((pairs.len(), ended, lost), (2, 3, 2));
    assert!(tally.cell(key("c"), ends).is_some(), "taking makes room");
}

/// A scan of ports has its share, and everybody else is counted on.
#[test]
fn who_tries_every_port_takes_nobody_elses_place() {
    let tally = Tally::new(10);
    let seen = |workload: &str, port: u16| {
        let Some(cell) = tally.cell(Key { port, ..key(workload) }, ends) else { return false };
        cell.end();
        true
    };
    let scanned = (1..=100).filter(|port| seen("scanner", *port)).count();
    assert_eq!(scanned, 2);
    assert!(["a", "b", "c"].into_iter().all(|workload| seen(workload, 80)));
    let (pairs, lost) = tally.take();
    assert_eq!((pairs.len(), lost), (5, 98));
    assert!(seen("scanner", 7), "taking makes room again");
}

#[test]
fn callers_outside_the_mesh_are_told_apart_by_address_up_to_a_bound_and_then_together() {
    let tally = Tally::new(20);
    let from = |last: u8| {
        let address = IpAddr::from([192, 0, 2, last]);
        let source = Side { address: Some(address), ..Side::default() };
        let example = Example { pod: "".into(), address: format!("{address}:1000") };
        tally.cell(Key { source, ..key("") }, || [example, Example::default()]).unwrap().end();
    };
    (1..=4).for_each(from);
    from(1);
    let (mut pairs, lost) = tally.take();
    pairs.sort_by_key(|pair| (!pair.of_one_address, pair.source.as_ref().unwrap().address.clone()));
    let told: Vec<_> = pairs.iter().map(|pair| (pair.of_one_address, pair.ended)).collect();
    assert_eq!((told, lost), (vec![(true, 2), (true, 1), (false, 2)], 0));
}

/// What was let in and cut later is counted as one connection by whoever reads both pairs.
#[test]
fn a_connection_that_was_cut_is_told_as_one_that_had_been_opened() {
    let tally = Tally::default();
    let open = tally.cell(key("web"), ends).unwrap();
    open.open();
    open.close();
    drop(open);
    let denied = Key { is_denied: true, reason: Some(Reason::PolicyChanged), ..key("web") };
    tally.cell(denied.clone(), ends).unwrap().cut();
    tally.cell(denied, ends).unwrap().end();
    let (mut pairs, _) = tally.take();
    pairs.sort_by_key(|pair| pair.denied);
    let told: Vec<_> = pairs.iter().map(|pair| (pair.opened, pair.ended, pair.cut)).collect();
    assert_eq!(told, [(1, 0, 0), (0, 2, 1)]);
}

#[test]
fn verdicts_and_codes_are_pairs_of_their_own() {
    let tally = Tally::default();
    tally.cell(key("web"), ends).unwrap().end();
    let denied = Key { is_denied: true, reason: Some(Reason::PolicyDenied), ..key("web") };
    tally.cell(denied, ends).unwrap().end();
    let (mut pairs, _) = tally.take();
    pairs.sort_by_key(|pair| pair.denied);
    let told: Vec<_> = pairs.iter().map(|pair| (pair.denied, &*pair.code, pair.ended)).collect();
    assert_eq!(told, [(false, "", 1), (true, Reason::PolicyDenied.code(), 1)]);
}

#[test]
fn nothing_is_kept_while_nobody_counts() {
    let tally = Tally::default();
    tally.cell(key("web"), ends).unwrap().end();
    tally.count(false);
    assert!(tally.cell(key("web"), ends).is_none());
    assert_eq!(tally.take(), (Vec::new(), 0));
    tally.count(true);
    assert!(tally.cell(key("web"), ends).is_some());
}

#[test]
fn quantiles_are_right_to_a_bucket() {
    let mut counts = vec![0; BUCKETS];
    for ms in 1..=1000_u64 {
        counts[bucket_of(ms * 1000)] += 1;
    }
    for (q, exact) in [(0.5, 500.0), (0.95, 950.0), (0.99, 990.0)] {
        let found = quantile_ms(&counts, q).unwrap();
        assert!((exact / 1.5..=exact * 1.5).contains(&found), "p{q} is {found}, exactly {exact}");
    }
    assert_eq!(quantile_ms(&[0; BUCKETS], 0.5), None);
    assert_eq!(bucket_of(0), 0);
    assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
}
