//! Requests and responses of a stream, made by the real client and the real server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ambit_types::Workload;
use ambit_xds::client::{Client, Limits, Mode};
use ambit_xds::codec::Address;
use ambit_xds::node::{self, NodeIdentity};
use ambit_xds::proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource, resource::CacheControl,
};
use ambit_xds::proto::google::rpc::Status;
use ambit_xds::server::{self, Connection, Delta, Resources};
use ambit_xds::{Kind, any::Any};

use super::bytes::{any, bytes, check, entry, hex, message, varint};

const ADDRESS: &str = "type.googleapis.com/istio.workload.Address";
const AUTHORIZATION: &str = "type.googleapis.com/istio.security.Authorization";

fn client(mode: Mode) -> Client {
    let node = NodeIdentity {
        ip: "10.1.2.3".parse().unwrap(),
        pod_name: "zt-1".into(),
        namespace: "istio-system".into(),
        node_name: "n1".into(),
        metadata: [("CLUSTER_ID".to_owned(), node::text("Kubernetes"))].into(),
    };
    Client::new(node, mode, Limits::default())
}

/// The node message: id 1, metadata 3 (a Struct: fields 1, a map to Value with the text in 3).
fn node_bytes() -> Vec<u8> {
    let field = |key: &str, value: &str| message(1, [bytes(1, key), message(2, [bytes(3, value)])]);
    message(
        1,
        [
            bytes(1, "ztunnel~10.1.2.3~zt-1.istio-system~istio-system.svc.cluster.local"),
            message(
                3,
                [
                    field("CLUSTER_ID", "Kubernetes"),
                    field("INSTANCE_IPS", "10.1.2.3"),
                    field("NAME", "zt-1"),
                    field("NAMESPACE", "istio-system"),
                    field("NODE_NAME", "n1"),
                ],
            ),
        ],
    )
}

#[expect(clippy::disallowed_methods, reason = "any instant will do")]
fn now() -> Instant {
    Instant::now()
}

#[test]
fn first_requests_of_a_wildcard_stream() {
    let requests = client(Mode::Wildcard).on_connect();
    assert_eq!(requests.len(), 2, "Address, then Authorization");
    check("first request for addresses", &requests[0], [node_bytes(), bytes(2, ADDRESS)].concat());
    check("first request for policies", &requests[1], [node_bytes(), bytes(2, AUTHORIZATION)].concat());
}

#[test]
fn first_request_on_demand_subscribes_to_nothing() {
    let requests = client(Mode::OnDemand).on_connect();
    let want = [node_bytes(), bytes(2, ADDRESS), bytes(3, "*"), bytes(4, "*")].concat();
    check("first request on demand", &requests[0], want);
    check("policies on demand", &requests[1], [node_bytes(), bytes(2, AUTHORIZATION)].concat());
}

#[test]
fn a_lookup_carries_neither_node_nor_nonce() {
    let mut client = client(Mode::OnDemand);
    client.on_connect();
    client.look_up("net/10.0.0.1", now());
    let request = client.poll_lookups().unwrap();
    check("lookup", &request, [bytes(2, ADDRESS), bytes(3, "net/10.0.0.1")].concat());
}

#[test]
fn an_acknowledgement_is_type_and_nonce() {
    let mut client = client(Mode::Wildcard);
    client.on_connect();
    let response = DeltaDiscoveryResponse {
        type_url: AUTHORIZATION.into(),
        nonce: "n7".into(),
        ..DeltaDiscoveryResponse::default()
    };
    let (_, receipt) = client.handle_response(response);
    let request = receipt.applied(&mut client).request.unwrap();
    check("ACK", &request, [bytes(2, AUTHORIZATION), bytes(6, "n7")].concat());
}

