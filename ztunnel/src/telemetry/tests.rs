//! What is counted of a connection: under what it was let in with, and once however it ends.

use std::net::SocketAddr;

use ambit_hbone::ConnId;
use ambit_runtime::access_log::Direction;
use ambit_types::Workload;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

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

/// Writes down which counters are touched, with their labels.
#[derive(Debug, Default)]
struct Touched(Mutex<Vec<String>>);

impl Recorder for Touched {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let labels: Vec<String> =
            key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        self.0.lock().unwrap().push(format!("{} {}", key.name(), labels.join(" ")));
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[track_caller]
fn counts_as(telemetry: &Telemetry, reason: Option<Reason>, plaintext: Option<PlaintextMode>, want: &[&str]) {
    let touched = Touched::default();
    metrics::with_local_recorder(&touched, || telemetry.let_in(&flow([192, 0, 2, 7]), reason, plaintext));
    assert_eq!(*touched.0.lock().unwrap(), want, "{reason:?} {plaintext:?}");
}

/// The mode is that of the port, whatever let the connection in; the alert on plaintext in a strict place reads both.
#[test]
fn plaintext_is_counted_by_the_mode_of_its_port_and_by_what_let_it_in() {
    let rows = [
        (Reason::PlaintextAccepted, PlaintextMode::Permissive, "mode=permissive cause=permissive"),
        (Reason::ProbeAdmitted, PlaintextMode::Permissive, "mode=permissive cause=probe"),
        (Reason::ProbeAdmitted, PlaintextMode::Strict, "mode=strict cause=probe"),
        (Reason::PlaintextAccepted, PlaintextMode::Strict, "mode=strict cause=permissive"),
    ];
    for (reason, mode, labels) in rows {
        let want = format!("ambit_plaintext_accepted_total namespace=shop {labels}");
        counts_as(&telemetry(), Some(reason), Some(mode), &[&want]);
    }
}

#[test]
fn what_only_a_breakglass_let_in_is_counted_with_or_without_an_identity() {
    let (by_it, admitted) =
        (Some(Reason::BreakglassAdmitted), "ambit_breakglass_admitted_total namespace=shop");
    let plaintext = "ambit_plaintext_accepted_total namespace=shop mode=permissive cause=breakglass";
    counts_as(&telemetry(), by_it, None, &[admitted]);
    counts_as(&telemetry(), by_it, Some(PlaintextMode::Permissive), &[admitted, plaintext]);
    counts_as(&telemetry(), None, None, &[]);
    // The node's tests of itself are no traffic.
    counts_as(&telemetry().hidden(), by_it, Some(PlaintextMode::Strict), &[]);
}
