//! Who gets past a waypoint, and who does not.

use crate::testing::{changes, identity, uid, world};
use crate::{Change, Snapshot};

use super::{Passage, passage};

/// `web` is behind a service with a waypoint, and behind one without; `lone` names a waypoint itself.
const MESH: &str = "
    pod shop/web 10.244.1.5 probes=8081 backs=shop/web backs=shop/other
    pod shop/plain 10.244.1.6 probes=8081 backs=shop/plain
    pod shop/lone 10.244.1.7 probes=8081 waypoint=shop/gate
    pod shop/foreign 10.244.1.8 untold backs=shop/web
    pod shop/gate-1 10.244.2.9 sa=gate probes=8081 backs=shop/gate
    svc shop/web 10.96.0.1 ports=80->8080 waypoint=shop/gate
    svc shop/other 10.96.0.2 ports=81->8080,82->9090
    svc shop/plain 10.96.0.3 ports=80->8080
    svc shop/gate 10.96.0.9 ports=15008 waypoint=shop/gate";

fn bypassed(snapshot: &Snapshot, pod: &str, peer: Option<&str>, port: u16) -> bool {
    let own = snapshot.workload(&uid(pod)).expect("in the mesh");
    passage(snapshot, own, peer.map(identity).as_ref(), port) == Passage::Bypassed
}

#[test]
fn bound_ports_take_the_waypoint_and_nobody_else() {
    let world = world(MESH);
    let snapshot = world.snapshot();
    let rows = [
        ("shop/web", Some("shop/gate"), 8080, false),
        ("shop/web", Some("shop/cart"), 8080, true),
        // Another namespace's account of that name is another identity.
        ("shop/web", Some("data/gate"), 8080, true),
        ("shop/web", None, 8080, true),
        // No service with a waypoint leads there.
        ("shop/web", Some("shop/cart"), 9090, false),
        ("shop/web", None, 7070, false),
        ("shop/plain", None, 8080, false),
        ("shop/lone", Some("shop/cart"), 1234, true),
        ("shop/lone", Some("shop/gate"), 1234, false),
        // The waypoint's own service is bound like every other one of its namespace.
        ("shop/gate-1", Some("shop/cart"), 15008, false),
        // Its control plane never asked for it.
        ("shop/foreign", None, 8080, false),
    ];
    for (pod, peer, port, want) in rows {
        assert_eq!(bypassed(&snapshot, pod, peer, port), want, "{peer:?} to {pod}:{port}");
    }
}

#[test]
fn a_waypoint_that_is_not_there_lets_nobody_in() {
    let mut world = world(MESH);
    let gone = world.apply([Change::RemoveAddress(uid("shop/gate-1").as_str().into())]).snapshot;
    assert!(bypassed(&gone, "shop/web", Some("shop/gate"), 8080));
    let gone = world.apply([Change::RemoveAddress("shop/gate.shop.svc.cluster.local".into())]).snapshot;
    assert!(bypassed(&gone, "shop/web", Some("shop/gate"), 8080));
}

#[test]
fn canaries_are_waypoints_too() {
    let mut world = world(MESH);
    let canary = "
        pod shop/next-1 10.244.2.10 sa=next probes=8081 backs=shop/next
        svc shop/next 10.96.0.10 ports=15008
        svc shop/web 10.96.0.1 ports=80->8080 waypoint=shop/gate weighted=shop/gate*90,shop/next*10";
    let snapshot = world.apply(changes(canary)).snapshot;
    assert!(!bypassed(&snapshot, "shop/web", Some("shop/next"), 8080));
    assert!(!bypassed(&snapshot, "shop/web", Some("shop/gate"), 8080));
    assert!(bypassed(&snapshot, "shop/web", Some("shop/cart"), 8080));
}

fn came(snapshot: &Snapshot, pod: &str, peer: Option<&str>, port: u16) -> Passage {
    let own = snapshot.workload(&uid(pod)).expect("in the mesh");
    passage(snapshot, own, peer.map(identity).as_ref(), port)
}

#[test]
fn a_service_that_is_named_and_not_there_may_have_a_waypoint() {
    let mut world = world(MESH);
    let gone = world.apply([Change::RemoveAddress("shop/other.shop.svc.cluster.local".into())]).snapshot;
    let rows = [
        // Nobody knows where it leads to.
        ("shop/web", Some("shop/cart"), 9090, Passage::Untold),
        ("shop/web", None, 7070, Passage::Untold),
        // What is known holds all the same.
        ("shop/web", Some("shop/cart"), 8080, Passage::Bypassed),
        ("shop/web", Some("shop/gate"), 8080, Passage::Waypoint),
        ("shop/plain", Some("shop/cart"), 8080, Passage::Free),
    ];
    for (pod, peer, port, want) in rows {
        assert_eq!(came(&gone, pod, peer, port), want, "{peer:?} to {pod}:{port}");
    }
    let gone = world.apply([Change::RemoveAddress("shop/web.shop.svc.cluster.local".into())]).snapshot;
    assert_eq!(came(&gone, "shop/web", Some("shop/cart"), 8080), Passage::Untold);
    assert_eq!(came(&gone, "shop/foreign", Some("shop/cart"), 8080), Passage::Free);
    let back = world
        .apply(changes("svc shop/web 10.96.0.1 ports=80->8080\nsvc shop/other 10.96.0.2 ports=81"))
        .snapshot;
    assert_eq!(came(&back, "shop/web", Some("shop/cart"), 8080), Passage::Free);
}

