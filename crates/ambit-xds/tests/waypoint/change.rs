//! Subscriptions, the order of a cycle, and what one change costs.

use std::sync::Arc;

use ambit_policy::http::model::{Action, Policy};
use ambit_types::PolicyKey;
use ambit_xds::Kind;
use ambit_xds::client::store::Change;
use ambit_xds::codec::{HttpPolicy, PolicyTarget, RequestAuthentication};
use ambit_xds::parts::is_last;
use ambit_xds::server::{self, Connection, Delta, WaypointDelta};
use prost::Message;

use super::rig::*;

const CART: &str = "shop/cart.example/80";

#[test]
fn a_waypoint_asks_for_everything_of_six_kinds() {
    let requests = Rig::new().client.on_connect();
    let kinds: Vec<_> = requests.iter().map(|r| Kind::among(&Kind::WAYPOINT, &r.type_url).unwrap()).collect();
    assert_eq!(kinds, Kind::WAYPOINT);
    for request in requests {
        assert!(request.resource_names_subscribe.is_empty(), "a wildcard");
        let id = request.node.unwrap().id;
        assert_eq!(id, "waypoint~10.0.0.9~wp-1.shop~shop.svc.cluster.local");
    }
}

#[test]
fn what_protects_comes_first_and_routes_come_last() {
    let (delta, own) = all();
    let (rig, came) = Rig::with(delta, own);
    let want = [
        "ExtensionProvider +opa",
        "RequestAuthentication +shop/jwt",
        "HttpPolicy +shop/get-only",
        "Destination +shop/cart-v2.example",
        "Address +shop/cart-v2.example +shop/cart.example",
        "Frontend +shop/cart.example/80",
    ];
    assert_eq!(came, want);
    assert!(rig.client.is_confirmed());
    assert_eq!(rig.server.acked_revision(), Some(1));
    assert_eq!(rig.store.frontends().count(), 1);
}

#[test]
fn a_kind_without_resources_is_answered_all_the_same() {
    let (rig, came) = Rig::with(Delta::default(), WaypointDelta::default());
    let want =
        ["ExtensionProvider", "RequestAuthentication", "HttpPolicy", "Destination", "Address", "Frontend"];
    assert_eq!(came, want);
    assert!(rig.client.is_confirmed());
}

#[test]
fn workloads_wait_until_every_kind_is_asked_for_but_not_for_ever() {
    let (delta, own) = all();
    let mut rig = Rig::new();
    rig.resources.apply(1, delta);
    rig.resources.apply_waypoint(1, &wp(), own);
    let mut requests = rig.client.on_connect();
    requests.truncate(5);
    rig.server.handle_change(rig.resources.clone().into(), rig.now);
    for request in requests {
        assert_eq!(rig.server.handle_request(request, rig.now), Ok(None));
    }
    rig.now = rig.server.next_deadline().unwrap();
    let response = rig.server.handle_timeout(rig.now).unwrap();
    assert_eq!(rig.settle_raw(response).len(), 5);
    assert_eq!(rig.server.acked_revision(), None, "routes are in force nowhere");
}

#[test]
fn one_changed_route_is_one_message_under_a_kibibyte() {
    let (delta, mut own) = all();
    // Many others that do not change.
    own.frontends.extend((0..500).map(|n| routes(&format!("s{n}"), &["/a", "/b"], "cart", 1)));
    let (mut rig, _) = Rig::with(delta, own);
    let changed = routes("cart", &["/", "/api", "/static"], "cart-v2", 90);
    let came = rig.publish_raw(Delta::default(), frontends(vec![changed.clone()]));
    assert_eq!(came.iter().map(brief).collect::<Vec<_>>(), [format!("Frontend +{CART}")]);
    assert!(came[0].encoded_len() < 1024, "{} bytes", came[0].encoded_len());
    assert_eq!(rig.changes, [Change::Frontend(changed)]);
    assert_eq!(rig.server.acked_revision(), Some(2));
    // The same once more is no change.
    let again = frontends(vec![routes("cart", &["/", "/api", "/static"], "cart-v2", 90)]);
    assert!(rig.publish(Delta::default(), again).is_empty());
}

