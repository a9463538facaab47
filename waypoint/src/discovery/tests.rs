//! What is told becomes what requests are decided by: whole, at once, and only where it changed.

use std::net::IpAddr;
use std::sync::Arc;

use ambit_net::tls::store::{Ca, CertificateStore, Signing};
use ambit_policy::http::model::{Action, Policy};
use ambit_policy::http::{Facts, decide};
use ambit_policy::jwt::{self, written};
use ambit_route::model::{Frontend, Group, HttpRoute, RouteKey, Rule};
use ambit_route::{Plan, Request};
use ambit_runtime::drain::Drain;
use ambit_runtime::readiness::Readiness;
use ambit_types::{Identity, NetworkAddress, PolicyKey, Reason, Service, ServiceKey, Workload};
use ambit_xds::Kind;
use ambit_xds::any::Any;
use ambit_xds::codec::{
    Address, FRONTEND, HTTP_POLICY, HttpPolicy, PolicyTarget, RequestAuthentication, frontend, http_policy,
    request_authentication,
};
use ambit_xds::proto::envoy::service::discovery::v3::Resource;
use clap::Parser as _;

use super::*;
use crate::{Hooks, Observe};

const OWN: &str = "Kubernetes//Pod/shop/way-1";

fn config() -> Config {
    let pod = ["waypoint", "--pod-name", "way-1", "--pod-namespace", "shop", "--service-account", "way"];
    Config::try_parse_from(pod).unwrap()
}

fn key(name: &str) -> ServiceKey {
    ServiceKey::new("shop", format!("{name}.shop.svc.cluster.local"))
}

fn response(kind: Kind, resources: Vec<(String, Any)>, removed: &[&str]) -> DeltaDiscoveryResponse {
    let resource =
        |(name, any)| Resource { name, version: "1".into(), resource: Some(any), ..Resource::default() };
    DeltaDiscoveryResponse {
        type_url: kind.url().into(),
        nonce: "n".into(),
        resources: resources.into_iter().map(resource).collect(),
        removed_resources: removed.iter().map(ToString::to_string).collect(),
        ..DeltaDiscoveryResponse::default()
    }
}

/// A builder that is told what a control plane says.
struct Told {
    client: Client,
    builder: Builder,
}

impl Told {
    fn new() -> Self {
        let config = config();
        let names = Names { uid: config.uid(), namespace: "shop".into(), gateway: "way".into() };
        let client = Client::for_waypoint(node(&config), "way", Limits::default());
        Self { client, builder: Builder::new("n1", names, Applied::default()) }
    }

    /// One that knows who it is.
    fn of_the_own_pod() -> Self {
        let mut told = Self::new();
        told.addresses(vec![Address::Workload(own())], &[]);
        told
    }

    fn take(&mut self, kind: Kind, resources: Vec<(String, Any)>, removed: &[&str]) {
        let (update, receipt) = self.client.handle_response(response(kind, resources, removed));
        self.builder.take(update);
        drop(receipt.applied(&mut self.client));
    }

    fn addresses(&mut self, all: Vec<Address>, removed: &[&str]) {
        let all = all.into_iter().map(|one| (one.name(), one.encode())).collect();
        self.take(Kind::Address, all, removed);
    }

    fn policy(&mut self, name: &str, targets: &[PolicyTarget], needs: &[&str]) {
        let key = PolicyKey::new("shop", name);
        let policy = Policy { key, action: Action::Allow, rules: Vec::new(), dry_run: false };
        let policy = HttpPolicy { targets: targets.to_vec(), policy: Arc::new(policy) };
        let mut message = http_policy::encode(&policy);
        message.needs = needs.iter().map(ToString::to_string).collect();
        self.take(Kind::HttpPolicy, vec![(policy.name(), Any::pack(HTTP_POLICY, &message))], &[]);
    }

    fn routes(&mut self, service: &str, port: u16, rule: &str, needs: &[&str]) {
        let rules = vec![Rule { name: Some(rule.into()), ..Rule::default() }];
        let route = HttpRoute { key: RouteKey::new("shop", "route"), created: 0, rules };
        let producer = Some(Group::Http(vec![route]));
        let one = Frontend { service: key(service), port, producer, consumers: BTreeMap::new() };
        let mut message = frontend::encode(&one);
        message.needs = needs.iter().map(ToString::to_string).collect();
        self.take(Kind::Frontend, vec![(frontend::name(&one), Any::pack(FRONTEND, &message))], &[]);
    }

