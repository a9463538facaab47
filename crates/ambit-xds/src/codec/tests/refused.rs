//! What is malformed is refused by field, and a policy whole.

use ambit_types::workload::Settings;

use super::policy_of;
use crate::any::Any;
use crate::codec::{Notes, authorization, service, workload};
use crate::proto::istio::{security as policy_wire, workload as wire};

fn broken_workload(change: impl Fn(&mut wire::Workload)) -> String {
    let mut message = wire::Workload { uid: "u".into(), ..wire::Workload::default() };
    change(&mut message);
    workload::decode(&message, &mut Notes::default()).expect_err("must be refused").to_string()
}

/// Settings with a policy of egress for a port that is none, and for an address of three bytes.
const EGRESS_PORT: &[u8] = b"\x22\x0c\x0a\x03a/b\x12\x05\x12\x03\x80\x80\x04";
const EGRESS_ADDRESS: &[u8] = b"\x22\x0e\x0a\x03a/b\x12\x07\x0a\x05\x0a\x03123";

#[test]
fn a_malformed_workload_is_refused_by_field() {
    let gateway = |destination| wire::GatewayAddress { destination, hbone_mtls_port: 15008 };
    let port = |service_port, target_port| wire::Port { service_port, target_port, app_protocol: 0 };
    let list = |port| wire::PortList { ports: vec![port] };
    let rows = [
        (broken_workload(|w| w.uid.clear()), "uid: is missing"),
        (
            broken_workload(|w| w.addresses = vec!["1234".into(), "12345".into()]),
            "addresses[1]: has 5 bytes;",
        ),
        (broken_workload(|w| w.addresses = vec!["".into()]), "addresses[0]: has 0 bytes;"),
        (
            broken_workload(|w| w.trust_domain = "Up.per".into()),
            "trust_domain: \"Up.per\" is no trust domain",
        ),
        (broken_workload(|w| w.waypoint = Some(gateway(None))), "waypoint.destination: is missing"),
        (broken_workload(|w| w.network_gateway = Some(gateway(None))), "network_gateway.destination: is"),
        (
            broken_workload(|w| w.authorization_policies = vec!["ns/a".into(), "b".into()]),
            "authorization_policies[1]: \"b\" is not",
        ),
        (
            broken_workload(|w| w.services = [("nohost".to_owned(), wire::PortList::default())].into()),
            "services[\"nohost\"]: \"nohost\" is not",
        ),
        // G4: 65536 + 80 is not port 80.
        (
            broken_workload(|w| w.services = [("n/h".to_owned(), list(port(65616, 80)))].into()),
            "services[\"n/h\"].ports[0].service_port: 65616 is no port",
        ),
        (
            broken_workload(|w| w.services = [("n/h".to_owned(), list(port(80, 65536)))].into()),
            "services[\"n/h\"].ports[0].target_port: 65536 is no port",
        ),
        (
            broken_workload(|w| {
                w.application_tunnel = Some(wire::ApplicationTunnel { protocol: 1, port: 70000 });
            }),
            "application_tunnel.port: 70000 is no port",
        ),
    ];
    check(&rows);
    check(&malformed_settings());
}

/// Workloads whose settings cannot be read, and what is said of them.
fn malformed_settings() -> [(String, &'static str); 6] {
    let extension = |url: &str, value: &'static [u8]| wire::Extension {
        name: Settings::EXTENSION.into(),
        config: Some(Any { type_url: url.into(), value: value.into() }),
    };
    let settings = "type.googleapis.com/ambit.internal.WorkloadSettings";
    [
        (broken_workload(|w| w.extensions = vec![extension("x/Other", b"")]), "extensions[0].config: holds"),
        (
            broken_workload(|w| w.extensions = vec![extension(settings, b"\xff")]),
            "extensions[0].config: cannot",
        ),
        (
            broken_workload(|w| w.extensions = vec![extension(settings, b"\x0a\x03\x80\x80\x04")]),
            "settings.probe_ports: 65536 is no port",
        ),
        (
            broken_workload(|w| w.extensions = vec![extension(settings, EGRESS_PORT)]),
            "settings.egress.ports: 65536 is no port",
        ),
        (
            broken_workload(|w| w.extensions = vec![extension(settings, EGRESS_ADDRESS)]),
            "settings.egress.cidrs.address: has 3 bytes",
        ),
        (
            broken_workload(|w| w.extensions = vec![extension(settings, b"\x22\x03\x0a\x01a")]),
            "settings.egress.policy: \"a\" is not",
        ),
    ]
}

