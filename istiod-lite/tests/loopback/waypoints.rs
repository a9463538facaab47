//! Waypoints: who is served which Gateway's resources, when, and what the control plane knows of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ambit_net::grpc::ca_client::CaClient;
use ambit_net::grpc::channel::Caller;
use ambit_net::grpc::xds_stream::XdsStream;
use ambit_net::tls::csr;
use ambit_net::tls::store::Ca as _;
use ambit_types::Identity;
use ambit_xds::Kind;
use ambit_xds::node::NodeIdentity;
use ambit_xds::proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::plane::{PATIENCE, Plane, revision};

/// The waypoint's pod calls from its node, which is 127.0.0.1.
const WAYPOINT: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
status: {addresses: [{type: IPAddress, value: 10.96.0.9}]}
"#;

const PODS: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: {name: waypoint, namespace: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: waypoint-0, namespace: shop, uid: w0, labels: {gateway.networking.k8s.io/gateway-name: waypoint}}
spec: {nodeName: node1, serviceAccountName: waypoint, containers: [{name: c, image: i}]}
status: {phase: Running, podIP: 10.244.1.9, conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Service
metadata: {name: paid, namespace: shop, labels: {istio.io/use-waypoint: waypoint}}
spec: {clusterIP: 10.96.0.8, selector: {app: cart}, ports: [{name: http, port: 80, targetPort: 8080}]}
"#;

const ROUTE: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: paid, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: paid, port: 80}]
  rules: [{matches: [{path: {type: PathPrefix, value: /}}], backendRefs: [{name: paid, port: 80}]}]
"#;

const POLICY: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: get-only, namespace: shop}
spec:
  targetRefs: [{group: "", kind: Service, name: paid}]
  rules: [{to: [{operation: {methods: [GET]}}]}]
"#;

const FRONTEND: &str = "shop/paid.shop.svc.cluster.local/80";

/// A token of a pod of `shop` on node1, under its account.
fn caller(plane: &Plane, account: &str, pod: &str, uid: &str) -> Caller {
    let token = plane.issuer.token("node1", |claims| {
        claims["sub"] = format!("system:serviceaccount:shop:{account}").into();
        let bound = &mut claims["kubernetes.io"];
        bound["namespace"] = "shop".into();
        bound["serviceaccount"]["name"] = account.into();
        bound["pod"] = json!({"name": pod, "uid": uid});
    });
    Caller { token, ..plane.caller("node1") }
}

async fn plane() -> Plane {
    let plane = Plane::start().await;
    let files =
        [("waypoint.yaml", WAYPOINT), ("pods.yaml", PODS), ("route.yaml", ROUTE), ("policy.yaml", POLICY)];
    for (name, text) in files {
        plane.write(name, text);
    }
    let written = revision(&plane.folder);
    plane.until_sync(|sync| sync["revision"] == written && sync["problems"] == json!([])).await;
    plane
}

/// A replica that holds what it is given and answers.
struct Replica {
    stream: XdsStream,
    held: BTreeMap<Kind, BTreeSet<String>>,
}

impl Replica {
    async fn open(plane: &Plane, caller: &Caller, gateway: &str, pod: &str) -> Result<Self, String> {
        let node = NodeIdentity {
            ip: IpAddr::from([127, 0, 0, 1]),
            pod_name: pod.to_owned(),
            namespace: "shop".to_owned(),
            node_name: "node1".to_owned(),
            metadata: BTreeMap::new(),
        };
        let first = Kind::WAYPOINT.map(|kind| DeltaDiscoveryRequest {
            node: Some(node.encode_as_waypoint(gateway)),
            type_url: kind.url().to_owned(),
            ..DeltaDiscoveryRequest::default()
        });
        let stream = XdsStream::open(&plane.target(), caller, first.to_vec()).await;
        stream.map(|stream| Self { stream, held: BTreeMap::new() }).map_err(|error| error.to_string())
    }

    /// The replica of these manifests, with everything it is given at first.
    async fn up_to_date(plane: &Plane) -> Self {
        let caller = caller(plane, "waypoint", "waypoint-0", "w0");
        let mut replica = Self::open(plane, &caller, "waypoint", "waypoint-0").await.unwrap();
        for _ in Kind::WAYPOINT {
            replica.accept().await;
        }
        replica
    }

    async fn next(&mut self) -> Result<DeltaDiscoveryResponse, String> {
        let response = timeout(PATIENCE, self.stream.next()).await.expect("a response in time");
        response.map_err(|error| error.to_string())
    }