    fn state(&self) -> State {
        self.builder.state().expect("it knows who it is")
    }

    /// Names of the policies that apply to a service, those that cannot be used with a `!`.
    fn policies(&self, service: &str) -> Vec<String> {
        let state = self.state();
        let set = &state.policies.of(Some(&key(service))).policies;
        let unresolved = set.unresolved().iter().map(|key| format!("!{}", key.name));
        set.policies().map(|one| one.key.name.to_string()).chain(unresolved).collect()
    }

    /// Status of the waypoint's own answer to a request, if it gives one, and why.
    fn answer(&self, service: &str) -> Option<(u16, Option<Reason>)> {
        let state = self.state();
        let request = Request {
            method: "GET",
            scheme: ambit_route::model::Scheme::Http,
            authority: "",
            port: 80,
            path: "/",
            query: None,
            headers: &Vec::<(&str, &str)>::new(),
        };
        match state.routes.select(&key(service), Some("shop"), &request).plan(&request, 0) {
            Plan::Forward(_) => None,
            Plan::Answer(ambit_route::Answer::Failure(why)) => Some((why.status(), why.reason())),
            Plan::Answer(answer) => Some((answer.status(false), None)),
        }
    }
}

fn own() -> Arc<Workload> {
    let mut own = Workload::new(OWN, "shop", "way-1");
    own.service_account = "way".into();
    own.addresses = vec![[10, 0, 0, 9].into()];
    Arc::new(own)
}

fn service(name: &str, hostname: &str, vip: [u8; 4]) -> Address {
    let mut service = Service::new("shop", name, hostname);
    service.vips = vec![NetworkAddress::new("".into(), vip.into())];
    Address::Service(Arc::new(service))
}

fn on(name: &str) -> PolicyTarget {
    PolicyTarget::Service(key(name))
}

#[test]
fn the_own_record_and_service_are_found_and_outlive_their_removal() {
    let mut told = Told::new();
    told.addresses(vec![Workload::new("Kubernetes//Pod/shop/way-2", "shop", "way-2").into()], &[]);
    assert!(told.builder.state().is_none(), "it is another pod");
    told.addresses(vec![Address::Workload(own()), service("way", "way.example.com", [10, 9, 0, 1])], &[]);
    let state = told.state();
    assert_eq!(state.own.identity().to_string(), "spiffe://cluster.local/ns/shop/sa/way");
    assert_eq!((state.own.service, state.own.vips), (None, Vec::<IpAddr>::new()), "not of Kubernetes");
    told.addresses(vec![service("way", "way.shop.svc.cluster.local", [10, 9, 0, 2])], &[]);
    let state = told.state();
    assert_eq!((state.own.service, state.own.vips), (Some(key("way")), vec![[10, 9, 0, 2].into()]));
    told.addresses(Vec::new(), &[OWN, "shop/way.shop.svc.cluster.local"]);
    let state = told.state();
    assert_eq!((state.own.workload.uid.as_str(), state.own.service), (OWN, None));
}

#[test]
fn a_route_that_changes_touches_only_its_port() {
    let mut told = Told::of_the_own_pod();
    told.routes("cart", 80, "one", &[]);
    told.routes("cart", 81, "one", &[]);
    told.routes("pay", 80, "one", &[]);
    let before = told.state();
    told.routes("cart", 80, "two", &[]);
    let after = told.state();
    let is_shared = |service: &str, port| {
        let of = |state: &State| state.routes.frontend(&key(service), port).cloned().unwrap();
        Arc::ptr_eq(&of(&before), &of(&after))
    };
    assert_eq!((is_shared("cart", 80), is_shared("cart", 81), is_shared("pay", 80)), (false, true, true));
    assert!(Arc::ptr_eq(&before.mesh, &after.mesh) && Arc::ptr_eq(&before.policies.all, &after.policies.all));
}

