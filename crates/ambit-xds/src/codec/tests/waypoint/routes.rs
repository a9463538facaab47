//! Frontends and destinations: every value the model can hold, and what is refused.

use std::time::Duration;

use ambit_route::model::*;
use ambit_types::{ServiceKey, Str};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::codec::{Notes, destination, frontend};
use crate::proto::ambit::waypoint::v1 as wire;

pub(super) fn word() -> impl Strategy<Value = Str> + Clone {
    "[a-z][a-z0-9.-]{0,6}".prop_map(Str::from)
}

fn text() -> impl Strategy<Value = Str> {
    ".{0,8}".prop_map(Str::from)
}

pub(super) fn service() -> impl Strategy<Value = ServiceKey> {
    (word(), word()).prop_map(|(namespace, hostname)| ServiceKey::new(namespace, hostname))
}

fn time() -> impl Strategy<Value = Duration> {
    prop_oneof![Just(0), any::<u64>(), 0..10_000_000_000u64].prop_map(Duration::from_nanos)
}

fn fraction() -> impl Strategy<Value = Fraction> {
    any::<(u32, u32)>().prop_map(|(numerator, denominator)| Fraction { numerator, denominator })
}

fn target() -> impl Strategy<Value = Target> {
    let faults = select(vec![
        BackendFault::BackendNotFound,
        BackendFault::InvalidKind,
        BackendFault::RefNotPermitted,
        BackendFault::UnsupportedProtocol,
    ]);
    prop_oneof![
        (service(), any::<u16>()).prop_map(|(service, port)| Target::Service { service, port }),
        (faults, text()).prop_map(|(fault, what)| Target::Invalid { fault, what }),
    ]
}

fn headers() -> impl Strategy<Value = HeaderChange> {
    let lines = || vec((word(), text()), 0..3);
    (lines(), lines(), vec(word(), 0..3)).prop_map(|(set, add, remove)| HeaderChange { set, add, remove })
}

fn path_change() -> impl Strategy<Value = Option<PathChange>> {
    option::of(prop_oneof![text().prop_map(PathChange::Full), text().prop_map(PathChange::Prefix)])
}

fn redirect() -> impl Strategy<Value = Redirect> {
    let scheme = option::of(select(vec![Scheme::Http, Scheme::Https]));
    let parts =
        (scheme, option::of(text()), path_change(), option::of(any::<u16>()), option::of(any::<u16>()));
    parts.prop_map(|(scheme, hostname, path, port, status)| Redirect { scheme, hostname, path, port, status })
}

fn cors() -> impl Strategy<Value = Cors> {
    let list = || vec(text(), 0..3);
    (list(), list(), list(), list(), any::<bool>(), option::of(any::<u32>())).prop_map(
        |(
            allow_origins,
            allow_methods,
            allow_headers,
            expose_headers,
            allow_credentials,
            max_age_seconds,
        )| {
            Cors {
                allow_origins,
                allow_methods,
                allow_headers,
                expose_headers,
                allow_credentials,
                max_age_seconds,
            }
        },
    )
}

fn filter() -> impl Strategy<Value = Filter> {
    prop_oneof![
        headers().prop_map(Filter::RequestHeaders),
        headers().prop_map(Filter::ResponseHeaders),
        redirect().prop_map(Filter::Redirect),
        (option::of(text()), path_change())
            .prop_map(|(hostname, path)| Filter::Rewrite(Rewrite { hostname, path })),
        (target(), fraction()).prop_map(|(target, fraction)| Filter::Mirror(Mirror { target, fraction })),
        cors().prop_map(Filter::Cors),
        (any::<u16>(), text()).prop_map(|(status, body)| Filter::Respond(Respond { status, body })),
        text().prop_map(|what| Filter::Unsupported { what }),
    ]
}

fn backend() -> impl Strategy<Value = Backend> {
    (target(), 0..=limits::WEIGHT_MAX, vec(filter(), 0..2)).prop_map(|(target, weight, filters)| Backend {
        target,
        weight,
        filters,
    })
}

fn value() -> impl Strategy<Value = ValueMatch> {
    prop_oneof![
        text().prop_map(ValueMatch::Exact),
        text().prop_map(ValueMatch::Regex),
        Just(ValueMatch::Present),
        Just(ValueMatch::Absent),
    ]
}

fn names() -> impl Strategy<Value = Vec<NameMatch>> {
    vec((word(), value()).prop_map(|(name, value)| NameMatch { name, value }), 0..3)
}

