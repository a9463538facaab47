//! What objects become, field by field.
#![expect(clippy::type_complexity, reason = "rows of tables")]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ambit_policy::{Facts, PolicySet, decide};
use ambit_types::service::{HealthPolicy, LoadBalancingMode, Scope};
use ambit_types::workload::{Health, NetworkMode};
use ambit_types::{AppProtocol, Destination, EgressRule, ServiceKey, Str, TunnelProtocol, Uid, Workload};

use super::{Index, Settings};
use crate::input::*;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| (Str::from(*key), Str::from(*value))).collect()
}

fn pod(name: &str) -> Pod {
    Pod {
        name: Name::new("shop", name),
        uid: Str::from("uid-1"),
        labels: labels(&[("app", "cart")]),
        annotations: Labels::new(),
        controller: None,
        service_account: Str::from("cart"),
        node: Str::from("node1"),
        host_network: false,
        addresses: vec![IpAddr::from([10, 244, 1, 5])],
        phase: Phase::Running,
        ready: true,
        deleting: false,
        ports: vec![ContainerPort { name: Str::from("web"), port: 8080, transport: Transport::Tcp }],
        probe_ports: vec![9000, 8080, 9000],
    }
}

fn service(name: &str) -> Service {
    Service {
        name: Name::new("shop", name),
        created: 0,
        labels: Labels::new(),
        annotations: Labels::new(),
        selector: labels(&[("app", "cart")]),
        cluster_ips: vec![IpAddr::from([10, 96, 0, 7])],
        ports: vec![port("http-web", 80, TargetPort::Name(Str::from("web")))],
        external_name: false,
        node_local: false,
        traffic_distribution: None,
        publish_not_ready: false,
        ip_families_v6: vec![false],
    }
}

fn port(name: &str, port: u16, target: TargetPort) -> ServicePort {
    ServicePort { name: Str::from(name), port, target, transport: Transport::Tcp, app_protocol: None }
}

fn entry(namespace: &str, name: &str, created: u64, host: &str) -> ServiceEntry {
    ServiceEntry {
        name: Name::new(namespace, name),
        created,
        generation: 0,
        labels: Labels::new(),
        annotations: Labels::new(),
        hosts: vec![Str::from(host)],
        addresses: Vec::new(),
        allocated: BTreeMap::new(),
        ports: vec![EntryPort {
            name: Str::from("db"),
            number: 5432,
            protocol: Str::from("TCP"),
            target: None,
        }],
        resolution: Resolution::Static,
        endpoints: Vec::new(),
        workload_selector: Labels::new(),
        subject_alt_names: Vec::new(),
    }
}

fn put_pod(pod: Pod) -> Event {
    Event::Put(Object::Pod(Box::new(pod)))
}

fn put_service(service: Service) -> Event {
    Event::Put(Object::Service(Box::new(service)))
}

fn put_entry(entry: ServiceEntry) -> Event {
    Event::Put(Object::ServiceEntry(Box::new(entry)))
}

fn index(events: impl IntoIterator<Item = Event>) -> Index {
    let mut index = Index::new(Settings::default());
    index.apply(events);
    index
}

fn only(index: &Index) -> Workload {
    assert_eq!(index.workloads().len(), 1, "{:?}", index.workloads().keys());
    Workload::clone(index.workloads().values().next().unwrap())
}

fn key(host: &str) -> ServiceKey {
    ServiceKey::new("shop", host)
}

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
    let ports = &workload.services[&key("cart.shop.svc.cluster.local")];
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
        workload.services[&key("cart.shop.svc.cluster.local")].first().map(|p| p.target_port)
    };
    assert_eq!(
        [target("first"), target("other"), target("without"), target("udp")],
        [Some(8080), Some(9090), None, None]
    );
    assert_eq!(index.services()[&key("cart.shop.svc.cluster.local")].ports[0].target_port, 0);
}

