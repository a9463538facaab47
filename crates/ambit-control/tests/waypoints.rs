//! What waypoints are told: which services are bound to them, which policies reach them, and that one change is one
//! small difference.

#[path = "support/mod.rs"]
mod support;

use std::time::Duration;

use ambit_control::Index;
use ambit_control::input::{Event, Key, Kind, Name};
use ambit_control::waypoints::resources::{FrontendKey, Reach};
use ambit_route::model::{
    Abort, Balance, Conditions, Consent, Fraction, Group, HashKey, LimitKey, LimitScope, RateLimit,
};
use ambit_types::{Destination, GatewayAddress, PolicyKey, ServiceKey};

const SHOP: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, labels: {LABELS}, annotations: {ANNOTATIONS}}
spec: {clusterIP: 10.96.0.3, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {OF_NAMESPACE}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: shop, labels: {OF_GATEWAY}}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
status: {addresses: [{value: 10.96.0.2}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: next, namespace: shop}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
status: {addresses: [{value: 10.96.0.4}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: web}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
";

#[derive(Default, Clone, Copy)]
struct Case {
    labels: &'static str,
    annotations: &'static str,
    of_namespace: &'static str,
    of_gateway: &'static str,
}

impl Case {
    fn index(self) -> Index {
        let text = SHOP
            .replace("LABELS", self.labels)
            .replace("ANNOTATIONS", self.annotations)
            .replace("OF_NAMESPACE", self.of_namespace)
            .replace("OF_GATEWAY", self.of_gateway);
        support::index(&text)
    }
}

fn key(name: &str) -> ServiceKey {
    ServiceKey::new("shop", format!("{name}.shop.svc.cluster.local"))
}

/// Name of a waypoint as discovery has it.
fn named(address: &GatewayAddress) -> String {
    assert_eq!(address.hbone_mtls_port, 15008);
    match &address.destination {
        Destination::Hostname(key) => key.to_string().replace(".svc.cluster.local", ""),
        Destination::Address(address) => panic!("{address:?}"),
    }
}

/// The waypoints of `shop/web`, as `WAYPOINT` or `WAYPOINT SHARE, …`, and which of them have its routes.
fn bound(case: Case) -> (String, String) {
    let index = case.index();
    let service = &index.services()[&key("web")];
    let weighted = service.weighted_waypoints.iter();
    let weighted: Vec<String> = weighted.map(|w| format!("{} {}", named(&w.destination), w.weight)).collect();
    let told = match weighted.is_empty() {
        true => service.waypoint.as_ref().map(named).unwrap_or_default(),
        false => weighted.join(", "),
    };
    let having = index.waypoints().iter().filter(|(_, resources)| !resources.frontends.is_empty());
    let having: Vec<&str> = having.map(|(name, _)| &*name.name).collect();
    (told, having.join(" "))
}

#[test]
fn a_service_is_bound_to_the_waypoint_it_asks_for_whatever_its_state() {
    let none = Case::default();
    let wp = "istio.io/use-waypoint: wp";
    let canary = "istio.io/use-waypoint: wp, istio.io/use-waypoint-canary: next";
    let tenth = "istio.io/use-waypoint-canary-weight: '10'";
    let rows = [
        ("nobody asks", none, ("", "")),
        ("its own label", Case { labels: wp, ..none }, ("shop/wp.shop", "wp")),
        ("its namespace's label", Case { of_namespace: wp, ..none }, ("shop/wp.shop", "wp")),
        (
            "its own label stands before",
            Case { labels: "istio.io/use-waypoint: next", of_namespace: wp, ..none },
            ("shop/next.shop", "next"),
        ),
        ("it opts out", Case { labels: "istio.io/use-waypoint: none", of_namespace: wp, ..none }, ("", "")),
        (
            "a waypoint that is not there stays",
            Case { labels: "istio.io/use-waypoint: gone", ..none },
            ("shop/gone.shop", ""),
        ),
        (
            "one of another namespace that is not there stays",
            Case { of_namespace: "istio.io/use-waypoint: wp, istio.io/use-waypoint-namespace: mesh", ..none },
            ("mesh/wp.mesh", ""),
        ),
        (
            "its own label for a waypoint of workloads stays, and is not served",
            Case { labels: wp, of_gateway: "istio.io/waypoint-for: workload", ..none },
            ("shop/wp.shop", ""),
        ),
        (
            "a namespace's waypoint of workloads is not for services",
            Case { of_namespace: wp, of_gateway: "istio.io/waypoint-for: workload", ..none },
            ("", ""),
        ),
        (
            "one for all is",
            Case { of_namespace: wp, of_gateway: "istio.io/waypoint-for: all", ..none },
            ("shop/wp.shop", "wp"),
        ),
        (
            "a canary takes its share",
            Case { labels: canary, annotations: tenth, ..none },
            ("shop/wp.shop 90, shop/next.shop 10", "next wp"),
        ),
        (
            "a canary of the namespace",
            Case { of_namespace: "istio.io/use-waypoint: wp, istio.io/use-waypoint-canary: next", ..none },
            ("shop/wp.shop", "wp"),
        ),
        (
            "a canary that is not there is left out",
            Case {
                labels: "istio.io/use-waypoint: wp, istio.io/use-waypoint-canary: gone",
                annotations: tenth,
                ..none
            },
            ("shop/wp.shop", "wp"),
        ),
    ];
    for (what, case, (told, having)) in rows {
        assert_eq!(bound(case), (told.to_owned(), having.to_owned()), "{what}");
    }
}

const BOUND: Case =
    Case { labels: "istio.io/use-waypoint: wp", annotations: "", of_namespace: "", of_gateway: "" };

fn put(index: &mut Index, manifests: &str) -> ambit_control::Delta {
    let parsed = ambit_manifest::parse("more.yaml", manifests);
    assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
    index.apply(parsed.objects.iter().filter_map(support::reduce).map(Event::Put))
}

fn policy(namespace: &str, target: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: {namespace}}}\n\
         spec: {{targetRefs: [{target}], action: DENY, rules: [{{to: [{{operation: {{methods: [DELETE]}}}}]}}]}}\n"
    )
}

