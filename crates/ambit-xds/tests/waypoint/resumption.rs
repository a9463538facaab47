//! A waypoint that comes back gets the differences, from a server that knows nothing of it.

use ambit_policy::http::model::Action;
use ambit_route::model::limits::WEIGHT_MAX;
use ambit_xds::Kind;
use ambit_xds::codec::PolicyTarget;
use ambit_xds::server::{Delta, WaypointDelta};

use super::rig::*;

const NOTHING: [&str; 6] =
    ["ExtensionProvider", "RequestAuthentication", "HttpPolicy", "Destination", "Address", "Frontend"];

#[test]
fn nothing_is_sent_twice() {
    let (delta, own) = all();
    let (mut rig, _) = Rig::with(delta, own);
    rig.client.on_disconnect();
    rig.changes.clear();
    assert_eq!(rig.connect(), NOTHING);
    assert!(rig.changes.is_empty() && rig.client.is_confirmed());
    assert_eq!(rig.store.frontends().count(), 1);
}

#[test]
fn changes_and_removals_of_the_meantime_are_made_up_for() {
    let (delta, own) = all();
    let (mut rig, _) = Rig::with(delta, own);
    let mut own =
        removed(&[(Kind::Frontend, "shop/cart.example/80"), (Kind::RequestAuthentication, "shop/jwt")]);
    own.policies = vec![policy("get-only", Action::Allow, 2, vec![PolicyTarget::Waypoint])];
    own.frontends = vec![routes("cart-v2", &["/"], "cart", 1)];
    rig.publish_offline(Delta::default(), own);
    let want = [
        "ExtensionProvider",
        "RequestAuthentication",
        "HttpPolicy +shop/get-only",
        "Destination",
        "Address",
        "Frontend +shop/cart-v2.example/80 -shop/cart.example/80",
        "RequestAuthentication -shop/jwt",
    ];
    assert_eq!(rig.connect(), want);
}

#[test]
fn what_was_refused_is_sent_again() {
    let (delta, own) = all();
    let (mut rig, _) = Rig::with(delta, own);
    rig.publish(Delta::default(), frontends(vec![routes("cart", &["/"], "cart", WEIGHT_MAX + 1)]));
    rig.client.on_disconnect();
    let came = rig.connect();
    assert_eq!(came.last().unwrap(), "Frontend +shop/cart.example/80");
    assert_eq!(rig.store.refusals().count(), 1, "and refused again");
    assert_eq!(rig.server.rejections().count(), 1);
    assert!(rig.store.holds(Kind::Frontend, "shop/cart.example/80"));
}

#[test]
fn a_waypoint_that_is_forgotten_holds_nothing_any_more() {
    let (delta, own) = all();
    let (mut rig, _) = Rig::with(delta, own);
    rig.client.on_disconnect();
    assert!(rig.resources.forget_waypoint(9, &wp()));
    assert!(!rig.resources.forget_waypoint(9, &wp()));
    let came = rig.connect();
    assert_eq!(came[5], "Frontend -shop/cart.example/80");
    assert_eq!(came[6..].len(), 4, "destinations, policies, rules for tokens, providers");
    assert_eq!(rig.store.policies().count(), 0);
    assert_eq!(rig.publish(Delta::default(), WaypointDelta::default()), Vec::<String>::new());
}
