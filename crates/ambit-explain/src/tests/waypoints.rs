//! Requests through a waypoint: its policies, routes and tokens, and the answers of three programs as one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ambit_policy::http::{self, PolicySet};
use ambit_policy::jwt::RuleSet;
use ambit_route::Table;
use ambit_route::model::{Backend, Frontend, Group, HttpMatch, HttpRoute, PathMatch, RouteKey, Rule, Target};
use ambit_state::waypoint::{Applied, Own, Policies, State};
use ambit_state::{Change, Snapshot, World};
use ambit_types::service::Port;
use ambit_types::{
    AppProtocol, Destination, GatewayAddress, NetworkAddress, PolicyKey, Reason, Service, ServiceKey,
    TunnelProtocol, Uid, Workload,
};
use serde_json::{Value, json};

use crate::{Explanation, HttpQuestion, Outcome, Question, Source, Step, Verdict, View, Way, explain, join};

pub(super) fn key(name: &str) -> ServiceKey {
    ServiceKey::new("shop", format!("{name}.shop.svc.cluster.local"))
}

fn pod(name: &str, last: u8, of: &str) -> Workload {
    let mut workload = Workload::new(format!("Kubernetes//Pod/shop/{name}"), "shop", name);
    workload.addresses = vec![IpAddr::from([10, 0, 0, last])];
    workload.service_account = name.into();
    workload.node = format!("n{last}").into();
    workload.tunnel = TunnelProtocol::Hbone;
    workload.settings = Some(Arc::default());
    if !of.is_empty() {
        workload.services.insert(key(of), Vec::new());
    }
    workload
}

fn service(name: &str, last: u8, port: u16, is_bound: bool) -> Service {
    let mut service = Service::new("shop", name, key(name).hostname);
    service.vips = vec![NetworkAddress::new("".into(), [10, 96, 0, last].into())];
    service.ports = vec![Port { service_port: port, target_port: port, app_protocol: AppProtocol::Http11 }];
    let gate = || GatewayAddress { destination: Destination::Hostname(key("gate")), hbone_mtls_port: 15008 };
    service.waypoint = is_bound.then(gate);
    service
}

pub(super) fn snapshot(node: &str) -> Arc<Snapshot> {
    snapshot_with(node, None)
}

/// The same mesh, and something more.
pub(super) fn snapshot_with(node: &str, more: Option<Change>) -> Arc<Snapshot> {
    let pods = [pod("web", 1, ""), pod("cart", 2, "cart"), pod("next", 3, "next"), pod("gate", 4, "gate")];
    let services =
        [service("cart", 1, 80, true), service("next", 2, 80, false), service("gate", 3, 15008, false)];
    let services = services.into_iter().map(Change::from);
    World::new(node).apply(pods.into_iter().map(Change::from).chain(services).chain(more)).snapshot
}

/// A rule that sends what begins so to a service.
pub(super) fn to(path: &str, service: &str) -> Rule<HttpMatch> {
    Rule {
        matches: vec![HttpMatch { path: Some(PathMatch::Prefix(path.into())), ..HttpMatch::default() }],
        backends: vec![Backend {
            target: Target::Service { service: key(service), port: 80 },
            weight: 1,
            filters: Vec::new(),
        }],
        ..Rule::default()
    }
}

/// `/new` goes to another service, everything else to `cart` itself.
fn routes() -> Vec<Rule<HttpMatch>> {
    vec![to("/new", "next"), to("/", "cart")]
}

fn table(rules: Vec<Rule<HttpMatch>>) -> Table {
    let route = HttpRoute { key: RouteKey::new("shop", "cart"), created: 0, rules };
    let frontend = Frontend {
        service: key("cart"),
        port: 80,
        producer: Some(Group::Http(vec![route])),
        consumers: BTreeMap::new(),
    };
    let mut table = Table::default();
    assert!(table.put(&frontend).is_empty(), "the routes are in order");
    table
}

fn state(policies: &[(&str, Value)]) -> Arc<State> {
    ruled(policies, routes())
}

/// What the waypoint goes by with these policies and routes for `cart`.
pub(super) fn ruled(policies: &[(&str, Value)], rules: Vec<Rule<HttpMatch>>) -> Arc<State> {
    checking(policies, http::CustomOrder::default(), RuleSet::default(), rules)
}