fn http_match() -> impl Strategy<Value = HttpMatch> {
    let path = prop_oneof![
        text().prop_map(PathMatch::Exact),
        text().prop_map(PathMatch::Prefix),
        text().prop_map(PathMatch::Regex),
    ];
    (option::of(path), option::of(text()), names(), names())
        .prop_map(|(path, method, headers, query)| HttpMatch { path, method, headers, query })
}

fn grpc_match() -> impl Strategy<Value = GrpcMatch> {
    (option::of(value()), option::of(value()), names()).prop_map(|(service, method, headers)| GrpcMatch {
        service,
        method,
        headers,
    })
}

fn retry() -> impl Strategy<Value = Retry> {
    let conditions = any::<[bool; 6]>().prop_map(
        |[connect_failure, refused_stream, reset, try_timeout, gateway_error, server_error]| Conditions {
            connect_failure,
            refused_stream,
            reset,
            try_timeout,
            gateway_error,
            server_error,
        },
    );
    let backoff =
        prop_oneof![Just(Backoff::default()), (time(), time()).prop_map(|(base, max)| Backoff { base, max })];
    let consent = select(vec![Consent::Idempotent, Consent::AnyMethod]);
    let codes = (vec(any::<u16>(), 0..3), vec(any::<u32>(), 0..3));
    (0..=limits::RETRIES_MAX, conditions, codes, backoff, consent).prop_map(
        |(attempts, conditions, (codes, grpc_codes), backoff, consent)| Retry {
            attempts,
            conditions,
            codes,
            grpc_codes,
            backoff,
            consent,
        },
    )
}

fn persistence() -> impl Strategy<Value = Persistence> {
    let life = select(vec![CookieLife::Session, CookieLife::Permanent]);
    let carrier = prop_oneof![
        (text(), life).prop_map(|(path, life)| PersistenceCarrier::Cookie { path, life }),
        Just(PersistenceCarrier::Header),
    ];
    (word(), carrier, option::of(time())).prop_map(|(name, carrier, absolute_timeout)| Persistence {
        name,
        carrier,
        absolute_timeout,
    })
}

fn rate_limit() -> impl Strategy<Value = RateLimit> {
    let key = prop_oneof![
        Just(LimitKey::Caller),
        Just(LimitKey::CallerNamespace),
        Just(LimitKey::CallerAddress),
        Just(LimitKey::Method),
        Just(LimitKey::Path),
        text().prop_map(LimitKey::Header),
        (text(), text()).prop_map(|(key, value)| LimitKey::Fixed { key, value }),
    ];
    let scope = prop_oneof![
        (any::<u32>(), time(), any::<u32>()).prop_map(|(requests, interval, burst)| LimitScope::Local {
            requests,
            interval,
            burst
        }),
        (service(), any::<u16>(), text(), time(), any::<bool>()).prop_map(
            |(service, port, domain, timeout, fail_open)| LimitScope::Global {
                service,
                port,
                domain,
                timeout,
                fail_open
            }
        ),
    ];
    (text(), vec(key, 0..3), scope).prop_map(|(name, keys, scope)| RateLimit { name, keys, scope })
}

fn fault() -> impl Strategy<Value = Fault> {
    let delay = (time(), fraction()).prop_map(|(pause, fraction)| Delay { pause, fraction });
    let abort = prop_oneof![any::<u16>().prop_map(Abort::Http), any::<u32>().prop_map(Abort::Grpc)];
    (option::of(delay), option::of((abort, fraction()))).prop_map(|(delay, abort)| Fault { delay, abort })
}

fn rule<M: std::fmt::Debug>(matches: impl Strategy<Value = M>) -> impl Strategy<Value = Rule<M>> {
    let timeouts = (option::of(time()), option::of(time()), option::of(time()));
    let timeouts =
        timeouts.prop_map(|(request, backend_request, idle)| Timeouts { request, backend_request, idle });
    let first = (option::of(word()), vec(matches, 0..3), vec(filter(), 0..3), vec(backend(), 0..3));
    let second = (
        timeouts,
        option::of(retry()),
        option::of(persistence()),
        vec(rate_limit(), 0..2),
        option::of(fault()),
    );
    (first, second).prop_map(
        |((name, matches, filters, backends), (timeouts, retry, persistence, rate_limits, fault))| Rule {
            name,
            matches,
            filters,
            backends,
            timeouts,
            retry,
            persistence,
            rate_limits,
            fault,
        },
    )
}

fn key() -> impl Strategy<Value = RouteKey> {
    (word(), word()).prop_map(|(namespace, name)| RouteKey { namespace, name })
}

