//! Frontends and destinations that are refused, by field, and what is read as less than it says.

use ambit_route::model::*;

use crate::codec::{Notes, destination, frontend};
use crate::proto::ambit::waypoint::v1 as wire;

fn key_of(namespace: &str, name: &str) -> Option<wire::ObjectRef> {
    Some(wire::ObjectRef { namespace: namespace.into(), name: name.into() })
}

/// A frontend with one HTTP rule, changed.
fn with_rule(change: impl Fn(&mut wire::HttpRule)) -> (Result<Frontend, String>, Notes) {
    let mut rule = wire::HttpRule { rule: Some(wire::Rule::default()), ..wire::HttpRule::default() };
    change(&mut rule);
    let route = wire::HttpRoute { key: key_of("n", "r"), created: 1, rules: vec![rule] };
    let group = wire::Group { kind: Some(wire::group::Kind::Http(wire::HttpRoutes { routes: vec![route] })) };
    let message = wire::Frontend {
        service: Some(wire::ServiceRef { namespace: "n".into(), hostname: "h".into() }),
        port: 80,
        producer: Some(group),
        ..wire::Frontend::default()
    };
    let mut notes = Notes::default();
    (frontend::decode(&message, &mut notes).map_err(|e| e.to_string()), notes)
}

fn with_filter(kind: Option<wire::filter::Kind>) -> (Result<Frontend, String>, Notes) {
    with_rule(|one| {
        let filters = vec![wire::Filter { kind: kind.clone() }];
        one.rule = Some(wire::Rule { filters, ..wire::Rule::default() });
    })
}

/// Rows of what was found inside the one rule, and how it has to begin.
fn check(rows: &[(String, &str)]) {
    for (found, want) in rows {
        let want = format!("producer.http.routes[0].rules[0].{want}");
        assert!(found.starts_with(&want), "{found}\nis not\n{want}");
    }
}

#[test]
fn a_malformed_match_is_refused_by_field() {
    use wire::path_match::Kind;
    let path = |kind| wire::HttpMatch { path: Some(wire::PathMatch { kind }), ..wire::HttpMatch::default() };
    let matches = |list: Vec<wire::HttpMatch>| with_rule(|one| one.matches = list.clone()).0.unwrap_err();
    check(&[
        (matches(vec![wire::HttpMatch::default(); 65]), "matches: has 65 elements, more than 64"),
        (matches(vec![path(None)]), "matches[0].path.kind: is missing"),
        (
            matches(vec![path(Some(Kind::Exact("/".repeat(1025))))]),
            "matches[0].path.exact: has 1025 bytes, more than 1024",
        ),
        (
            matches(vec![path(Some(Kind::Regex("a".repeat(1025))))]),
            "matches[0].path.regex: has 1025 bytes, more than 1024",
        ),
        (
            matches(vec![wire::HttpMatch {
                headers: vec![wire::NameMatch { name: "a".into(), value: None }],
                ..wire::HttpMatch::default()
            }]),
            "matches[0].headers[0].kind: is missing",
        ),
        (
            matches(vec![wire::HttpMatch {
                query: vec![wire::NameMatch::default(); 17],
                ..wire::HttpMatch::default()
            }]),
            "matches[0].query: has 17 elements, more than 16",
        ),
    ]);
}

#[test]
fn a_malformed_rule_is_refused_by_field() {
    let of = |change: &dyn Fn(&mut wire::Rule)| {
        with_rule(|one| change(one.rule.get_or_insert_default())).0.unwrap_err()
    };
    let retry = |one: wire::Retry| of(&|rule| rule.retry = Some(one.clone()));
    let body = wire::Respond { status: 200, body: "x".repeat(65_537) };
    check(&[
        (of(&|rule| rule.filters = vec![wire::Filter::default(); 17]), "rule.filters: has 17 elements"),
        (of(&|rule| rule.backends = vec![wire::Backend::default(); 17]), "rule.backends: has 17 elements"),
        (of(&|rule| rule.backends = vec![wire::Backend::default()]), "rule.backends[0].target: is missing"),
        (
            of(&|rule| {
                let target = Some(wire::Target::default());
                rule.backends = vec![wire::Backend { target, weight: 1_000_001, filters: vec![] }];
            }),
            "rule.backends[0].weight: 1000001 is not between 0 and 1000000",
        ),
        (
            retry(wire::Retry { attempts: 21, ..wire::Retry::default() }),
            "rule.retry.attempts: 21 is not between 0 and 20",
        ),
        (
            retry(wire::Retry { codes: vec![500, 70_000], ..wire::Retry::default() }),
            "rule.retry.codes[1]: 70000 is not between 0 and 65535",
        ),
        (
            of(&|rule| rule.persistence = Some(wire::Persistence::default())),
            "rule.persistence.carrier: is missing",
        ),
        (
            of(&|rule| rule.rate_limits = vec![wire::RateLimit::default()]),
            "rule.rate_limits[0].scope: is missing",
        ),
        (
            of(&|rule| {
                let scope = Some(wire::rate_limit::Scope::Local(wire::LocalLimit::default()));
                let keys = vec![wire::LimitKey::default()];
                rule.rate_limits = vec![wire::RateLimit { name: String::new(), keys, scope }];
            }),
            "rule.rate_limits[0].keys[0].kind: is missing",
        ),
        (
            of(&|rule| {
                rule.fault = Some(wire::Fault { delay: Some(wire::Delay::default()), abort: None });
            }),
            "rule.fault.delay.fraction: is missing",
        ),
        (
            with_filter(Some(wire::filter::Kind::Respond(body))).0.unwrap_err(),
            "rule.filters[0].respond.body: has 65537 bytes, more than 65536",
        ),
    ]);
}