    /// The next response, answered: its kind, the names in it and the names removed by it.
    async fn accept(&mut self) -> (Kind, Vec<String>, Vec<String>) {
        let response = self.next().await.unwrap();
        let answer = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..DeltaDiscoveryRequest::default()
        };
        self.stream.send(answer).await.unwrap();
        let kind = Kind::among(&Kind::WAYPOINT, &response.type_url).unwrap();
        let names: Vec<String> = response.resources.into_iter().map(|resource| resource.name).collect();
        let held = self.held.entry(kind).or_default();
        held.extend(names.iter().cloned());
        held.retain(|name| !response.removed_resources.contains(name));
        (kind, names, response.removed_resources)
    }

    fn names(&self, kind: Kind) -> Vec<&str> {
        self.held.get(&kind).into_iter().flatten().map(String::as_str).collect()
    }
}

/// The row of the one replica; null if there is none.
fn row(sync: &Value) -> Value {
    sync["waypoints"][0].clone()
}

#[tokio::test]
async fn a_waypoint_gets_its_resources_and_then_only_what_changed() {
    let plane = plane().await;
    let mut replica = Replica::up_to_date(&plane).await;
    assert_eq!(replica.names(Kind::Frontend), [FRONTEND]);
    assert_eq!(replica.names(Kind::HttpPolicy), ["shop/get-only"]);
    assert!(replica.names(Kind::Address).contains(&"shop/paid.shop.svc.cluster.local"));
    let at = revision(&plane.folder);
    let sync = plane.until_sync(|sync| row(sync)["acked_revision"] == at).await;
    let want = json!({
        "gateway": "shop/waypoint", "pod": "waypoint-0", "connected": true, "acked_revision": at, "rejected": []
    });
    assert_eq!(sync["waypoints"], json!([want]));
    assert!(sync["nodes"].as_array().unwrap().iter().all(|node| node["connected"] == false));

    plane.write("policy.yaml", &POLICY.replace("[GET]", "[GET, HEAD]"));
    assert_eq!(replica.accept().await, (Kind::HttpPolicy, vec!["shop/get-only".to_owned()], vec![]));
    plane.write("route.yaml", &ROUTE.replace("value: /}", "value: /cart}"));
    assert_eq!(replica.accept().await, (Kind::Frontend, vec![FRONTEND.to_owned()], vec![]));
    plane.until_sync(|sync| row(sync)["acked_revision"] == at + 2).await;

    drop(replica);
    let sync = plane.until_sync(|sync| row(sync)["connected"] == false).await;
    assert_eq!(row(&sync)["acked_revision"], at + 2, "what it had stays known");
}

#[tokio::test]
async fn without_its_gateway_a_waypoint_allows_nothing_and_none_is_admitted() {
    let plane = plane().await;
    let mut replica = Replica::up_to_date(&plane).await;
    std::fs::remove_file(plane.folder.join("waypoint.yaml")).unwrap();
    let withdrawn = "shop/ambit_withdrawn_waypoint";
    let (kind, names, removed) = replica.accept().await;
    assert_eq!((kind, names, removed), (Kind::HttpPolicy, vec![withdrawn.to_owned()], vec![]));
    assert_eq!(replica.names(Kind::HttpPolicy), [withdrawn, "shop/get-only"], "its policies stay meanwhile");
    plane.until_sync(|sync| sync["waypoints"] == json!([])).await;
    let caller = caller(&plane, "waypoint", "waypoint-0", "w0");
    let text = refused(&plane, &caller, "waypoint", "waypoint-0").await;
    assert!(text.contains("PermissionDenied") && text.contains("apply the Gateway"), "{text}");

    plane.write("waypoint.yaml", WAYPOINT);
    while replica.names(Kind::HttpPolicy) != ["shop/get-only"] {
        replica.accept().await;
    }
    assert_eq!(replica.names(Kind::Frontend), [FRONTEND], "it has everything as before");
}

#[tokio::test]
async fn what_a_waypoint_may_not_serve_any_more_is_closed_before_its_policies_go() {
    let plane = plane().await;
    let mut replica = Replica::up_to_date(&plane).await;
    let own = "metadata: {name: waypoint, namespace: shop";
    let idle = WAYPOINT.replace(own, &format!("{own}, labels: {{istio.io/waypoint-for: none}}"));
    plane.write("waypoint.yaml", &idle);
    let unserved = "shop/ambit_unserved_services";
    let (kind, names, removed) = replica.accept().await;
    assert_eq!((kind, names, removed), (Kind::HttpPolicy, vec![unserved.to_owned()], vec![]));
    while replica.names(Kind::HttpPolicy) != [unserved] {
        replica.accept().await;
    }
    plane.write("waypoint.yaml", WAYPOINT);
    let (kind, names, removed) = replica.accept().await;
    assert_eq!((kind, names, removed), (Kind::HttpPolicy, vec!["shop/get-only".to_owned()], vec![]));
    while replica.names(Kind::HttpPolicy) != ["shop/get-only"] {
        replica.accept().await;
    }
}