#[test]
fn services_spread_as_they_say() {
    use LoadBalancingMode as Mode;
    use Scope::*;
    let rows: &[(&str, Mode, &[Scope], HealthPolicy, fn(&mut Service))] = &[
        ("nothing said", Mode::Any, &[], HealthPolicy::OnlyHealthy, |_| {}),
        ("node local", Mode::Strict, &[Node], HealthPolicy::OnlyHealthy, |s| s.node_local = true),
        ("close", Mode::Failover, &[Network, Region, Zone], HealthPolicy::OnlyHealthy, |s| {
            s.traffic_distribution = Some(Str::from("PreferClose"));
        }),
        (
            "same node",
            Mode::Failover,
            &[Network, Region, Zone, Subzone, Node],
            HealthPolicy::OnlyHealthy,
            |s| {
                s.annotations = labels(&[("networking.istio.io/traffic-distribution", "prefersamenode")]);
            },
        ),
        (
            "the field before the annotation",
            Mode::Failover,
            &[Network, Region, Zone],
            HealthPolicy::OnlyHealthy,
            |s| {
                s.traffic_distribution = Some(Str::from("PreferSameZone"));
                s.annotations = labels(&[("networking.istio.io/traffic-distribution", "PreferSameNode")]);
            },
        ),
        ("unknown word", Mode::Any, &[], HealthPolicy::OnlyHealthy, |s| {
            s.traffic_distribution = Some(Str::from("Whatever"));
        }),
        ("not ready too", Mode::Any, &[], HealthPolicy::AllowAll, |s| s.publish_not_ready = true),
    ];
    for (what, mode, preference, health, change) in rows {
        let mut service = service("cart");
        change(&mut service);
        // Another service beside it: health is a matter of each service alone.
        let index = index([put_service(service), put_service(self::service("plain"))]);
        let made = &index.services()[&key("cart.shop.svc.cluster.local")].load_balancing;
        assert_eq!((made.mode, &made.preference[..], made.health), (*mode, *preference, *health), "{what}");
        let plain = &index.services()[&key("plain.shop.svc.cluster.local")].load_balancing;
        assert_eq!(plain.health, HealthPolicy::OnlyHealthy, "{what}");
    }
}

#[test]
fn protocols_come_from_app_protocol_or_the_name() {
    let rows = [
        ("http-web", 80, None, AppProtocol::Http11),
        ("HTTP2", 80, None, AppProtocol::Http2),
        ("grpc-x", 80, None, AppProtocol::Grpc),
        ("grpc-web", 80, None, AppProtocol::Unknown),
        ("https", 443, None, AppProtocol::Tls),
        ("mysql", 3306, None, AppProtocol::Unknown),
        ("db", 3306, None, AppProtocol::Tcp),
        ("", 8080, None, AppProtocol::Unknown),
        ("tcp-x", 8080, Some("kubernetes.io/h2c"), AppProtocol::Http2),
        ("http", 80, Some("kubernetes.io/wss"), AppProtocol::Tls),
    ];
    for (name, number, declared, want) in rows {
        let mut service = service("cart");
        service.ports = vec![ServicePort {
            app_protocol: declared.map(Str::from),
            ..port(name, number, TargetPort::Number(1))
        }];
        let index = index([put_service(service)]);
        let made = index.services().values().next().unwrap();
        assert_eq!(made.ports[0].app_protocol, want, "{name} {number} {declared:?}");
    }
}