/// The same with rules for tokens, and authorizers asked in an order.
pub(super) fn checking(
    policies: &[(&str, Value)],
    order: http::CustomOrder,
    tokens: RuleSet,
    rules: Vec<Rule<HttpMatch>>,
) -> Arc<State> {
    let compiled = policies.iter().map(|(name, spec)| {
        let written: http::written::Policy = serde_json::from_value(spec.clone()).expect("a policy");
        let key = PolicyKey::new("shop", *name);
        Arc::new(http::compile(&key, &written, false, &http::Options::default()).expect("no mistake"))
    });
    let policies = PolicySet::new(compiled, [], order);
    let applied = Arc::new(Applied { policies, tokens, ..Applied::default() });
    let mesh = snapshot("n4");
    let workload = mesh.workload(&Uid::from("Kubernetes//Pod/shop/gate")).expect("the waypoint").clone();
    let own = Own { workload, service: Some(key("gate")), vips: Vec::new() };
    let policies = Policies { services: [(key("cart"), applied)].into(), ..Policies::default() };
    Arc::new(State { mesh, routes: Arc::new(table(rules)), policies, own })
}

fn asked(method: &str, path: &str) -> Question {
    let source = Source::Named { namespace: "shop".into(), name: "web".into() };
    let http = HttpQuestion { method: method.to_owned(), path: path.to_owned(), ..HttpQuestion::default() };
    Question::new(source, "shop/cart:80".parse().expect("a destination")).with_http(http)
}

fn told(state: &Arc<State>, question: &Question) -> Explanation {
    let waypoints = BTreeMap::from([(state.own.workload.uid.clone(), state.clone())]);
    explain(&View::new(&snapshot("n1")).with_waypoints(&waypoints), question)
}

fn only_get() -> Value {
    json!({"rules": [{"to": [{"operation": {"methods": ["GET"]}}]}]})
}

#[test]
fn requests_are_judged_and_routed_as_by_the_waypoint() {
    let state = state(&[("get", only_get())]);
    let get = told(&state, &asked("GET", "/a/../b"));
    assert_eq!((get.verdict, get.way), (Verdict::Allow, Some(Way::Waypoint)), "{get:#?}");
    assert_eq!(get.endpoint.as_deref(), Some("shop/cart"));
    assert_eq!(get.route.and_then(|routed| routed.route).as_deref(), Some("shop/cart"));
    let new = told(&state, &asked("GET", "/new/thing"));
    assert_eq!(new.endpoint.as_deref(), Some("shop/next"), "{new:#?}");
    let post = told(&state, &asked("POST", "/"));
    assert_eq!((post.verdict, post.code()), (Verdict::Deny, Some(Reason::HttpPolicyDenied)));
    assert_eq!(post.status, Some(403));
    let nearest = post.nearest.expect("there is one");
    assert_eq!(nearest.policy.to_string(), "shop/get");
    // What lies behind a refusal is told as well.
    assert!(post.hops.iter().any(|hop| hop.step == Step::Policy), "{:#?}", post.hops);
}

#[test]
fn what_has_two_readings_is_refused_and_authorizers_are_assumed_to_agree() {
    let custom = json!({"action": "CUSTOM", "provider": {"name": "opa"}, "rules": [{}]});
    let state = state(&[("ask", custom)]);
    let get = told(&state, &asked("GET", "/"));
    assert_eq!(get.verdict, Verdict::Allow, "{get:#?}");
    assert!(get.assumed.iter().any(|one| one.contains("opa")), "{:?}", get.assumed);
    let twice = told(&state, &asked("GET", "/a%2fb"));
    assert_eq!((twice.code(), twice.status), (Some(Reason::RequestAmbiguous), Some(400)));
    let bare = told(&state, &Question { http: None, ..asked("GET", "/") });
    assert!(bare.assumed.iter().any(|one| one.contains("GET /")), "{:?}", bare.assumed);
}

#[test]
fn three_answers_make_one() {
    let state = state(&[("get", only_get())]);
    let (near, far) = (snapshot("n1"), snapshot("n2"));
    for question in [asked("GET", "/"), asked("POST", "/"), asked("GET", "/new")] {
        let whole = told(&state, &question);
        let first = explain(&View::new(&near), &question);
        assert_eq!(first.hop(Step::WaypointPolicy).map(|hop| hop.outcome), Some(Outcome::Unknown));
        let onward = whole.onward.clone().expect("there is a second leg");
        let leg = Question {
            client: Some(ambit_types::Identity::parse(&onward.client).expect("an identity")),
            draw: question.draw,
            ..Question::new(
                onward.waypoint.parse().expect("a key"),
                crate::Destination::Address(onward.address),
            )
        };
        let last = explain(&View::new(&far), &leg);
        assert_eq!(last.way, Some(Way::Hbone), "{last:#?}");
        let joined = join(first, whole.clone(), Some(last));
        assert_eq!(
            (joined.verdict, joined.reason, joined.status),
            (whole.verdict, whole.reason, whole.status)
        );
        assert_eq!(joined.decided_by, whole.decided_by);
        let steps =
            |one: &Explanation| one.hops.iter().map(|hop| (hop.step, hop.outcome)).collect::<Vec<_>>();
        assert_eq!(steps(&joined), steps(&whole));
    }
}
