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

/// Where the control plane reads the label, and nowhere else.
#[test]
fn whatever_may_ask_for_a_waypoint_is_held_to_it() {
    let asks = json!({"istio.io/use-waypoint": "nowhere"});
    let label = "[istio.io/use-waypoint]";
    let lost = |kind: &str, path: &str| vec![format!("AMB3101 {kind} {path}{label}")];
    let of =
        |kind: &str, labels: &Value, spec: Value| vec![labelled(kind, "shop", kind, labels.clone(), spec)];
    let none = json!({});
    let template = json!({"template": {"metadata": {"labels": asks}}});
    let rows = [
        (of("Pod", &asks, json!({})), lost("Pod", "metadata.labels")),
        (of("Deployment", &none, template.clone()), lost("Deployment", "spec.template.metadata.labels")),
        (of("StatefulSet", &none, template), lost("StatefulSet", "spec.template.metadata.labels")),
        (of("ServiceEntry", &asks, json!({})), lost("ServiceEntry", "metadata.labels")),
        (
            of("ServiceEntry", &none, json!({"endpoints": [{}, {"labels": asks}]})),
            lost("ServiceEntry", "spec.endpoints[1].labels"),
        ),
        (of("WorkloadEntry", &asks, json!({})), lost("WorkloadEntry", "metadata.labels")),
        (of("WorkloadEntry", &none, json!({"labels": asks})), lost("WorkloadEntry", "spec.labels")),
        // Labels of a controller itself are nobody's, and its pods' own stand before those of the object.
        (of("Deployment", &asks, json!({})), vec![]),
        (of("WorkloadEntry", &asks, json!({"labels": {"istio.io/use-waypoint": "none"}})), vec![]),
        (of("Service", &asks, json!({"type": "ExternalName"})), vec![]),
        (of("ConfigMap", &asks, json!({})), vec![]),
    ];
    for (objects, want) in rows {
        check(&objects, &want.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let mut of_gateway = asks.clone();
    of_gateway["gateway.istio.io/managed"] = json!("istio.io-mesh-controller");
    check(&of("Service", &of_gateway, json!({})), &[]);
    let mut pod_of_gateway = asks;
    pod_of_gateway["gateway.networking.k8s.io/gateway-name"] = json!("nowhere");
    check(&of("Pod", &pod_of_gateway, json!({})), &[]);
}

#[test]
fn a_waypoint_has_to_be_one_and_to_take_what_asks() {
    let path = "metadata.labels[istio.io/use-waypoint]";
    let asks = |kind: &str, namespace: &str| {
        let labels = json!({"istio.io/use-waypoint": "w", "istio.io/use-waypoint-namespace": "shop"});
        labelled(kind, namespace, "asks", labels, json!({}))
    };
    let gateway = |class: &str, labels: Value, allowed: Value| {
        let listeners =
            json!([{"protocol": "HBONE", "port": 15008, "allowedRoutes": {"namespaces": allowed}}]);
        labelled("Gateway", "shop", "w", labels, json!({"gatewayClassName": class, "listeners": listeners}))
    };
    let usual = || gateway("istio-waypoint", json!({}), json!({}));
    check(&[usual(), asks("Service", "shop"), asks("Pod", "shop"), asks("ServiceEntry", "shop")], &[]);
    let other = gateway("istio", json!({}), json!({}));
    check(&[other, asks("Service", "shop")], &[&format!("AMB3101 asks {path}")]);
    // A class is known by its controller, not by its name.
    let class = |controller: &str| {
        labelled("GatewayClass", "", "mine", json!({}), json!({"controllerName": controller}))
    };
    let mine = || gateway("mine", json!({}), json!({}));
    check(&[class("istio.io/mesh-controller"), mine(), asks("Service", "shop")], &[]);
    check(&[class("example.com/other"), mine(), asks("Service", "shop")], &[&format!("AMB3101 asks {path}")]);
    let workloads = gateway("istio-waypoint", json!({"istio.io/waypoint-for": "workload"}), json!({}));
    check(&[workloads.clone(), asks("Pod", "shop")], &[]);
    check(&[workloads, asks("Service", "shop")], &[&format!("AMB3104 asks {path}")]);

    let more = json!({"istio.io/dataplane-mode": "ambient", "team": "a"});
    let foreign = labelled("Namespace", "", "far", more, json!({}));
    let far = |allowed: Value| {
        vec![foreign.clone(), gateway("istio-waypoint", json!({}), allowed), asks("Service", "far")]
    };
    check(&far(json!({})), &[&format!("AMB3104 asks {path}")]);
    check(&far(json!({"from": "All"})), &[]);
    let team = |team: &str| json!({"from": "Selector", "selector": {"matchLabels": {"team": team}}});
    check(&far(team("a")), &[]);
    check(&far(team("b")), &[&format!("AMB3104 asks {path}")]);
}

#[test]
fn a_waypoint_for_a_pod_outside_the_mesh_is_told() {
    let labels = json!({"istio.io/use-waypoint": "w", "istio.io/dataplane-mode": "none"});
    let waypoint = object("Gateway", "w", json!({"gatewayClassName": "istio-waypoint"}));
    let pod = labelled("Pod", "shop", "p", labels, json!({}));
    check(&[waypoint, pod], &["KIA1312 p metadata.labels[istio.io/use-waypoint]"]);
}

#[test]
fn imported_routes_need_a_waypoint_too() {
    let import = |spec: Value| object("VirtualService", "vs", spec);
    check(&[import(json!({"hosts": ["cart"]}))], &["AMB3103 vs spec.hosts[0]"]);
    check(&[import(json!({"hosts": ["cart.shop.svc.cluster.local"]}))], &["AMB3103 vs spec.hosts[0]"]);
    // What is not of its namespace is not in force for another reason; what is for a gateway needs no waypoint.
    check(&[import(json!({"hosts": ["cart.other.svc.cluster.local"]}))], &[]);
    check(&[import(json!({"hosts": ["cart"], "gateways": ["front"]}))], &[]);
    check(&[import(json!({"hosts": ["cart"], "gateways": ["mesh"]}))], &["AMB3103 vs spec.hosts[0]"]);
}

#[test]
fn a_part_says_nothing_of_a_waypoint_that_the_namespace_may_name() {
    let service = object("Service", "cart", json!({"ports": [{"port": 80}]}));
    let to_cart = json!({"parentRefs": [{"kind": "Service", "name": "cart"}]});
    let objects = [service, object("HTTPRoute", "r", to_cart)];
    assert_eq!(found(&objects, Scope::Part), Vec::<String>::new());
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
fn a_sidecar_in_a_namespace_of_the_mesh_is_told() {
    let with = |metadata: Value| {
        let mut pod = object("Pod", "p", json!({}));
        for (key, value) in metadata.as_object().unwrap() {
            pod["metadata"][key.as_str()] = value.clone();
        }
        pod
    };
    let inject = json!({"sidecar.istio.io/inject": "true"});
    check(&[with(json!({"labels": inject}))], &["AMB1002 p metadata.labels[sidecar.istio.io/inject]"]);
    check(
        &[with(json!({"annotations": inject}))],
        &["AMB1002 p metadata.annotations[sidecar.istio.io/inject]"],
    );
    let injected = json!({"annotations": {"sidecar.istio.io/status": "{}"}});
    check(&[with(injected)], &["AMB1002 p metadata.annotations[sidecar.istio.io/status]"]);
    let out = json!({"istio.io/dataplane-mode": "none", "sidecar.istio.io/inject": "true"});
    check(&[with(json!({"labels": out}))], &[]);
    check(&[with(json!({"labels": {"sidecar.istio.io/inject": "false"}}))], &[]);
    // A mode that is not known leaves it to the namespace, as for the node agent.
    let unclear = json!({"istio.io/dataplane-mode": "sidecar", "sidecar.istio.io/inject": "true"});
    check(&[with(json!({"labels": unclear}))], &["AMB1002 p metadata.labels[sidecar.istio.io/inject]"]);
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

/// Whoever meets a code finds it in the documentation, and so does who looks for a code of another tool.
#[test]
fn every_code_is_documented() {
    let page = include_str!("../../../../docs/lint.md");
    let sources = [
        include_str!("labels.rs"),
        include_str!("network.rs"),
        include_str!("policies.rs"),
        include_str!("routes.rs"),
        include_str!("unsupported.rs"),
        include_str!("waypoints.rs"),
    ];
    let is_code = |word: &&str| {
        let number = ["AMB", "KIA", "IST"].iter().find_map(|tool| word.strip_prefix(tool));
        number.is_some_and(|n| n.len() == 4 && n.bytes().all(|b| b.is_ascii_digit()))
    };
    let codes: Vec<&str> = sources.iter().flat_map(|text| text.split('"')).filter(is_code).collect();
    assert!(codes.len() > 20, "{codes:?}");
    let missing: Vec<&&str> = codes.iter().filter(|code| !page.contains(**code)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