async fn refused(plane: &Plane, caller: &Caller, gateway: &str, pod: &str) -> String {
    match Replica::open(plane, caller, gateway, pod).await {
        Ok(mut replica) => replica.next().await.expect_err("the stream is refused"),
        Err(text) => text,
    }
}

#[tokio::test]
async fn others_are_not_served_as_a_waypoint() {
    let plane = plane().await;
    let own = caller(&plane, "waypoint", "waypoint-0", "w0");
    let rows = [
        (caller(&plane, "cart", "cart-0", "u1"), "waypoint", "cart-0", "speaks for no waypoint"),
        (own.clone(), "bank", "waypoint-0", "expected is account shop/bank"),
        (own, "waypoint", "cart-0", "no live pod"),
    ];
    for (caller, gateway, pod, want) in rows {
        let text = refused(&plane, &caller, gateway, pod).await;
        assert!(text.contains("PermissionDenied") && text.contains(want), "{text}");
        let line = plane.audit().pop().unwrap();
        assert_eq!((&line["outcome"], &line["asked"]), (&"refused".into(), &"discovery".into()));
    }
    let replaced = caller(&plane, "waypoint", "waypoint-0", "another");
    let text = refused(&plane, &replaced, "waypoint", "waypoint-0").await;
    assert!(text.contains("pod-unknown"), "{text}");
    assert_eq!(plane.admin("/sync").await["waypoints"], json!([]), "nothing is kept of who was refused");
}

#[tokio::test]
async fn a_waypoint_is_certified_for_its_own_account_only() {
    let plane = plane().await;
    let issue = async |caller: Caller, identity: &str| {
        let identity = Identity::parse(identity).unwrap();
        let client = CaClient::new(plane.target(), caller, Duration::from_secs(60));
        let request = csr::new(&identity).unwrap();
        client.sign(&identity, &request.pem).await
    };
    let own = "spiffe://cluster.local/ns/shop/sa/waypoint";
    issue(caller(&plane, "waypoint", "waypoint-0", "w0"), own).await.unwrap();
    let line = plane.audit().pop().unwrap();
    assert_eq!((&line["identity"], &line["caller"]), (&own.into(), &"shop/waypoint".into()));
    // cart runs on the same node, where a node's proxy would get its certificate.
    let other = "spiffe://cluster.local/ns/shop/sa/cart";
    let text = issue(caller(&plane, "waypoint", "waypoint-0", "w0"), other).await.unwrap_err();
    assert!(text.contains("PermissionDenied") && text.contains("own-identity"), "{text}");
    let text = issue(caller(&plane, "cart", "cart-0", "u1"), other).await.unwrap_err();
    assert!(text.contains("caller-account"), "{text}");
}

#[tokio::test]
async fn what_is_wrong_with_a_route_is_reported_while_it_is() {
    let plane = plane().await;
    let dump = plane.admin("/config_dump").await;
    let want = json!([{
        "gateway": "shop/waypoint", "frontends": [FRONTEND], "destinations": [],
        "policies": ["shop/get-only"], "authentications": [], "providers": []
    }]);
    assert_eq!(dump["waypoints"], want);
    let kinds = |list: &Value| -> BTreeSet<String> {
        let list = list.as_array().unwrap().iter();
        list.map(|report| report["kind"].as_str().unwrap().to_owned()).collect()
    };
    assert!(
        kinds(&dump["reports"]).is_superset(&["Gateway", "HTTPRoute", "Service"].map(str::to_owned).into())
    );
    assert_eq!(plane.admin("/sync").await["reports"], json!([]));

    plane.write("route.yaml", &ROUTE.replace("name: paid, port: 80}]}]", "name: gone, port: 80}]}]"));
    let sync = plane.until_sync(|sync| sync["reports"] != json!([])).await;
    let report = &sync["reports"][0];
    assert_eq!((&report["kind"], &report["name"]), (&"HTTPRoute".into(), &"shop/paid".into()));
    let conditions = report["conditions"].as_array().unwrap();
    let fault = conditions.iter().find(|one| one["status"] == "False").unwrap();
    assert_eq!((&fault["type"], &fault["parent"]["name"]), (&"ResolvedRefs".into(), &"paid".into()));
    plane.write("route.yaml", ROUTE);
    plane.until_sync(|sync| sync["reports"] == json!([])).await;
}
