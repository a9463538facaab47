//! `istio.workload`: workloads and services, from the types of the mesh.

use std::sync::Arc;

use ambit_types::service::{
    HealthPolicy, IpFamilies, LoadBalancing, LoadBalancingMode, Port, Scope, Visibility,
};
use ambit_types::workload::{Health, NetworkMode, Settings, WorkloadType};
use ambit_types::{
    AppProtocol, ApplicationTunnel, Destination, Egress, EgressRule, GatewayAddress, Identity, Locality,
    Network, NetworkAddress, NetworkCidr, PolicyKey, Service, ServiceKey, TrustDomain, TunnelProtocol,
    WeightedWaypoint, Workload,
};
use ambit_xds::codec::{service, workload};

use super::bytes::{any, bytes, check, hex, message, varint};

fn gateway(host: &str) -> GatewayAddress {
    GatewayAddress { destination: Destination::Hostname(ServiceKey::new("ns", host)), hbone_mtls_port: 15008 }
}

fn port(service_port: u16, target_port: u16, app_protocol: AppProtocol) -> Port {
    Port { service_port, target_port, app_protocol }
}

/// A workload without the fields that are filled by default.
fn bare() -> Workload {
    let mut bare = Workload::new("u", "", "");
    bare.service_account = "".into();
    bare.cluster_id = "".into();
    bare
}