#[test]
fn the_port_behind_an_application_tunnel_is_bound() {
    let tunnelled = MESH.replace("pod shop/web 10.244.1.5", "pod shop/web 10.244.1.5 apptunnel=9000");
    let snapshot = world(&tunnelled).snapshot();
    // Whatever is asked for ends at 9000; the service's target can be reached in the clear.
    for port in [9000, 8080] {
        assert_eq!(came(&snapshot, "shop/web", Some("shop/cart"), port), Passage::Bypassed, "{port}");
        assert_eq!(came(&snapshot, "shop/web", Some("shop/gate"), port), Passage::Waypoint, "{port}");
    }
    assert_eq!(came(&snapshot, "shop/web", Some("shop/cart"), 9090), Passage::Free);
    let snapshot = world(&MESH.replace("10.244.1.5", "10.244.1.5 apptunnel=-")).snapshot();
    assert_eq!(came(&snapshot, "shop/web", Some("shop/cart"), 9000), Passage::Free, "it keeps the port");
}

/// The workload's own waypoint knows no rules of the services that name another.
#[test]
fn the_waypoint_of_a_workload_is_none_of_its_services() {
    let mesh = format!(
        "{}
    pod shop/next-1 10.244.2.10 sa=next probes=8081 backs=shop/next
    svc shop/next 10.96.0.10 ports=15008",
        MESH.replace("pod shop/web 10.244.1.5", "pod shop/web 10.244.1.5 waypoint=shop/next")
    );
    let rows = [
        (Some("shop/next"), 8080, Passage::Bypassed),
        (Some("shop/cart"), 8080, Passage::Bypassed),
        (None, 8080, Passage::Bypassed),
        (Some("shop/gate"), 8080, Passage::Waypoint),
        // To these ports leads no service with a waypoint.
        (Some("shop/next"), 9090, Passage::Waypoint),
        (Some("shop/gate"), 9090, Passage::Bypassed),
        (None, 7070, Passage::Bypassed),
    ];
    let mut told = world(&mesh);
    for (peer, port, want) in rows {
        assert_eq!(came(&told.snapshot(), "shop/web", peer, port), want, "{peer:?} to {port}");
    }
    // What is not known may lead to the port too.
    let gone = told.apply([Change::RemoveAddress("shop/other.shop.svc.cluster.local".into())]).snapshot;
    assert_eq!(came(&gone, "shop/web", Some("shop/next"), 9090), Passage::Untold);
    assert_eq!(came(&gone, "shop/web", Some("shop/cart"), 9090), Passage::Bypassed);
    assert_eq!(came(&gone, "shop/web", Some("shop/gate"), 8080), Passage::Waypoint);
    // The same one is that of both.
    let same = world(&mesh.replace("waypoint=shop/next", "waypoint=shop/gate")).snapshot();
    for port in [8080, 9090] {
        assert_eq!(came(&same, "shop/web", Some("shop/gate"), port), Passage::Waypoint, "{port}");
        assert_eq!(came(&same, "shop/web", Some("shop/next"), port), Passage::Bypassed, "{port}");
    }
}

/// Who backs one waypoint is bound to another all the same.
#[test]
fn an_instance_of_a_waypoint_is_bound_to_others() {
    let mesh = MESH.replace("backs=shop/gate", "backs=shop/gate backs=shop/metrics")
        + "
    pod shop/next-1 10.244.2.10 sa=next probes=8081 backs=shop/next
    svc shop/next 10.96.0.10 ports=15008
    svc shop/metrics ports=9100 waypoint=shop/next";
    let snapshot = world(&mesh).snapshot();
    let rows = [
        (Some("shop/cart"), 9100, Passage::Bypassed),
        (Some("shop/next"), 9100, Passage::Waypoint),
        (Some("shop/cart"), 15008, Passage::Free),
        (Some("shop/cart"), 9101, Passage::Free),
    ];
    for (peer, port, want) in rows {
        assert_eq!(came(&snapshot, "shop/gate-1", peer, port), want, "{peer:?} to {port}");
    }
}

fn bound(snapshot: &Snapshot, pod: &str, port: u16) -> Vec<(String, u16)> {
    let own = snapshot.workload(&uid(pod)).expect("in the mesh");
    let found = snapshot.bound_services(own, port);
    found.map(|(entry, declared)| (entry.service().name.to_string(), declared.service_port)).collect()
}

#[test]
fn services_that_lead_to_a_port_are_told_with_each_port_that_does() {
    let mesh =
        MESH.replace("svc shop/web 10.96.0.1 ports=80->8080", "svc shop/web ports=80->8080,81->8080,82->9");
    let snapshot = world(&mesh).snapshot();
    let web = |ports: &[u16]| ports.iter().map(|port| ("web".to_owned(), *port)).collect::<Vec<_>>();
    assert_eq!(bound(&snapshot, "shop/web", 8080), web(&[80, 81]));
    assert_eq!(bound(&snapshot, "shop/web", 9), web(&[82]));
    assert_eq!(bound(&snapshot, "shop/web", 80), []);
    assert_eq!(bound(&snapshot, "shop/foreign", 8080), []);
    assert_eq!(bound(&snapshot, "shop/gate-1", 15008), []);
    // The endpoint's own mapping stands before that of the service.
    let own = world(&mesh.replace("backs=shop/web backs=shop/other", "backs=shop/web:80->7000")).snapshot();
    assert_eq!(bound(&own, "shop/web", 7000), web(&[80]));
    assert_eq!(bound(&own, "shop/web", 8080), web(&[81]));
    let tunnelled = mesh.replace("pod shop/web 10.244.1.5", "pod shop/web 10.244.1.5 apptunnel=9000");
    assert_eq!(bound(&world(&tunnelled).snapshot(), "shop/web", 1), web(&[80, 81, 82]));
}