#[test]
fn routes_that_cannot_be_read_answer_500_until_they_can_or_are_gone() {
    let mut told = Told::of_the_own_pod();
    let rejected = Some((500, Some(Reason::ConfigRejected)));
    assert_eq!(told.answer("cart"), None);
    told.routes("cart", 80, "one", &["future"]);
    assert_eq!((told.answer("cart"), told.answer("pay")), (rejected, None));
    told.take(Kind::Frontend, Vec::new(), &["shop/cart.shop.svc.cluster.local/80"]);
    assert_eq!(told.answer("cart"), None);
    // A rule without backends, which was held before, stays in force.
    let held = Some((500, Some(Reason::BackendRefused)));
    told.routes("cart", 80, "one", &[]);
    assert_eq!(told.answer("cart"), held);
    told.routes("cart", 80, "two", &["future"]);
    assert_eq!(told.answer("cart"), held);
}

#[test]
fn a_policy_that_cannot_be_read_refuses_what_it_covers() {
    let mut told = Told::of_the_own_pod();
    told.policy("p", &[on("cart")], &["future"]);
    assert_eq!((told.policies("cart"), told.policies("pay")), (vec!["!p".to_owned()], vec![]));
    let peer = Identity::parse("spiffe://cluster.local/ns/shop/sa/web").unwrap();
    let verdict = |told: &Told, service: &str| {
        let source = [10, 0, 0, 1].into();
        let connection = ambit_policy::Facts::new(Some(&peer), source, [10, 0, 0, 2].into(), 80);
        let state = told.state();
        let set = &state.policies.of(Some(&key(service))).policies;
        let decision = decide(set, &Facts::of_connection(connection, None), &[]);
        (decision.is_allow(), decision.reason)
    };
    assert_eq!(verdict(&told, "cart"), (false, Some(Reason::PolicyUnresolved)));
    assert!(verdict(&told, "pay").0);
    told.take(Kind::HttpPolicy, Vec::new(), &["shop/p"]);
    assert!(verdict(&told, "cart").0);
    assert!(told.state().policies.services.is_empty(), "nothing is left of it");
}

/// Such a policy refuses everybody: the same alert as at a node has to see it.
#[test]
fn policies_that_cannot_be_used_are_counted_once_whatever_they_cover() {
    let mut told = Told::of_the_own_pod();
    let count = |told: &Told| held::unresolved(&told.state());
    told.policy("p", &[on("cart"), on("pay")], &[]);
    assert_eq!(count(&told), 0);
    told.policy("q", &[on("cart"), on("pay")], &["future"]);
    assert_eq!(count(&told), 1);
    // One that may cover anything.
    told.take(Kind::HttpPolicy, vec![("shop/x".into(), Any::pack("nothing", &Any::default()))], &[]);
    assert_eq!(count(&told), 2);
    told.policy("q", &[on("cart"), on("pay")], &[]);
    assert_eq!(count(&told), 1);
}

#[test]
fn a_policy_of_the_gateway_reaches_every_service() {
    let mut told = Told::of_the_own_pod();
    told.policy("cart", &[on("cart")], &[]);
    let cart = told.state().policies.services[&key("cart")].clone();
    told.policy("pay", &[on("pay")], &[]);
    assert!(Arc::ptr_eq(&cart, &told.state().policies.services[&key("cart")]), "not touched");
    told.policy("all", &[PolicyTarget::Waypoint], &[]);
    assert_eq!(told.policies("cart"), ["all", "cart"]);
    assert_eq!(told.policies("pay"), ["all", "pay"]);
    assert_eq!(told.policies("other"), ["all"]);
    // The policy moves to a service: the others have it no more.
    told.policy("all", &[on("other")], &[]);
    assert_eq!((told.policies("cart"), told.policies("other")), (vec!["cart".into()], vec!["all".into()]));
    assert!(told.policies("unnamed").is_empty());
    // One that may cover anything does.
    told.take(Kind::HttpPolicy, vec![("shop/x".into(), Any::pack("nothing", &Any::default()))], &[]);
    assert_eq!(
        (told.policies("cart"), told.policies("unnamed")),
        (vec!["cart".into(), "!x".into()], vec!["!x".into()])
    );
}

