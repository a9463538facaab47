//! What summaries count of a connection: under what it was let in with, and once however it ends.

use std::net::SocketAddr;

use ambit_hbone::ConnId;
use ambit_types::Workload;

use super::*;
use crate::flow::{End, Path, Route};

#[derive(Debug)]
struct Fresh;

impl StaleFor for Fresh {
    fn stale_for(&self) -> Option<u64> {
        None
    }
}

fn telemetry() -> Telemetry {
    Telemetry::new("n1", 10, Arc::new(Fresh))
}

/// Somebody without a name calls a pod.
fn flow(from: [u8; 4]) -> Arc<Flow> {
    let src = End { addr: Some(SocketAddr::from((from, 4000))), ..End::default() };
    let own = Some(Arc::new(Workload::new("Kubernetes//Pod/shop/cart", "shop", "cart")));
    let dst = End { addr: Some(SocketAddr::from(([10, 0, 0, 1], 80))), workload: own, ..End::default() };
    let route = Route { dst, ..Route::default() };
    let id = ConnId::from_random(1);
    Arc::new(Flow::new(id, Direction::Inbound, Path::Plaintext, src, route, clock::monotonic()))
}

fn admitted(reason: Reason) -> Outcome {
    Outcome { reason: Some(reason), ..Outcome::default() }
}

/// What is told of each pair: code, opened, ended, and how many of those had been let in and were cut.
fn told(telemetry: &Telemetry) -> Vec<(String, u64, u64, u64)> {
    let (pairs, _) = telemetry.tally().take();
    let mut told: Vec<_> =
        pairs.into_iter().map(|pair| (pair.code, pair.opened, pair.ended, pair.cut)).collect();
    told.sort();
    told
}

/// Rules are made of what was let in: what only a break-glass let in must not look like the rest.
#[test]
fn what_a_breakglass_let_in_is_counted_as_such_from_the_start() {
    let telemetry = telemetry();
    let by_it = admitted(Reason::BreakglassAdmitted);
    let flow = flow([192, 0, 2, 7]);
    telemetry.opened(1, &flow, Some(&by_it));
    assert_eq!(told(&telemetry), [("AMB2305".to_owned(), 1, 0, 0)]);
    telemetry.ended(1, &flow, by_it);
    assert_eq!(told(&telemetry), [("AMB2305".to_owned(), 0, 1, 0)]);
}

#[test]
fn of_what_ended_badly_it_is_told_whether_it_had_been_let_in() {
    let telemetry = telemetry();
    let cut = flow([192, 0, 2, 7]);
    telemetry.opened(1, &cut, Some(&admitted(Reason::PlaintextAccepted)));
    telemetry.ended(1, &cut, Outcome::failed(Reason::PolicyChanged, "cut"));
    telemetry.failed(&flow([192, 0, 2, 7]), Outcome::failed(Reason::PolicyDenied, "refused"));
    let (accepted, denied, changed) =
        (Reason::PlaintextAccepted.code(), Reason::PolicyDenied.code(), Reason::PolicyChanged.code());
    let mut want = [(accepted, 1, 0, 0), (denied, 0, 1, 0), (changed, 0, 1, 1)]
        .map(|(code, opened, ended, cut)| (code.to_owned(), opened, ended, cut));
    want.sort();
    assert_eq!(told(&telemetry), want);
    let records = telemetry.ring().last(10).0;
    let opened: Vec<_> = records.iter().map(|record| record.to_json()["opened"].clone()).collect();
    assert_eq!(opened, [true, false]);
}

#[test]
fn callers_without_a_name_are_pairs_by_their_addresses() {
    let telemetry = telemetry();
    for last in [7, 8, 7] {
        telemetry.refused(&flow([192, 0, 2, last]), Outcome::failed(Reason::PlaintextRefused, "refused"));
    }
    let (mut pairs, _) = telemetry.tally().take();
    pairs.sort_by_key(|pair| pair.ended);
    let counts: Vec<_> = pairs.iter().map(|pair| (pair.of_one_address, pair.ended)).collect();
    assert_eq!(counts, [(true, 1), (true, 2)]);
}
