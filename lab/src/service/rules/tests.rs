//! Where connections to services lead, as rules.

use expect_test::{Expect, expect, expect_file};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::{forwards, ruleset};
use crate::address::Families;

#[test]
fn services_lead_to_their_ready_endpoints() {
    let ports = json!([{"name": "http", "port": 80, "targetPort": "web"}, {"name": "raw", "port": 9000}]);
    let web = service("web", json!({"clusterIPs": ["10.96.0.20", "fd00:10:96::14"], "ports": ports}));
    let slices = [
        slice(
            "web",
            "IPv4",
            json!([["http", 8080], ["raw", 9000]]),
            json!([
                ["10.244.1.2", true, true, "node1"],
                ["10.244.2.2", true, true, "node2"],
                ["10.244.2.3", false, false, "node2"],
                ["10.244.2.4", false, true, "node2"],
            ]),
        ),
        slice("web", "IPv4", json!([["http", 8081]]), json!([["10.244.1.9", true, true, "node1"]])),
        slice("web", "IPv6", json!([["http", 8080]]), json!([["fd00:10:244:1::2", true, true, "node1"]])),
    ];
    check(
        &[web],
        &slices,
        expect![[r#"
        shop/web:http tcp 10.96.0.20:80 -> 10.244.1.2:8080 10.244.1.9:8081 10.244.2.2:8080
        shop/web:raw tcp 10.96.0.20:9000 -> 10.244.1.2:9000 10.244.2.2:9000
        shop/web:http tcp [fd00:10:96::14]:80 -> [fd00:10:244:1::2]:8080
        shop/web:raw tcp [fd00:10:96::14]:9000 ->
    "#]],
    );
}

#[test]
fn leaving_endpoints_serve_when_nothing_else_does() {
    let web = service("web", json!({"clusterIP": "10.96.0.20", "ports": [{"port": 80}]}));
    let endpoints = json!([["10.244.2.3", false, false, "node2"], ["10.244.2.4", false, true, "node2"]]);
    check(
        &[web],
        &[slice("web", "IPv4", json!([["", 80]]), endpoints)],
        expect![[r#"
        shop/web tcp 10.96.0.20:80 -> 10.244.2.4:80
    "#]],
    );
}

#[test]
fn traffic_policy_local_stays_on_the_node() {
    let spec = json!({"clusterIP": "10.96.0.20", "ports": [{"port": 80}], "internalTrafficPolicy": "Local"});
    let endpoints = json!([["10.244.1.2", true, true, "node1"], ["10.244.2.2", true, true, "node2"]]);
    let slices = [slice("web", "IPv4", json!([["", 80]]), endpoints)];
    check(
        &[service("web", spec)],
        &slices,
        expect![[r#"
        shop/web tcp 10.96.0.20:80 -> 10.244.1.2:80
    "#]],
    );
}

#[test]
fn nothing_leads_to_headless_external_or_foreign_services() {
    let ports = json!([{"port": 80}, {"port": 81, "protocol": "SCTP"}]);
    let all = [
        service("headless", json!({"clusterIP": "None", "ports": ports})),
        service("outside", json!({"type": "ExternalName", "externalName": "example.test"})),
        service("waiting", json!({"ports": ports})),
        service("dns", json!({"clusterIP": "10.96.0.30", "ports": [{"port": 53, "protocol": "UDP"}]})),
    ];
    let mut foreign = slice("dns", "IPv4", json!([["", 53]]), json!([["10.244.1.2", true, true, "node1"]]));
    foreign.metadata.namespace = Some("jobs".to_owned());
    check(
        &all,
        &[foreign],
        expect![[r#"
        shop/dns udp 10.96.0.30:53 ->
    "#]],
    );
}

#[test]
fn rules_replace_those_before_and_refuse_what_leads_nowhere() {
    let all = [
        service(
            "web",
            json!({"clusterIPs": ["10.96.0.20", "fd00:10:96::14"], "ports": [{"name": "http", "port": 80}]}),
        ),
        service("idle", json!({"clusterIP": "10.96.0.21", "ports": [{"port": 80}]})),
    ];
    let slices = [
        slice(
            "web",
            "IPv4",
            json!([["http", 8080]]),
            json!([["10.244.1.2", true, true, "node1"], ["10.244.2.2", true, true, "node2"],]),
        ),
        slice("web", "IPv6", json!([["http", 8080]]), json!([["fd00:10:244:1::2", true, true, "node1"]])),
    ];
    expect_file!["dual.nft"].assert_eq(&ruleset("node1", &all, &slices, Families::Dual));
}

#[test]
fn one_family_leaves_the_other_out() {
    expect_file!["ipv6.nft"].assert_eq(&ruleset("node1", &[], &[], Families::Ipv6));
}

#[track_caller]
fn check(services: &[Service], slices: &[EndpointSlice], want: Expect) {
    let mut text = String::new();
    for f in forwards("node1", services, slices) {
        let from = std::net::SocketAddr::new(f.address, f.port);
        let to: String = f.targets.iter().map(|t| format!(" {t}")).collect();
        text += &format!("{} {} {from} ->{to}\n", f.label, f.transport);
    }
    want.assert_eq(&text);
}

fn service(name: &str, spec: Value) -> Service {
    serde_json::from_value(json!({"metadata": {"namespace": "shop", "name": name}, "spec": spec})).unwrap()
}

fn slice(service: &str, family: &str, ports: Value, endpoints: Value) -> EndpointSlice {
    let rows = |all: Value, shape: fn(&Value) -> Value| -> Vec<Value> {
        all.as_array().unwrap().iter().map(shape).collect()
    };
    let ports = rows(ports, |p| json!({"name": p[0], "port": p[1], "protocol": "TCP"}));
    let endpoints = rows(endpoints, |e| {
        let conditions = json!({"ready": e[1], "serving": e[2], "terminating": e[1] != e[2]});
        json!({"addresses": [e[0]], "conditions": conditions, "nodeName": e[3]})
    });
    serde_json::from_value(json!({
        "addressType": family, "ports": ports, "endpoints": endpoints,
        "metadata": {"namespace": "shop", "name": format!("{service}-x"), "labels": {"kubernetes.io/service-name": service}},
    }))
    .unwrap()
}