#[track_caller]
fn check(rows: &[(String, &str)]) {
    for (found, want) in rows {
        assert!(found.starts_with(want), "found {found:?}, want {want:?}");
    }
}

#[test]
fn a_malformed_service_is_refused_by_field() {
    let broken = |change: &dyn Fn(&mut wire::Service)| {
        let mut message =
            wire::Service { namespace: "n".into(), hostname: "h".into(), ..wire::Service::default() };
        change(&mut message);
        service::decode(&message, &mut Notes::default()).expect_err("must be refused").to_string()
    };
    let address = |address: &'static [u8], length| wire::NetworkAddress {
        network: String::new(),
        address: address.into(),
        length,
    };
    let weighted = |destination| wire::WeightedWaypoint { destination, weight: 1 };
    let rows = [
        (broken(&|s| s.namespace.clear()), "namespace: is missing"),
        (broken(&|s| s.hostname.clear()), "hostname: is missing"),
        (broken(&|s| s.hostname = "a/b".into()), "hostname: \"n/a/b\" is not"),
        (broken(&|s| s.addresses = vec![address(b"123", None)]), "addresses[0].address: has 3 bytes"),
        (
            broken(&|s| s.addresses = vec![address(b"1234", Some(33))]),
            "addresses[0].length: prefix length 33",
        ),
        (broken(&|s| s.addresses = vec![address(b"1234", Some(1 << 20))]), "addresses[0].length: prefix"),
        (broken(&|s| s.weighted_waypoints = vec![weighted(None)]), "weighted_waypoints[0].destination: is"),
        (
            broken(&|s| {
                let hostname = wire::NamespacedHostname { namespace: "n".into(), hostname: String::new() };
                let destination = Some(wire::gateway_address::Destination::Hostname(hostname));
                s.waypoint = Some(wire::GatewayAddress { destination, hbone_mtls_port: 1 });
            }),
            "waypoint.hostname.hostname: is missing",
        ),
    ];
    check(&rows);
}

#[test]
fn a_malformed_policy_is_refused_whole() {
    // G3: nothing is dropped from a list, because that would widen what is allowed or narrow what is denied.
    let broken = |change: &dyn Fn(&mut policy_wire::Match)| {
        let mut one = policy_wire::Match::default();
        change(&mut one);
        let message = policy_of(0, vec![policy_wire::Match::default(), one]);
        authorization::decode(&message).expect_err("must be refused").to_string()
    };
    let range = |address: &'static [u8], length| policy_wire::Address { address: address.into(), length };
    let nothing = policy_wire::StringMatch { match_type: None };
    let place = "rules[0].clauses[0].matches[1]";
    let rows = [
        (broken(&|m| m.namespaces = vec![nothing.clone()]), "namespaces[0].match_type: is missing"),
        (broken(&|m| m.not_principals = vec![nothing.clone()]), "not_principals[0].match_type: is missing"),
        (broken(&|m| m.source_ips = vec![range(b"12345", 8)]), "source_ips[0].address: has 5 bytes"),
        (
            broken(&|m| m.not_source_ips = vec![range(b"1234", 33)]),
            "not_source_ips[0].length: prefix length 33",
        ),
        (broken(&|m| m.destination_ips = vec![range(&[0; 16], 129)]), "destination_ips[0].length: prefix"),
        (broken(&|m| m.destination_ports = vec![80, 65616]), "destination_ports[1]: 65616 is no port"),
        (broken(&|m| m.not_destination_ports = vec![65536]), "not_destination_ports[0]: 65536 is no"),
        (
            broken(&|m| m.service_accounts = vec![policy_wire::ServiceAccountMatch::default()]),
            "service_accounts[0].namespace: is missing",
        ),
    ];
    for (found, want) in rows {
        assert!(found.starts_with(&format!("{place}.{want}")), "found {found:?}, want {want:?}");
    }
    let nameless = policy_wire::Authorization { namespace: "n".into(), ..Default::default() };
    assert_eq!(authorization::decode(&nameless).unwrap_err().to_string(), "name: is missing");
}
