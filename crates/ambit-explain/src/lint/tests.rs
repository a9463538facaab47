//! Each check as manifests with one fault, and the same manifests without it.

use serde_json::json;

use super::*;

fn labelled(kind: &str, namespace: &str, name: &str, labels: Value, spec: Value) -> Value {
    json!({"kind": kind, "metadata": {"namespace": namespace, "name": name, "labels": labels}, "spec": spec})
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    labelled(kind, "shop", name, json!({}), spec)
}

/// A namespace in the mesh with a service, its pod and a policy that covers it: nothing is wrong with it.
fn good() -> Vec<Value> {
    vec![
        labelled("Namespace", "", "shop", json!({"istio.io/dataplane-mode": "ambient"}), json!({})),
        object("ServiceAccount", "web", json!({})),
        labelled("Pod", "shop", "cart", json!({"app": "cart"}), json!({})),
        object("Service", "cart", json!({"selector": {"app": "cart"}, "ports": [{"port": 80}]})),
        object(
            "AuthorizationPolicy",
            "all",
            json!({"rules": [{"from": [{"source": {"namespaces": ["shop"]}}]}]}),
        ),
    ]
}

fn found(objects: &[Value], scope: Scope) -> Vec<String> {
    let text =
        |value: &'static str, of: &Value| of["metadata"][value].as_str().unwrap_or_default().to_owned();
    let names: Vec<[String; 3]> = objects
        .iter()
        .map(|o| [o["kind"].as_str().unwrap_or_default().to_owned(), text("namespace", o), text("name", o)])
        .collect();
    let items: Vec<Item<'_>> = objects
        .iter()
        .zip(&names)
        .map(|(body, [kind, namespace, name])| Item { kind, namespace, name, body })
        .collect();
    let told = |f: Finding| format!("{} {} {}", f.code, items[f.item].name, f.path);
    lint(&items, scope).into_iter().map(told).collect()
}

/// What is found once these are added to what is good.
#[track_caller]
fn check(more: &[Value], want: &[&str]) {
    let objects = [good(), more.to_vec()].concat();
    assert_eq!(found(&objects, Scope::Whole), want);
}

#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    check(&[], &[]);
}

#[test]
fn a_network_policy_has_to_let_tunnels_through() {
    let policy = |spec: Value| object("NetworkPolicy", "np", spec);
    check(&[policy(json!({"podSelector": {}}))], &["AMB4001 np spec.ingress"]);
    check(&[policy(json!({"podSelector": {"matchLabels": {"app": "other"}}}))], &[]);
    check(
        &[policy(json!({"podSelector": {}, "ingress": [{"ports": [{"port": 8080}]}]}))],
        &["AMB4001 np spec.ingress"],
    );
    check(&[policy(json!({"podSelector": {}, "ingress": [{"ports": [{"port": 15008}]}]}))], &[]);
    check(
        &[policy(json!({"podSelector": {}, "ingress": [{"ports": [{"port": 15000, "endPort": 15010}]}]}))],
        &[],
    );
    check(&[policy(json!({"podSelector": {}, "ingress": [{"from": []}]}))], &[]);
    let both = json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"ports": [{"port": 53}]}]});
    check(&[policy(both)], &["AMB4001 np spec.egress"]);
}