#[test]
fn endpoints_listed_by_hand_back_a_service_without_selector() {
    let by_hand = Service { selector: Labels::new(), ..service("cart") };
    let slice = EndpointSlice {
        name: Name::new("shop", "cart-1"),
        service: Str::from("cart"),
        ports: vec![SlicePort { name: Str::from("http-web"), port: 9999 }],
        endpoints: vec![
            SliceEndpoint { address: IpAddr::from([192, 0, 2, 1]), ready: false, pod: None },
            SliceEndpoint {
                address: IpAddr::from([10, 244, 1, 5]),
                ready: true,
                pod: Some(TargetRef { name: Name::new("shop", "p"), uid: Str::from("uid-1") }),
            },
        ],
    };
    let other_uid = Pod { uid: Str::from("uid-2"), ..pod("p") };
    let mut index =
        index([put_service(by_hand), Event::Put(Object::EndpointSlice(slice)), put_pod(pod("p"))]);
    let pod_uid = Uid::from("Kubernetes//Pod/shop/p");
    let by_hand_uid = Uid::from("Kubernetes/discovery.k8s.io/EndpointSlice/shop/cart-1/192.0.2.1");
    let key = key("cart.shop.svc.cluster.local");
    assert_eq!(index.workloads()[&pod_uid].services[&key][0].target_port, 9999);
    let endpoint = &index.workloads()[&by_hand_uid];
    assert_eq!((endpoint.health, endpoint.network_mode), (Health::Unhealthy, NetworkMode::HostNetwork));
    assert_eq!(endpoint.services[&key][0].target_port, 9999);
    index.apply([put_pod(other_uid)]);
    assert!(index.workloads()[&pod_uid].services.is_empty(), "a pod made anew is not the one listed");
}

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
fn one_record_stands_for_a_host_in_each_namespace() {
    let host = "cart.shop.svc.cluster.local";
    let mut index = index([
        put_entry(entry("shop", "shadow", 1, host)),
        put_entry(entry("other", "young", 9, host)),
        put_entry(entry("other", "old", 2, host)),
    ]);
    let made = |index: &Index| -> Vec<String> {
        index.services().values().map(|s| format!("{}/{} {}", s.namespace, s.name, s.canonical)).collect()
    };
    assert_eq!(made(&index), ["other/old false", "shop/shadow true"]);
    index.apply([put_service(service("cart"))]);
    assert_eq!(made(&index), ["other/old false", "shop/cart true"]);
    let standings: Vec<String> =
        index.statuses().map(|s| format!("{} {}", s.object.name, s.standing)).collect();
    assert_eq!(
        standings,
        [
            "other/old accepted",
            &format!("other/young degraded: host {host} belongs to the older ServiceEntry other/old"),
            &format!("shop/shadow degraded: host {host} belongs to Service shop/cart"),
        ]
    );
}

#[test]
fn plaintext_is_refused_where_peer_authentication_says_so() {
    use Mode::*;
    // mesh, namespace, workload, ports of the workload -> refused on 80, refused on 81
    let rows: &[(Mode, Mode, Option<Mode>, &[(u16, Mode)], bool, bool)] = &[
        (Unset, Unset, None, &[], false, false),
        (Strict, Unset, None, &[], true, true),
        (Strict, Permissive, None, &[], false, false),
        (Strict, Disable, None, &[], false, false),
        (Unset, Strict, None, &[], true, true),
        (Strict, Unset, Some(Unset), &[], true, true),
        (Strict, Strict, Some(Permissive), &[], false, false),
        (Unset, Unset, Some(Strict), &[], true, true),
        (Unset, Unset, Some(Strict), &[(80, Permissive)], false, true),
        (Unset, Unset, Some(Strict), &[(80, Disable)], false, true),
        (Unset, Unset, Some(Strict), &[(80, Strict)], true, true),
        (Unset, Unset, Some(Strict), &[(80, Unset)], true, true),
        (Unset, Unset, Some(Permissive), &[(80, Strict)], true, false),
        (Unset, Unset, Some(Permissive), &[(80, Strict), (81, Strict)], true, true),
        (Unset, Unset, Some(Disable), &[(81, Strict)], false, true),
        (Strict, Unset, Some(Unset), &[(80, Permissive)], false, true),
        (Strict, Unset, Some(Unset), &[(80, Disable)], false, true),
        (Unset, Strict, Some(Unset), &[(80, Permissive), (81, Disable)], false, false),
        (Unset, Unset, Some(Unset), &[(80, Strict)], true, false),
        (Strict, Permissive, Some(Unset), &[(80, Strict)], true, false),
    ];
    for row in rows {
        let (mesh, namespace, workload, ports, at_80, at_81) = row;
        let level =
            |of: &str, name: &str, created, mode, selector: &[(&str, &str)], ports: &[(u16, Mode)]| {
                Event::Put(Object::PeerAuthentication(PeerAuthentication {
                    name: Name::new(of, name),
                    created,
                    selector: labels(selector),
                    mode,
                    ports: ports.iter().copied().collect(),
                }))
            };
        let mut events = vec![
            put_pod(pod("p")),
            level("istio-system", "mesh", 1, *mesh, &[], &[]),
            level("shop", "namespace", 1, *namespace, &[], &[]),
            // Younger ones, and one with a selector in the root namespace, change nothing.
            level("istio-system", "later", 2, Strict, &[], &[]),
            level("shop", "later", 2, Strict, &[], &[]),
            level("istio-system", "selects", 0, Strict, &[("app", "cart")], &[]),
        ];
        if let Some(mode) = workload {
            events.push(level("shop", "workload", 1, *mode, &[("app", "cart")], ports));
            events.push(level("shop", "younger", 2, Strict, &[("app", "cart")], &[]));
        }
        let index = index(events);
        let refused = |port: u16| !allowed(&index, port);
        assert_eq!((refused(80), refused(81)), (*at_80, *at_81), "{row:?}");
    }
}

