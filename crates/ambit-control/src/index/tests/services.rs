//! Services and ServiceEntries: how they spread, what their ports speak, what backs them, and whose a host is.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ambit_types::service::{HealthPolicy, LoadBalancingMode, Scope};
use ambit_types::workload::{Health, NetworkMode};
use ambit_types::{AppProtocol, Str, Uid, Workload};

use super::{Index, entry, index, key, labels, only, pod, port, put_entry, put_pod, put_service, service};
use crate::input::*;

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
    assert_eq!(index.workloads()[&pod_uid].services.get(&key).unwrap()[0].target_port, 9999);
    let endpoint = &index.workloads()[&by_hand_uid];
    assert_eq!((endpoint.health, endpoint.network_mode), (Health::Unhealthy, NetworkMode::HostNetwork));
    assert_eq!(endpoint.services.get(&key).unwrap()[0].target_port, 9999);
    index.apply([put_pod(other_uid)]);
    assert!(index.workloads()[&pod_uid].services.is_empty(), "a pod made anew is not the one listed");
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
    assert_eq!(by_name.services.get(&key(host)).unwrap()[0].target_port, 15432);
    assert_eq!(by_ip.services.get(&key(host)).unwrap()[0].target_port, 5432);

    let by_dns = ServiceEntry { resolution: Resolution::Dns, ..entry("shop", "db", 0, host) };
    let workload = only(&self::index([put_entry(by_dns)]));
    assert_eq!((&*workload.hostname, workload.waypoint), (host, None));
    let none = ServiceEntry { resolution: Resolution::None, ..entry("shop", "db", 0, host) };
    let index = self::index([put_entry(none)]);
    assert_eq!(index.services()[&key(host)].load_balancing.mode, LoadBalancingMode::Passthrough);
}
