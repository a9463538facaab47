//! Which waypoint a service or a pod asks for, by its own labels or those of its namespace.

use ambit_types::{Destination, Str};

use super::{index, labels, only, pod, put_pod, put_service, service};
use crate::input::*;

#[test]
fn waypoints_are_asked_for_by_labels_and_never_dropped() {
    let namespace = |value: &str| {
        Event::Put(Object::Namespace(Namespace {
            name: Str::from("shop"),
            labels: labels(&[("istio.io/use-waypoint", value)]),
            annotations: Labels::new(),
        }))
    };
    let rows: &[(&str, &[(&str, &str)], Option<&str>)] = &[
        ("inherited", &[], Some("shop/gate.shop.svc.cluster.local")),
        ("own", &[("istio.io/use-waypoint", "mine")], Some("shop/mine.shop.svc.cluster.local")),
        ("opted out", &[("istio.io/use-waypoint", "none")], None),
        (
            "elsewhere",
            &[("istio.io/use-waypoint", "mine"), ("istio.io/use-waypoint-namespace", "infra")],
            Some("infra/mine.infra.svc.cluster.local"),
        ),
        ("of a waypoint", &[("gateway.istio.io/managed", "istio.io-mesh-controller")], None),
    ];
    for (what, pairs, want) in rows {
        let index =
            index([namespace("gate"), put_service(Service { labels: labels(pairs), ..service("cart") })]);
        let waypoint = index.services().values().next().unwrap().waypoint.clone();
        let found = waypoint.map(|w| match w.destination {
            Destination::Hostname(key) => key.to_string(),
            Destination::Address(address) => address.to_string(),
        });
        assert_eq!(found.as_deref(), *want, "{what}");
    }
    // What a namespace asks for is for services; a pod reached by its address needs a label of its own.
    assert_eq!(only(&index([namespace("gate"), put_pod(pod("p"))])).waypoint, None);
}

#[test]
fn a_namespace_hands_a_waypoint_for_workloads_down_to_its_pods() {
    let rows: &[(&str, Option<&str>, Option<&str>)] = &[
        ("for workloads", Some("workload"), Some("shop")),
        ("for all", Some("all"), Some("shop")),
        ("for services, as by default", Some("service"), None),
        ("not there", None, None),
    ];
    for (what, traffic, want) in rows {
        let namespace = Namespace {
            name: Str::from("shop"),
            labels: labels(&[("istio.io/use-waypoint", "wp")]),
            annotations: Labels::new(),
        };
        let mut index = index([Event::Put(Object::Namespace(namespace)), put_pod(pod("p"))]);
        index.apply(traffic.map(|traffic| {
            let gateway = Gateway {
                name: Name::new("shop", "wp"),
                uid: Str::from(""),
                generation: 0,
                labels: labels(&[("istio.io/waypoint-for", traffic)]),
                annotations: Labels::new(),
                spec: ambit_types::written::Gateway::default(),
                has_address: false,
            };
            Event::Put(Object::Gateway(Box::new(gateway)))
        }));
        let bound = only(&index).waypoint.map(|gateway| match gateway.destination {
            Destination::Hostname(key) => key.namespace,
            Destination::Address(_) => panic!("by name"),
        });
        assert_eq!(bound.as_deref(), *want, "{what}");
    }
}