/// Whether plaintext to the only workload is allowed.
fn allowed(index: &Index, port: u16) -> bool {
    let workload = only(index);
    let named = workload.policies.iter().map(|key| {
        index.policies().get(key).unwrap_or_else(|| panic!("{key} is named and not there")).clone()
    });
    let local = IpAddr::from([10, 0, 0, 1]);
    decide(&PolicySet::new(named, []), &Facts::new(None, local, local, port)).is_allow()
}

#[test]
fn adding_a_strict_port_never_opens_any_port() {
    let modes = [Mode::Unset, Mode::Disable, Mode::Permissive, Mode::Strict];
    for mesh in modes {
        for workload in modes {
            for first in modes {
                let of = |ports: &[(u16, Mode)]| {
                    let authentication =
                        |namespace: &str, mode, selector: &[(&str, &str)], ports: &[(u16, Mode)]| {
                            Event::Put(Object::PeerAuthentication(PeerAuthentication {
                                name: Name::new(namespace, "pa"),
                                created: 0,
                                selector: labels(selector),
                                mode,
                                ports: ports.iter().copied().collect(),
                            }))
                        };
                    let index = index([
                        put_pod(pod("p")),
                        authentication("istio-system", mesh, &[], &[]),
                        authentication("shop", workload, &[("app", "cart")], ports),
                    ]);
                    [80, 81, 82].map(|port| allowed(&index, port))
                };
                let (before, after) = (of(&[(80, first)]), of(&[(80, first), (81, Mode::Strict)]));
                let opened = before.iter().zip(after).any(|(before, after)| !before && after);
                assert!(!opened, "{mesh:?} {workload:?} {first:?}: {before:?} {after:?}");
                assert!(!after[1], "{mesh:?} {workload:?} {first:?}");
            }
        }
    }
}

