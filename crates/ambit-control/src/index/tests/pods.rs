//! Pods become workloads, with what nodes, labels and services say of them, and only what differs is told.

use std::net::IpAddr;

use ambit_types::workload::{Health, NetworkMode};
use ambit_types::{AppProtocol, Str, TunnelProtocol, Uid};

use super::{index, key, labels, only, pod, put_pod, put_service, service};
use crate::input::*;

#[test]
fn a_pod_becomes_a_workload() {
    let node = Node {
        name: Str::from("node1"),
        uid: Str::from("n"),
        labels: labels(&[("topology.kubernetes.io/region", "r"), ("topology.kubernetes.io/zone", "z")]),
        addresses: vec![IpAddr::from([172, 18, 0, 2]), "::ffff:10.244.1.1".parse().unwrap()],
    };
    let policy = NetworkPolicy { name: Name::new("shop", "np"), pods: LabelSelector::default() };
    let captured = Pod {
        annotations: labels(&[("ambient.istio.io/redirection", "enabled")]),
        controller: Some(Controller { kind: Str::from("ReplicaSet"), name: Str::from("cart-5d4f") }),
        labels: labels(&[("app", "cart"), ("pod-template-hash", "5d4f"), ("version", "v2")]),
        ..pod("cart-0")
    };
    let index = index([
        Event::Put(Object::Node(node)),
        Event::Put(Object::NetworkPolicy(policy)),
        put_pod(captured),
        put_service(service("cart")),
    ]);
    let workload = only(&index);
    assert_eq!(workload.uid.as_str(), "Kubernetes//Pod/shop/cart-0");
    assert_eq!(workload.tunnel, TunnelProtocol::Hbone);
    assert!(!workload.native_tunnel);
    assert_eq!((&*workload.workload_name, &*workload.canonical_name), ("cart", "cart"));
    assert_eq!(&*workload.canonical_revision, "v2");
    assert_eq!((&*workload.locality.region, &*workload.locality.zone), ("r", "z"));
    assert_eq!(workload.identity().to_string(), "spiffe://cluster.local/ns/shop/sa/cart");
    assert_eq!(workload.probe_ports(), [8080, 9000]);
    assert_eq!(workload.node_addresses(), [IpAddr::from([172, 18, 0, 2]), IpAddr::from([10, 244, 1, 1])]);
    assert!(!workload.is_free_of_network_policy());
    let ports = workload.services.get(&key("cart.shop.svc.cluster.local")).unwrap();
    assert_eq!(ports.len(), 1);
    assert_eq!((ports[0].service_port, ports[0].target_port), (80, 8080));
    assert_eq!(ports[0].app_protocol, AppProtocol::Http11);
}

#[test]
fn which_pods_there_are_and_whether_they_are_healthy() {
    let rows: &[(&str, Option<Health>, fn(&mut Pod))] = &[
        ("ready", Some(Health::Healthy), |_| {}),
        ("not ready", Some(Health::Unhealthy), |p| p.ready = false),
        ("terminating", Some(Health::Unhealthy), |p| p.deleting = true),
        ("pending with an address", Some(Health::Healthy), |p| p.phase = Phase::Pending),
        ("without address", None, |p| p.addresses.clear()),
        ("succeeded", None, |p| p.phase = Phase::Succeeded),
        ("failed", None, |p| p.phase = Phase::Failed),
    ];
    for (what, want, change) in rows {
        let mut pod = pod("p");
        change(&mut pod);
        let index = index([put_pod(pod)]);
        assert_eq!(index.workloads().values().next().map(|w| w.health), *want, "{what}");
    }
}

#[test]
fn annotations_and_labels_say_how_a_pod_is_reached() {
    let rows: &[(&str, (TunnelProtocol, bool, NetworkMode), fn(&mut Pod))] = &[
        ("plain", (TunnelProtocol::None, false, NetworkMode::Standard), |_| {}),
        ("pending capture", (TunnelProtocol::None, false, NetworkMode::Standard), |p| {
            p.annotations = labels(&[("ambient.istio.io/redirection", "pending")]);
        }),
        ("captured", (TunnelProtocol::Hbone, false, NetworkMode::Standard), |p| {
            p.annotations = labels(&[("ambient.istio.io/redirection", "enabled")]);
        }),
        ("speaks it itself", (TunnelProtocol::Hbone, true, NetworkMode::Standard), |p| {
            p.labels = labels(&[("networking.istio.io/tunnel", "tcp,http")]);
        }),
        ("on the host", (TunnelProtocol::None, false, NetworkMode::HostNetwork), |p| p.host_network = true),
    ];
    for (what, want, change) in rows {
        let mut pod = pod("p");
        change(&mut pod);
        let workload = only(&index([put_pod(pod)]));
        assert_eq!((workload.tunnel, workload.native_tunnel, workload.network_mode), *want, "{what}");
    }
}

#[test]
fn named_ports_are_resolved_at_each_pod_or_left_out() {
    let other = Pod {
        ports: vec![ContainerPort { name: Str::from("web"), port: 9090, transport: Transport::Tcp }],
        ..pod("other")
    };
    let without = Pod { ports: Vec::new(), ..pod("without") };
    let udp = Pod {
        ports: vec![ContainerPort { name: Str::from("web"), port: 53, transport: Transport::Udp }],
        ..pod("udp")
    };
    let index = index([
        put_pod(pod("first")),
        put_pod(other),
        put_pod(without),
        put_pod(udp),
        put_service(service("cart")),
    ]);
    let target = |name: &str| {
        let workload = &index.workloads()[&Uid::from(format!("Kubernetes//Pod/shop/{name}"))];
        workload.services.get(&key("cart.shop.svc.cluster.local")).unwrap().first().map(|p| p.target_port)
    };
    assert_eq!(
        [target("first"), target("other"), target("without"), target("udp")],
        [Some(8080), Some(9090), None, None]
    );
    assert_eq!(index.services()[&key("cart.shop.svc.cluster.local")].ports[0].target_port, 0);
}

#[test]
fn deltas_hold_what_differs_and_nothing_else() {
    let mut index = index([put_pod(pod("a")), put_pod(pod("b")), put_service(service("cart"))]);
    assert!(index.apply([put_pod(pod("a"))]).is_empty(), "nothing changed");
    let delta = index.apply([put_pod(Pod { ready: false, ..pod("a") })]);
    assert_eq!(delta.workloads.keys().map(Uid::as_str).collect::<Vec<_>>(), ["Kubernetes//Pod/shop/a"]);
    assert!(delta.services.is_empty() && delta.removed_workloads.is_empty());
    let gone = Key { kind: Kind::Pod, name: Name::new("shop", "b") };
    let delta = index.apply([Event::Remove(gone.clone())]);
    assert_eq!(delta.removed_workloads.len(), 1);
    assert!(index.apply([Event::Remove(gone)]).is_empty(), "removing what is gone is no error");
}