#[test]
fn rules_for_tokens_apply_where_they_are_attached() {
    let mut told = Told::of_the_own_pod();
    let one = RequestAuthentication {
        key: PolicyKey::new("shop", "jwt"),
        targets: vec![on("cart")],
        rules: vec![token_rule()],
    };
    let resource = (one.name(), request_authentication::encode_any(&one));
    told.take(Kind::RequestAuthentication, vec![resource], &[]);
    let rules = |told: &Told, name: &str| told.state().policies.of(Some(&key(name))).tokens.rules().len();
    assert_eq!((rules(&told, "cart"), rules(&told, "pay")), (1, 0));
    let applied = told.state().policies.of(Some(&key("cart"))).clone();
    assert_eq!(
        &*applied.tokens.rules()[0].namespace,
        "shop",
        "that of its object: its keys are fetched for it"
    );
    told.take(Kind::RequestAuthentication, vec![("shop/jwt2".into(), Any::default())], &[]);
    assert_eq!(told.policies("pay"), ["!jwt2"], "a token that nobody looks at may be the one");
}

fn token_rule() -> jwt::Rule {
    let spec: written::Rule =
        serde_saphyr::from_str("issuer: https://issuer.example\njwksUri: https://issuer.example/keys")
            .unwrap();
    jwt::compile(&spec).unwrap()
}

/// A CA that is away.
struct Away;

impl Ca for Away {
    fn sign<'a>(&'a self, _: &'a Identity, _: &'a str) -> Signing<'a> {
        Box::pin(std::future::ready(Err("away".to_owned())))
    }
}

#[tokio::test]
async fn nothing_is_in_force_before_everything_has_arrived_and_then_what_is_acknowledged_is() {
    let readiness = Readiness::new();
    let parts = Parts { discovery: readiness.part("discovery"), own: readiness.part("own workload") };
    readiness.complete();
    let make: Make = Box::new(|state| {
        let certificates = CertificateStore::new(Arc::new(Away), Arc::new(|| 1));
        let (limits, observe) = (crate::Limits::default(), Observe::to_log());
        Waypoint::new(state, certificates, Hooks::default(), limits, observe, Drain::new())
    });
    let outputs = Outputs { make, providers: Box::new(drop) };
    let (mut discovery, following) = Discovery::new(&config(), outputs, parts);
    let held = Held::by(&following.waypoint);
    let written = || {
        let mut text = String::new();
        held.write(&mut text);
        text
    };
    let own = Address::Workload(own());
    drop(discovery.begin());
    assert!(discovery.respond(response(Kind::Address, vec![(own.name(), own.encode())], &[])).is_some());
    for kind in [Kind::Provider, Kind::RequestAuthentication, Kind::HttpPolicy, Kind::Destination] {
        assert!(discovery.respond(response(kind, Vec::new(), &[])).is_some(), "{kind}");
        assert!(following.waypoint.borrow().is_none(), "routes are still missing after {kind}");
    }
    assert_eq!(readiness.pending(), ["discovery", "own workload"]);
    assert_eq!(written(), "");
    assert!(discovery.respond(response(Kind::Frontend, Vec::new(), &[])).is_some());
    let waypoint = following.waypoint.borrow().clone().expect("it is whole");
    assert!(readiness.pending().is_empty() && following.told.away_since().is_none());
    assert!(written().ends_with("ambit_policy_unresolved_refs 0\n"), "{}", written());

    // The loss of the control plane changes nothing, and what it says afterwards is in force when it is acknowledged.
    discovery.ended();
    assert!(readiness.pending().is_empty() && following.told.away_since().is_some());
    drop(discovery.begin());
    let cart = service("cart", "cart.shop.svc.cluster.local", [10, 9, 0, 1]);
    let acknowledged = discovery.respond(response(Kind::Address, vec![(cart.name(), cart.encode())], &[]));
    assert!(acknowledged.is_some_and(|request| request.error_detail.is_none()));
    assert!(waypoint.state().mesh.service(&key("cart")).is_some());
    let unread = vec![("shop/x".to_owned(), Any::pack("nothing", &Any::default()))];
    assert!(discovery.respond(response(Kind::HttpPolicy, unread, &[])).is_some());
    assert!(written().ends_with("ambit_policy_unresolved_refs 1\n"), "{}", written());
}
