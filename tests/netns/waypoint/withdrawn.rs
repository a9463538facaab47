//! Row 4 again: a service whose waypoint may not serve it any more, or has lost its Gateway, is closed. While that comes
//! into force under load, and while the waypoint's pods still run, nothing comes past the policy.

use std::time::Duration;

use ambit_tests::lab::{Background, wait_until};
use serde_json::{Value, json};

use super::called::peer_pod;
use super::shop::{CLIENT, PODS, PORT, Shop, WEB, gateway, service, told};
use crate::cast::namespace;

/// A path that is asked for by POST alone.
const PATH: &str = "/withdrawn";
/// The service of another namespace that is bound to the shop's waypoint, and its pod.
const VAULT: &str = "http://vault.bank.svc.cluster.local";
const VAULT_POD: &str = "bank/vault";
/// How long the load lasts: longer than a change takes to be in force, and a waypoint's drain.
const LOAD: &str = "25s";
/// Patience for a change to be in force.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn what_a_waypoint_may_not_serve_any_more_is_closed() {
    let more = [bank(), vault_pod(), vault(), no_post("bank", "vault"), no_post("shop", "web")];
    let Some(shop) = Shop::up("wp-withdrawn", &more) else { return };
    shop.lab.apply(&[own_web(), gateway_for("service", "All")]);
    served(&shop, "at first", &[WEB, VAULT]);

    let load = posts(&shop, VAULT);
    shop.lab.apply(&[gateway_for("service", "Same")]);
    closed(&shop, "allowedRoutes from All to Same", VAULT);
    served(&shop, "its own namespace", &[WEB]);
    none_passed(&shop, "allowedRoutes from All to Same", load, &[VAULT_POD]);
    shop.lab.apply(&[gateway_for("service", "All")]);
    served(&shop, "attached again", &[VAULT]);

    let load = posts(&shop, WEB);
    shop.lab.apply(&[gateway_for("none", "All")]);
    closed(&shop, "a waypoint for nothing", WEB);
    none_passed(&shop, "a waypoint for nothing", load, &PODS);
    shop.lab.apply(&[gateway_for("service", "All")]);
    served(&shop, "for services again", &[WEB, VAULT]);

    let load = posts(&shop, WEB);
    shop.lab.apply(&[class("example.com/other")]);
    closed(&shop, "a class of another controller", WEB);
    none_passed(&shop, "a class of another controller", load, &PODS);
    shop.lab.apply(&[class("istio.io/mesh-controller")]);
    served(&shop, "a class of ours again", &[WEB, VAULT]);
}

#[test]
fn deleting_a_gateway_opens_nothing_while_its_waypoint_drains() {
    let more = [no_post("shop", "web")];
    let Some(shop) = Shop::up("wp-deleted", &more) else { return };
    served(&shop, "at first", &[WEB]);
    // What the drain lasts for: an answer that is under way when the waypoint is told to go.
    let drip = shop.begin(CLIENT, &["get", "--url", &format!("{WEB}/drip/50/100")]);
    wait_until("the stream is under way", PATIENCE, || shop.taken(&PODS, "/drip/50/100") > 0);
    let load = posts(&shop, WEB);
    let fresh = posts_with(&shop, WEB, &["--fresh"]);
    shop.delete(&gateway());
    closed(&shop, "without its Gateway", WEB);
    drop(drip.finish(Duration::from_secs(60)));
    none_passed(&shop, "without its Gateway", load, &PODS);
    none_passed(&shop, "without its Gateway, on new connections", fresh, &PODS);
    shop.lab.apply(&[gateway()]);
    served(&shop, "with its Gateway again", &[WEB]);
}

/// GET is answered by the application, and POST refused by the policy.
#[track_caller]
fn served(shop: &Shop, when: &str, services: &[&str]) {
    for url in services {
        wait_until(&format!("{when}: {url} is served"), PATIENCE, || {
            shop.get(CLIENT, &format!("{url}/allowed"), &["--timeout", "2s"]).status() == 200
        });
        let told = shop.post(CLIENT, &format!("{url}{PATH}"));
        assert_eq!(told.status(), 403, "{when}: POST to {url}: {:#}", told.0);
    }
}

