//! What a TrafficPolicy says of the routes and the service it targets, and which of several counts.

use std::time::Duration;

use ambit_control::input::{Event, Key, Kind, Name};
use ambit_control::waypoints::resources::FrontendKey;
use ambit_route::model::{
    Abort, Balance, Conditions, Consent, Fraction, Group, HashKey, LimitKey, LimitScope, RateLimit,
};

use super::{BOUND, key, put, says};

const CALM: &str = "
apiVersion: ambit.internal/v1
kind: TrafficPolicy
metadata: {name: calm, namespace: shop}
spec:
  targetRefs: [{group: '', kind: Service, name: web}]
  retry:
    attempts: 3
    conditions: [connect-failure, server-error]
    grpcCodes: [14]
    backoff: {base: 50ms}
    consent: AnyMethod
  rateLimits:
  - {name: callers, keys: [{type: Caller}], local: {requests: 100, interval: 1m, burst: 10}}
  - {name: users, keys: [{type: Header, name: x-user}], global: {service: {name: limits, port: 8081}, domain: shop}}
  fault:
    delay: {pause: 2s, percent: 10}
    abort: {httpStatus: 503, percent: 1}
  idleTimeout: 5m
  retryBudget: {percent: 10}
  outlier: {consecutiveErrors: 3, ejection: 10s}
  connections: {requestsMax: 100, pendingMax: 10}
  balance: {type: ConsistentHash, hashKeys: [{type: Cookie, name: session}, {type: SourceAddress}], slowStart: {window: 30s}}
  sessionPersistence: {sessionName: stay}
";

#[test]
fn a_traffic_policy_says_what_the_gateway_api_cannot() {
    let mut index = BOUND.index();
    let delta = put(&mut index, CALM);
    let told = &delta.waypoints[&Name::new("shop", "wp")].changed;
    let frontend = &told.frontends[&FrontendKey { service: key("web"), port: 80 }];
    let Some(Group::Http(routes)) = &frontend.producer else { panic!("{frontend:?}") };
    let rule = &routes[0].rules[0];
    let retry = rule.retry.as_ref().expect("a retry");
    let conditions = Conditions { connect_failure: true, server_error: true, ..Conditions::default() };
    assert_eq!((retry.attempts, retry.conditions, retry.consent), (3, conditions, Consent::AnyMethod));
    assert_eq!(
        (retry.backoff.base, retry.backoff.max),
        (Duration::from_millis(50), Duration::from_millis(250))
    );
    let local = LimitScope::Local { requests: 100, interval: Duration::from_secs(60), burst: 10 };
    let callers = RateLimit { name: "shop/calm/callers".into(), keys: vec![LimitKey::Caller], scope: local };
    assert_eq!(rule.rate_limits[0], callers);
    let LimitScope::Global { service, fail_open, .. } = &rule.rate_limits[1].scope else { panic!() };
    assert_eq!((service, *fail_open), (&key("limits"), false));
    let fault = rule.fault.as_ref().expect("a fault");
    assert_eq!(fault.abort, Some((Abort::Http(503), Fraction::percent(1))));
    assert_eq!(rule.timeouts.idle, Some(Duration::from_secs(300)));

    let destination = &told.destinations[&key("web")];
    let keys = vec![HashKey::Cookie("session".into()), HashKey::SourceAddress];
    assert_eq!(destination.balance, Balance::ConsistentHash(keys));
    assert_eq!(
        destination.outlier.map(|o| (o.consecutive_errors, o.interval)),
        Some((3, Duration::from_secs(10)))
    );
    assert_eq!((destination.connections.requests_max, destination.connections.connections_max), (100, 0));
    assert_eq!((destination.retry_budget.percent, destination.retry_budget.min_retries), (10, 10));
    assert_eq!(destination.persistence.as_ref().map(|p| &*p.name), Some("stay"));
}