#[test]
fn workloads_name_policies_that_select_them_and_root_ones() {
    let policy = |namespace: &str, name: &str, selector: &[(&str, &str)]| {
        Event::Put(Object::AuthorizationPolicy(Box::new(AuthorizationPolicy {
            name: Name::new(namespace, name),
            generation: 0,
            selector: labels(selector),
            targets: 0,
            action: PolicyAction::Deny,
            rules: Vec::new(),
            dry_run: false,
            until: None,
        })))
    };
    let mut index = index([
        put_pod(pod("p")),
        policy("shop", "selects", &[("app", "cart")]),
        policy("shop", "selects-other", &[("app", "web")]),
        policy("shop", "whole-namespace", &[]),
        policy("istio-system", "selects", &[("app", "cart")]),
        policy("other", "selects", &[("app", "cart")]),
    ]);
    let named = |index: &Index| only(index).policies.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(named(&index), ["istio-system/selects", "shop/selects"]);
    let relabelled = Pod { labels: labels(&[("app", "web")]), ..pod("p") };
    let delta = index.apply([put_pod(relabelled)]);
    assert_eq!(named(&index), ["shop/selects-other"]);
    assert_eq!((delta.workloads.len(), delta.policies.len(), delta.services.len()), (1, 0, 0));
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

#[test]
fn service_entries_bring_their_endpoints() {
    let host = "db.example";
    let listed = ServiceEntry {
        addresses: vec!["10.9.0.1/32".parse().unwrap(), "10.8.0.0/16".parse().unwrap()],
        endpoints: vec![
            Endpoint {
                address: Str::from("192.0.2.1"),
                network: Str::from("far"),
                weight: 3,
                ..Endpoint::default()
            },
            Endpoint {
                address: Str::from("one.db.example"),
                ports: BTreeMap::from([(Str::from("db"), 15432)]),
                ..Endpoint::default()
            },
        ],
        ..entry("shop", "db", 0, host)
    };
    let index = index([put_entry(listed)]);
    let made = &index.services()[&key(host)];
    assert_eq!((made.vips.len(), made.cidr_vips.len(), made.canonical), (1, 1, true));
    let workload = |address: &str| {
        let uid = format!("Kubernetes/networking.istio.io/ServiceEntry/shop/db/{address}");
        Workload::clone(&index.workloads()[&Uid::from(uid)])
    };
    let (by_ip, by_name) = (workload("192.0.2.1"), workload("one.db.example"));
    assert_eq!((by_ip.network.as_str(), by_ip.capacity), ("far", 3));
    // Without them nobody holds the waypoint of its service against its address; and whether a NetworkPolicy selects
    // it nobody knows.
    assert!(by_ip.settings.as_ref().is_some_and(|settings| settings.network_policy), "{:?}", by_ip.settings);
    // The network of one endpoint is not that of the next.
    assert_eq!((by_name.network.as_str(), &*by_name.hostname), ("", "one.db.example"));
    assert_eq!(by_name.services[&key(host)][0].target_port, 15432);
    assert_eq!(by_ip.services[&key(host)][0].target_port, 5432);

    let by_dns = ServiceEntry { resolution: Resolution::Dns, ..entry("shop", "db", 0, host) };
    let workload = only(&self::index([put_entry(by_dns)]));
    assert_eq!((&*workload.hostname, workload.waypoint), (host, None));
    let none = ServiceEntry { resolution: Resolution::None, ..entry("shop", "db", 0, host) };
    let index = self::index([put_entry(none)]);
    assert_eq!(index.services()[&key(host)].load_balancing.mode, LoadBalancingMode::Passthrough);
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

fn egress(name: &str, selector: &[(&str, &str)], ports: impl IntoIterator<Item = u16>) -> Event {
    let rule = EgressRule { cidrs: Vec::new(), ports: ports.into_iter().collect() };
    let rules = if rule.ports.is_empty() { Vec::new() } else { vec![rule] };
    let name = Name::new("shop", name);
    Event::Put(Object::EgressPolicy(EgressPolicy { name, generation: 0, selector: labels(selector), rules }))
}

/// The policy that is named, and every port that is allowed.
fn may_leave(index: &Index) -> Option<(String, Vec<u16>)> {
    let workload = only(index);
    let egress = workload.egress()?;
    let ports = egress.rules.iter().flat_map(|rule| rule.ports.clone()).collect();
    Some((egress.policy.to_string(), ports))
}

#[test]
fn egress_policies_of_a_namespace_add_up_for_the_pods_they_select() {
    let of = |events: Vec<Event>| may_leave(&index([put_pod(pod("cart-0"))].into_iter().chain(events)));
    let named = |name: &str, ports: &[u16]| Some((format!("shop/{name}"), ports.to_vec()));
    let cart: &[(&str, &str)] = &[("app", "cart")];
    assert_eq!(of(vec![]), None);
    assert_eq!(of(vec![egress("a", &[("app", "web")], 1..=2)]), None);
    assert_eq!(of(vec![egress("a", &[], [])]), named("a", &[]));
    assert_eq!(of(vec![egress("b", &[], 3..=3), egress("a", cart, 1..=2)]), named("a", &[1, 2, 3]));
    assert_eq!(of(vec![egress("b", &[], 3..=3), egress("a", &[("app", "web")], 1..=2)]), named("b", &[3]));
    let mut elsewhere = egress("a", &[], 1..=2);
    if let Event::Put(Object::EgressPolicy(policy)) = &mut elsewhere {
        policy.name = Name::new("other", "a");
    }
    assert_eq!(of(vec![elsewhere]), None);
}

#[test]
fn an_egress_policy_that_goes_lets_its_pods_out_again() {
    let mut index = index([put_pod(pod("cart-0")), egress("a", &[], 1..=2)]);
    let delta = index.apply([egress("a", &[], 1..=1)]);
    assert_eq!((delta.workloads.len(), may_leave(&index)), (1, Some(("shop/a".to_owned(), vec![1]))));
    let gone = Key::new(Kind::EgressPolicy, Name::new("shop", "a"));
    let delta = index.apply([Event::Remove(gone)]);
    assert_eq!((delta.workloads.len(), may_leave(&index), index.statuses().count()), (1, None, 0));
}

#[test]
fn egress_rules_that_do_not_fit_their_namespace_are_left_out_and_said() {
    let index = index([
        put_pod(pod("cart-0")),
        egress("a", &[], 1..=500),
        egress("b", &[], 601..=620),
        egress("c", &[], []),
    ]);
    let (policy, ports) = may_leave(&index).expect("it is selected");
    assert_eq!((policy.as_str(), ports.len()), ("shop/a", 500));
    let said: Vec<String> = index.statuses().map(|s| format!("{} {}", s.object.name, s.standing)).collect();
    assert_eq!(said[0], "shop/a accepted");
    assert!(said[1].starts_with("shop/b degraded: TooMany: "), "{said:?}");
    assert_eq!(said[2], "shop/c accepted");
}

#[test]
fn pods_share_what_they_have_in_common_whatever_stands_between_them() {
    let between = Pod { labels: labels(&[("app", "web")]), probe_ports: vec![1], ..pod("b") };
    let index = index([put_service(service("cart")), put_pod(pod("a")), put_pod(between), put_pod(pod("c"))]);
    let [a, b, c] = ["a", "b", "c"]
        .map(|name| index.workloads()[&Uid::from(format!("Kubernetes//Pod/shop/{name}"))].clone());
    let settings = |of: &Arc<Workload>| of.settings.clone().expect("a pod has some");
    assert!(Arc::ptr_eq(&settings(&a), &settings(&c)) && !Arc::ptr_eq(&settings(&a), &settings(&b)));
    let backed = |of: &Arc<Workload>| of.services.keys().map(std::ptr::from_ref).collect::<Vec<_>>();
    assert_eq!((backed(&a).len(), backed(&b).len()), (1, 0));
    assert_eq!(backed(&a), backed(&c), "the same memory");
    let label = |name: &str| {
        let pod = index.inputs.pods.named(&Name::new("shop", name)).expect("it was put in");
        pod.labels.iter().map(|(key, _)| std::ptr::from_ref(key)).collect::<Vec<_>>()
    };
    assert_eq!(label("a"), label("c"), "the same memory");
    assert_ne!(label("a"), label("b"));
    assert!(index.uids.is_empty(), "the uid of a pod is not kept beside its workload");
}

#[test]
fn a_slice_shares_the_names_of_pods_that_come_with_it() {
    let target = |name: &str, uid: &str| SliceEndpoint {
        address: IpAddr::from([10, 244, 1, 5]),
        ready: true,
        pod: Some(TargetRef { name: Name::new("shop", name), uid: Str::from(uid) }),
    };
    let name = Name::new("shop", "cart-1");
    let slice = EndpointSlice {
        name: name.clone(),
        service: Str::from("cart"),
        ports: Vec::new(),
        endpoints: vec![target("a", "uid-1"), target("b", "uid-2"), target("gone", "uid-1")],
    };
    let slice = Event::Put(Object::EndpointSlice(slice));
    let index = index([slice, put_pod(pod("a")), put_pod(pod("b"))]);
    let held = index.inputs.slices.named(&name).expect("it was put in");
    let shared = |number: usize, name: &str| {
        let (target, pod) = (held.endpoints[number].pod.as_ref(), Name::new("shop", name));
        let (target, pod) = (target.expect("a pod"), index.inputs.pods.named(&pod).expect("it was put in"));
        [Arc::ptr_eq(&target.name.name, &pod.name.name), Arc::ptr_eq(&target.uid, &pod.uid)]
    };
    assert_eq!([shared(0, "a"), shared(1, "b"), shared(2, "a")], [[true, true], [true, false], [false; 2]]);
    let uids: Vec<&str> = held.endpoints.iter().map(|one| &*one.pod.as_ref().expect("a pod").uid).collect();
    assert_eq!(uids, ["uid-1", "uid-2", "uid-1"], "nothing else of it differs");
    let slice = held.clone();
    let mut index = index;
    index.apply([put_pod(Pod { ready: false, ..pod("a") }), Event::Put(Object::EndpointSlice(slice))]);
    let (held, pod) = (index.inputs.slices.named(&name), index.inputs.pods.named(&Name::new("shop", "a")));
    let target = held.and_then(|slice| slice.endpoints[0].pod.as_ref()).expect("a pod");
    let pod = pod.filter(|pod| !pod.ready).expect("it was put in");
    assert!(Arc::ptr_eq(&target.name.name, &pod.name.name), "still, when the pod has changed");
}
