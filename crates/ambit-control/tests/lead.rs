//! What the leader is told to write: waypoints and how they are, conditions, namespaces that need the roots.

#[path = "support/mod.rs"]
mod support;

use std::collections::BTreeMap;

use ambit_control::input::{
    AuthorizationPolicy, EndpointSlice, Event, Labels, Name, Object, PolicyAction, PolicyRule, Resolution,
    ServiceEntry, SliceEndpoint, SlicePort, Source, Terms,
};
use ambit_types::Str;

const WORLD: &str = r#"
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {istio.io/use-waypoint: waypoint}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: jobs, labels: {istio.io/dataplane-mode: ambient}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: plain, labels: {istio.io/dataplane-mode: none}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop, generation: 3}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: ingress, namespace: plain}
spec:
  gatewayClassName: other
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
apiVersion: v1
kind: Service
metadata: {name: waypoint, namespace: shop, labels: {gateway.istio.io/managed: istio.io-mesh-controller}}
spec: {clusterIP: 10.2.0.7, ports: [{name: mesh, port: 15008}]}
"#;

#[test]
fn waypoints_are_the_gateways_of_their_class_and_ready_by_their_endpoints() {
    let mut index = support::index(WORLD);
    let names: Vec<String> = index.waypoint_gateways().map(|gateway| gateway.name.to_string()).collect();
    assert_eq!(names, ["shop/waypoint"]);
    let name = Name::new("shop", "waypoint");
    let health = index.waypoint_health(&name);
    assert!(health.has_service && !health.is_ready);
    assert_eq!(health.addresses, ["10.2.0.7".parse::<std::net::IpAddr>().unwrap()]);
    for (ready, service, want) in
        [(false, "waypoint", false), (true, "other", false), (true, "waypoint", true)]
    {
        let endpoint = SliceEndpoint { address: "10.1.0.1".parse().unwrap(), ready, pod: None };
        let ports = vec![SlicePort { name: Str::from("mesh"), port: 15008 }];
        let slice = EndpointSlice {
            name: Name::new("shop", "s"),
            service: Str::from(service),
            ports,
            endpoints: vec![endpoint],
        };
        index.apply([Event::Put(Object::EndpointSlice(slice))]);
        assert_eq!(index.waypoint_health(&name).is_ready, want, "{ready} {service}");
    }
    assert!(!index.waypoint_health(&Name::new("shop", "gone")).has_service);
}

#[test]
fn namespaces_need_the_roots_that_ask_for_the_mesh_or_hold_a_waypoint() {
    let index = support::index(WORLD);
    let namespaces: Vec<String> = index.meshed_namespaces().iter().map(ToString::to_string).collect();
    assert_eq!(namespaces, ["jobs", "shop"]);
}

#[test]
fn objects_that_have_no_report_of_their_own_are_told_too() {
    let mut index = support::index(WORLD);
    let entry = ServiceEntry {
        name: Name::new("shop", "db"),
        created: 0,
        generation: 4,
        labels: Labels::new(),
        annotations: Labels::new(),
        hosts: vec![Str::from("db.example")],
        addresses: Vec::new(),
        allocated: BTreeMap::new(),
        ports: Vec::new(),
        resolution: Resolution::Dns,
        endpoints: Vec::new(),
        workload_selector: Labels::new(),
        subject_alt_names: vec![Str::from("nobody")],
    };
    index.apply([Event::Put(Object::ServiceEntry(Box::new(entry)))]);
    let source = Source {
        remote_ip_blocks: Terms { any: vec![Str::from("10.0.0.0/8")], none: Vec::new() },
        ..Source::default()
    };
    let policy = |name: &str, from: Vec<Source>| AuthorizationPolicy {
        name: Name::new("jobs", name),
        generation: 2,
        selector: Labels::new(),
        targets: 0,
        action: PolicyAction::Allow,
        rules: vec![PolicyRule { from, ..PolicyRule::default() }],
        dry_run: false,
        until: None,
    };
    for policy in [policy("good", vec![Source::default()]), policy("odd", vec![source])] {
        index.apply([Event::Put(Object::AuthorizationPolicy(Box::new(policy)))]);
    }
    let said: BTreeMap<String, (i64, Vec<String>)> = index
        .conditions()
        .iter()
        .map(|(key, report)| {
            let words = report.all().map(|one| format!("{}={} {}", one.kind, one.holds, one.reason));
            (key.to_string(), (report.generation, words.collect()))
        })
        .collect();
    let want = |generation: i64, words: &[&str]| {
        (generation, words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    };
    assert_eq!(said["AuthorizationPolicy jobs/good"], want(2, &["ZtunnelAccepted=true Accepted"]));
    assert_eq!(
        said["AuthorizationPolicy jobs/odd"],
        want(2, &["ZtunnelAccepted=true UnsupportedValue", "PartiallyInvalid=true UnsupportedValue"])
    );
    assert_eq!(
        said["ServiceEntry shop/db"],
        want(
            4,
            &["istio.io/WaypointBound=false WaypointIsNotReady", "PartiallyInvalid=true UnsupportedValue"]
        )
    );
    assert!(!said.contains_key("Service shop/waypoint"), "a waypoint asks for none: {said:?}");
    assert!(said.keys().all(|key| !key.starts_with("Gateway ")), "gateways are told elsewhere: {said:?}");
}
