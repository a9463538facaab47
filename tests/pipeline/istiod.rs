//! What a node makes of an Istio control plane, which says nothing in Ambit's extensions.

use std::sync::Arc;

use ambit_policy::Facts;
use ambit_state::plan::inbound::Authority;
use ambit_state::{
    HboneFacts, OutboundFacts, OutboundPlan, SameNode, Snapshot, World, authorize, plan_inbound_hbone,
    plan_outbound,
};
use ambit_types::Uid;
use ambit_xds::Kind;
use ambit_xds::any::Any;
use ambit_xds::client::{Client, Limits, Mode};
use ambit_xds::node::NodeIdentity;
use ambit_xds::proto::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use ambit_xds::proto::istio::security::Authorization;
use ambit_xds::proto::istio::workload::{self as wire, address, application_tunnel};
use prost::Message;

/// A node that was told these resources, and what it complained of.
fn told(world: &mut World, kind: Kind, resources: Vec<Resource>) -> (Arc<Snapshot>, Option<String>) {
    let node = NodeIdentity {
        ip: [192, 0, 2, 1].into(),
        pod_name: "ztunnel".to_owned(),
        namespace: "istio-system".to_owned(),
        node_name: "n1".to_owned(),
        metadata: std::collections::BTreeMap::new(),
    };
    let mut client = Client::new(node, Mode::Wildcard, Limits::default());
    client.on_connect();
    let response = DeltaDiscoveryResponse {
        type_url: kind.url().to_owned(),
        nonce: "1".into(),
        resources,
        ..DeltaDiscoveryResponse::default()
    };
    let (update, receipt) = client.handle_response(response);
    let snapshot = world.apply(ztunnel::xds::changes(update)).snapshot;
    let complaint = receipt.applied(&mut client).request.and_then(|request| request.error_detail);
    (snapshot, complaint.map(|status| status.message))
}

/// A captured pod of the node as istiod sends it.
fn pod(name: &str, last: u8) -> wire::Workload {
    wire::Workload {
        uid: uid(name).as_str().to_owned(),
        name: name.to_owned(),
        namespace: "shop".to_owned(),
        addresses: vec![vec![10, 244, 1, last].into()],
        node: "n1".to_owned(),
        tunnel_protocol: wire::TunnelProtocol::Hbone.into(),
        workload_type: wire::WorkloadType::Pod.into(),
        ..wire::Workload::default()
    }
}

fn uid(name: &str) -> Uid {
    Uid::from(format!("Kubernetes//Pod/shop/{name}"))
}

fn resource(workload: wire::Workload) -> Resource {
    let name = workload.uid.clone();
    let message = wire::Address { r#type: Some(address::Type::Workload(workload)) };
    Resource { name, resource: Some(Any::pack("istio.workload.Address", &message)), ..Resource::default() }
}

#[test]
fn a_policy_that_cannot_be_read_refuses_in_every_namespace() {
    // G3: not even its scope is known, so it may be one of the whole mesh.
    let url = Kind::Authorization.url();
    let any = |value: Vec<u8>| Any { type_url: url.to_owned(), value: value.into() };
    let unknown_scope = Authorization {
        name: "x".into(),
        namespace: "istio-system".into(),
        scope: 77,
        ..Authorization::default()
    };
    let cases = [
        ("garbage", Some(any(vec![0xff, 0xff, 0xff]))),
        ("no content", None),
        ("a scope of the future", Some(any(unknown_scope.encode_to_vec()))),
    ];
    for (name, content) in cases {
        let mut world = World::new("n1");
        let _ = told(&mut world, Kind::Address, vec![resource(pod("web", 5))]);
        let policy = Resource { name: "istio-system/x".into(), resource: content, ..Resource::default() };
        let (snapshot, complaint) = told(&mut world, Kind::Authorization, vec![policy]);
        assert!(complaint.is_some_and(|text| text.starts_with("istio-system/x: ")), "{name}");
        let facts = Facts::new(None, [10, 0, 0, 9].into(), [10, 244, 1, 5].into(), 80);
        let said = authorize(&snapshot, &uid("web"), &facts).to_string();
        assert_eq!(said, "AMB2105 policy-unresolved by istio-system/x", "{name}");
    }
}

#[test]
fn pods_of_one_node_are_joined_only_where_no_network_policy_can_be_missed() {
    // istiod does not tell which pods a NetworkPolicy selects.
    let mut world = World::new("n1");
    let (snapshot, _) =
        told(&mut world, Kind::Address, vec![resource(pod("client", 5)), resource(pod("web", 6))]);
    for (same_node, want) in
        [(SameNode::Auto, "hbone"), (SameNode::Direct, "local"), (SameNode::Hbone, "hbone")]
    {
        let facts = OutboundFacts {
            source: snapshot.workload(&uid("client")),
            source_address: [10, 244, 1, 5].into(),
            destination: ([10, 244, 1, 6], 80).into(),
            same_node,
            tried: &[],
            draw: 0,
        };
        let found = match plan_outbound(&snapshot, &facts) {
            OutboundPlan::Hbone(_) => "hbone",
            OutboundPlan::Local(_) => "local",
            _ => "something else",
        };
        assert_eq!(found, want, "{same_node:?}");
    }
}

#[test]
fn a_workload_that_wants_the_proxy_protocol_is_not_given_a_peers_bytes() {
    // I11: without our header the first bytes of the peer would be taken for one.
    let tunnel = |protocol: application_tunnel::Protocol| {
        let mut waypoint = pod("wp", 7);
        let tunnel = wire::ApplicationTunnel { protocol: protocol.into(), port: 15088 };
        waypoint.application_tunnel = Some(tunnel);
        resource(waypoint)
    };
    for (protocol, want) in [
        (application_tunnel::Protocol::None, "10.244.1.7:15088"),
        (application_tunnel::Protocol::Proxy, "503 AMB4004"),
    ] {
        let mut world = World::new("n1");
        let (snapshot, _) = told(&mut world, Kind::Address, vec![tunnel(protocol)]);
        for asked in ["10.96.0.1:80", "10.244.1.7:80", "10.244.1.7:15088"] {
            let facts = HboneFacts {
                own: snapshot.workload(&uid("wp")),
                authority: Authority::Address(asked.parse().expect("an address")),
                local: ([10, 244, 1, 7], 15008).into(),
                peer: ([10, 244, 2, 9], 40000).into(),
                forwarded_host: None,
            };
            let found = match plan_inbound_hbone(&snapshot, &facts) {
                Ok(target) => target.address.to_string(),
                Err(no) => format!("{} {}", no.status, no.refusal.reason.code()),
            };
            assert_eq!(found, want, "{protocol:?}, asked for {asked}");
        }
    }
}
