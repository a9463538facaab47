//! What a waypoint refuses: the last good version stays, the refusal is remembered on both sides, nothing is left open.

use ambit_policy::http::model::Action;
use ambit_route::model::limits::WEIGHT_MAX;
use ambit_types::PolicyKey;
use ambit_xds::Kind;
use ambit_xds::client::store::Change;
use ambit_xds::codec::PolicyTarget;
use ambit_xds::server::Delta;

use super::rig::*;

const CART: &str = "shop/cart.example/80";

/// What the server knows of refusals: `KIND NAME: REASON`.
fn told(rig: &Rig) -> Vec<String> {
    rig.server.rejections().map(|one| format!("{} {}: {}", one.kind, one.name, one.reason)).collect()
}

/// The same as the waypoint shows it.
fn shown(rig: &Rig) -> Vec<String> {
    rig.store.refusals().map(|(kind, name, one)| format!("{kind} {name}: {}", one.reason)).collect()
}

#[test]
fn a_refused_route_keeps_the_last_good_one() {
    let (delta, own) = all();
    let (mut rig, _) = Rig::with(delta, own);
    let bad = routes("cart", &["/"], "cart", WEIGHT_MAX + 1);
    let good = routes("cart-v2", &["/x"], "cart", 1);
    let came = rig.publish(Delta::default(), frontends(vec![bad.clone(), good.clone()]));
    assert_eq!(came, [format!("Frontend +shop/cart-v2.example/80 +{CART}")], "in one response");
    assert_eq!(rig.changes, [Change::Frontend(good)], "the valid sibling is in force");
    let held: Vec<_> = rig.store.frontends().filter(|one| one.service == key("cart")).collect();
    assert_eq!(held, [&routes("cart", &["/"], "cart-v2", 1)]);
    assert!(rig.store.holds(Kind::Frontend, CART) && !rig.store.lacks_routes(&key("cart"), 80));
    let field = "producer.http.routes[0].rules[0].rule.backends[0].weight";
    let want = [format!("Frontend {CART}: {field}: 1000001 is not between 0 and 1000000")];
    assert_eq!((told(&rig), shown(&rig)), (want.to_vec(), want.to_vec()));
    assert_eq!(rig.server.acked_revision(), Some(2), "answered, though not in force");

    assert!(rig.publish(Delta::default(), frontends(vec![bad])).is_empty(), "not sent again as it is");
    rig.publish(Delta::default(), frontends(vec![routes("cart", &["/"], "cart", 2)]));
    assert_eq!((told(&rig), shown(&rig)), (vec![], vec![]));
}

#[test]
fn routes_that_never_were_good_are_known_to_be_lacking() {
    let mut rig = Rig::new();
    rig.connect();
    rig.publish(Delta::default(), frontends(vec![routes("cart", &["/"], "cart", WEIGHT_MAX + 1)]));
    assert!(rig.store.lacks_routes(&key("cart"), 80) && !rig.store.lacks_routes(&key("cart"), 81));
    assert_eq!(rig.changes, [Change::FrontendRemoved { service: key("cart"), port: 80 }]);
    rig.publish(Delta::default(), removed(&[(Kind::Frontend, CART)]));
    assert!(!rig.store.lacks_routes(&key("cart"), 80));
    assert_eq!((told(&rig), shown(&rig)), (vec![], vec![]));
}

#[test]
fn a_policy_that_cannot_be_read_covers_its_targets() {
    let mut rig = Rig::new();
    rig.connect();
    let cart = || vec![PolicyTarget::Service(key("cart"))];
    rig.publish(Delta::default(), policies(vec![policy("lock", Action::Deny, 0, cart())]));
    let applicable = rig.store.policies_for(&key("cart"));
    assert_eq!((applicable.held, applicable.unresolved), (vec![], vec![PolicyKey::new("shop", "lock")]));
    assert!(rig.store.policies_for(&key("other")).unresolved.is_empty());
    assert_eq!(rig.changes, [Change::Policies(cart().into_iter().collect())]);
    assert_eq!(shown(&rig), ["HttpPolicy shop/lock: rules: is missing"]);

    rig.publish(Delta::default(), policies(vec![policy("lock", Action::Deny, 1, cart())]));
    let applicable = rig.store.policies_for(&key("cart"));
    assert_eq!((applicable.held.len(), applicable.unresolved), (1, vec![]));
    assert_eq!(shown(&rig).len(), 0);
}

#[test]
fn a_refused_version_leaves_nothing_open_that_the_held_one_does_not_cover() {
    let mut rig = Rig::new();
    rig.connect();
    let target = |name: &str| PolicyTarget::Service(key(name));
    rig.publish(Delta::default(), policies(vec![policy("lock", Action::Deny, 1, vec![target("a")])]));
    let wider = policy("lock", Action::Deny, 0, vec![target("a"), target("b")]);
    rig.publish(Delta::default(), policies(vec![wider]));
    let state = |name: &str| {
        let found = rig.store.policies_for(&key(name));
        (found.held.len(), found.unresolved.len())
    };
    assert_eq!([state("a"), state("b"), state("c")], [(1, 0), (0, 1), (0, 0)]);
    rig.publish(Delta::default(), removed(&[(Kind::HttpPolicy, "shop/lock")]));
    let touched = [target("a"), target("b")].into();
    assert_eq!(rig.changes.last(), Some(&Change::Policies(touched)), "both are to be looked at again");
    assert!(rig.store.policies_for(&key("b")).unresolved.is_empty());
}

#[test]
fn a_policy_of_which_nothing_can_be_read_covers_everything() {
    let (delta, own) = all();
    let (mut rig, _) = Rig::with(delta, own);
    let mut response = ambit_xds::proto::envoy::service::discovery::v3::DeltaDiscoveryResponse {
        type_url: Kind::HttpPolicy.url().into(),
        nonce: "n".into(),
        ..Default::default()
    };
    for name in ["shop/new", "shop/get-only", "no name"] {
        let value = vec![0xff].into();
        let any = ambit_xds::any::Any { type_url: String::new(), value };
        response.resources.push(ambit_xds::proto::envoy::service::discovery::v3::Resource {
            name: name.into(),
            resource: Some(any),
            ..Default::default()
        });
    }
    let (update, request) = rig.take(&response);
    assert_eq!(update.rejected.len(), 3);
    assert!(request.error_detail.unwrap().message.starts_with("shop/new: http_policy: cannot be decoded"));
    let found = rig.store.policies_for(&key("cart"));
    let want = [PolicyKey::new("", "no name"), PolicyKey::new("shop", "new")];
    assert_eq!((found.held.len(), found.unresolved), (1, want.to_vec()));
}

#[test]
fn a_resource_under_another_name_is_refused() {
    let (delta, own) = all();
    let (mut rig, _) = Rig::with(delta, own);
    let mut sent = rig.publish_raw(Delta::default(), frontends(vec![routes("cart", &["/y"], "cart", 1)]));
    sent[0].resources[0].name = "shop/other.example/80".into();
    let (update, _) = rig.take(&sent[0]);
    assert_eq!(update.rejected[0].reason.field, "name");
    assert!(rig.store.lacks_routes(&key("other"), 80));
}
