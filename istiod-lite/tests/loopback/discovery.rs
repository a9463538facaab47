//! Discovery: what a node gets, when, and what the control plane knows of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ambit_net::grpc::xds_stream::XdsStream;
use ambit_xds::Kind;
use ambit_xds::node::NodeIdentity;
use ambit_xds::proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use ambit_xds::proto::google::rpc::Status;
use tokio::time::timeout;

use super::plane::{OBJECTS, PATIENCE, Plane, revision, write};

#[path = "broken.rs"]
mod broken;

const CART: &str = "Kubernetes//Pod/shop/cart-0";
const ORDERS: &str = "Kubernetes//Pod/shop/orders-0";
const SERVICE: &str = "shop/cart.shop.svc.cluster.local";

const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: STRICT}}
";

/// A client that holds what it is given and answers.
struct Client {
    stream: XdsStream,
    held: BTreeMap<Kind, BTreeMap<String, String>>,
}

impl Client {
    async fn open(plane: &Plane, node: &str, held: BTreeMap<Kind, BTreeMap<String, String>>) -> Self {
        let first = Kind::ALL.map(|kind| DeltaDiscoveryRequest {
            node: Some(identity(node).encode()),
            type_url: kind.url().to_owned(),
            initial_resource_versions: held.get(&kind).cloned().unwrap_or_default(),
            ..DeltaDiscoveryRequest::default()
        });
        let stream = XdsStream::open(&plane.target(), &plane.caller(node), first.to_vec()).await.unwrap();
        Self { stream, held }
    }

    /// The next response, not answered yet.
    async fn receive(&mut self) -> (Kind, DeltaDiscoveryResponse) {
        let response = timeout(PATIENCE, self.stream.next()).await.expect("a response in time").unwrap();
        let kind = Kind::of(&response.type_url).unwrap();
        let held = self.held.entry(kind).or_default();
        for resource in &response.resources {
            held.insert(resource.name.clone(), resource.version.clone());
        }
        for gone in &response.removed_resources {
            held.remove(gone);
        }
        (kind, response)
    }

    async fn answer(&mut self, response: &DeltaDiscoveryResponse, error: Option<&str>) {
        let error_detail = error.map(|m| Status { message: m.to_owned(), ..Status::default() });
        let answer = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail,
            ..DeltaDiscoveryRequest::default()
        };
        self.stream.send(answer).await.unwrap();
    }

    /// The next response, answered: its kind, the names in it and the names removed by it.
    async fn accept(&mut self) -> (Kind, Vec<String>, Vec<String>) {
        let (kind, response) = self.receive().await;
        self.answer(&response, None).await;
        (kind, response.resources.into_iter().map(|r| r.name).collect(), response.removed_resources)
    }

    fn names(&self, kind: Kind) -> BTreeSet<&str> {
        self.held.get(&kind).into_iter().flat_map(|held| held.keys().map(String::as_str)).collect()
    }
}

fn identity(node: &str) -> NodeIdentity {
    NodeIdentity {
        ip: IpAddr::from([127, 0, 0, 1]),
        pod_name: format!("ztunnel-{node}"),
        namespace: "istio-system".to_owned(),
        node_name: node.to_owned(),
        metadata: BTreeMap::new(),
    }
}

fn node<'a>(sync: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    sync["nodes"].as_array().unwrap().iter().find(|n| n["node"] == name).unwrap()
}

