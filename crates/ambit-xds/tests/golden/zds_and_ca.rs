//! The node agent's protocol, one message a packet, and the CA's request and response.

use ambit_xds::proto::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};
use ambit_xds::proto::istio::workload::zds::{
    Ack, AddWorkload, DelWorkload, KeepWorkload, SnapshotSent, Version, WorkloadInfo, WorkloadRequest,
    WorkloadResponse, ZdsHello, workload_request, workload_response,
};
use prost_types::Struct;

use super::bytes::{bytes, check, hex, message, varint};

#[test]
fn hello_is_two_bytes() {
    check("hello", &ZdsHello { version: Version::V1.into() }, hex("08 01"));
}

#[test]
fn requests_of_the_agent() {
    let request = |payload| WorkloadRequest { payload: Some(payload) };
    let info = WorkloadInfo { name: "p".into(), namespace: "n".into(), service_account: "s".into() };
    let add = AddWorkload { uid: "u".into(), workload_info: Some(info) };
    let rows = [
        (workload_request::Payload::Add(add), "0a 0e 0a 01 75 12 09 0a 01 70 12 01 6e 1a 01 73"),
        (workload_request::Payload::Del(DelWorkload { uid: "u".into() }), "12 03 0a 01 75"),
        (workload_request::Payload::SnapshotSent(SnapshotSent {}), "1a 00"),
        (workload_request::Payload::Keep(KeepWorkload { uid: "u".into() }), "2a 03 0a 01 75"),
    ];
    for (payload, want) in rows {
        check(want, &request(payload), hex(want));
    }
}

#[test]
fn answers_of_ztunnel() {
    let answer = |error: &str| WorkloadResponse {
        payload: Some(workload_response::Payload::Ack(Ack { error: error.into() })),
    };
    check("accepted", &answer(""), hex("0a 00"));
    check("refused", &answer("no"), hex("0a 04 0a 02 6e 6f"));
}

#[test]
fn names_at_the_limits_of_kubernetes_fit_into_a_packet() {
    // G23: the peer reads 1024 bytes, and truncates what is longer.
    let info =
        WorkloadInfo { name: "p".repeat(253), namespace: "n".repeat(63), service_account: "s".repeat(253) };
    let add = AddWorkload { uid: "0".repeat(36), workload_info: Some(info) };
    let longest = WorkloadRequest { payload: Some(workload_request::Payload::Add(add)) };
    assert!(prost::Message::encoded_len(&longest) <= 1024);
}

#[test]
fn the_ca_is_asked_with_an_impersonated_identity() {
    let identity = "spiffe://cluster.local/ns/a/sa/b";
    let request = IstioCertificateRequest {
        csr: "csr".into(),
        validity_duration: 86400,
        metadata: Some(Struct {
            fields: [("ImpersonatedIdentity".to_owned(), ambit_xds::node::text(identity))].into(),
        }),
    };
    let field = message(1, [bytes(1, "ImpersonatedIdentity"), message(2, [bytes(3, identity)])]);
    check("CSR", &request, [bytes(1, "csr"), varint(3, 86400), message(4, [field])].concat());
    let response = IstioCertificateResponse { cert_chain: vec!["leaf".into(), "roots".into()] };
    check("chain", &response, [bytes(1, "leaf"), bytes(1, "roots")].concat());
}
