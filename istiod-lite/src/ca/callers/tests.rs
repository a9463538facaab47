//! Who is taken for a node's proxy, who for a waypoint's replica, and who for neither.

use std::net::IpAddr;
use std::time::Duration;

use ambit_control::csr::{Caller, Check, Rules};
use ambit_control::{Index, Settings};
use ambit_types::Str;
use ambit_xds::node::{self, WaypointKey};

use super::{Admitted, Role, recognise, role, rules_of, still};
use crate::ca::authn::Token;
use crate::ingest;

const OBJECTS: &str = r#"
apiVersion: v1
kind: Node
metadata: {name: n1, uid: n1-uid}
status: {addresses: [{type: InternalIP, address: 10.0.0.1}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: v1
kind: Pod
metadata: {name: waypoint-0, namespace: shop, uid: w0}
spec: {nodeName: n1, serviceAccountName: waypoint, containers: [{name: c, image: i}]}
status: {phase: Running, podIP: 10.244.1.9}
---
apiVersion: v1
kind: Pod
metadata: {name: other-0, namespace: shop, uid: o0, labels: {gateway.networking.k8s.io/gateway-name: waypoint}}
spec: {nodeName: n1, serviceAccountName: other, containers: [{name: c, image: i}]}
status: {phase: Running, podIP: 10.244.1.10}
---
apiVersion: v1
kind: Pod
metadata: {name: cart-0, namespace: shop, uid: c0}
spec: {nodeName: n1, serviceAccountName: cart, containers: [{name: c, image: i}]}
status: {phase: Running, podIP: 10.244.1.11}
---
apiVersion: v1
kind: Pod
metadata: {name: ztunnel-n1, namespace: istio-system, uid: z1}
spec: {nodeName: n1, serviceAccountName: ztunnel, containers: [{name: c, image: i}]}
status: {phase: Running, podIP: 10.244.1.2, podIPs: [{ip: 10.244.1.2}, {ip: "fd00:10:244:1::2"}]}
"#;

fn index(manifests: &str) -> Index {
    let parsed = ambit_manifest::parse("m.yaml", manifests);
    assert!(parsed.problems.is_empty(), "{}", parsed.problems[0]);
    let mut index = Index::new(Settings::default());
    let events = parsed.objects.iter().filter_map(|object| ingest::put(object).unwrap());
    index.apply(events.collect::<Vec<_>>());
    index
}

/// A token of `NAMESPACE/ACCOUNT/POD`, and its call from an address.
fn call(who: &str, source: &str) -> (Token, Caller) {
    let parts: Vec<Str> = who.split('/').map(Str::from).collect();
    let [namespace, service_account, pod] = &parts[..] else { panic!("{who}") };
    let uid = match &**pod {
        "waypoint-0" => "w0",
        "other-0" => "o0",
        "cart-0" => "c0",
        "ztunnel-n1" => "z1",
        _ => "",
    };
    let token = Token {
        namespace: namespace.clone(),
        service_account: service_account.clone(),
        node: "n1".into(),
        node_uid: "n1-uid".into(),
        pod: pod.clone(),
        pod_uid: uid.into(),
        expires: Duration::ZERO,
    };
    let caller = Caller {
        namespace: namespace.clone(),
        service_account: service_account.clone(),
        node: "n1".into(),
        node_uid: "n1-uid".into(),
        pod: token.pod.clone(),
        pod_uid: token.pod_uid.clone(),
        source: source.parse::<IpAddr>().unwrap(),
    };
    (token, caller)
}

fn stated(kind: &str, gateway: Option<&str>, pod: &str) -> node::Caller {
    node::Caller {
        kind: kind.to_owned(),
        ips: vec![IpAddr::from([10, 0, 0, 1])],
        pod_name: pod.to_owned(),
        namespace: "shop".to_owned(),
        node_name: "n1".to_owned(),
        service_account: None,
        cluster_id: None,
        gateway: gateway.map(str::to_owned),
    }
}

/// `node`, `waypoint`, or the check that failed.
fn outcome(index: &Index, rules: &Rules, who: &str, source: &str) -> &'static str {
    let (token, caller) = call(who, source);
    match recognise(index, rules, &token, &caller) {
        Ok(Admitted::Node) => "node",
        Ok(Admitted::Waypoint(_)) => "waypoint",
        Err(refusal) => refusal.check.as_str(),
    }
}

#[test]
fn callers_are_taken_for_what_their_tokens_prove() {
    let index = index(OBJECTS);
    let rows = [
        // A DaemonSet's pod has an address of its own; its node's is what is left of it where that is translated.
        ("istio-system/ztunnel/ztunnel-n1", "10.244.1.2", "node"),
        ("istio-system/ztunnel/ztunnel-n1", "fd00:10:244:1::2", "node"),
        ("istio-system/ztunnel/ztunnel-n1", "10.0.0.1", "node"),
        ("istio-system/ztunnel/ztunnel-n1", "10.244.1.9", "source-address"),
        ("istio-system/ztunnel/", "10.244.1.2", "source-address"),
        ("shop/waypoint/waypoint-0", "10.244.1.9", "waypoint"),
        ("shop/waypoint/waypoint-0", "10.0.0.1", "waypoint"),
        // Of a token that is bound to no pod, the account's pods count.
        ("shop/waypoint/", "10.244.1.9", "waypoint"),
        ("shop/waypoint/waypoint-0", "10.244.1.11", "source-address"),
        ("shop/waypoint/waypoint-7", "10.244.1.9", "pod-unknown"),
        ("shop/other/other-0", "10.244.1.10", "waypoint"),
        // Its label counts only if the token says that it is this pod which calls.
        ("shop/other/", "10.244.1.10", "caller-account"),
        ("shop/cart/cart-0", "10.244.1.11", "caller-account"),
        ("bank/waypoint/waypoint-0", "10.244.1.9", "caller-account"),
    ];
    for (who, source, want) in rows {
        assert_eq!(outcome(&index, &Rules::default(), who, source), want, "{who} from {source}");
    }
    let anywhere = Rules { bind_token_to_node_address: false, ..Rules::default() };
    assert_eq!(outcome(&index, &anywhere, "shop/waypoint/waypoint-0", "192.0.2.1"), "waypoint");
}

#[test]
fn a_replaced_pod_or_node_is_another() {
    let (who, source) = ("shop/waypoint/waypoint-0", "10.244.1.9");
    let rows = [
        ("uid: w0", "uid: w1", "pod-unknown"),
        ("uid: n1-uid", "uid: n2-uid", "node-uid"),
        ("{phase: Running, podIP: 10.244.1.9}", "{phase: Failed, podIP: 10.244.1.9}", "pod-unknown"),
        ("gatewayClassName: istio-waypoint", "gatewayClassName: nginx", "caller-account"),
    ];
    for (old, new, want) in rows {
        let index = index(&OBJECTS.replace(old, new));
        assert_eq!(outcome(&index, &Rules::default(), who, source), want, "{new}");
    }
}

#[test]
fn a_caller_is_served_as_what_it_was_admitted_for_only() {
    let index = index(OBJECTS);
    let rules = Rules::default();
    let ask = |who: &str, source: &str, stated: &node::Caller| {
        let (token, caller) = call(who, source);
        let admitted = recognise(&index, &rules, &token, &caller).unwrap();
        role(&index, &admitted, &token, stated).map_err(|refusal| refusal.detail)
    };
    let (ztunnel, waypoint) =
        (("istio-system/ztunnel/z", "10.0.0.1"), ("shop/waypoint/waypoint-0", "10.244.1.9"));
    assert_eq!(ask(ztunnel.0, ztunnel.1, &stated("ztunnel", None, "z")), Ok(Role::Node));
    let own = Role::Waypoint(WaypointKey::new("shop", "waypoint"));
    assert_eq!(
        ask(waypoint.0, waypoint.1, &stated("waypoint", Some("waypoint"), "waypoint-0")),
        Ok(own.clone())
    );
    assert_eq!(
        ask("shop/other/other-0", "10.244.1.10", &stated("waypoint", Some("waypoint"), "other-0")),
        Ok(own)
    );
    let rows = [
        (ztunnel, stated("waypoint", Some("waypoint"), "waypoint-0"), "is of node proxies"),
        (waypoint, stated("ztunnel", None, "waypoint-0"), "not served as a ztunnel"),
        (waypoint, stated("waypoint", None, "waypoint-0"), "GATEWAY_NAME"),
        (waypoint, stated("waypoint", Some("bank"), "waypoint-0"), "expected is account shop/bank"),
        (waypoint, stated("waypoint", Some("waypoint"), "cart-0"), "is no live pod"),
    ];
    for ((who, source), stated, want) in rows {
        let refused = ask(who, source, &stated).unwrap_err();
        assert!(refused.contains(want), "{who}: {refused}");
    }
}

#[test]
fn a_stream_of_a_proxy_ends_with_its_pod_unless_it_comes_from_the_node() {
    let rules = Rules::default();
    let ask = |objects: &str, source: &str| {
        let (token, caller) = call("istio-system/ztunnel/ztunnel-n1", source);
        still(&index(objects), &rules, &token, &caller, &Role::Node).map_err(|refusal| refusal.check)
    };
    let gone = OBJECTS.replace("uid: z1", "uid: z2");
    assert_eq!(ask(OBJECTS, "10.244.1.2"), Ok(()));
    assert_eq!(ask(&gone, "10.244.1.2"), Err(Check::SourceAddress));
    assert_eq!(ask(&gone, "10.0.0.1"), Ok(()));
}

#[test]
fn a_waypoint_stays_while_its_pod_does_and_its_gateway_need_not() {
    let rules = Rules::default();
    let (token, caller) = call("shop/waypoint/waypoint-0", "10.244.1.9");
    let role = Role::Waypoint(WaypointKey::new("shop", "waypoint"));
    let ask = |objects: &str| still(&index(objects), &rules, &token, &caller, &role).map_err(|r| r.check);
    assert_eq!(ask(OBJECTS), Ok(()));
    assert_eq!(
        ask(&OBJECTS
            .replace("kind: Gateway\nmetadata: {name: waypoint,", "kind: Gateway\nmetadata: {name: gone,")),
        Ok(())
    );
    assert_eq!(ask(&OBJECTS.replace("name: waypoint-0", "name: waypoint-1")), Err(Check::PodUnknown));
}

#[test]
fn nobody_becomes_a_waypoint_whose_gateway_is_gone() {
    let rules = Rules::default();
    let (token, caller) = call("shop/other/other-0", "10.244.1.10");
    let admitted = recognise(&index(OBJECTS), &rules, &token, &caller).unwrap();
    // Between a stream's beginning and its first request, and for an account of another Gateway that is there.
    let gone = OBJECTS
        .replace("kind: Gateway\nmetadata: {name: waypoint,", "kind: Gateway\nmetadata: {name: other,");
    let stated = stated("waypoint", Some("waypoint"), "other-0");
    let refused = role(&index(&gone), &admitted, &token, &stated).unwrap_err();
    assert_eq!(refused.check, Check::CallerAccount);
    assert!(refused.detail.contains("there is no Gateway shop/waypoint"), "{}", refused.detail);
    let admitted = recognise(&index(&gone), &rules, &token, &caller).unwrap();
    assert!(role(&index(&gone), &admitted, &token, &stated).is_err());
}

#[test]
fn a_waypoint_has_a_small_budget_of_its_own() {
    let index = index(OBJECTS);
    let rules = Rules::default();
    let (token, caller) = call("shop/waypoint/waypoint-0", "10.244.1.9");
    let admitted = recognise(&index, &rules, &token, &caller).unwrap();
    let own = rules_of(&admitted, &rules, &caller, None).unwrap();
    assert_eq!((own.burst, own.per_second, own.keys_remembered), (10, 1, 64));
    let (token, caller) = call("istio-system/ztunnel/z", "10.0.0.1");
    let admitted = recognise(&index, &rules, &token, &caller).unwrap();
    let of_node = rules_of(&admitted, &rules, &caller, None).unwrap();
    assert_eq!((of_node.burst, of_node.per_second), (rules.burst, rules.per_second));
}

#[test]
fn a_waypoint_is_certified_for_its_own_account_only() {
    let index = index(OBJECTS);
    let rules = Rules::default();
    let (token, caller) = call("shop/waypoint/waypoint-0", "10.244.1.9");
    let admitted = recognise(&index, &rules, &token, &caller).unwrap();
    let ask = |identity: Option<&str>| {
        rules_of(&admitted, &rules, &caller, identity)
            .map(|rules| rules.trusted_node_accounts.clone())
            .map_err(|refusal| refusal.check)
    };
    let own = Ok(vec![Str::from("shop/waypoint")]);
    assert_eq!(ask(None), own);
    assert_eq!(ask(Some("spiffe://cluster.local/ns/shop/sa/waypoint")), own);
    assert_eq!(ask(Some("spiffe://cluster.local/ns/shop/sa/cart")), Err(Check::OwnIdentity));
}
