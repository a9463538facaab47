//! Envoy takes our tunnels: HTTP/2 CONNECT terminated to TCP, as waypoints do.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ambit_tests::node::{self, Node, Signer, TUNNEL_PORT, fresh_ip};
use ambit_tests::peers::{self, Envoy};
use ambit_types::service::Port;
use ambit_types::{AppProtocol, Destination, GatewayAddress, Identity, NetworkAddress, Service};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::apps::{App, dial, identity, is_refused, rest, say, traffic, try_dial, until, within};

const MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";

/// An application in one of our pods, and an Envoy that ends tunnels for a workload elsewhere.
struct Stage {
    node: Node,
    envoy: Envoy,
    echo: App,
    client: IpAddr,
    vip: SocketAddr,
    peer: IpAddr,
}

const NOBODY_PORT: u16 = 7002;

impl Stage {
    /// `shown` is who Envoy says it is.
    async fn up(shown: &Identity, streams_max: u32) -> Self {
        let signer = Arc::new(Signer::new());
        signer.files("web", shown);
        let node = Node::start(signer.clone());
        let (client, peer, behind) = (fresh_ip(), fresh_ip(), fresh_ip());
        let own = node::workload("shop", "cart", client, true);
        let pod = node.pod(&own);
        let vip = node.capture(&pod, fresh_ip()).await;
        let echo = App::echo(behind).await;
        let nobody = App::nobody(behind).await;

        let port =
            |from, to| Port { service_port: from, target_port: to, app_protocol: AppProtocol::Unknown };
        let mut service = Service::new("bank", "web", "web.bank.svc.cluster.local");
        service.vips = vec![NetworkAddress::new(own.network.clone(), vip.ip())];
        service.ports = vec![port(vip.port(), echo.address.port())];
        let mut web = node::workload("bank", "web", peer, false);
        web.services.insert(service.key(), service.ports.clone());
        node.learn([own.into(), service.into(), web.into()]);

        // As a waypoint it is asked for the service's own address.
        let at_peer = |port| SocketAddr::new(peer, port);
        let routes =
            [(at_peer(echo.address.port()), "echo"), (at_peer(NOBODY_PORT), "nobody"), (vip, "echo")];
        let at = SocketAddr::new(peer, TUNNEL_PORT);
        let tls = peers::tls("Downstream", &signer, "web", &identity("shop", "cart"));
        let listener = peers::listener("hbone", at, &manager(&routes, streams_max), Some(tls));
        let clusters = json!([
            peers::cluster("echo", echo.address, json!({})),
            peers::cluster("nobody", nobody, json!({})),
        ]);
        let envoy = Envoy::start(at, json!([listener]), clusters).await;
        Self { node, envoy, echo, client, vip, peer }
    }

    /// To the service, as the application in our pod does.
    async fn dial(&self) -> TcpStream {
        dial(self.client, self.vip).await
    }

    /// The same, where a refusal is expected.
    async fn try_dial(&self) -> std::io::Result<TcpStream> {
        try_dial(self.client, self.vip).await
    }
}

/// An HTTP connection manager that ends CONNECT, by authority.
fn manager(routes: &[(SocketAddr, &str)], streams_max: u32) -> Value {
    let hosts: Vec<Value> = routes
        .iter()
        .map(|(authority, cluster)| {
            json!({
                "name": format!("{cluster} at {authority}"),
                "domains": [authority.to_string()],
                "routes": [{
                    "match": { "connect_matcher": {} },
                    "route": {
                        "cluster": cluster,
                        "upgrade_configs": [{ "upgrade_type": "CONNECT", "connect_config": {} }],
                    },
                }],
            })
        })
        .collect();
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": MANAGER,
            "stat_prefix": "hbone",
            "codec_type": "HTTP2",
            "route_config": { "name": "hbone", "virtual_hosts": hosts },
            "http_filters": [{ "name": "envoy.filters.http.router", "typed_config": { "@type": ROUTER } }],
            "http2_protocol_options": { "allow_connect": true, "max_concurrent_streams": streams_max },
            "upgrade_configs": [{ "upgrade_type": "CONNECT" }],
        },
    })
}

/// The service bound to a waypoint, with no endpoint of its own.
fn bound(stage: &Stage, waypoint: IpAddr) -> [ambit_state::Change; 2] {
    let network = stage.node.proxy.mesh.snapshot().own_workloads().next().map(|w| w.network.clone());
    let at = |ip| NetworkAddress::new(network.clone().unwrap_or_default(), ip);
    let mut service = Service::new("bank", "web", "web.bank.svc.cluster.local");
    service.vips = vec![at(stage.vip.ip())];
    service.waypoint = Some(GatewayAddress {
        destination: Destination::Address(at(waypoint)),
        hbone_mtls_port: TUNNEL_PORT,
    });
    [service.into(), node::workload("bank", "web", stage.peer, false).into()]
}