/// Nobody is answered by the application any more, whatever is asked.
#[track_caller]
fn closed(shop: &Shop, when: &str, url: &str) {
    wait_until(&format!("{when}: {url} is closed"), PATIENCE, || {
        shop.get(CLIENT, &format!("{url}/allowed"), &["--timeout", "2s"]).status() != 200
    });
    for _ in 0..10 {
        for told in [
            shop.get(CLIENT, &format!("{url}/allowed"), &["--timeout", "2s"]),
            shop.post(CLIENT, &format!("{url}{PATH}")),
        ] {
            assert!([0, 403, 421, 503].contains(&told.status()), "{when}: {url}: {:#}", told.0);
        }
    }
}

/// Requests that the policy forbids, for as long as [`LOAD`]. The first one was answered.
#[track_caller]
fn posts(shop: &Shop, url: &str) -> Background {
    posts_with(shop, url, &[])
}

#[track_caller]
fn posts_with(shop: &Shop, url: &str, more: &[&str]) -> Background {
    let always = ["--method", "POST", "--duration", LOAD, "--rate", "100", "--concurrency", "4"];
    shop.begin_load(&format!("{url}{PATH}"), &[&always[..], more].concat())
}

/// None of them came past the policy, by both ends' count.
#[track_caller]
fn none_passed(shop: &Shop, when: &str, load: Background, pods: &[&str]) {
    let seen = told(&load.finish(Duration::from_secs(60)));
    assert!(seen.count("/by_status/403") > 0, "{when}: {:#}", seen.0);
    assert_eq!(seen.count("/by_status/200"), 0, "{when}: {:#}", seen.0);
    assert_eq!(shop.taken(pods, PATH), 0, "{when}: it reached the application: {:#}", seen.0);
}

/// A namespace whose services ask for the shop's waypoint.
fn bank() -> Value {
    let mut bank = namespace("bank", true);
    bank["metadata"]["labels"]["istio.io/use-waypoint"] = json!("waypoint");
    bank["metadata"]["labels"]["istio.io/use-waypoint-namespace"] = json!("shop");
    bank
}

fn vault_pod() -> Value {
    let port = PORT.to_string();
    peer_pod(VAULT_POD, "node2", &["serve", "--port", &port, "--name", "vault"], PORT)
}

fn vault() -> Value {
    let mut vault = service("bank/vault", &json!({"app": "vault"}), 80, PORT, "http");
    vault["metadata"]["labels"] =
        json!({"istio.io/use-waypoint": "waypoint", "istio.io/use-waypoint-namespace": "shop"});
    vault
}

/// The shop's service that names its waypoint itself: a waypoint for nothing is then no way out.
fn own_web() -> Value {
    let mut web = service("shop/web", &json!({"app": "web"}), 80, PORT, "http");
    web["metadata"]["labels"] = json!({"istio.io/use-waypoint": "waypoint"});
    web
}

/// A policy that denies POST to a service.
fn no_post(namespace: &str, service: &str) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "no-post", "namespace": namespace},
        "spec": {
            "targetRefs": [{"group": "", "kind": "Service", "name": service}],
            "action": "DENY",
            "rules": [{"to": [{"operation": {"methods": ["POST"]}}]}],
        },
    })
}

/// The shop's Gateway: what it is for, and whose services may attach.
fn gateway_for(traffic: &str, from: &str) -> Value {
    let mut gateway = gateway();
    gateway["metadata"]["labels"]["istio.io/waypoint-for"] = json!(traffic);
    gateway["spec"]["listeners"][0]["allowedRoutes"] = json!({"namespaces": {"from": from}});
    gateway
}

/// The class of waypoints, and who answers for it.
fn class(controller: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
        "metadata": {"name": "istio-waypoint"}, "spec": {"controllerName": controller},
    })
}