#[test]
fn a_policy_reaches_the_waypoints_that_its_targets_mean() {
    let gateway = "{group: gateway.networking.k8s.io, kind: Gateway, name: wp}";
    let class = "{group: gateway.networking.k8s.io, kind: GatewayClass, name: istio-waypoint}";
    let service = "{group: '', kind: Service, name: web}";
    let web = || Reach::Services([key("web")].into());
    let rows = [
        ("a service", "shop", service, vec![("wp", web())]),
        ("a service of another namespace", "bank", service, vec![]),
        ("a waypoint", "shop", gateway, vec![("wp", Reach::All)]),
        ("a waypoint of another namespace", "bank", gateway, vec![]),
        (
            "the class, in the root namespace",
            "istio-system",
            class,
            vec![("next", Reach::All), ("wp", Reach::All)],
        ),
        ("the class, elsewhere", "shop", class, vec![]),
    ];
    for (what, namespace, target, want) in rows {
        let mut index = BOUND.index();
        let delta = put(&mut index, &policy(namespace, target));
        let key = PolicyKey::new(namespace, "p");
        let held = |name: &Name| index.waypoints()[name].policies.get(&key).cloned();
        let told = delta.waypoints.iter().map(|(name, difference)| {
            assert!(difference.changed.frontends.is_empty(), "{what}: only the policy is sent");
            let policy = held(name).expect("it is held");
            assert!(policy.of.is_some(), "{what}: compiled");
            (&*name.name, policy.reach.clone())
        });
        assert_eq!(told.collect::<Vec<_>>(), want, "{what}");
    }
}

/// A service of the waypoint's namespace and one of another, each with a policy.
const VAULT: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: bank, labels: {tier: gold}}
---
apiVersion: v1
kind: Service
metadata: {name: vault, namespace: bank, labels: {istio.io/use-waypoint: wp, istio.io/use-waypoint-namespace: shop}}
spec: {clusterIP: 10.96.0.8, ports: [{name: http, port: 80}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: closed, namespace: bank}
spec: {targetRefs: [{group: '', kind: Service, name: vault}], action: DENY, rules: [{}]}
";

/// The waypoint with a class, its labels and whom it lets attach.
fn waypoint(controller: &str, labels: &str, from: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {{name: istio-waypoint}}\n\
         spec: {{controllerName: {controller}}}\n---\n\
         apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
         metadata: {{name: wp, namespace: shop, labels: {{{labels}}}}}\n\
         spec: {{gatewayClassName: istio-waypoint, listeners: [{{name: mesh, port: 15008, protocol: HBONE, \
         allowedRoutes: {{namespaces: {from}}}}}]}}\nstatus: {{addresses: [{{value: 10.96.0.2}}]}}\n"
    )
}

const OURS: &str = "istio.io/mesh-controller";
const ALL: &str = "{from: All}";
const GOLD: &str = "{from: Selector, selector: {matchLabels: {tier: gold}}}";