fn route<M: std::fmt::Debug>(matches: impl Strategy<Value = M>) -> impl Strategy<Value = Route<M>> {
    (key(), any::<u64>(), vec(rule(matches), 0..3)).prop_map(|(key, created, rules)| Route {
        key,
        created,
        rules,
    })
}

fn stream() -> impl Strategy<Value = StreamRoute> {
    (key(), any::<u64>(), vec(word(), 0..3), vec(backend(), 0..3))
        .prop_map(|(key, created, hostnames, backends)| StreamRoute { key, created, hostnames, backends })
}

fn group() -> impl Strategy<Value = Group> {
    prop_oneof![
        vec(route(http_match()), 0..3).prop_map(Group::Http),
        vec(route(grpc_match()), 0..3).prop_map(Group::Grpc),
        vec(stream(), 0..3).prop_map(Group::Tls),
        vec(stream(), 0..3).prop_map(Group::Tcp),
    ]
}

pub(super) fn frontends() -> impl Strategy<Value = Frontend> {
    (service(), any::<u16>(), option::of(group()), btree_map(word(), group(), 0..2))
        .prop_map(|(service, port, producer, consumers)| Frontend { service, port, producer, consumers })
}

pub(super) fn destinations() -> impl Strategy<Value = Destination> {
    let key = prop_oneof![
        text().prop_map(HashKey::Header),
        text().prop_map(HashKey::Cookie),
        text().prop_map(HashKey::Query),
        Just(HashKey::SourceAddress),
    ];
    let balance = prop_oneof![
        Just(Balance::LeastRequest),
        Just(Balance::RoundRobin),
        Just(Balance::Random),
        vec(key, 0..3).prop_map(Balance::ConsistentHash),
    ];
    let slow_start =
        (time(), 1..=100u32).prop_map(|(window, least_percent)| SlowStart { window, least_percent });
    let some_time = || (1..u64::MAX).prop_map(Duration::from_nanos);
    let counted = || (1_000_000_000..=3_600_000_000_000u64).prop_map(Duration::from_nanos);
    let outlier = (any::<[u32; 5]>(), some_time(), some_time(), some_time(), 0..=100u32).prop_map(
        |(n, interval, ejection, ejection_max, ejected_percent_max)| Outlier {
            consecutive_errors: n[0],
            consecutive_gateway_errors: n[1],
            success_deviation_percent: n[2],
            success_requests_min: n[3],
            success_endpoints_min: n[4],
            interval,
            ejection,
            ejection_max,
            ejected_percent_max,
        },
    );
    let connections = any::<[u32; 4]>().prop_map(|n| Connections {
        connections_max: n[0],
        pending_max: n[1],
        requests_max: n[2],
        requests_per_connection_max: n[3],
    });
    let connections = prop_oneof![Just(Connections::default()), connections];
    let budget = (0..=100u32, counted(), any::<u32>(), some_time()).prop_map(
        |(percent, interval, min_retries, min_interval)| RetryBudget {
            percent,
            interval,
            min_retries,
            min_interval,
        },
    );
    let budget = prop_oneof![Just(RetryBudget::default()), budget];
    let policy = (
        balance,
        option::of(slow_start),
        option::of(outlier),
        connections,
        budget,
        option::of(persistence()),
    );
    (service(), policy).prop_map(
        |(service, (balance, slow_start, outlier, connections, retry_budget, persistence))| Destination {
            service,
            policy: DestinationPolicy {
                balance,
                slow_start,
                outlier,
                connections,
                retry_budget,
                persistence,
            },
        },
    )
}

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

#[test]
fn a_malformed_rule_is_refused_by_field() {
    use wire::path_match::Kind;
    let path = |kind| wire::HttpMatch { path: Some(wire::PathMatch { kind }), ..wire::HttpMatch::default() };
    let of = |change: &dyn Fn(&mut wire::Rule)| {
        with_rule(|one| change(one.rule.get_or_insert_default())).0.unwrap_err()
    };
    let matches = |list: Vec<wire::HttpMatch>| with_rule(|one| one.matches = list.clone()).0.unwrap_err();
    let retry = |one: wire::Retry| of(&|rule| rule.retry = Some(one.clone()));
    let rows = [
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
            with_filter(Some(wire::filter::Kind::Respond(wire::Respond {
                status: 200,
                body: "x".repeat(65_537),
            })))
            .0
            .unwrap_err(),
            "rule.filters[0].respond.body: has 65537 bytes, more than 65536",
        ),
    ];
    for (found, want) in rows {
        let want = format!("producer.http.routes[0].rules[0].{want}");
        assert!(found.starts_with(&want), "{found}\nis not\n{want}");
    }
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