#[test]
fn a_workload_with_every_field() {
    let mut full = Workload::new("u", "ns", "p");
    full.addresses = vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
    full.network = Network::from("net");
    full.tunnel = TunnelProtocol::Hbone;
    full.trust_domain = TrustDomain::parse("prod.example").unwrap();
    full.service_account = "sa".into();
    full.waypoint = Some(gateway("wp"));
    full.node = "n1".into();
    full.canonical_name = "cn".into();
    full.canonical_revision = "cr".into();
    full.workload_type = WorkloadType::Job;
    full.workload_name = "wn".into();
    full.native_tunnel = true;
    full.policies = vec![PolicyKey::new("ns", "a"), PolicyKey::new("ns", "b")];
    full.health = Health::Unhealthy;
    full.cluster_id = "c1".into();
    full.network_gateway = Some(gateway("gw"));
    full.hostname = "host.example".into();
    full.services = [
        (ServiceKey::new("ns", "a"), vec![port(80, 8080, AppProtocol::Http11)]),
        (ServiceKey::new("ns", "b"), vec![]),
    ]
    .into();
    full.application_tunnel = Some(ApplicationTunnel { proxy_protocol: true, port: Some(15088) });
    full.locality = Locality { region: "r".into(), zone: "z".into(), subzone: "s".into() };
    full.network_mode = NetworkMode::HostNetwork;
    full.capacity = 300;
    let host = |name: &str| message(1, [bytes(1, "ns"), bytes(2, name)]);
    let want = [
        bytes(1, "p"),
        bytes(2, "ns"),
        bytes(3, [10, 0, 0, 1]),
        bytes(3, [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        bytes(4, "net"),
        varint(5, 1),
        bytes(6, "prod.example"),
        bytes(7, "sa"),
        message(8, [host("wp"), varint(3, 15008)]),
        bytes(9, "n1"),
        bytes(10, "cn"),
        bytes(11, "cr"),
        varint(12, 3),
        bytes(13, "wn"),
        varint(14, 1),
        bytes(16, "ns/a"),
        bytes(16, "ns/b"),
        varint(17, 1),
        bytes(18, "c1"),
        message(19, [host("gw"), varint(3, 15008)]),
        bytes(20, "u"),
        bytes(21, "host.example"),
        message(
            22,
            [bytes(1, "ns/a"), message(2, [message(1, [varint(1, 80), varint(2, 8080), varint(3, 1)])])],
        ),
        // An empty port list is a default value, so the entry holds its key only.
        message(22, [bytes(1, "ns/b")]),
        message(23, [varint(1, 1), varint(2, 15088)]),
        message(24, [bytes(1, "r"), bytes(2, "z"), bytes(3, "s")]),
        varint(25, 1),
        message(27, [varint(1, 300)]),
    ]
    .concat();
    check("workload", &workload::encode(&full), want);
}

#[test]
fn what_is_default_is_left_out() {
    check("bare workload", &workload::encode(&bare()), hex("a2 01 01 75"));
    let mut zero = bare();
    zero.capacity = 0;
    check("capacity zero is not absent", &workload::encode(&zero), hex("a2 01 01 75 da 01 00"));
    let mut legacy = bare();
    legacy.tunnel = TunnelProtocol::LegacyIstioMtls;
    check("legacy tunnel", &workload::encode(&legacy), hex("28 02 a2 01 01 75"));
    let mut none = bare();
    none.application_tunnel = Some(ApplicationTunnel { proxy_protocol: false, port: None });
    check("empty application tunnel", &workload::encode(&none), hex("a2 01 01 75 ba 01 00"));
}

#[test]
fn gateways_by_address() {
    let mut workload = bare();
    workload.waypoint = Some(GatewayAddress {
        destination: Destination::Address(NetworkAddress::new("n".into(), "10.0.0.9".parse().unwrap())),
        hbone_mtls_port: 15008,
    });
    let address = message(2, [bytes(1, "n"), bytes(2, [10, 0, 0, 9])]);
    let want = [message(8, [address, varint(3, 15008)]), bytes(20, "u")].concat();
    check("waypoint by address", &workload::encode(&workload), want);
}

#[test]
fn our_own_settings_travel_as_an_extension() {
    let mut own = bare();
    own.settings = Some(Arc::new(Settings {
        probe_ports: vec![80, 8443],
        node_addresses: vec!["10.0.0.254".parse().unwrap()],
        network_policy: true,
        egress: Some(Egress {
            policy: PolicyKey::new("ns", "out"),
            rules: vec![EgressRule { cidrs: vec!["192.0.2.0/24".parse().unwrap()], ports: vec![80] }],
        }),
    }));
    // Repeated numbers are packed: one field with all of them.
    let range = message(1, [bytes(1, [192, 0, 2, 0]), varint(2, 24)]);
    let egress = message(4, [bytes(1, "ns/out"), message(2, [range, bytes(2, hex("50"))])]);
    let settings = [bytes(1, hex("50 fb 41")), bytes(2, [10, 0, 0, 254]), varint(3, 1), egress].concat();
    let extension = message(
        26,
        [
            bytes(1, "ambit.internal/workload"),
            any(2, "type.googleapis.com/ambit.internal.WorkloadSettings", settings),
        ],
    );
    check("settings", &workload::encode(&own), [bytes(20, "u"), extension].concat());
    // Said even where all of it is default, because silence means that nobody knows.
    own.settings = Some(Arc::default());
    let nothing = message(2, [bytes(1, "type.googleapis.com/ambit.internal.WorkloadSettings")]);
    let extension = message(26, [bytes(1, "ambit.internal/workload"), nothing]);
    check("default settings", &workload::encode(&own), [bytes(20, "u"), extension].concat());
    own.settings = None;
    check("no settings", &workload::encode(&own), bytes(20, "u"));
}

#[test]
fn a_service_with_every_field() {
    let mut full = Service::new("ns", "s", "s.ns.svc.cluster.local");
    full.vips = vec![NetworkAddress::new("net".into(), "10.96.0.1".parse().unwrap())];
    full.cidr_vips = vec![NetworkCidr { network: "".into(), range: "192.168.0.0/16".parse().unwrap() }];
    full.ports = vec![
        port(80, 0, AppProtocol::Http2),
        port(443, 8443, AppProtocol::Tls),
        port(1, 2, AppProtocol::Grpc),
        port(3, 4, AppProtocol::Tcp),
        port(5, 6, AppProtocol::Unknown),
    ];
    full.subject_alt_names = vec![Identity::parse("spiffe://td/ns/a/sa/b").unwrap()];
    full.waypoint = Some(gateway("wp"));
    full.load_balancing = LoadBalancing {
        preference: vec![
            Scope::Network,
            Scope::Region,
            Scope::Zone,
            Scope::Subzone,
            Scope::Node,
            Scope::Cluster,
        ],
        mode: LoadBalancingMode::Failover,
        health: HealthPolicy::AllowAll,
    };
    full.ip_families = IpFamilies::Dual;
    full.canonical = true;
    full.ingress_use_waypoint = true;
    full.weighted_waypoints = vec![WeightedWaypoint { destination: gateway("c"), weight: 10 }];
    full.visibility = Visibility::Namespace;
    let host = |name: &str| message(1, [bytes(1, "ns"), bytes(2, name)]);
    let want = [
        bytes(1, "s"),
        bytes(2, "ns"),
        bytes(3, "s.ns.svc.cluster.local"),
        message(4, [bytes(1, "net"), bytes(2, [10, 96, 0, 1])]),
        message(4, [bytes(2, [192, 168, 0, 0]), varint(3, 16)]),
        message(5, [varint(1, 80), varint(3, 2)]),
        message(5, [varint(1, 443), varint(2, 8443), varint(3, 5)]),
        message(5, [varint(1, 1), varint(2, 2), varint(3, 3)]),
        message(5, [varint(1, 3), varint(2, 4), varint(3, 4)]),
        message(5, [varint(1, 5), varint(2, 6)]),
        bytes(6, "spiffe://td/ns/a/sa/b"),
        message(7, [host("wp"), varint(3, 15008)]),
        message(8, [bytes(1, [6, 1, 2, 3, 4, 5]), varint(2, 2), varint(3, 1)]),
        varint(9, 3),
        varint(11, 1),
        varint(12, 1),
        message(13, [message(1, [host("c"), varint(3, 15008)]), varint(2, 10)]),
        varint(14, 1),
    ]
    .concat();
    check("service", &service::encode(&full), want);
}

#[test]
fn other_values_of_a_service() {
    let mut strict = Service::new("n", "", "h");
    strict.load_balancing = LoadBalancing {
        preference: vec![Scope::Node],
        mode: LoadBalancingMode::Strict,
        ..Default::default()
    };
    strict.ip_families = IpFamilies::Ipv4Only;
    check("strict", &service::encode(&strict), hex("12 01 6e 1a 01 68 42 05 0a 01 04 10 01 48 01"));
    let mut passthrough = Service::new("n", "", "h");
    passthrough.load_balancing = LoadBalancing { mode: LoadBalancingMode::Passthrough, ..Default::default() };
    passthrough.ip_families = IpFamilies::Ipv6Only;
    check("passthrough", &service::encode(&passthrough), hex("12 01 6e 1a 01 68 42 02 10 03 48 02"));
}