/// The service with its port mapped to another one of Envoy's hosts.
fn remapped(stage: &Stage, target: u16) -> [ambit_state::Change; 2] {
    let mut service = Service::new("bank", "web", "web.bank.svc.cluster.local");
    let network = stage.node.proxy.mesh.snapshot().own_workloads().next().map(|w| w.network.clone());
    service.vips = vec![NetworkAddress::new(network.unwrap_or_default(), stage.vip.ip())];
    service.ports = vec![Port {
        service_port: stage.vip.port(),
        target_port: target,
        app_protocol: AppProtocol::Unknown,
    }];
    let mut web = node::workload("bank", "web", stage.peer, false);
    web.services.insert(service.key(), service.ports.clone());
    [service.into(), web.into()]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn applications_of_ours_reach_what_is_behind_envoy() {
    if !peers::are_here() {
        return;
    }
    let stage = Stage::up(&identity("bank", "web"), 100).await;
    traffic(async || stage.dial().await, &stage.echo).await;
    until("every connection is recorded", || stage.node.open() == 0).await;
    let records = stage.node.records();
    assert_eq!(records[0]["dst"]["identity"], "spiffe://cluster.local/ns/bank/sa/web", "{}", records[0]);
    assert!(records.iter().all(|r| r["verdict"] == "allowed"), "{records:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_bound_to_a_waypoint_is_reached_through_it_or_not_at_all() {
    if !peers::are_here() {
        return;
    }
    let stage = Stage::up(&identity("bank", "web"), 100).await;
    stage.node.learn(bound(&stage, stage.peer));
    traffic(async || stage.dial().await, &stage.echo).await;
    until("every connection is recorded", || stage.node.open() == 0).await;
    let vip = stage.vip.to_string();
    for record in stage.node.records() {
        assert_eq!((&record["path"], &record["hbone_addr"]), (&json!("waypoint"), &json!(vip)), "{record}");
        assert_eq!(record["dst"]["identity"], "spiffe://cluster.local/ns/bank/sa/web", "{record}");
        assert_eq!(
            (&record["verdict"], &record["service"]),
            (&json!("allowed"), &json!("web.bank.svc.cluster.local")),
            "{record}"
        );
    }
    stage.node.learn(bound(&stage, fresh_ip()));
    assert!(is_refused(stage.try_dial().await).await);
    let record = stage.node.records().into_iter().find(|r| r["verdict"] == "denied").expect("a record");
    assert_eq!(record["reason"], "waypoint-unbound", "{record}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoys_own_limit_of_streams_opens_more_tunnels() {
    if !peers::are_here() {
        return;
    }
    let stage = Stage::up(&identity("bank", "web"), 2).await;
    let mut open = Vec::new();
    for n in 0..20 {
        let mut tcp = stage.dial().await;
        say(&mut tcp, format!("number {n}").as_bytes()).await;
        open.push(tcp);
    }
    for tcp in &mut open {
        say(tcp, b"still here").await;
    }
    assert_eq!(stage.node.open(), 20, "{}", stage.envoy.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_envoy_cannot_reach_is_refused_with_a_reason() {
    if !peers::are_here() {
        return;
    }
    let stage = Stage::up(&identity("bank", "web"), 100).await;
    for target in [NOBODY_PORT, 7999] {
        stage.node.learn(remapped(&stage, target));
        assert!(is_refused(stage.try_dial().await).await, "port {target}");
    }
    let records = stage.node.records();
    assert!(records.iter().all(|r| r["verdict"] == "denied" && !r["code"].is_null()), "{records:#?}");
    stage.node.learn(remapped(&stage, stage.echo.address.port()));
    say(&mut stage.dial().await, b"the tunnel is good").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_envoy_with_another_identity_gets_nothing() {
    if !peers::are_here() {
        return;
    }
    let stage = Stage::up(&identity("bank", "thief"), 100).await;
    assert!(is_refused(stage.try_dial().await).await);
    let record = &stage.node.records()[0];
    assert_eq!(record["reason"], "identity-mismatch", "{record}");
    assert!(stage.echo.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_envoy_that_drains_is_left_in_order_and_one_that_dies_is_noticed() {
    if !peers::are_here() {
        return;
    }
    let stage = Stage::up(&identity("bank", "web"), 100).await;
    let mut old = stage.dial().await;
    say(&mut old, b"before").await;
    post(stage.envoy.admin, "/drain_listeners?graceful&skip_exit").await;
    // Envoy says GOAWAY with the answer to a request; until then new streams still come on the old tunnel.
    for _ in 0..20 {
        let mut tcp = stage.dial().await;
        say(&mut tcp, b"while it drains").await;
        tcp.shutdown().await.expect("half-close");
        assert!(rest(&mut tcp).await.is_empty());
    }
    say(&mut old, b"the old one lives").await;
    drop(stage.envoy);
    let mut last = Vec::new();
    let end = within(old.read_to_end(&mut last)).await;
    assert!(last.is_empty() && end.is_err(), "a connection that was cut must not look complete");
}

async fn post(admin: SocketAddr, path: &str) {
    let mut tcp = within(TcpStream::connect(admin)).await.expect("Envoy's admin");
    let request =
        format!("POST {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    tcp.write_all(request.as_bytes()).await.expect("it is taken");
    let mut answer = Vec::new();
    within(tcp.read_to_end(&mut answer)).await.expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}
