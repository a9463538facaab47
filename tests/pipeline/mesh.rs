//! Manifests through the control plane, as encoded messages to a node, and into its state.

use std::sync::Arc;
use std::time::Instant;

use ambit_control::{Delta, Index, Settings};
use ambit_runtime::clock;
use ambit_state::{Snapshot, World};
use ambit_xds::client::{Client, Limits as ClientLimits, Mode};
use ambit_xds::node::NodeIdentity;
use ambit_xds::proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use ambit_xds::server::{Connection, Limits as ServerLimits, Resources};
use prost::Message;

/// Reads manifests and compiles them; everything in them must be right.
pub(crate) fn compile(manifests: &str) -> (Index, Delta) {
    let parsed = ambit_manifest::parse("case.yaml", manifests);
    assert!(parsed.problems.is_empty(), "{:#?}", parsed.problems);
    let problems = ambit_manifest::check_set(&parsed.objects);
    assert!(problems.is_empty(), "{problems:#?}");
    let read = parsed.objects.iter().map(|object| istiod_lite::ingest::put(object).expect("it can be read"));
    let mut index = Index::new(Settings::default());
    let delta = index.apply(read.flatten().collect::<Vec<_>>());
    (index, delta)
}

/// What the control plane publishes of it.
pub(crate) fn publish(delta: Delta) -> Arc<Resources> {
    let mut resources = Resources::default();
    resources.apply(1, istiod_lite::push::changes(delta));
    Arc::new(resources)
}

/// A node's knowledge after it asked for everything and answered everything, every message through its bytes.
pub(crate) fn discover(node: &str, published: &Arc<Resources>) -> Arc<Snapshot> {
    let now = clock::monotonic();
    let identity = NodeIdentity {
        ip: [192, 0, 2, 1].into(),
        pod_name: format!("ztunnel-{node}"),
        namespace: "istio-system".to_owned(),
        node_name: node.to_owned(),
        metadata: std::collections::BTreeMap::new(),
    };
    let mut client = Client::new(identity, Mode::Wildcard, ClientLimits::default());
    let mut server = Connection::new(node, published.clone(), ServerLimits::default());
    let mut world = World::new(node);
    let mut requests = client.on_connect();
    while !requests.is_empty() {
        let responses: Vec<_> = requests.drain(..).filter_map(|r| answer(&mut server, &r, now)).collect();
        for response in responses {
            let (update, receipt) = client.handle_response(response);
            assert!(update.rejected.is_empty(), "{:#?}", update.rejected);
            assert!(update.notes.iter().all(|(_, notes)| notes.is_empty()), "{:#?}", update.notes);
            let _ = world.apply(ztunnel::xds::changes(update));
            requests.extend(receipt.applied(&mut client).request);
        }
    }
    assert!(client.is_synced(), "everything has arrived");
    assert_eq!(server.rejections().count(), 0);
    world.snapshot()
}

fn answer(
    server: &mut Connection,
    request: &DeltaDiscoveryRequest,
    now: Instant,
) -> Option<DeltaDiscoveryResponse> {
    let bytes = request.encode_to_vec();
    let request = DeltaDiscoveryRequest::decode(&bytes[..]).expect("a request is read back");
    let response = server.handle_request(request, now).expect("the stream goes on")?;
    let bytes = response.encode_to_vec();
    Some(DeltaDiscoveryResponse::decode(&bytes[..]).expect("a response is read back"))
}