#[tokio::test]
async fn a_node_gets_everything_and_the_control_plane_knows_that_it_has() {
    let plane = Plane::start().await;
    let before = plane.admin("/sync").await;
    assert_eq!(node(&before, "node1")["connected"], false);
    let mut client = Client::open(&plane, "node1", BTreeMap::new()).await;
    let (first, ..) = client.accept().await;
    client.accept().await;
    assert_eq!(first, Kind::Authorization, "policies come first");
    assert_eq!(client.names(Kind::Address), BTreeSet::from([CART, ORDERS, SERVICE]));

    plane.write("strict.yaml", STRICT);
    // The policy arrives before the workloads that name it.
    let (kind, names, _) = client.accept().await;
    assert_eq!(
        (kind, names),
        (Kind::Authorization, vec!["istio-system/istio_converted_static_strict".to_owned()])
    );
    let sync = plane.admin("/sync").await;
    assert!(
        node(&sync, "node1")["acked_revision"].as_u64() < Some(revision(&plane.folder)),
        "not all is answered"
    );
    let (kind, names, _) = client.accept().await;
    assert_eq!((kind, names), (Kind::Address, vec![CART.to_owned(), ORDERS.to_owned()]));
    plane.until_sync(|sync| sync["revision"] == 1 && node(sync, "node1")["acked_revision"] == 1).await;

    // And leaves after them.
    std::fs::remove_file(plane.folder.join("strict.yaml")).unwrap();
    let (kind, names, _) = client.accept().await;
    assert_eq!((kind, names.len()), (Kind::Address, 2));
    let (kind, _, removed) = client.accept().await;
    assert_eq!(
        (kind, removed),
        (Kind::Authorization, vec!["istio-system/istio_converted_static_strict".to_owned()])
    );

    drop(client);
    let sync = plane.until_sync(|sync| node(sync, "node1")["connected"] == false).await;
    assert_eq!(node(&sync, "node1")["acked_revision"], 1, "what it had stays known");
}

#[tokio::test]
async fn after_a_restart_only_what_changed_is_sent() {
    let plane = Plane::start().await;
    let mut client = Client::open(&plane, "node1", BTreeMap::new()).await;
    client.accept().await;
    client.accept().await;
    plane.until_sync(|sync| node(sync, "node1")["connected"] == true).await;
    let held = std::mem::take(&mut client.held);

    let plane = plane
        .restart(|folder| {
            let changed =
                OBJECTS.replace("name: orders-0", "name: orders-1").replace("10.244.1.5", "10.244.1.9");
            write(folder, "all.yaml", &changed);
        })
        .await;
    let mut client = Client::open(&plane, "node1", held).await;
    let mut all = BTreeMap::new();
    for _ in Kind::ALL {
        let (kind, names, removed) = client.accept().await;
        all.insert(kind, (names, removed));
    }
    let (names, removed) = &all[&Kind::Address];
    assert_eq!(*names, [CART, "Kubernetes//Pod/shop/orders-1"]);
    assert_eq!(*removed, [ORDERS]);
    plane.until_sync(|sync| node(sync, "node1")["acked_revision"] == 1).await;
}

#[tokio::test]
async fn a_refused_record_is_listed_and_holds_nothing_up() {
    let plane = Plane::start().await;
    let mut client = Client::open(&plane, "node2", BTreeMap::new()).await;
    client.accept().await;
    let (_, response) = client.receive().await;
    client.answer(&response, Some(&format!("{CART}: addresses[0]: has 5 bytes"))).await;
    let rejected = |sync: &serde_json::Value| node(sync, "node2")["rejected"].clone();
    let sync = plane.until_sync(|sync| rejected(sync) != serde_json::json!([])).await;
    assert_eq!(rejected(&sync)[0]["name"], CART);
    assert_eq!(rejected(&sync)[0]["reason"], "addresses[0]: has 5 bytes");
    plane.write("strict.yaml", STRICT);
    client.accept().await;
    client.accept().await;
    // The new version was accepted.
    plane
        .until_sync(|s| node(s, "node2")["acked_revision"] == 1 && rejected(s) == serde_json::json!([]))
        .await;
}

#[tokio::test]
async fn what_a_proxy_says_of_refusals_and_names_is_bounded() {
    let plane = Plane::start().await;
    let mut client = Client::open(&plane, "node2", BTreeMap::new()).await;
    client.accept().await;
    let (_, response) = client.receive().await;
    client.answer(&response, Some(&format!("{CART}: {}", "x".repeat(1 << 20)))).await;
    let rejected = |sync: &serde_json::Value| node(sync, "node2")["rejected"].clone();
    let sync = plane.until_sync(|sync| rejected(sync) != serde_json::json!([])).await;
    let rejected = rejected(&sync);
    let reason = rejected[0]["reason"].as_str().unwrap();
    assert!(reason.len() < 1100 && reason.ends_with('…'), "{} bytes", reason.len());

    let request = DeltaDiscoveryRequest {
        type_url: Kind::Address.url().to_owned(),
        resource_names_subscribe: vec!["n".repeat(2000)],
        ..DeltaDiscoveryRequest::default()
    };
    client.stream.send(request).await.unwrap();
    let ended = timeout(PATIENCE, client.stream.next()).await.expect("an end in time");
    let text = ended.expect_err("the stream ends").to_string();
    assert!(text.contains("InvalidArgument"), "{text}");
}

