//! What waypoints are told: which services are bound to them, which policies reach them, and that one change is one
//! small difference.

mod bound;
mod policies;
#[path = "../support/mod.rs"]
mod support;
mod traffic;

use ambit_control::Index;
use ambit_control::input::{Event, Key, Kind, Name};
use ambit_control::waypoints::resources::FrontendKey;
use ambit_types::{Destination, GatewayAddress, ServiceKey};

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

const BOUND: Case =
    Case { labels: "istio.io/use-waypoint: wp", annotations: "", of_namespace: "", of_gateway: "" };

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

fn put(index: &mut Index, manifests: &str) -> ambit_control::Delta {
    let parsed = ambit_manifest::parse("more.yaml", manifests);
    assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
    index.apply(parsed.objects.iter().filter_map(support::reduce).map(Event::Put))
}

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

/// Conditions of an object, in short.
fn says(index: &Index, kind: Kind, name: Name) -> Vec<String> {
    let report = &index.reports()[&Key::new(kind, name)];
    report.conditions.iter().map(|one| format!("{}={} {}", one.kind, one.holds, one.reason)).collect()
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
