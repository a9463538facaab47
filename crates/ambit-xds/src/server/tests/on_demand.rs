//! Clients that want some names: a change costs those whom it does not concern no look at what they hold, and whoever
//! follows changes has what a client has that has just come.

use std::collections::BTreeSet;

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::*;

fn pod(name: &str, node: &str, service: &str, capacity: u32) -> Address {
    let mut pod = Workload::new(name, "ns", name);
    pod.services = [(ServiceKey::new("ns", service), vec![])].into();
    pod.node = node.into();
    pod.capacity = capacity;
    pod.into()
}

fn one(address: Address) -> Delta {
    Delta { addresses: vec![address], ..Delta::default() }
}

#[test]
fn only_streams_that_a_change_concerns_look_at_what_they_hold() {
    let mut rig = on_demand();
    let response = rig.send(names(&["ns/s.example"], &[]));
    rig.settle(response);
    let looks = |rig: &Rig| rig.stream.addresses.as_ref().unwrap().looks;
    let before = looks(&rig);
    for round in 2..100 {
        assert_eq!(rig.publish(u64::from(round), one(pod("o-9", "n3", "unknown.example", round))), None);
        assert_eq!(rig.stream.acked_revision(), Some(u64::from(round)));
    }
    assert_eq!(looks(&rig), before, "a stranger's endpoint");
    let response = rig.publish(100, one(pod("s-1", "n2", "s.example", 2)));
    assert_eq!(rig.settle(response), ["Address +s-1"]);
    let response = rig.publish(101, one(pod("new", "n1", "unknown.example", 1)));
    assert_eq!(rig.settle(response), ["Address +new"], "on its node");
    let response = rig.publish(102, one(pod("s-3", "n9", "s.example", 1)));
    assert_eq!(rig.settle(response), ["Address +s-3"], "behind its service");
    assert_eq!(looks(&rig), before + 3);
}

#[test]
fn a_waypoint_that_comes_late_comes_by_itself() {
    let mut rig = on_demand();
    let late = |hostname: &str| Address::from(Service::new("ns", "late", hostname));
    let mut service = Service::new("ns", "s", "s.example");
    let destination = Destination::Hostname(ServiceKey::new("ns", "late.example"));
    service.waypoint = Some(GatewayAddress { destination, hbone_mtls_port: 15008 });
    rig.publish(2, one(service.into()));
    let response = rig.send(names(&["ns/s.example"], &[]));
    assert_eq!(rig.settle(response), ["Address +ns/s.example +s-1 +s-2"]);
    let response = rig.publish(3, one(late("late.example")));
    assert_eq!(rig.settle(response), ["Address +ns/late.example"]);
}

#[derive(Debug, Clone)]
enum Act {
    /// A workload's node, service, waypoint and content, or its end.
    Pod(u8, Option<(u8, BTreeSet<u8>, Option<u8>, u8)>),
    /// A service's waypoint, by host name or address, and content; or its end.
    Service(u8, Option<(Option<(u8, bool)>, bool)>),
    Subscribe(u8),
    Unsubscribe(u8),
    Publish,
}

const NAMES: u8 = 4;

fn act() -> impl Strategy<Value = Act> {
    let pod = (0..2u8, btree_set(0..NAMES, 0..3), proptest::option::of(0..NAMES), 0..2u8);
    let service = (proptest::option::of((0..NAMES, any::<bool>())), any::<bool>());
    prop_oneof![
        4 => (0..NAMES, proptest::option::weighted(0.7, pod)).prop_map(|(n, of)| Act::Pod(n, of)),
        4 => (0..NAMES, proptest::option::weighted(0.7, service)).prop_map(|(n, of)| Act::Service(n, of)),
        2 => (0..4 * NAMES).prop_map(Act::Subscribe),
        1 => (0..4 * NAMES).prop_map(Act::Unsubscribe),
        4 => Just(Act::Publish),
    ]
}

/// A workload or a service, by name or by address.
fn key(number: u8) -> String {
    let n = number % NAMES;
    match number / NAMES {
        0 => format!("w{n}"),
        1 => format!("net/10.1.0.{n}"),
        2 => format!("ns/s{n}.example"),
        _ => format!("net/10.96.0.{n}"),
    }
}

