//! What is known of streams, and what a waypoint is sent of policies with and without a mistake.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ambit_control::{Index, Settings};
use ambit_xds::Kind;
use ambit_xds::codec::PolicyTarget;
use ambit_xds::node::WaypointKey;
use ambit_xds::server::{Rejection, WaypointDelta};

use super::{Publisher, STREAMS_PER_SUBJECT_MAX, Subject, newly_refused, waypoint};
use crate::ingest;

fn replica(pod: &str) -> Subject {
    Subject::Waypoint {
        gateway: WaypointKey::new("shop", "waypoint"),
        pod: pod.to_owned(),
        node: "n1".to_owned(),
    }
}

#[test]
fn a_replica_is_known_while_it_is_connected_or_its_pod_is_there() {
    let publisher = Arc::new(Publisher::default());
    let (first, second) = (publisher.open(replica("w-0")).unwrap(), publisher.open(replica("w-1")).unwrap());
    first.report(7, Vec::new());
    drop(first);
    let rows = || {
        let rows = publisher.sync_waypoints(|_| true).into_iter();
        rows.map(|row| (row.pod, row.connected, row.acked_revision)).collect::<Vec<_>>()
    };
    assert_eq!(rows(), [("w-0".to_owned(), false, 7), ("w-1".to_owned(), true, 0)]);
    assert!(publisher.sync_waypoints(|_| false).is_empty(), "a Gateway that is gone has no rows");
    assert!(publisher.sync([].into_iter()).is_empty(), "a waypoint is no node");
    publisher.forget(|_| true, |_, pod, node| pod == "w-0" && node == "n1");
    assert_eq!(rows().len(), 2);
    publisher.forget(|_| true, |_, _, _| false);
    assert_eq!(rows(), [("w-1".to_owned(), true, 0)]);
    drop(second);
    publisher.forget(|_| true, |_, _, _| false);
    assert!(publisher.clients.lock().unwrap().is_empty());
}

#[test]
fn streams_that_have_not_said_whose_they_are_are_bounded_and_leave_nothing_behind() {
    let publisher = Arc::new(Publisher::default());
    let source = || Subject::Unnamed(IpAddr::from([10, 0, 0, 1]));
    let held: Vec<_> = (0..STREAMS_PER_SUBJECT_MAX).map(|_| publisher.open(source()).unwrap()).collect();
    assert_eq!(publisher.open(source()).unwrap_err().code(), tonic::Code::ResourceExhausted);
    drop(held);
    assert!(publisher.clients.lock().unwrap().is_empty());
}

const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/use-waypoint: waypoint}}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {clusterIP: 10.96.0.7, ports: [{name: http, port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
status: {addresses: [{type: IPAddress, value: 10.96.0.9}]}
";

const POLICY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: lock, namespace: shop}
spec: {targetRefs: [{kind: Service, group: '', name: cart}], action: DENY, rules: [{to: [{operation: {methods: [PUT]}}]}]}
";

const TOKENS: &str = "
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: shop}
spec: {targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: waypoint}], jwtRules: [{issuer: a.example, jwksUri: 'https://a.example/keys'}]}
";

/// What an index publishes to the waypoint of these manifests.
fn published(
    index: &mut Index,
    manifests: &str,
    damage: impl Fn(&mut ambit_control::Event),
) -> WaypointDelta {
    let parsed = ambit_manifest::parse("m.yaml", manifests);
    assert!(parsed.problems.is_empty(), "{}", parsed.problems[0]);
    let mut events: Vec<_> =
        parsed.objects.iter().filter_map(|object| ingest::put(object).unwrap()).collect();
    events.iter_mut().for_each(damage);
    let delta = index.apply(events);
    let own = delta.waypoints.into_values().next();
    own.map(|difference| waypoint::changes(&difference)).unwrap_or_default()
}