#[test]
fn each_kind_changes_by_itself() {
    let (delta, own) = all();
    let (mut rig, _) = Rig::with(delta, own);
    let targets = || vec![PolicyTarget::Service(key("cart"))];
    let came = rig.publish(Delta::default(), policies(vec![policy("get-only", Action::Allow, 2, targets())]));
    assert_eq!(came, ["HttpPolicy +shop/get-only"]);
    // What it covered before and what it covers now.
    let touched = targets().into_iter().chain([PolicyTarget::Waypoint]).collect();
    assert_eq!(rig.changes, [Change::Policies(touched)]);
    let own = WaypointDelta { destinations: vec![destination("cart")], ..WaypointDelta::default() };
    assert_eq!(rig.publish(Delta::default(), own), ["Destination +shop/cart.example"]);
    assert_eq!(rig.changes, [Change::Destination(destination("cart"))]);
    let own = WaypointDelta { authentications: vec![tokens("more")], ..WaypointDelta::default() };
    assert_eq!(rig.publish(Delta::default(), own), ["RequestAuthentication +shop/more"]);
    assert_eq!(rig.changes, [Change::TokenRules([PolicyTarget::Waypoint].into())]);
    let own = WaypointDelta { providers: vec![provider("opa", 9192)], ..WaypointDelta::default() };
    assert_eq!(rig.publish(Delta::default(), own), ["ExtensionProvider +opa"]);
    assert_eq!(rig.changes, [Change::Providers]);
    assert_eq!(rig.store.providers()["opa"].port, 9192);
}

#[test]
fn a_provider_that_cannot_be_read_leaves_the_last_good_one() {
    let (delta, own) = all();
    let (mut rig, _) = Rig::with(delta, own);
    // No manifest has port 0, and no reader takes it.
    let own = WaypointDelta { providers: vec![provider("opa", 0)], ..WaypointDelta::default() };
    rig.publish(Delta::default(), own);
    assert!(rig.changes.is_empty());
    let refused: Vec<String> = rig.store.refusals().map(|(kind, name, _)| format!("{kind} {name}")).collect();
    assert_eq!(refused, ["ExtensionProvider opa"]);
    assert!(rig.store.holds(Kind::Provider, "opa"));
    assert_eq!(rig.store.providers()["opa"].port, 9191);
}

#[test]
fn a_route_leaves_a_service_before_the_service_leaves() {
    let (delta, own) = all();
    let (mut rig, _) = Rig::with(delta, own);
    let mut delta = addresses(&["cart-v3"]);
    delta.removed_addresses = vec!["shop/cart-v2.example".into()];
    let mut own =
        removed(&[(Kind::Destination, "shop/cart-v2.example"), (Kind::HttpPolicy, "shop/get-only")]);
    own.frontends = vec![routes("cart", &["/"], "cart-v3", 1)];
    own.policies = vec![policy("new", Action::Allow, 1, vec![PolicyTarget::Waypoint])];
    let want = [
        "HttpPolicy +shop/new",
        "Address +shop/cart-v3.example",
        "Frontend +shop/cart.example/80",
        "Address -shop/cart-v2.example",
        "Destination -shop/cart-v2.example",
        "HttpPolicy -shop/get-only",
    ];
    assert_eq!(rig.publish(delta, own), want);
}

