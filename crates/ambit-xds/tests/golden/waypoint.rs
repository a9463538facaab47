//! `ambit.waypoint.v1`: routes, destinations, policies and rules for tokens, from the types of the models.

use std::sync::Arc;
use std::time::Duration;

use ambit_policy::http::model as policy;
use ambit_policy::http::provider;
use ambit_policy::jwt::{self, Keys, Location};
use ambit_policy::model::{StringMatch, Values};
use ambit_route::model::*;
use ambit_types::{PolicyKey, ServiceKey};
use ambit_xds::codec::{
    self, HttpPolicy, PolicyTarget, RequestAuthentication, destination, frontend, http_policy,
    request_authentication,
};

use super::bytes::{bytes, check, hex, message, varint};

/// A service `n/h` in a field.
fn service(field: u64) -> Vec<u8> {
    message(field, [bytes(1, "n"), bytes(2, "h")])
}

/// An object `n/x` in field 1.
fn object() -> Vec<u8> {
    message(1, [bytes(1, "n"), bytes(2, "x")])
}

fn key() -> ServiceKey {
    ServiceKey::new("n", "h")
}

fn http(rule: Rule<HttpMatch>) -> Frontend {
    let route = Route { key: RouteKey::new("n", "x"), created: 7, rules: vec![rule] };
    Frontend {
        service: key(),
        port: 80,
        producer: Some(Group::Http(vec![route])),
        consumers: Default::default(),
    }
}

/// What a frontend of one HTTP rule is written as.
fn written<const N: usize>(rule: [Vec<u8>; N]) -> Vec<u8> {
    let route = message(1, [object(), varint(2, 7), message(3, rule)]);
    [service(1), varint(2, 80), message(3, [message(1, [route])])].concat()
}

#[test]
fn a_rule_with_everything() {
    let name = |name: &str, value| NameMatch { name: name.into(), value };
    let target = || Target::Service { service: key(), port: 81 };
    let rule = Rule {
        name: Some("r".into()),
        matches: vec![HttpMatch {
            path: Some(PathMatch::Prefix("/a".into())),
            method: Some("GET".into()),
            headers: vec![name("v", ValueMatch::Exact("2".into())), name("w", ValueMatch::Absent)],
            query: vec![name("q", ValueMatch::Present)],
        }],
        filters: vec![Filter::RequestHeaders(HeaderChange {
            set: vec![("s".into(), "1".into())],
            add: vec![],
            remove: vec!["t".into()],
        })],
        backends: vec![Backend { target: target(), weight: 9, filters: vec![] }],
        timeouts: Timeouts { request: Some(Duration::from_nanos(5)), ..Timeouts::default() },
        retry: Some(Retry { attempts: 3, ..Retry::of_codes(3, vec![500]) }),
        persistence: Some(Persistence {
            name: "c".into(),
            carrier: PersistenceCarrier::Cookie { path: "/".into(), life: CookieLife::Permanent },
            absolute_timeout: Some(Duration::from_nanos(6)),
        }),
        rate_limits: vec![RateLimit {
            name: "l".into(),
            keys: vec![LimitKey::Caller, LimitKey::Header("k".into())],
            scope: LimitScope::Local { requests: 1, interval: Duration::from_nanos(2), burst: 3 },
        }],
        fault: Some(Fault { delay: None, abort: Some((Abort::Http(418), Fraction::percent(1))) }),
    };
    let matched = message(
        1,
        [
            message(1, [bytes(2, "/a")]),
            bytes(2, "GET"),
            message(3, [bytes(1, "v"), message(2, [bytes(1, "2")])]),
            message(3, [bytes(1, "w"), message(2, [message(4, [])])]),
            message(4, [bytes(1, "q"), message(2, [message(3, [])])]),
        ],
    );
    let changes = message(1, [message(1, [bytes(1, "s"), bytes(2, "1")]), bytes(3, "t")]);
    let backend = message(3, [message(1, [message(1, [service(1), varint(2, 81)])]), varint(2, 9)]);
    let conditions = message(2, [varint(1, 1), varint(2, 1), varint(3, 1), varint(4, 1)]);
    let cookie = message(2, [bytes(1, "/"), varint(2, 1)]);
    let keys = [message(2, [message(1, [])]), message(2, [bytes(6, "k")])].concat();
    let local = message(3, [varint(1, 1), varint(2, 2), varint(3, 3)]);
    let want = message(
        2,
        [
            bytes(1, "r"),
            message(2, [changes]),
            backend,
            message(4, [varint(1, 5)]),
            message(5, [varint(1, 3), conditions, bytes(3, hex("f4 03"))]),
            message(6, [bytes(1, "c"), cookie, varint(4, 6)]),
            message(7, [bytes(1, "l"), keys, local]),
            message(8, [message(2, [varint(1, 418), message(3, [varint(1, 1), varint(2, 100)])])]),
        ],
    );
    check("rule", &frontend::encode(&http(rule)), written([matched, want]));
}