#[test]
fn a_limit_is_counted_in_another_namespace_only_if_that_grants_it() {
    let mut index = BOUND.index();
    let calm = CALM.replace("{name: limits, port", "{name: limits, namespace: bank, port");
    let counted = |delta: &ambit_control::Delta| {
        let told = &delta.waypoints[&Name::new("shop", "wp")].changed;
        let frontend = &told.frontends[&FrontendKey { service: key("web"), port: 80 }];
        let Some(Group::Http(routes)) = &frontend.producer else { panic!("{frontend:?}") };
        let LimitScope::Global { service, .. } = &routes[0].rules[0].rate_limits[1].scope else { panic!() };
        (service.namespace.to_string(), service.hostname.to_string())
    };
    let host = || "limits.bank.svc.cluster.local".to_owned();
    assert_eq!(counted(&put(&mut index, &calm)), ("shop".to_owned(), host()), "nobody is asked");
    let policy = || Name::new("shop", "calm");
    let partly = ["Accepted=true Accepted", "PartiallyInvalid=true RefNotPermitted"];
    assert_eq!(says(&index, Kind::TrafficPolicy, policy()), partly);
    let grant = "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\n\
                 metadata: {name: limits, namespace: bank}\n\
                 spec: {from: [{group: ambit.internal, kind: TrafficPolicy, namespace: shop}], to: [{group: '', kind: Service}]}\n";
    assert_eq!(counted(&put(&mut index, grant)), ("bank".to_owned(), host()));
    assert_eq!(says(&index, Kind::TrafficPolicy, policy()), ["Accepted=true Accepted"]);
}

#[test]
fn a_service_without_routes_still_has_its_policy() {
    let mut index = BOUND.index();
    index.apply([Event::Remove(Key::new(Kind::HttpRoute, Name::new("shop", "web")))]);
    let delta = put(&mut index, CALM);
    let told = &delta.waypoints[&Name::new("shop", "wp")].changed;
    let frontend = &told.frontends[&FrontendKey { service: key("web"), port: 80 }];
    let Some(Group::Http(routes)) = &frontend.producer else { panic!("{frontend:?}") };
    assert_eq!((routes[0].rules.len(), routes[0].rules[0].backends.len()), (1, 1));
    assert_eq!(routes[0].rules[0].rate_limits.len(), 2);
}

#[test]
fn a_port_that_declares_nothing_has_its_policy_and_is_not_said_to_carry_requests() {
    let mut index = BOUND.index();
    index.apply([Event::Remove(Key::new(Kind::HttpRoute, Name::new("shop", "web")))]);
    put(&mut index, CALM);
    let plain = "apiVersion: v1\nkind: Service\n\
        metadata: {name: web, namespace: shop, labels: {istio.io/use-waypoint: wp}}\n\
        spec: {clusterIP: 10.96.0.3, ports: [{name: web, port: 80}, {name: tcp-db, port: 5432}]}\n";
    put(&mut index, plain);
    let told = &index.waypoints()[&Name::new("shop", "wp")];
    let frontend = &told.frontends[&FrontendKey { service: key("web"), port: 80 }];
    let Some(Group::Unrouted(routes)) = &frontend.producer else { panic!("{frontend:?}") };
    let rule = &routes[0].rules[0];
    assert_eq!((rule.rate_limits.len(), rule.fault.is_some(), rule.timeouts.idle.is_some()), (2, true, true));
    assert!(!told.frontends.contains_key(&FrontendKey { service: key("web"), port: 5432 }));
}

#[test]
fn the_nearer_policy_counts_and_limits_add_up() {
    let nearer = "
apiVersion: ambit.internal/v1
kind: TrafficPolicy
metadata: {name: nearer, namespace: shop}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: web}]
  idleTimeout: 1s
  rateLimits: [{name: all, local: {requests: 5}}]
";
    let mut index = BOUND.index();
    put(&mut index, CALM);
    let delta = put(&mut index, nearer);
    let told = &delta.waypoints[&Name::new("shop", "wp")].changed;
    let frontend = &told.frontends[&FrontendKey { service: key("web"), port: 80 }];
    let Some(Group::Http(routes)) = &frontend.producer else { panic!("{frontend:?}") };
    let rule = &routes[0].rules[0];
    assert_eq!(rule.timeouts.idle, Some(Duration::from_secs(1)));
    assert_eq!(rule.retry.as_ref().map(|retry| retry.attempts), Some(3), "what it does not say stays");
    let names: Vec<&str> = rule.rate_limits.iter().map(|limit| &*limit.name).collect();
    assert_eq!(names, ["shop/nearer/all", "shop/calm/callers", "shop/calm/users"]);
}