/// Services to which the waypoint allows nothing, whatever their policies.
fn unresolved(index: &Index) -> Vec<String> {
    let policies = index.waypoints()[&Name::new("shop", "wp")].policies.values();
    let wrong = policies.filter(|policy| policy.of.is_none());
    let services = wrong.flat_map(|policy| match &policy.reach {
        Reach::All => panic!("it allows nothing to anybody"),
        Reach::Services(services) => services.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    services.collect()
}

#[test]
fn a_service_that_its_waypoint_may_not_serve_any_more_is_allowed_nothing() {
    let vault = ["bank/vault.bank.svc.cluster.local"];
    let both = ["bank/vault.bank.svc.cluster.local", "shop/web.shop.svc.cluster.local"];
    let plain = VAULT.split("---").next().unwrap_or_default().replace("tier: gold", "tier: tin");
    let rows = [
        ("it lets its own namespace attach only", ALL, waypoint(OURS, "", "{from: Same}"), &vault[..]),
        ("it is for nothing", ALL, waypoint(OURS, "istio.io/waypoint-for: none", ALL), &both[..]),
        ("it is for workloads", ALL, waypoint(OURS, "istio.io/waypoint-for: workload", ALL), &both[..]),
        ("the namespace lost its label", GOLD, plain, &vault[..]),
    ];
    for (what, from, change, want) in rows {
        let mut index = BOUND.index();
        put(&mut index, &waypoint(OURS, "", from));
        put(&mut index, VAULT);
        let web_too = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {tier: gold}}\n";
        put(&mut index, web_too);
        let held = |index: &Index| {
            let own = &index.waypoints()[&Name::new("shop", "wp")];
            own.policies.contains_key(&PolicyKey::new("bank", "closed"))
        };
        assert!(unresolved(&index).is_empty() && held(&index), "{what}: it is served at first");
        let delta = put(&mut index, &change);
        assert_eq!(unresolved(&index), want, "{what}");
        let told = &delta.waypoints[&Name::new("shop", "wp")].changed.policies;
        assert!(told.values().any(|policy| policy.of.is_none()), "{what}: and it is told");
        assert!(!held(&index), "{what}: the policy of whom it does not serve is not sent");
        let bound = &index.services()[&ServiceKey::new("bank", "vault.bank.svc.cluster.local")];
        let stays = bound.waypoint.as_ref().map(named);
        assert_eq!(stays.as_deref(), Some("shop/wp.shop"), "{what}: it stays bound");
        put(&mut index, &waypoint(OURS, "", ALL));
        assert!(unresolved(&index).is_empty() && held(&index), "{what}: and back");
    }
}

#[test]
fn a_gateway_of_another_controller_is_withdrawn_and_told_again_when_it_is_back() {
    let mut index = BOUND.index();
    let wp = || Name::new("shop", "wp");
    put(&mut index, &waypoint(OURS, "", ALL));
    let delta = put(&mut index, &waypoint("example.com/other", "", ALL));
    assert_eq!(delta.removed_waypoints, [Name::new("shop", "next"), wp()].into());
    assert!(!delta.waypoints.contains_key(&wp()));
    let delta = put(&mut index, &waypoint(OURS, "", ALL));
    assert!(!delta.waypoints[&wp()].changed.frontends.is_empty());
    // One that needs nothing is told of too: who withdrew it has to know.
    let empty = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: idle, namespace: shop}\n\
                 spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}\n";
    let delta = put(&mut index, empty);
    assert!(delta.waypoints[&Name::new("shop", "idle")].is_empty());
    assert!(put(&mut index, empty).waypoints.is_empty(), "the same again");
}

const CUSTOM: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ask, namespace: shop}
spec:
  targetRefs: [{group: '', kind: Service, name: web}]
  action: CUSTOM
  provider: {name: opa}
  rules: [{to: [{operation: {paths: [/admin]}}]}]
";

fn mesh(providers: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\n\
         data:\n  mesh: |\n    extensionProviders: [{providers}]\n"
    )
}

/// Conditions of an object, in short.
fn says(index: &Index, kind: Kind, name: Name) -> Vec<String> {
    let report = &index.reports()[&Key::new(kind, name)];
    report.conditions.iter().map(|one| format!("{}={} {}", one.kind, one.holds, one.reason)).collect()
}