#[test]
fn network_policies_add_up_for_each_pod_and_direction() {
    let policy = |name: &str, spec: Value| object("NetworkPolicy", name, spec);
    let deny = |types: Value| policy("deny", json!({"podSelector": {}, "policyTypes": types}));
    let hbone = json!([{"ports": [{"protocol": "TCP", "port": 15008}]}]);
    let to_all = policy("hbone", json!({"podSelector": {}, "ingress": hbone}));
    check(&[deny(json!(["Ingress"])), to_all.clone()], &[]);
    // Each direction for itself.
    check(&[deny(json!(["Ingress", "Egress"])), to_all.clone()], &["AMB4001 deny spec.egress"]);
    let from_all = policy("out", json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": hbone}));
    check(&[deny(json!(["Ingress", "Egress"])), to_all.clone(), from_all], &[]);
    // What it says of a direction that it does not restrict does not count.
    let mut beside = to_all.clone();
    beside["spec"]["policyTypes"] = json!(["Egress"]);
    check(&[deny(json!(["Ingress"])), beside], &["AMB4001 deny spec.ingress", "AMB4001 hbone spec.egress"]);
    // Each pod for itself: one that admits them for others, or in another namespace, does nothing for this one.
    let mut others = to_all.clone();
    others["spec"]["podSelector"] = json!({"matchLabels": {"app": "other"}});
    check(&[deny(json!(["Ingress"])), others], &["AMB4001 deny spec.ingress"]);
    let mut elsewhere = to_all;
    elsewhere["metadata"]["namespace"] = json!("other");
    check(&[deny(json!(["Ingress"])), elsewhere], &["AMB4001 deny spec.ingress"]);
    // A pod that two of them cut off is told once.
    let web = policy("web", json!({"podSelector": {}, "ingress": [{"ports": [{"port": 8080}]}]}));
    check(&[deny(json!(["Ingress"])), web], &["AMB4001 deny spec.ingress"]);
}

#[test]
fn a_part_of_the_network_policies_says_nothing_of_tunnels() {
    let deny = object("NetworkPolicy", "deny", json!({"podSelector": {}}));
    let objects = [good(), vec![deny]].concat();
    assert_eq!(found(&objects, Scope::Part), Vec::<String>::new());
}

#[test]
fn http_conditions_need_a_waypoint() {
    let rule = json!([{"to": [{"operation": {"methods": ["GET"]}}]}]);
    let policy = |spec: Value| object("AuthorizationPolicy", "l7", spec);
    check(&[policy(json!({"rules": rule}))], &["AMB3103 l7 spec.rules[0]"]);
    check(&[policy(json!({"action": "DENY", "rules": rule}))], &["AMB2106 l7 spec.rules[0]"]);
    let target = json!({"targetRefs": [{"kind": "Service", "name": "cart"}], "rules": rule});
    check(&[policy(target.clone())], &["AMB3103 l7 spec.targetRefs[0]"]);
    let gateway = object("Gateway", "waypoint", json!({"gatewayClassName": "istio-waypoint"}));
    let bound = labelled(
        "Service",
        "shop",
        "bound",
        json!({"istio.io/use-waypoint": "waypoint"}),
        json!({"ports": [{"port": 80}]}),
    );
    let mut served = target;
    served["targetRefs"][0]["name"] = json!("bound");
    check(&[gateway, bound, policy(served)], &[]);
    let nobody = json!({"targetRefs": [{"kind": "Service", "name": "nobody"}]});
    check(&[policy(nobody)], &["IST0101 l7 spec.targetRefs[0]"]);
    check(&[object("RequestAuthentication", "jwt", json!({}))], &["AMB3103 jwt spec"]);
}

#[test]
fn waypoints_that_are_asked_for_have_to_be_there() {
    let asks = labelled("Service", "shop", "s", json!({"istio.io/use-waypoint": "w"}), json!({}));
    let path = "metadata.labels[istio.io/use-waypoint]";
    check(&[asks], &[&format!("AMB3101 s {path}")]);
    let none = labelled("Service", "shop", "s", json!({"istio.io/use-waypoint": "none"}), json!({}));
    check(&[none], &[]);
    let out = labelled("Namespace", "", "out", json!({"istio.io/use-waypoint": "w"}), json!({}));
    check(&[out], &[&format!("AMB3101 out {path}"), &format!("KIA1312 out {path}")]);
}

#[test]
fn routes_need_a_waypoint_and_backends() {
    let route = |spec: Value| object("HTTPRoute", "r", spec);
    let to = |name: &str| json!([{"kind": "Service", "name": name}]);
    check(&[route(json!({"parentRefs": to("cart")}))], &["AMB3103 r spec.parentRefs[0]"]);
    check(&[route(json!({"parentRefs": to("nobody")}))], &["IST0101 r spec.parentRefs[0]"]);
    let backend = |of: Value| json!({"rules": [{"backendRefs": [of]}]});
    let place = "spec.rules[0].backendRefs[0]";
    check(&[route(backend(json!({"name": "nobody", "port": 80})))], &[&format!("AMB3004 r {place}")]);
    check(&[route(backend(json!({"name": "cart", "port": 81})))], &[&format!("AMB3004 r {place}.port")]);
    check(&[route(backend(json!({"name": "cart", "port": 80})))], &[]);
    let foreign = labelled("Service", "other", "far", json!({}), json!({"ports": [{"port": 80}]}));
    let over = route(backend(json!({"name": "far", "namespace": "other", "port": 80})));
    check(&[foreign.clone(), over.clone()], &[&format!("AMB3004 r {place}")]);
    let grant = labelled(
        "ReferenceGrant",
        "other",
        "g",
        json!({}),
        json!({"from": [{"kind": "HTTPRoute", "namespace": "shop"}], "to": [{"kind": "Service"}]}),
    );
    check(&[foreign, over, grant], &[]);
}

#[test]
fn callers_that_nobody_can_be() {
    let policy = |principal: &str| {
        object(
            "AuthorizationPolicy",
            "p",
            json!({"rules": [{"from": [{"source": {"principals": [principal]}}]}]}),
        )
    };
    let place = "spec.rules[0].from[0].source.principals[0]";
    check(&[policy("cluster.local/ns/shop/sa/web")], &[]);
    check(&[policy("cluster.local/ns/shop/sa/wbe")], &[&format!("KIA0106 p {place}")]);
    check(&[policy("spiffe://cluster.local/ns/shop/sa/web")], &[&format!("KIA0106 p {place}")]);
    check(&[policy("*/ns/shop/sa/*")], &[]);
    let lost = json!({"rules": [{"from": [{"source": {"namespaces": ["shpo"]}}]}]});
    let path = "spec.rules[0].from[0].source.namespaces[0]";
    check(&[object("AuthorizationPolicy", "p", lost)], &[&format!("KIA0101 p {path}")]);
    let none = json!({"selector": {"matchLabels": {"app": "crat"}}});
    check(&[object("AuthorizationPolicy", "p", none)], &["IST0127 p spec.selector.matchLabels"]);
    check(
        &[object("AuthorizationPolicy", "p", json!({"action": "DENY", "rules": [{}]}))],
        &["AMB2103 p spec.rules"],
    );
}

#[test]
fn labels_that_contradict_each_other() {
    let both = json!({"istio.io/dataplane-mode": "ambient", "sidecar.istio.io/inject": "true"});
    let pod = labelled("Pod", "shop", "p", both, json!({}));
    check(&[pod], &["AMB1002 p metadata.labels[sidecar.istio.io/inject]"]);
    let host = object("Pod", "p", json!({"hostNetwork": true}));
    check(&[host], &["AMB1001 p metadata"]);
}

#[test]
fn a_workload_that_no_policy_covers_is_told() {
    let mut objects = good();
    objects.pop();
    assert_eq!(found(&objects, Scope::Whole), ["KIA1301 cart metadata"]);
    // With a part of everything in sight nothing is said of what may be elsewhere.
    assert_eq!(found(&objects, Scope::Part), Vec::<String>::new());
}

#[test]
fn pods_are_seen_in_whatever_makes_them() {
    let selects = object("NetworkPolicy", "np", json!({"podSelector": {"matchLabels": {"app": "db"}}}));
    let template = json!({"template": {"metadata": {"labels": {"app": "db"}}, "spec": {}}});
    let kinds = ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job"];
    for kind in kinds {
        check(&[selects.clone(), object(kind, "db", template.clone())], &["AMB4001 np spec.ingress"]);
    }
    let nightly = object("CronJob", "db", json!({"jobTemplate": {"spec": template}}));
    check(&[selects, nightly], &["AMB4001 np spec.ingress"]);
}

#[test]
fn kinds_of_istio_that_are_not_honoured_are_told() {
    let of = |version: &str, kind: &str, name: &str| {
        let mut body = object(kind, name, json!({}));
        body["apiVersion"] = json!(version);
        body
    };
    let rows = [
        ("networking.istio.io/v1alpha3", "EnvoyFilter"),
        ("networking.istio.io/v1", "DestinationRule"),
        ("networking.istio.io/v1", "Gateway"),
        ("extensions.istio.io/v1alpha1", "WasmPlugin"),
        ("telemetry.istio.io/v1", "Telemetry"),
        ("networking.istio.io/v1", "Sidecar"),
        ("split.smi-spec.io/v1alpha4", "TrafficSplit"),
        ("networking.istio.io/v9", "Unheard"),
    ];
    for (version, kind) in rows {
        check(&[of(version, kind, "x")], &["IST0167 x kind"]);
    }
    // What is honoured is not among them, of whichever version.
    let entry = of("networking.istio.io/v1alpha3", "ServiceEntry", "x");
    check(&[entry, of("security.istio.io/v1beta1", "PeerAuthentication", "x")], &[]);
    // Istio's Gateway is no waypoint, and does not hide one of its name.
    let asks = labelled("Service", "shop", "s", json!({"istio.io/use-waypoint": "w"}), json!({}));
    let lost = "AMB3101 s metadata.labels[istio.io/use-waypoint]";
    check(&[of("networking.istio.io/v1", "Gateway", "w"), asks.clone()], &["IST0167 w kind", lost]);
    let waypoint = object("Gateway", "w", json!({"gatewayClassName": "istio-waypoint"}));
    check(&[waypoint, of("networking.istio.io/v1", "Gateway", "w"), asks], &["IST0167 w kind"]);
}

/// Whoever reads it has to learn what to use, and what enforced something is an error.
#[test]
fn what_is_not_honoured_names_what_is() {
    let bodies = ["EnvoyFilter", "WasmPlugin", "Telemetry"]
        .map(|kind| json!({"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": {"name": "x"}}));
    let items: Vec<Item<'_>> = std::iter::zip(["EnvoyFilter", "WasmPlugin", "Telemetry"], &bodies)
        .map(|(kind, body)| Item { kind, namespace: "shop", name: "x", body })
        .collect();
    let told = lint(&items, Scope::Part);
    let severities: Vec<Severity> = told.iter().map(|one| one.severity).collect();
    assert_eq!(severities, [Severity::Error, Severity::Error, Severity::Warning]);
    assert!(told[1].fix.contains("action CUSTOM"), "{}", told[1].fix);
}