#[test]
fn each_filter() {
    let target = Target::Invalid { fault: BackendFault::RefNotPermitted, what: "w".into() };
    let redirect = Redirect {
        scheme: Some(Scheme::Https),
        hostname: Some("o".into()),
        path: Some(PathChange::Full("/f".into())),
        port: Some(8443),
        status: Some(308),
    };
    let cors = Cors {
        allow_origins: vec!["*".into()],
        allow_credentials: true,
        max_age_seconds: Some(0),
        ..Cors::default()
    };
    let rows = [
        (Filter::ResponseHeaders(HeaderChange::default()), message(2, [])),
        (
            Filter::Redirect(redirect),
            message(
                3,
                [varint(1, 2), bytes(2, "o"), message(3, [bytes(1, "/f")]), varint(4, 8443), varint(5, 308)],
            ),
        ),
        (
            Filter::Rewrite(Rewrite { hostname: None, path: Some(PathChange::Prefix("".into())) }),
            message(4, [message(2, [bytes(2, "")])]),
        ),
        (
            Filter::Mirror(Mirror { target, fraction: Fraction::ALL }),
            message(
                5,
                [
                    message(1, [message(2, [varint(1, 2), bytes(2, "w")])]),
                    message(2, [varint(1, 100), varint(2, 100)]),
                ],
            ),
        ),
        (Filter::Cors(cors), message(6, [bytes(1, "*"), varint(5, 1), varint(6, 0)])),
        (
            Filter::Respond(Respond { status: 200, body: "b".into() }),
            message(7, [varint(1, 200), bytes(2, "b")]),
        ),
        (Filter::Unsupported { what: "u".into() }, bytes(8, "u")),
    ];
    for (filter, want) in rows {
        let name = format!("{filter:?}");
        let rule = Rule { filters: vec![filter], ..Rule::default() };
        check(&name, &frontend::encode(&http(rule)), written([message(2, [bytes(2, want)])]));
    }
}

#[test]
fn groups_of_each_kind_and_of_other_namespaces() {
    let stream = StreamRoute {
        key: RouteKey::new("n", "x"),
        created: 0,
        hostnames: vec!["*.a".into()],
        backends: vec![],
    };
    let grpc = Route {
        key: RouteKey::new("n", "x"),
        created: 0,
        rules: vec![Rule {
            matches: vec![GrpcMatch {
                service: Some(ValueMatch::Exact("s".into())),
                method: Some(ValueMatch::Regex("m".into())),
                headers: vec![],
            }],
            ..Rule::default()
        }],
    };
    let one = Frontend {
        service: key(),
        port: 65535,
        producer: Some(Group::Tls(vec![stream])),
        consumers: [("a".into(), Group::Grpc(vec![grpc])), ("b".into(), Group::Tcp(vec![]))].into(),
    };
    let stream = message(1, [object(), bytes(3, "*.a")]);
    let matched = message(1, [message(1, [bytes(1, "s")]), message(2, [bytes(2, "m")])]);
    let grpc = message(1, [object(), message(3, [matched])]);
    let want = [
        service(1),
        hex("10 ff ff 03"),
        message(3, [message(3, [stream])]),
        message(4, [bytes(1, "a"), message(2, [message(2, [grpc])])]),
        message(4, [bytes(1, "b"), message(2, [message(4, [])])]),
    ];
    check("groups", &frontend::encode(&one), want.concat());
}

#[test]
fn a_destination_with_everything_and_one_with_nothing() {
    let none = Destination { service: key(), policy: DestinationPolicy::default() };
    check("defaults", &destination::encode(&none), service(1));
    let policy = DestinationPolicy {
        balance: Balance::ConsistentHash(vec![HashKey::Cookie("c".into()), HashKey::SourceAddress]),
        slow_start: Some(SlowStart { window: Duration::from_nanos(1), least_percent: 10 }),
        outlier: Some(Outlier {
            consecutive_errors: 1,
            consecutive_gateway_errors: 2,
            success_deviation_percent: 3,
            success_requests_min: 4,
            success_endpoints_min: 5,
            interval: Duration::from_nanos(6),
            ejection: Duration::from_nanos(7),
            ejection_max: Duration::from_nanos(8),
            ejected_percent_max: 9,
        }),
        connections: Connections {
            connections_max: 1,
            pending_max: 2,
            requests_max: 3,
            requests_per_connection_max: 4,
        },
        retry_budget: RetryBudget {
            percent: 0,
            interval: Duration::from_secs(1),
            min_retries: 2,
            min_interval: Duration::from_nanos(3),
        },
        persistence: Some(Persistence {
            name: "h".into(),
            carrier: PersistenceCarrier::Header,
            absolute_timeout: None,
        }),
    };
    let want = [
        service(1),
        message(2, [message(4, [message(1, [bytes(2, "c")]), message(1, [message(4, [])])])]),
        message(3, [varint(1, 1), varint(2, 10)]),
        bytes(4, (1..=9).flat_map(|n| varint(n, n)).collect::<Vec<u8>>()),
        bytes(5, (1..=4).flat_map(|n| varint(n, n)).collect::<Vec<u8>>()),
        message(6, [varint(2, 1_000_000_000), varint(3, 2), varint(4, 3)]),
        message(7, [bytes(1, "h"), message(3, [])]),
    ];
    check("everything", &destination::encode(&Destination { service: key(), policy }), want.concat());
}

