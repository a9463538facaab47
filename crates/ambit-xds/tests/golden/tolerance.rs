//! Bytes of a newer peer: unknown fields change nothing, unknown values degrade as the contract says (G13).

use ambit_types::service::{HealthPolicy, IpFamilies, LoadBalancingMode, Scope, Visibility};
use ambit_types::workload::{Health, NetworkMode, WorkloadType};
use ambit_types::{AppProtocol, Service, TunnelProtocol, Workload};
use ambit_xds::any::Any;
use ambit_xds::codec::{Address, Malformed, Notes, authorization};
use ambit_xds::proto::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use ambit_xds::proto::istio::v1::auth::IstioCertificateResponse;
use ambit_xds::proto::istio::workload::zds::{WorkloadRequest, ZdsHello};
use prost::Message;

use super::bytes::{any, bytes, hex, message, varint};

/// Fields no version of the contract has: a number, eight bytes, four bytes, a text.
fn unknown() -> Vec<u8> {
    let fixed64 = hex("c1 3e 01 02 03 04 05 06 07 08");
    let fixed32 = hex("c5 3e 01 02 03 04");
    [varint(999, 7), fixed64, fixed32, bytes(1001, "later")].concat()
}

fn read(content: Vec<u8>) -> (Result<Address, Malformed>, Notes) {
    let mut notes = Notes::default();
    let any = Any { type_url: "anything".into(), value: content.into() };
    (Address::decode(&any, &mut notes), notes)
}

fn workload(parts: &[Vec<u8>]) -> (Workload, Vec<String>) {
    let inner = [vec![bytes(20, "u")], parts.to_vec()].concat().concat();
    let (read, notes) = read([unknown(), bytes(1, inner), unknown()].concat());
    match read.unwrap() {
        Address::Workload(workload) => (Workload::clone(&workload), notes.as_slice().to_vec()),
        Address::Service(_) => panic!("a service"),
    }
}

fn service(parts: &[Vec<u8>]) -> (Service, Vec<String>) {
    let inner = [vec![bytes(2, "n"), bytes(3, "h")], parts.to_vec()].concat().concat();
    let (read, notes) = read(bytes(2, inner));
    match read.unwrap() {
        Address::Service(service) => (Service::clone(&service), notes.as_slice().to_vec()),
        Address::Workload(_) => panic!("a workload"),
    }
}

#[test]
fn unknown_fields_change_nothing() {
    assert_eq!(workload(&[unknown()]), (workload(&[]).0, vec![]));
    assert_eq!(service(&[unknown()]), (service(&[]).0, vec![]));
    let reserved = [bytes(15, "reserved"), bytes(28, "next")];
    assert_eq!(workload(&reserved), (workload(&[]).0, vec![]));
    let hello = ZdsHello::decode(&[hex("08 01"), unknown()].concat()[..]).unwrap();
    assert_eq!(hello, ZdsHello { version: 1 });
    let keep = WorkloadRequest::decode(&[hex("2a 03 0a 01 75"), unknown()].concat()[..]).unwrap();
    assert_eq!(keep, WorkloadRequest::decode(&hex("2a 03 0a 01 75")[..]).unwrap());
    // A payload of a later version is no payload.
    assert_eq!(WorkloadRequest::decode(&hex("32 03 0a 01 75")[..]).unwrap().payload, None);
    let chain = IstioCertificateResponse::decode(&[bytes(1, "leaf"), unknown()].concat()[..]).unwrap();
    assert_eq!(chain.cert_chain, ["leaf"]);
    let resource = message(2, [bytes(3, "u"), any(2, "t", vec![]), unknown()]);
    let response = [bytes(4, "t"), resource, bytes(3, "unused"), unknown()].concat();
    assert_eq!(DeltaDiscoveryResponse::decode(&response[..]).unwrap().resources[0].name, "u");
}

#[test]
fn unknown_values_of_a_workload_degrade() {
    let (read, notes) = workload(&[
        varint(5, 9),
        varint(12, 9),
        varint(17, 9),
        varint(25, 9),
        message(22, [bytes(1, "n/h"), message(2, [message(1, [varint(1, 80), varint(3, 77)])])]),
        message(23, [varint(1, 9), varint(2, 99)]),
    ]);
    assert_eq!(read.tunnel, TunnelProtocol::LegacyIstioMtls, "refused, never plaintext");
    assert_eq!(read.workload_type, WorkloadType::Deployment);
    assert_eq!(read.health, Health::Unhealthy);
    assert_eq!(read.network_mode, NetworkMode::Standard);
    assert_eq!(read.services.values().next().unwrap()[0].app_protocol, AppProtocol::Unknown);
    let tunnel = read.application_tunnel.unwrap();
    assert_eq!((tunnel.proxy_protocol, tunnel.port), (false, Some(99)));
    assert_eq!(notes.len(), 6, "{notes:?}");
    assert!(notes.iter().any(|note| note == "tunnel_protocol: unknown value 9 read as LegacyIstioMtls"));
}

#[test]
fn negative_enum_values_are_unknown_values() {
    // Minus one is ten bytes on the wire.
    let (read, _) = workload(&[hex("28 ff ff ff ff ff ff ff ff ff 01")]);
    assert_eq!(read.tunnel, TunnelProtocol::LegacyIstioMtls);
}

#[test]
fn unknown_values_of_a_service_degrade() {
    let (read, notes) = service(&[
        message(8, [bytes(1, [2, 9, 0, 4]), varint(2, 9), varint(3, 9)]),
        varint(9, 9),
        varint(14, 9),
        bytes(6, "not a spiffe id"),
        bytes(6, "spiffe://td/ns/a/sa/b"),
    ]);
    assert_eq!(read.load_balancing.preference, [Scope::Zone, Scope::Node]);
    assert_eq!(read.load_balancing.mode, LoadBalancingMode::Any);
    assert_eq!(read.load_balancing.health, HealthPolicy::OnlyHealthy);
    assert_eq!(read.ip_families, IpFamilies::Automatic);
    assert_eq!(read.visibility, Visibility::Public);
    assert_eq!(read.subject_alt_names.len(), 1);
    assert_eq!(notes.len(), 6, "{notes:?}");
}

#[test]
fn numbers_that_are_not_packed_are_read_too() {
    let (read, _) = service(&[message(8, [varint(1, 2), varint(1, 4)])]);
    assert_eq!(read.load_balancing.preference, [Scope::Zone, Scope::Node]);
}

#[test]
fn only_scope_and_action_reject_a_policy() {
    let policy = |parts: &[Vec<u8>]| {
        let value = [vec![bytes(1, "p"), bytes(2, "n")], parts.to_vec()].concat().concat();
        authorization::decode_any(&Any { type_url: String::new(), value: value.into() })
    };
    assert!(policy(&[unknown()]).is_ok());
    assert_eq!(policy(&[varint(3, 9)]).unwrap_err().to_string(), "scope: unknown value 9");
    assert_eq!(policy(&[varint(4, 9)]).unwrap_err().to_string(), "action: unknown value 9");
}