#[test]
fn a_frontend_that_cannot_be_named_or_grouped_is_refused() {
    let refused = |change: &dyn Fn(&mut wire::Frontend)| {
        let service = Some(wire::ServiceRef { namespace: "n".into(), hostname: "h".into() });
        let mut message = wire::Frontend { service, port: 80, ..wire::Frontend::default() };
        change(&mut message);
        frontend::decode(&message, &mut Notes::default()).unwrap_err().to_string()
    };
    let rows = [
        (refused(&|f| f.service = None), "service: is missing"),
        (
            refused(&|f| {
                f.service = Some(wire::ServiceRef { namespace: "n/x".into(), hostname: "h".into() })
            }),
            "service: \"n/x/h\" is not NAMESPACE/NAME",
        ),
        (refused(&|f| f.port = 65_616), "port: 65616 is no port, at most 65535"),
        (refused(&|f| f.producer = Some(wire::Group::default())), "producer.kind: is missing"),
        (
            refused(&|f| f.consumers = [(String::new(), wire::Group::default())].into()),
            "consumers[\"\"]: \"\" is no namespace",
        ),
        (refused(&|f| f.needs = vec!["moon".into()]), "needs: needs what this version does not know: moon"),
    ];
    for (found, want) in rows {
        assert_eq!(found, want);
    }
}

#[test]
fn what_is_new_answers_500_in_its_place() {
    let redirect = |scheme, path| {
        Some(wire::filter::Kind::Redirect(wire::Redirect { scheme, path, ..wire::Redirect::default() }))
    };
    let rows = [
        (with_filter(None), "a filter of an unknown kind"),
        (with_filter(redirect(7, None)), "a redirect to an unknown scheme"),
        (
            with_filter(redirect(1, Some(wire::PathChange::default()))),
            "a redirect to an unknown kind of path",
        ),
    ];
    for ((found, notes), want) in rows {
        let Some(Group::Http(routes)) = found.unwrap().producer else { panic!("HTTP routes") };
        assert_eq!(routes[0].rules[0].filters, [Filter::Unsupported { what: want.into() }]);
        assert_eq!(notes.as_slice(), [format!("filters: {want}; its rule answers 500")]);
    }
    let (found, notes) = with_rule(|one| {
        let backends =
            vec![wire::Backend { target: Some(wire::Target::default()), weight: 1, filters: vec![] }];
        one.rule = Some(wire::Rule { backends, ..wire::Rule::default() });
    });
    let Some(Group::Http(routes)) = found.unwrap().producer else { panic!("HTTP routes") };
    let target = &routes[0].rules[0].backends[0].target;
    assert!(matches!(target, Target::Invalid { fault: BackendFault::InvalidKind, .. }));
    assert!(!notes.is_empty());
}

#[test]
fn a_destination_outside_its_ranges_is_refused_by_field() {
    let refused = |change: &dyn Fn(&mut wire::Destination)| {
        let service = Some(wire::ServiceRef { namespace: "n".into(), hostname: "h".into() });
        let mut message = wire::Destination { service, ..wire::Destination::default() };
        change(&mut message);
        destination::decode(&message, &mut Notes::default()).unwrap_err().to_string()
    };
    let outlier = wire::Outlier {
        interval_nanos: 1,
        ejection_nanos: 1,
        ejection_max_nanos: 1,
        ..wire::Outlier::default()
    };
    let budget = wire::RetryBudget {
        percent: 20,
        interval_nanos: 1_000_000_000,
        min_retries: 0,
        min_interval_nanos: 1,
    };
    let rows = [
        (refused(&|d| d.service = None), "service: is missing"),
        (
            refused(&|d| d.slow_start = Some(wire::SlowStart { window_nanos: 0, least_percent: 0 })),
            "slow_start.least_percent: 0 is not between 1 and 100",
        ),
        (
            refused(&|d| d.outlier = Some(wire::Outlier { ejected_percent_max: 101, ..outlier })),
            "outlier.ejected_percent_max: 101 is not between 0 and 100",
        ),
        (
            refused(&|d| d.outlier = Some(wire::Outlier { interval_nanos: 0, ..outlier })),
            "outlier.interval_nanos: 0ns is not between 1ns and",
        ),
        (
            refused(&|d| d.retry_budget = Some(wire::RetryBudget { percent: 101, ..budget })),
            "retry_budget.percent: 101 is not between 0 and 100",
        ),
        (
            refused(&|d| d.retry_budget = Some(wire::RetryBudget { interval_nanos: 5, ..budget })),
            "retry_budget.interval_nanos: 5ns is not between 1s and 3600s",
        ),
        (refused(&|d| d.needs = vec!["moon".into()]), "needs: needs what this version does not know: moon"),
    ];
    for (found, want) in rows {
        assert!(found.starts_with(want), "{found}\nis not\n{want}");
    }
}

#[test]
fn balancing_of_an_unknown_kind_is_the_default() {
    let service = Some(wire::ServiceRef { namespace: "n".into(), hostname: "h".into() });
    let decode = |kind| {
        let message = wire::Destination {
            service: service.clone(),
            balance: Some(wire::Balance { kind }),
            ..wire::Destination::default()
        };
        let mut notes = Notes::default();
        (destination::decode(&message, &mut notes).unwrap().policy.balance, notes.as_slice().len())
    };
    assert_eq!(decode(None), (Balance::LeastRequest, 1));
    let keys = vec![wire::HashKey::default()];
    let hash = wire::balance::Kind::ConsistentHash(wire::ConsistentHash { keys });
    assert_eq!(decode(Some(hash)), (Balance::ConsistentHash(vec![]), 1));
}
