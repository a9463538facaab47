//! Frontends and destinations: every value the model can hold.

use std::time::Duration;

use ambit_route::model::*;
use ambit_types::{ServiceKey, Str};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

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
        text().prop_map(PathMatch::Start),
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
        vec(route(http_match()), 0..3).prop_map(Group::Listed),
        vec(route(grpc_match()), 0..3).prop_map(Group::Grpc),
        vec(stream(), 0..3).prop_map(Group::Tls),
        vec(stream(), 0..3).prop_map(Group::Tcp),
        vec(route(http_match()), 0..3).prop_map(Group::Unrouted),
    ]
}

pub(super) fn frontends() -> impl Strategy<Value = Frontend> {
    (service(), any::<u16>(), option::of(group()), btree_map(word(), group(), 0..2))
        .prop_map(|(service, port, producer, consumers)| Frontend { service, port, producer, consumers })
}

fn balance() -> impl Strategy<Value = Balance> {
    let key = prop_oneof![
        text().prop_map(HashKey::Header),
        text().prop_map(HashKey::Cookie),
        text().prop_map(HashKey::Query),
        Just(HashKey::SourceAddress),
    ];
    prop_oneof![
        Just(Balance::LeastRequest),
        Just(Balance::RoundRobin),
        Just(Balance::Random),
        vec(key, 0..3).prop_map(Balance::ConsistentHash),
    ]
}

/// A time that is not zero.
fn some_time() -> impl Strategy<Value = Duration> {
    (1..u64::MAX).prop_map(Duration::from_nanos)
}

fn outlier() -> impl Strategy<Value = Outlier> {
    (any::<[u32; 5]>(), some_time(), some_time(), some_time(), 0..=100u32).prop_map(
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
    )
}

fn connections() -> impl Strategy<Value = Connections> {
    let connections = any::<[u32; 4]>().prop_map(|n| Connections {
        connections_max: n[0],
        pending_max: n[1],
        requests_max: n[2],
        requests_per_connection_max: n[3],
    });
    prop_oneof![Just(Connections::default()), connections]
}

fn budget() -> impl Strategy<Value = RetryBudget> {
    let counted = || (1_000_000_000..=3_600_000_000_000u64).prop_map(Duration::from_nanos);
    let budget = (0..=100u32, counted(), any::<u32>(), some_time()).prop_map(
        |(percent, interval, min_retries, min_interval)| RetryBudget {
            percent,
            interval,
            min_retries,
            min_interval,
        },
    );
    prop_oneof![Just(RetryBudget::default()), budget]
}

pub(super) fn destinations() -> impl Strategy<Value = Destination> {
    let slow_start =
        (time(), 1..=100u32).prop_map(|(window, least_percent)| SlowStart { window, least_percent });
    let policy = (
        balance(),
        option::of(slow_start),
        option::of(outlier()),
        connections(),
        budget(),
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