fn gateway(number: u8, by_address: bool) -> GatewayAddress {
    let destination = if by_address {
        let vip = format!("10.96.0.{number}").parse().unwrap();
        Destination::Address(NetworkAddress::new("net".into(), vip))
    } else {
        Destination::Hostname(ServiceKey::new("ns", format!("s{number}.example")))
    };
    GatewayAddress { destination, hbone_mtls_port: 15008 }
}

fn delta_of(act: &Act) -> Delta {
    match act {
        Act::Pod(n, None) => Delta { removed_addresses: vec![format!("w{n}")], ..Delta::default() },
        Act::Pod(n, Some((node, services, waypoint, content))) => {
            let mut pod = Workload::new(format!("w{n}"), "ns", format!("w{n}"));
            pod.network = "net".into();
            pod.addresses = vec![format!("10.1.0.{n}").parse().unwrap()];
            let services = services.iter().map(|s| (ServiceKey::new("ns", format!("s{s}.example")), vec![]));
            pod.services = services.collect();
            pod.node = format!("n{node}").into();
            pod.waypoint = waypoint.map(|number| gateway(number, false));
            pod.capacity = 1 + u32::from(*content);
            one(pod.into())
        }
        Act::Service(n, None) => Delta { removed_addresses: vec![key(2 * NAMES + n)], ..Delta::default() },
        Act::Service(n, Some((waypoint, content))) => {
            let mut service = Service::new("ns", format!("s{n}"), format!("s{n}.example"));
            let vip = format!("10.96.0.{n}").parse().unwrap();
            service.vips = vec![NetworkAddress::new("net".into(), vip)];
            service.waypoint = waypoint.map(|(number, by_address)| gateway(number, by_address));
            service.canonical = *content;
            one(service.into())
        }
        Act::Subscribe(_) | Act::Unsubscribe(_) | Act::Publish => Delta::default(),
    }
}

/// What a client holds, by name with its version.
type View = BTreeMap<String, String>;

fn follow(rig: &mut Rig, mut response: Option<DeltaDiscoveryResponse>, view: &mut View) {
    while let Some(each) = response {
        for name in &each.removed_resources {
            view.remove(name);
        }
        if Kind::of(&each.type_url) == Some(Kind::Address) {
            view.extend(each.resources.iter().map(|one| (one.name.clone(), one.version.clone())));
        }
        response = rig.acknowledge(&each, "");
    }
}

fn begin(rig: &mut Rig, keys: &BTreeSet<String>) -> View {
    let mut view = View::new();
    rig.send(names(&[WILDCARD], &[WILDCARD]));
    let response = rig.send(first(Kind::Authorization, BTreeMap::new()));
    follow(rig, response, &mut view);
    for key in keys {
        let response = rig.send(names(&[key], &[]));
        follow(rig, response, &mut view);
    }
    view
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn who_follows_changes_has_what_one_has_that_has_just_come(acts in vec(act(), 1..80)) {
        let mut rig = Rig::new(Delta::default());
        let mut keys = BTreeSet::new();
        let mut view = begin(&mut rig, &keys);
        for (round, act) in acts.iter().enumerate() {
            rig.resources.apply(2 + round as u64, delta_of(act));
            let response = match act {
                Act::Publish => rig.publish(2 + round as u64, Delta::default()),
                Act::Subscribe(number) => {
                    keys.insert(key(*number));
                    rig.send(names(&[&key(*number)], &[]))
                }
                Act::Unsubscribe(number) => {
                    let key = key(*number);
                    keys.remove(&key);
                    // As a client does that unsubscribes from a name.
                    view.remove(&key);
                    rig.send(names(&[], &[&key]))
                }
                Act::Pod(..) | Act::Service(..) => None,
            };
            follow(&mut rig, response, &mut view);
            if matches!(act, Act::Publish) {
                let stream = Connection::new("n1", Arc::new(rig.resources.clone()), Limits::default());
                let mut fresh = Rig { resources: rig.resources.clone(), stream, now: rig.now };
                prop_assert_eq!(&begin(&mut fresh, &keys), &view);
            }
        }
    }
}