#[test]
fn a_provider_goes_to_the_waypoints_whose_policies_name_it() {
    let mut index = BOUND.index();
    let wp = Name::new("shop", "wp");
    let ask = || Name::new("shop", "ask");
    let delta = put(&mut index, CUSTOM);
    let told = &delta.waypoints[&wp].changed;
    let policy = &told.policies[&PolicyKey::new("shop", "ask")];
    assert!(policy.of.is_some(), "the policy is sent, provider or not");
    assert!(told.providers.is_empty());
    let unknown = ["WaypointAccepted=true Accepted", "ResolvedRefs=false ProviderNotFound"];
    assert_eq!(says(&index, Kind::AuthorizationPolicy, ask()), unknown);

    let good = "{name: opa, envoyExtAuthzGrpc: {service: opa.iam.svc.cluster.local, port: 9191}}";
    let other = "{name: other, envoyExtAuthzGrpc: {service: other.iam, port: 1}}";
    let delta = put(&mut index, &mesh(&format!("{good}, {other}")));
    let told = &delta.waypoints[&wp];
    assert_eq!(told.changed.providers.keys().map(|name| &**name).collect::<Vec<_>>(), ["opa"]);
    assert!(told.changed.policies.is_empty(), "the policy is as before");
    let known = ["WaypointAccepted=true Accepted", "ResolvedRefs=true ResolvedRefs"];
    assert_eq!(says(&index, Kind::AuthorizationPolicy, ask()), known);
    let config = || Name::new("istio-system", "istio");
    assert_eq!(says(&index, Kind::MeshConfig, config()), ["Accepted=true Accepted"]);

    let broken =
        "{name: opa, envoyExtAuthzGrpc: {service: opa.iam, port: 9191, includeRequestBodyInCheck: {}}}";
    let delta = put(&mut index, &mesh(&format!("{broken}, {other}")));
    assert_eq!(delta.waypoints[&wp].removed_providers, ["opa".into()].into());
    assert_eq!(says(&index, Kind::AuthorizationPolicy, ask()), unknown);
    let partly = ["Accepted=true Accepted", "PartiallyInvalid=true Invalid"];
    assert_eq!(says(&index, Kind::MeshConfig, config()), partly, "the sibling stays");

    let spelt = "{name: opa, envoyExtAuthzGrpc: {servce: opa.iam, port: 9191}}";
    put(&mut index, &mesh(spelt));
    assert_eq!(says(&index, Kind::MeshConfig, config()), ["Accepted=false Invalid"]);
    index.apply([Event::Remove(Key::new(Kind::MeshConfig, config()))]);
    assert!(!index.reports().contains_key(&Key::new(Kind::MeshConfig, config())));
}

#[test]
fn a_policy_with_a_mistake_still_applies() {
    let mut index = BOUND.index();
    let wrong = policy("shop", "{group: '', kind: Service, name: web}")
        .replace("methods: [DELETE]", "paths: ['/a?b']");
    let delta = put(&mut index, &wrong);
    let told = &delta.waypoints[&Name::new("shop", "wp")].changed.policies[&PolicyKey::new("shop", "p")];
    assert_eq!((told.of.is_some(), &told.reach), (false, &Reach::Services([key("web")].into())));
}

#[test]
fn one_changed_object_touches_its_own_frontends() {
    let mut index = BOUND.index();
    let other = "apiVersion: v1\nkind: Service\nmetadata: {name: cart, namespace: shop, labels: {istio.io/use-waypoint: wp}}\n\
                 spec: {clusterIP: 10.96.0.7, ports: [{name: http, port: 80}, {name: admin, port: 81}]}\n";
    let route = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: cart, namespace: shop}\n\
                 spec: {parentRefs: [{group: '', kind: Service, name: cart, port: 81}], rules: [{backendRefs: [{name: web, port: 80}]}]}\n";
    put(&mut index, other);
    let wp = Name::new("shop", "wp");
    let delta = put(&mut index, route);
    let admin = FrontendKey { service: key("cart"), port: 81 };
    assert_eq!(delta.waypoints[&wp].changed.frontends.keys().collect::<Vec<_>>(), [&admin]);
    assert!(delta.services.is_empty() && delta.workloads.is_empty(), "discovery is not concerned");
    assert_eq!(put(&mut index, route).waypoints.len(), 0, "the same again");

    let gone = Key::new(Kind::Service, Name::new("shop", "web"));
    let delta = index.apply([Event::Remove(gone)]);
    let difference = &delta.waypoints[&wp];
    assert_eq!(difference.changed.frontends.keys().collect::<Vec<_>>(), [&admin], "its backend is gone");
    let web = FrontendKey { service: key("web"), port: 80 };
    assert_eq!(difference.removed_frontends, [web].into());

    let delta = index.apply([Event::Remove(Key::new(Kind::Gateway, wp.clone()))]);
    assert_eq!(delta.removed_waypoints, [wp].into());
}

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

/// Would take minutes if a route were compared with every other.
#[test]
fn thousands_of_routes_of_one_service_are_each_looked_at_once() {
    let route = |n: usize, path: &str| {
        format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r{n}, namespace: shop}}\n\
             spec: {{parentRefs: [{{group: '', kind: Service, name: web}}], rules: [{{matches: [{{path: {{value: {path}}}}}], \
             backendRefs: [{{name: web, port: 80}}]}}]}}\n"
        )
    };
    let mut index = BOUND.index();
    put(&mut index, &(0..5000).map(|n| route(n, &format!("/p{n}"))).collect::<String>());
    let delta = put(&mut index, &route(7, "/other"));
    assert_eq!((delta.waypoints.len(), delta.reports.len()), (1, 0), "its report says the same");
    assert_eq!(delta.waypoints[&Name::new("shop", "wp")].changed.frontends.len(), 1);
}