#[test]
fn a_policy_with_every_attribute() {
    use policy::Condition as C;
    let text = || Values { any: vec![StringMatch::Exact("a".into())], none: vec![StringMatch::Presence] };
    let texts = [message(1, [bytes(1, "a")]), message(2, [message(4, [])])].concat();
    let net = || Values { any: vec!["10.0.0.0/8".parse().unwrap()], none: vec![] };
    let nets = message(1, [bytes(1, [10, 0, 0, 0]), varint(2, 8)]);
    let account = policy::ServiceAccount { namespace: "n".into(), name: "x".into() };
    let paths = Values {
        any: vec![policy::PathMatch::Text(StringMatch::Prefix("/p".into()))],
        none: vec![policy::PathMatch::Template(policy::Template::parse("/{*}").unwrap())],
    };
    let principal = policy::RequestPrincipal::parse("i/*").unwrap();
    let claim = jwt::ClaimPath::new(["c", "d"]).unwrap();
    let header = policy::HeaderName::parse("X-H").unwrap();
    let rows = [
        (C::Principal(text()), bytes(1, &texts)),
        (
            C::Namespace(Values { any: vec![policy::Glob::new("n*")], none: vec![] }),
            message(2, [bytes(1, "n*")]),
        ),
        (C::ServiceAccount(Values { any: vec![account], none: vec![] }), message(3, [object()])),
        (C::TrustDomain(text()), bytes(4, &texts)),
        (C::SourceIp(net()), bytes(5, &nets)),
        (C::RemoteIp(net()), bytes(6, &nets)),
        (C::DestinationIp(net()), bytes(7, &nets)),
        (C::DestinationPort(Values { any: vec![80], none: vec![443] }), hex("42 07 0a 01 50 12 02 bb 03")),
        (C::ServerName(text()), bytes(9, &texts)),
        (C::Host(text()), bytes(10, &texts)),
        (C::Method(text()), bytes(11, &texts)),
        (
            C::Path(paths),
            message(12, [message(1, [message(1, [bytes(2, "/p")])]), message(2, [bytes(2, "/{*}")])]),
        ),
        (C::Header(header, text()), message(13, [bytes(1, "x-h"), bytes(2, &texts)])),
        (C::RequestPrincipal(Values { any: vec![], none: vec![principal] }), message(14, [bytes(2, "i/*")])),
        (C::Audience(text()), bytes(15, &texts)),
        (C::Presenter(text()), bytes(16, &texts)),
        (C::Claim(claim, text()), message(17, [bytes(1, "c"), bytes(1, "d"), bytes(2, &texts)])),
    ];
    for (condition, want) in rows {
        let name = format!("{condition:?}");
        let clauses = vec![policy::Clause { alternatives: vec![vec![condition]] }];
        let rules = vec![policy::Rule { clauses, unevaluable: vec![] }];
        let message = http_policy::encode(&attached(policy::Action::Deny, rules));
        // The alternative of the clause of the rule.
        let rule = bytes(5, bytes(1, bytes(1, bytes(1, want))));
        let needs = message.needs.iter().flat_map(|need| bytes(15, need)).collect();
        check(&name, &message, [object(), hex("12 02 12 00 18 02"), rule, needs].concat());
    }
}

fn attached(action: policy::Action, rules: Vec<policy::Rule>) -> HttpPolicy {
    let policy = policy::Policy { key: PolicyKey::new("n", "x"), action, rules, dry_run: false };
    HttpPolicy { targets: vec![PolicyTarget::Waypoint], policy: Arc::new(policy) }
}