#[test]
fn a_policy_goes_to_the_services_it_is_for() {
    let mut index = Index::new(Settings::default());
    published(&mut index, SHOP, |_| {});
    let delta = published(&mut index, POLICY, |_| {});
    let names: Vec<_> = delta.policies.iter().map(|policy| policy.name()).collect();
    assert_eq!(names, ["shop/lock"]);
    let PolicyTarget::Service(key) = &delta.policies[0].targets[0] else { panic!("no service") };
    assert_eq!(key.to_string(), "shop/cart.shop.svc.cluster.local");
    assert!(delta.removed.is_empty() && !delta.policies[0].policy.dry_run);
}

#[test]
fn what_has_a_mistake_leaves_its_targets_unresolved() {
    use ambit_control::Object;
    use ambit_control::input::Event;
    use ambit_policy::http::{CustomOrder, PolicySet};
    let mut index = Index::new(Settings::default());
    published(&mut index, SHOP, |_| {});
    let delta = published(&mut index, TOKENS, |event| {
        // The reader of manifests would have refused it; what it misses must not pass either.
        if let Event::Put(Object::RequestAuthentication(made)) = event {
            made.rules[0].issuer.clear();
            made.rules[0].jwks_uri = None;
        }
    });
    assert!(delta.authentications.is_empty());
    assert_eq!(delta.removed, [(Kind::RequestAuthentication, "shop/jwt".to_owned())]);
    let stand_in = &delta.policies[0];
    assert_eq!(stand_in.targets, [PolicyTarget::Waypoint]);
    let set = PolicySet::new([stand_in.policy.clone()], [], CustomOrder::AfterToken);
    assert_eq!(set.unresolved(), std::slice::from_ref(&stand_in.policy.key));

    let delta = published(&mut index, TOKENS, |_| {});
    assert_eq!(delta.authentications[0].name(), "shop/jwt");
    assert_eq!(delta.removed, [(Kind::HttpPolicy, stand_in.name())], "nothing stays that stood for it");
    let kinds: BTreeSet<Kind> = delta.removed.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds.len(), 1);
}

#[test]
fn a_waypoint_without_its_gateway_is_told_to_allow_nothing_for_as_long_as_it_listens() {
    use ambit_control::input::{Event, Key, Kind as ObjectKind, Name};
    use ambit_xds::server::Resources;
    let publisher = Arc::new(Publisher::default());
    let mut index = Index::new(Settings::default());
    let events = |manifests: &str| -> Vec<Event> {
        let parsed = ambit_manifest::parse("m.yaml", manifests);
        parsed.objects.iter().filter_map(|object| ingest::put(object).unwrap()).collect()
    };
    let key = WaypointKey::new("shop", "waypoint");
    let latest = || Arc::clone(&publisher.latest.borrow());
    let has = |of: &Resources, name: &str| of.version_for(Some(&key), Kind::HttpPolicy, name).is_some();
    let forget = || publisher.forget(|_| true, |_, _, _| false);
    let gone = || [Event::Remove(Key::new(ObjectKind::Gateway, Name::new("shop", "waypoint")))];
    publisher.publish(1, index.apply(events(&format!("{SHOP}---{POLICY}"))));
    assert!(has(&latest(), "shop/lock") && !waypoint::is_withdrawn(&latest(), &key));

    let stream = publisher.open(replica("w-0")).unwrap();
    publisher.publish(2, index.apply(gone()));
    forget();
    assert!(waypoint::is_withdrawn(&latest(), &key), "its stream is there still");
    assert!(has(&latest(), "shop/lock"), "and nothing was taken from it");
    // It is back, with all it needs and no more.
    publisher.publish(3, index.apply(events(SHOP)));
    assert!(has(&latest(), "shop/lock") && !waypoint::is_withdrawn(&latest(), &key));

    publisher.publish(4, index.apply(gone()));
    let unnamed = publisher.open(Subject::Unnamed(IpAddr::from([10, 0, 0, 1]))).unwrap();
    drop(stream);
    forget();
    assert!(waypoint::is_withdrawn(&latest(), &key), "who has not said its name may be one of its replicas");
    drop(unnamed);
    forget();
    assert_eq!(latest().waypoints().count(), 0, "nobody listens");
    assert_eq!(latest().revision(), 4);
}