#[tokio::test]
async fn a_broken_manifest_changes_nothing_and_is_reported_with_its_place() {
    let plane = Plane::start().await;
    let mut client = Client::open(&plane, "node1", BTreeMap::new()).await;
    client.accept().await;
    client.accept().await;
    plane.write("strict.yaml", &STRICT.replace("mtls:", "mtlz:"));
    let sync = plane.until_sync(|sync| sync["revision"] == 1).await;
    let problem = &sync["problems"][0];
    let text = problem["text"].as_str().unwrap();
    assert!(text.contains("strict.yaml:5:8"), "{text}");
    assert!(text.contains("mtls"), "the nearest name is given: {text}");
    assert_eq!(problem["location"]["line"], 5);
    assert_eq!(plane.admin("/config_dump").await["policies"], serde_json::json!([]));
    // The client is up to date without having been told anything.
    plane.until_sync(|sync| node(sync, "node1")["acked_revision"] == 1).await;

    plane.write("strict.yaml", STRICT);
    let (kind, ..) = client.accept().await;
    assert_eq!(kind, Kind::Authorization);
    plane.until_sync(|sync| sync["problems"] == serde_json::json!([])).await;
}

#[tokio::test]
async fn streams_of_those_who_are_not_who_they_say_are_refused() {
    let plane = Plane::start().await;
    let open = async |token_node: &str, stated: NodeIdentity| {
        let first = DeltaDiscoveryRequest {
            node: Some(stated.encode()),
            type_url: Kind::Address.url().to_owned(),
            ..DeltaDiscoveryRequest::default()
        };
        let stream = XdsStream::open(&plane.target(), &plane.caller(token_node), vec![first]).await;
        let ended = match stream {
            Ok(mut stream) => timeout(PATIENCE, stream.next()).await.expect("an end in time").map(|_| ()),
            Err(error) => Err(error),
        };
        ended.expect_err("the stream is refused").to_string()
    };
    let text = open("node1", identity("node2")).await;
    assert!(text.contains("PermissionDenied"), "{text}");
    let shop = NodeIdentity { namespace: "shop".to_owned(), ..identity("node1") };
    let text = open("node1", shop).await;
    assert!(text.contains("PermissionDenied"), "{text}");
    let text = open("node3", identity("node3")).await;
    assert!(text.contains("source-address"), "{text}");
    assert_eq!(plane.audit().pop().unwrap()["asked"], "discovery");
}

#[tokio::test]
async fn a_node_that_is_removed_is_cut_off() {
    let plane = Plane::start().await;
    let mut client = Client::open(&plane, "node1", BTreeMap::new()).await;
    client.accept().await;
    client.accept().await;
    plane.write("all.yaml", &OBJECTS.replace("uid: node1-uid", "uid: another"));
    let ended = timeout(PATIENCE, client.stream.next()).await.expect("an end in time");
    let text = ended.expect_err("the stream ends").to_string();
    assert!(text.contains("node-uid"), "{text}");
}

#[tokio::test]
async fn leaving_ends_streams_and_does_not_wait_for_clients() {
    let plane = Plane::start().await;
    let mut client = Client::open(&plane, "node1", BTreeMap::new()).await;
    client.accept().await;
    client.accept().await;
    let cut = plane.drain.finish(PATIENCE).await;
    assert_eq!(cut, 0);
    let ended = timeout(PATIENCE, client.stream.next()).await.expect("an end in time");
    assert!(ended.is_err());
}