#[test]
fn actions_targets_and_what_a_reader_has_to_know() {
    use policy::Action;
    let waypoint = hex("12 02 12 00");
    let rule = policy::Rule { clauses: vec![], unevaluable: vec!["m".into()] };
    let rows = [
        (Action::Allow, hex("18 01"), vec![]),
        (Action::Deny, hex("18 02"), vec![]),
        (Action::Audit, hex("18 03"), bytes(15, "action.audit")),
        (Action::Custom("p".into()), hex("18 04 22 01 70"), bytes(15, "action.custom")),
    ];
    for (action, written, needs) in rows {
        let name = format!("{action:?}");
        let one = attached(action, vec![rule.clone()]);
        let want = [object(), waypoint.clone(), written, hex("2a 03 12 01 6d"), needs];
        check(&name, &http_policy::encode(&one), want.concat());
    }
    let mut one = attached(Action::Allow, vec![]);
    Arc::make_mut(&mut one.policy).dry_run = true;
    one.targets = vec![PolicyTarget::Service(key())];
    let want = [object(), message(2, [service(1)]), hex("18 01 30 01"), bytes(15, "dry-run")];
    check("dry run", &http_policy::encode(&one), want.concat());
}

#[test]
fn rules_for_tokens() {
    let header = |name: &str| policy::HeaderName::parse(name).unwrap();
    let rule = |keys| jwt::Rule {
        namespace: Default::default(),
        issuer: "i".into(),
        audiences: vec!["a".into()],
        keys,
        fetch_timeout: Duration::from_nanos(1),
        locations: vec![
            Location::Header { name: header("h"), prefix: "P ".into() },
            Location::Param("p".into()),
            Location::Cookie("c".into()),
        ],
        forward_original_token: true,
        output_payload: Some(header("o")),
        output_claims: vec![(header("k"), "l".into())],
        space_delimited: vec!["s".into()],
    };
    let rows = [
        (Keys::Inline("{}".into()), bytes(3, "{}")),
        (Keys::Uri("http://k".into()), bytes(4, "http://k")),
        (Keys::Discovery, message(5, [])),
    ];
    for (keys, written) in rows {
        let name = format!("{keys:?}");
        let one = RequestAuthentication {
            key: PolicyKey::new("n", "x"),
            targets: vec![PolicyTarget::Waypoint],
            rules: vec![rule(keys)],
        };
        let want = message(
            3,
            [
                bytes(1, "i"),
                bytes(2, "a"),
                written,
                varint(6, 1),
                message(7, [message(1, [bytes(1, "h"), bytes(2, "P ")])]),
                message(7, [bytes(2, "p")]),
                message(7, [bytes(3, "c")]),
                varint(8, 1),
                bytes(9, "o"),
                message(10, [bytes(1, "k"), bytes(2, "l")]),
                bytes(11, "s"),
            ],
        );
        check(&name, &request_authentication::encode(&one), [object(), hex("12 02 12 00"), want].concat());
    }
}

#[test]
fn providers() {
    let all = |check| provider::Provider {
        name: "o".into(),
        service: provider::Address { namespace: Some("n".into()), hostname: "h.b".into() },
        port: 1,
        timeout: Duration::from_millis(1),
        fail_open: true,
        status_on_error: 400,
        check,
    };
    let head = [
        bytes(1, "o"),
        bytes(2, "n"),
        bytes(3, "h.b"),
        varint(4, 1),
        varint(5, 1_000_000),
        varint(6, 1),
        varint(7, 400),
    ]
    .concat();
    let header = |name: &str| policy::HeaderName::parse(name).expect("a name");
    let grpc = [head.clone(), message(8, [])].concat();
    check("gRPC", &codec::provider::encode(&all(provider::Check::Grpc)), grpc);
    let exact = |name: &str| vec![StringMatch::Exact(name.into())];
    let http = provider::HttpCheck {
        path_prefix: "/p".into(),
        request_headers: vec![StringMatch::Prefix("a-".into()), StringMatch::Suffix("-b".into())],
        additional_headers: [(header("k"), "v".into())].into(),
        upstream_on_allow: exact("u"),
        downstream_on_allow: exact("y"),
        downstream_on_deny: exact("z"),
    };
    let written = message(
        9,
        [
            bytes(1, "/p"),
            bytes(2, "a-*"),
            bytes(2, "*-b"),
            message(3, [bytes(1, "k"), bytes(2, "v")]),
            bytes(4, "u"),
            bytes(5, "y"),
            bytes(6, "z"),
        ],
    );
    check("HTTP", &codec::provider::encode(&all(provider::Check::Http(http))), [head, written].concat());
}

#[test]
fn type_urls() {
    let types = [
        (frontend::encode_any(&http(Rule::default())).type_url, "Frontend"),
        (http_policy::encode_any(&attached(policy::Action::Allow, vec![])).type_url, "HttpPolicy"),
    ];
    for (url, name) in types {
        assert_eq!(url, format!("type.googleapis.com/ambit.waypoint.v1.{name}"));
    }
    let urls = ambit_xds::Kind::WAYPOINT.map(ambit_xds::Kind::url);
    let want = ["ExtensionProvider", "RequestAuthentication", "HttpPolicy", "Destination", "Frontend"];
    assert_eq!(urls[1..], want.map(|name| format!("type.googleapis.com/ambit.waypoint.v1.{name}")));
}
