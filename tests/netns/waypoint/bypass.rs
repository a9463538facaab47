//! Row 4: whichever way a request comes, the policy of the waypoint holds.

use std::net::SocketAddr;
use std::time::Duration;

use ambit_tests::certs::Template;
use ambit_tests::lab::{http_peer, wait_until};
use serde_json::{Value, json};

use super::called::peer_pod;
use super::shop::{CLIENT, OTHER, OUTSIDE, PODS, PORT, Shop, Told, WEB, gateway, get_only, service, told};
use crate::stranger;

/// A path that no request in order uses: whatever an application counts there came past the policy.
const PATH: &str = "/bypass";
/// What no policy of these tests allows.
const POST: [&str; 6] = ["get", "--method", "POST", "--timeout", "5s", "--url"];
/// The codes of who came without the waypoint, or pretended to be it.
const CODES: [&str; 5] = ["AMB3102", "AMB2102", "AMB2101", "AMB2301", "AMB2303"];

#[test]
fn the_policy_holds_whichever_way_a_request_comes() {
    let Some(shop) = Shop::up("wp-bypass", &[get_only()]) else { return };
    let allowed = shop.get(CLIENT, &format!("{WEB}/allowed"), &[]);
    assert_eq!(
        (allowed.status(), shop.taken(&PODS, "/allowed")),
        (200, 1),
        "the service works: {:#}",
        allowed.0
    );
    let pods = PODS.map(|pod| format!("http://{}{PATH}", shop.lab.target(pod, 4, PORT)));
    let six = pods_of_family_six(&shop);
    let by_service = format!("{WEB}{PATH}");
    let by_alias = format!("http://alias.shop.svc.cluster.local{PATH}");
    for from in [CLIENT, OTHER, OUTSIDE] {
        let ways = [&[by_service.clone(), by_alias.clone()][..], &pods[..], &six[..]].concat();
        for url in ways {
            let told = shop.run(from, &[&POST[..], &[&*url]].concat(), Duration::from_secs(30));
            refused(&shop, &PODS, &format!("{from} to {url}"), &told);
        }
    }
    for node in ["node1", "node2"] {
        for url in pods.iter().chain(&six) {
            let peer = http_peer();
            let told = told(&shop.lab.on_node(node, &[&[&*peer], &POST[..], &[&**url]].concat()));
            refused(&shop, &PODS, &format!("{node} to {url}"), &told);
        }
    }
    forged(&shop);
    assert_eq!(shop.taken(&PODS, "/allowed"), 1, "the counts were not set back meanwhile");
    not_in_vain(&shop, &pods);
}

fn pods_of_family_six(shop: &Shop) -> [String; 2] {
    PODS.map(|pod| format!("http://{}{PATH}", shop.lab.target(pod, 6, PORT)))
}

/// Either there was no answer, or the waypoint's: a hairpin is as good as a refusal.
#[track_caller]
fn refused(shop: &Shop, pods: &[&str], way: &str, told: &Told) {
    match told.status() {
        0 => assert!(!told.error().is_empty(), "{way}: {:#}", told.0),
        403 => assert_eq!(told.header("x-ambit-reason"), "AMB2202", "{way}: {:#}", told.0),
        other => panic!("{way}: {other}: {:#}", told.0),
    }
    assert_eq!(shop.taken(pods, PATH), 0, "{way}: it reached the application");
}