#[test]
fn a_waypoint_that_needs_nothing_is_no_longer_withdrawn_once_it_is_back() {
    use ambit_control::input::{Event, Key, Kind as ObjectKind, Name};
    let publisher = Arc::new(Publisher::default());
    let mut index = Index::new(Settings::default());
    let events = || -> Vec<Event> {
        let parsed = ambit_manifest::parse("m.yaml", SHOP);
        parsed.objects.iter().filter_map(|object| ingest::put(object).unwrap()).collect()
    };
    let key = WaypointKey::new("shop", "waypoint");
    publisher.publish(1, index.apply(events()));
    let gone = Event::Remove(Key::new(ObjectKind::Gateway, Name::new("shop", "waypoint")));
    publisher.publish(2, index.apply([gone]));
    assert!(waypoint::is_withdrawn(&publisher.latest.borrow(), &key));
    publisher.publish(3, index.apply(events()));
    assert!(!waypoint::is_withdrawn(&publisher.latest.borrow(), &key));
}

#[test]
fn a_waypoint_allows_nothing_to_a_service_it_does_not_serve() {
    use ambit_policy::http::{CustomOrder, PolicySet};
    let mut index = Index::new(Settings::default());
    published(&mut index, &format!("{SHOP}---{POLICY}"), |_| {});
    let own = "metadata: {name: cart, namespace: shop";
    let bound = SHOP.replace(own, &format!("{own}, labels: {{istio.io/use-waypoint: waypoint}}"));
    published(&mut index, &bound, |_| {});
    let idle = "metadata: {name: waypoint, namespace: shop";
    let idle = bound.replace(idle, &format!("{idle}, labels: {{istio.io/waypoint-for: none}}"));
    let delta = published(&mut index, &idle, |_| {});
    let [stand_in] = &delta.policies[..] else { panic!("{:?}", delta.policies) };
    assert!(stand_in.name().contains('_'), "no object has that name");
    let PolicyTarget::Service(key) = &stand_in.targets[0] else { panic!("no service") };
    assert_eq!(key.to_string(), "shop/cart.shop.svc.cluster.local");
    let set = PolicySet::new([stand_in.policy.clone()], [], CustomOrder::AfterToken);
    assert_eq!(set.unresolved().len(), 1);
    assert!(delta.removed.contains(&(Kind::HttpPolicy, "shop/lock".to_owned())));
}

fn refused(name: &str, reason: &str) -> Rejection {
    Rejection { kind: Kind::Authorization, name: name.to_owned(), reason: reason.to_owned() }
}

#[test]
fn what_was_refused_before_is_not_new() {
    let before = [refused("a", "no"), refused("b", "no")];
    let now = [refused("a", "no"), refused("b", "never"), refused("c", "no")];
    assert_eq!(newly_refused(&before, &now), [&now[1], &now[2]]);
    assert!(newly_refused(&now, &now).is_empty());
}

#[test]
fn what_a_stream_reports_is_known_and_outlives_it() {
    let publisher = Arc::new(Publisher::default());
    let open = publisher.open(Subject::Node("n1".to_owned())).unwrap();
    let row = || publisher.sync(["n2"].into_iter()).into_iter().find(|row| row.node == "n1").unwrap();
    open.report(3, vec![refused("a", "no")]);
    open.report(4, vec![refused("a", "no")]);
    assert_eq!((row().acked_revision, row().rejected.len(), row().connected), (4, 1, true));
    open.report(4, Vec::new());
    assert!(row().rejected.is_empty());
    open.report(5, vec![refused("b", "no")]);
    drop(open);
    assert_eq!((row().acked_revision, &*row().rejected[0].name, row().connected), (5, "b", false));
    assert_eq!(publisher.sync(["n2"].into_iter()).len(), 2, "a node that never came is listed too");
}