#[test]
fn a_refusal_names_every_resource_and_leaves_the_code_zero() {
    let mut client = client(Mode::Wildcard);
    client.on_connect();
    let bad = |name: &str| Resource { name: name.into(), ..Resource::default() };
    let response = DeltaDiscoveryResponse {
        type_url: ADDRESS.into(),
        nonce: "n8".into(),
        resources: vec![bad("a"), bad("b")],
        ..DeltaDiscoveryResponse::default()
    };
    let (_, receipt) = client.handle_response(response);
    let request = receipt.applied(&mut client).request.unwrap();
    let text = "a: resource: is missing; b: resource: is missing";
    check("NACK", &request, [bytes(2, ADDRESS), bytes(6, "n8"), message(7, [bytes(2, text)])].concat());
}

#[test]
fn a_reconnect_declares_what_is_held() {
    let mut client = client(Mode::Wildcard);
    client.on_connect();
    let workload = Workload::new("c//Pod/ns/p", "ns", "p");
    let response = DeltaDiscoveryResponse {
        type_url: ADDRESS.into(),
        nonce: "n1".into(),
        resources: vec![Resource {
            name: "c//Pod/ns/p".into(),
            version: "0123456789abcdef".into(),
            resource: Some(Address::from(workload).encode()),
            ..Resource::default()
        }],
        ..DeltaDiscoveryResponse::default()
    };
    let (_, receipt) = client.handle_response(response);
    receipt.applied(&mut client);
    let requests = client.on_connect();
    let want = [node_bytes(), bytes(2, ADDRESS), entry(5, "c//Pod/ns/p", "0123456789abcdef")].concat();
    check("resumption", &requests[0], want);
}

#[test]
fn a_response_carries_name_version_and_content() {
    let mut resources = Resources::default();
    resources.apply(
        9,
        Delta { addresses: vec![Workload::new("c//Pod/ns/p", "ns", "p").into()], ..Delta::default() },
    );
    let mut stream = Connection::new("n1", Arc::new(resources), server::Limits::default());
    let requests = client(Mode::Wildcard).on_connect();
    let start = now();
    assert_eq!(
        stream.handle_request(requests[0].clone(), start).unwrap(),
        None,
        "policies are not asked for yet"
    );
    let response = stream.handle_timeout(start + Duration::from_secs(1)).unwrap().unwrap();
    let content = message(
        1,
        [
            bytes(1, "p"),
            bytes(2, "ns"),
            bytes(7, "default"),
            bytes(18, "Kubernetes"),
            bytes(20, "c//Pod/ns/p"),
        ],
    );
    let version = format!("{:016x}", xxhash_rust::xxh64::xxh64(&content, 0));
    let resource = message(2, [bytes(1, version), any(2, ADDRESS, content), bytes(3, "c//Pod/ns/p")]);
    let want = [bytes(1, "9"), resource, bytes(4, ADDRESS), bytes(5, "9.1")].concat();
    check("response", &response, want);
}

#[test]
fn fields_nobody_fills_have_their_numbers_too() {
    let resource = Resource {
        aliases: vec!["net/10.0.0.1".into()],
        ttl: Some(prost_types::Duration { seconds: 3, nanos: 0 }),
        cache_control: Some(CacheControl { do_not_cache: true }),
        ..Resource::default()
    };
    let want = [bytes(4, "net/10.0.0.1"), message(6, [varint(1, 3)]), message(7, [varint(1, 1)])].concat();
    check("resource", &resource, want);
    let status = Status {
        code: 3,
        message: "m".into(),
        details: vec![Any { type_url: "t".into(), value: "v".into() }],
    };
    check("status", &status, hex("08 03 12 01 6d 1a 06 0a 01 74 12 01 76"));
    let response = DeltaDiscoveryResponse {
        removed_resources: vec!["a".into(), "b".into()],
        ..DeltaDiscoveryResponse::default()
    };
    check("removals", &response, hex("32 01 61 32 01 62"));
    let request = DeltaDiscoveryRequest {
        node: Some(ambit_xds::proto::envoy::service::discovery::v3::Node {
            cluster: "c".into(),
            build_version: "b".into(),
            ..Default::default()
        }),
        ..DeltaDiscoveryRequest::default()
    };
    check("node", &request, hex("0a 06 12 01 63 2a 01 62"));
    assert_eq!((Kind::Address.url(), Kind::Authorization.url()), (ADDRESS, AUTHORIZATION));
}