/// A certificate that is in order, shown to the pod's own proxy by somebody who is not the waypoint.
fn forged(shop: &Shop) {
    let ca = stranger::authority(&shop.lab);
    let words =
        format!("POST {PATH} HTTP/1.1\r\nhost: web\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    for identity in ["ns/shop/sa/client", "ns/other/sa/other", "ns/shop/sa/default", "ns/shop/sa/nobody"] {
        let shown = ca.leaf(&Template::leaf(&format!("spiffe://cluster.local/{identity}")));
        for pod in PODS {
            let address = shop.lab.address(pod, 4);
            let at = SocketAddr::new(address, 15008);
            let by_pod = SocketAddr::new(address, PORT).to_string();
            for authority in [&*by_pod, "web.shop.svc.cluster.local:80"] {
                let answer = stranger::ask(&shop.lab, OUTSIDE, at, &shown, authority, words.as_bytes());
                let way = format!("CONNECT {authority} as {identity} at {pod}");
                let let_in = matches!(&answer.status, Ok((200, _)));
                assert!(!let_in && answer.said.is_empty(), "{way}: {answer:?}");
                if let Ok((_, code)) = &answer.status {
                    let code = code.as_deref().unwrap_or_default();
                    assert!(CODES.contains(&code), "{way}: {answer:?}");
                }
                assert_eq!(shop.taken(&PODS, PATH), 0, "{way}: it reached the application");
            }
        }
    }
    shop.until_recorded("AMB3102");
}

/// Without the binding the same requests arrive: it was the binding that kept them out.
fn not_in_vain(shop: &Shop, pods: &[String]) {
    let _ = shop.lab.lab(&["label", "namespace", "shop", "istio.io/use-waypoint-"]);
    shop.delete(&get_only());
    for url in pods {
        let told = shop.post(CLIENT, url);
        assert_eq!(told.status(), 200, "{url} without a waypoint: {:#}", told.0);
    }
    assert_eq!(shop.taken(&PODS, PATH), 2);
}

/// A pod that names a waypoint of its own, and the service in front of it.
const OWN: &str = "shop/own";
const OWN_SERVICE: &str = "http://own.shop.svc.cluster.local";

/// The waypoint that a pod names itself knows no rules of the service in front of it, which is bound to another one.
#[test]
fn the_waypoint_of_a_pod_is_no_way_around_that_of_its_service() {
    let Some(shop) = Shop::up("wp-own", &[wpods(), own_pod(), own_service(), own_get_only()]) else { return };
    wait_until("the pod's service answers", Duration::from_secs(20), || {
        shop.get(CLIENT, &format!("{OWN_SERVICE}/allowed"), &["--timeout", "2s"]).status() == 200
    });
    let object = shop.lab.get("pod", OWN);
    assert_eq!(object["metadata"]["labels"]["istio.io/use-waypoint"], "wpods", "{object:#}");
    let by_pod = [4, 6].map(|family| format!("http://{}{PATH}", shop.lab.target(OWN, family, PORT)));
    let by_service = format!("{OWN_SERVICE}{PATH}");
    for from in [CLIENT, OTHER, OUTSIDE] {
        for url in by_pod.iter().chain([&by_service]) {
            let told = shop.run(from, &[&POST[..], &[&**url]].concat(), Duration::from_secs(30));
            refused(&shop, &[OWN], &format!("{from} to {url}"), &told);
        }
    }
    shop.until_recorded("AMB3102");
    // It was the policy that kept them out where the service was called, and no fault of the pod.
    shop.delete(&own_get_only());
    wait_until("the policy is gone", Duration::from_secs(20), || {
        shop.post(CLIENT, &by_service).status() == 200
    });
    assert!(shop.taken(&[OWN], PATH) > 0);
}

/// A waypoint for pods that name it.
fn wpods() -> Value {
    let mut gateway = gateway();
    gateway["metadata"]["name"] = json!("wpods");
    gateway["metadata"]["labels"] = json!({"istio.io/waypoint-for": "workload"});
    gateway
}

fn own_pod() -> Value {
    let port = PORT.to_string();
    let mut pod = peer_pod(OWN, "node2", &["serve", "--port", &port, "--name", "own"], PORT);
    pod["metadata"]["labels"]["istio.io/use-waypoint"] = json!("wpods");
    pod
}

fn own_service() -> Value {
    service("shop/own", &json!({"app": "own"}), 80, PORT, "http")
}

fn own_get_only() -> Value {
    let mut policy = get_only();
    policy["metadata"]["name"] = json!("own-get-only");
    policy["spec"]["targetRefs"] = json!([{"group": "", "kind": "Service", "name": "own"}]);
    policy
}