#[test]
fn what_is_removed_is_gone() {
    let (delta, own) = all();
    let (mut rig, _) = Rig::with(delta, own);
    let before = rig.store.clone();
    let own = removed(&[
        (Kind::Frontend, CART),
        (Kind::Destination, "shop/cart-v2.example"),
        (Kind::HttpPolicy, "shop/get-only"),
        (Kind::RequestAuthentication, "shop/jwt"),
        (Kind::Provider, "opa"),
    ]);
    let want = [
        "Frontend -shop/cart.example/80",
        "Destination -shop/cart-v2.example",
        "HttpPolicy -shop/get-only",
        "RequestAuthentication -shop/jwt",
        "ExtensionProvider -opa",
    ];
    assert_eq!(rig.publish(Delta::default(), own), want);
    let changes = [
        Change::FrontendRemoved { service: key("cart"), port: 80 },
        Change::DestinationRemoved(key("cart-v2")),
        Change::Policies([PolicyTarget::Waypoint].into()),
        Change::TokenRules([PolicyTarget::Waypoint].into()),
        Change::Providers,
    ];
    assert_eq!(rig.changes, changes);
    assert!(rig.store.providers().is_empty());
    assert_eq!(rig.store.frontends().count() + rig.store.destinations().count(), 0);
    assert_eq!(rig.store.policies().count() + rig.store.authentications().count(), 0);
    // A copy that somebody works with stays what it was.
    assert_eq!(before.frontends().count(), 1);
    assert_eq!(before.policies_for(&key("cart")).held.len(), 1);
}

/// What no manifest can say: nothing is allowed where it applies.
fn stand_in(name: &str, targets: Vec<PolicyTarget>) -> Arc<HttpPolicy> {
    let key = PolicyKey::new("shop", name);
    let policy = Policy { key, action: Action::Audit, rules: vec![], dry_run: true };
    Arc::new(HttpPolicy { targets, policy: Arc::new(policy) })
}

/// Rules for tokens that reach one service and no longer all of them.
fn shrunk() -> WaypointDelta {
    let tokens = RequestAuthentication {
        targets: vec![PolicyTarget::Service(key("cart-v2"))],
        ..(*tokens("jwt")).clone()
    };
    WaypointDelta {
        authentications: vec![Arc::new(tokens)],
        policies: vec![
            policy("new", Action::Allow, 1, vec![PolicyTarget::Waypoint]),
            stand_in("no_tokens", vec![PolicyTarget::Service(key("cart"))]),
        ],
        ..WaypointDelta::default()
    }
}

#[test]
fn what_denies_comes_before_what_loosens_and_leaves_after_it() {
    let (delta, own) = all();
    let (mut rig, _) = Rig::with(delta, own);
    let want = ["HttpPolicy +shop/no_tokens", "RequestAuthentication +shop/jwt", "HttpPolicy +shop/new"];
    assert_eq!(rig.publish(Delta::default(), shrunk()), want);
    assert_eq!(rig.store.policies_for(&key("cart")).held.len(), 3);
    assert_eq!(rig.server.acked_revision(), Some(2));

    let mut back = removed(&[(Kind::HttpPolicy, "shop/no_tokens")]);
    back.authentications = vec![tokens("jwt")];
    let want = ["RequestAuthentication +shop/jwt", "HttpPolicy -shop/no_tokens"];
    assert_eq!(rig.publish(Delta::default(), back), want);
}

#[test]
fn what_denies_comes_first_to_a_waypoint_that_comes_back_and_is_not_all_there_is() {
    let (delta, own) = all();
    let (mut rig, _) = Rig::with(delta, own);
    rig.publish_offline(Delta::default(), shrunk());
    let requests = rig.client.on_connect();
    let latest = Arc::new(rig.resources.clone());
    rig.server = Connection::for_waypoint("n1", wp(), latest, server::Limits::default());
    let mut response = None;
    for request in requests {
        response = rig.server.handle_request(request, rig.now).unwrap();
    }
    let first = response.unwrap();
    assert_eq!(brief(&first), "HttpPolicy +shop/no_tokens");
    assert!(!is_last(&first), "the client waits for the others before it counts the kind as complete");
    let (_, request) = rig.take(&first);
    let response = rig.server.handle_request(request, rig.now).unwrap();
    let came: Vec<String> = rig.settle_raw(response).iter().map(brief).collect();
    let want = [
        "ExtensionProvider",
        "RequestAuthentication +shop/jwt",
        "HttpPolicy +shop/new",
        "Destination",
        "Address",
        "Frontend",
    ];
    assert_eq!(came, want);
    assert!(rig.client.is_confirmed());
}
