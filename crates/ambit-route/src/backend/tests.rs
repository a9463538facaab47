//! Rows of backends: shares, faults, what clients are told.

use std::collections::BTreeMap;

use ambit_types::ServiceKey;

use super::*;

fn to(name: &str) -> Target {
    Target::Service { service: ServiceKey::new("shop", name), port: 80 }
}

fn invalid(fault: BackendFault) -> Target {
    Target::Invalid { fault, what: "gone:80".into() }
}

fn backends(list: &[(Target, u32)]) -> Backends {
    let backend =
        |target: &Target| Backend { target: target.clone(), filters: Filters::default(), is_broken: false };
    Backends::new(list.iter().map(|(target, weight)| (backend(target), *weight)).collect())
}

/// How many of so many evenly spread draws lead where.
fn shares(backends: &Backends, times: u64) -> BTreeMap<String, u64> {
    let mut shares = BTreeMap::new();
    for step in 0..times {
        let draw = (2 * step + 1) * (u64::MAX / (2 * times));
        let outcome = match backends.pick(draw) {
            Ok(backend) => backend.target.to_string(),
            Err(failure) => failure.status().to_string(),
        };
        *shares.entry(outcome).or_default() += 1;
    }
    shares
}

#[test]
fn shares_are_exactly_the_weights() {
    use BackendFault::BackendNotFound;
    let gone = || invalid(BackendNotFound);
    for (list, want) in [
        (vec![(to("a"), 1)], vec![("shop/a:80", 1000)]),
        (vec![(to("a"), 70), (to("b"), 30)], vec![("shop/a:80", 700), ("shop/b:80", 300)]),
        (vec![(to("a"), 1), (to("b"), 1)], vec![("shop/a:80", 500), ("shop/b:80", 500)]),
        (vec![(to("a"), 1), (to("b"), 0)], vec![("shop/a:80", 1000)]),
        (vec![(to("a"), 0), (to("b"), 1)], vec![("shop/b:80", 1000)]),
        (vec![(to("a"), 999_000), (to("b"), 1_000)], vec![("shop/a:80", 999), ("shop/b:80", 1)]),
        (vec![(to("a"), 3), (gone(), 1)], vec![("shop/a:80", 750), ("500", 250)]),
        (vec![(to("a"), 1), (gone(), 0)], vec![("shop/a:80", 1000)]),
        (vec![(gone(), 1)], vec![("500", 1000)]),
        (vec![(to("a"), 0)], vec![("500", 1000)]),
        (vec![], vec![("500", 1000)]),
    ] {
        let got = shares(&backends(&list), 1000);
        let want = want.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
        assert_eq!(got, want, "{list:?}");
    }
}

#[test]
fn a_session_finds_its_backend_whatever_its_weight() {
    let list = backends(&[(to("a"), 1), (to("b"), 0)]);
    assert_eq!(list.of(&to("b")).map(|backend| &backend.target), Some(&to("b")));
    assert!(list.of(&to("c")).is_none());
    let gone = invalid(BackendFault::BackendNotFound);
    assert!(backends(&[(gone.clone(), 1)]).of(&gone).is_none());
}

#[test]
fn a_backend_whose_filters_are_wrong_refuses_its_share() {
    let broken = Backend { target: to("a"), filters: Filters::default(), is_broken: true };
    let list = Backends::new(vec![(broken, 1)]);
    assert_eq!(list.pick(0).map(|_| ()), Err(Failure::RuleInvalid));
}

#[test]
fn failures_are_told_in_the_clients_words() {
    let backend = Failure::BackendInvalid;
    for (failure, status, grpc, reason) in [
        (Failure::RouteNotFound, 404, 12, Some(Reason::RouteNotFound)),
        (Failure::RuleInvalid, 500, 14, Some(Reason::ConfigRejected)),
        (Failure::NoBackends, 500, 14, Some(Reason::BackendRefused)),
        (backend(BackendFault::BackendNotFound), 500, 14, Some(Reason::BackendRefused)),
        (backend(BackendFault::InvalidKind), 500, 14, Some(Reason::BackendRefused)),
        (backend(BackendFault::RefNotPermitted), 500, 14, Some(Reason::BackendRefused)),
        (backend(BackendFault::UnsupportedProtocol), 500, 14, Some(Reason::BackendRefused)),
        (Failure::NoWeight, 500, 14, Some(Reason::BackendRefused)),
        (Failure::NoEndpoint, 503, 14, Some(Reason::NoHealthyEndpoint)),
        (Failure::Unreachable, 503, 14, Some(Reason::ConnectRefused)),
        (Failure::Timeout, 504, 4, Some(Reason::UpstreamTimeout)),
        (Failure::Overflow, 503, 14, None),
        (Failure::RateLimited, 429, 8, None),
        (Failure::Injected(418), 418, 2, None),
        (Failure::Injected(503), 503, 14, None),
    ] {
        assert_eq!((failure.status(), failure.grpc_status(), failure.reason()), (status, grpc, reason));
    }
}
