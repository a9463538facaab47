//! Envoy opens tunnels to our port 15008: TCP proxy with `tunneling_config`, as waypoints and gateways do.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ambit_policy::model::{Action, Policy, Scope};
use ambit_tests::node::{self, Node, Signer, fresh_ip};
use ambit_tests::peers::{self, Envoy};
use ambit_types::PolicyKey;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::apps::{App, identity, say, traffic, until, within};

const TUNNELED: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
const HTTP: &str = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// One pod behind our tunnel port, and an Envoy with a listener for each application.
struct Stage {
    node: Node,
    pod: Arc<ztunnel::proxy::Pod>,
    envoy: Envoy,
    echo: App,
    at: IpAddr,
}

impl Stage {
    async fn up() -> Self {
        let signer = Arc::new(Signer::new());
        let (own, theirs) = (identity("bank", "web"), identity("shop", "waypoint"));
        signer.files("waypoint", &theirs);
        let node = Node::start(signer.clone());
        let ip = fresh_ip();
        let workload = node::workload("bank", "web", ip, true);
        let pod = node.pod(&workload);
        node.learn([workload.into()]);
        let tunnel = node.listen(&pod, ip).await;
        let echo = App::echo(ip).await;
        let nobody = App::nobody(ip).await;

        let at = fresh_ip();
        let listeners: Vec<Value> = [echo.address, nobody]
            .into_iter()
            .zip(10_001..)
            .map(|(to, port)| listener(to, SocketAddr::new(at, port)))
            .collect();
        let cluster = peers::cluster(
            "hbone",
            tunnel,
            json!({
                "transport_socket": peers::tls("Upstream", &signer, "waypoint", &own),
                "typed_extension_protocol_options": {
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                        "@type": HTTP,
                        "explicit_http_config": { "http2_protocol_options": { "allow_connect": true } },
                    },
                },
            }),
        );
        let envoy = Envoy::start(SocketAddr::new(at, 10_001), json!(listeners), json!([cluster])).await;
        Self { node, pod, envoy, echo, at }
    }

    /// Through Envoy's first or second listener.
    async fn dial(&self, n: u16) -> TcpStream {
        within(TcpStream::connect((self.at, 10_001 + n))).await.expect("Envoy listens")
    }

    /// Envoy takes the application's connection before the tunnel is there; so a refusal shows as its end.
    async fn is_cut(&self, n: u16) {
        let mut tcp = self.dial(n).await;
        let mut all = Vec::new();
        // Reset or end: Envoy's own matter.
        let _ = within(tokio::io::AsyncReadExt::read_to_end(&mut tcp, &mut all)).await;
        assert!(all.is_empty());
    }

    fn reasons(&self) -> Vec<String> {
        self.node.records().iter().filter_map(|r| r["reason"].as_str().map(str::to_owned)).collect()
    }
}

/// Only what a rule permits, and there is none.
fn deny_all() -> Policy {
    Policy {
        key: PolicyKey::new("bank", "nobody"),
        scope: Scope::Namespace,
        action: Action::Allow,
        rules: Vec::new(),
        dry_run: false,
        until: None,
    }
}

fn listener(to: SocketAddr, at: SocketAddr) -> Value {
    let filter = json!({
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": TUNNELED,
            "stat_prefix": "hbone",
            "cluster": "hbone",
            "tunneling_config": {
                "hostname": to.to_string(),
                "headers_to_add": [
                    { "header": { "key": "baggage", "value": "k8s.namespace.name=shop,service.name=waypoint" } },
                    { "header": { "key": "x-forwarded-proto", "value": "tcp" } },
                ],
            },
        },
    });
    peers::listener(&to.port().to_string(), at, &filter, None)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn applications_reach_a_pod_of_ours_from_envoy() {
    if !peers::are_here() {
        return;
    }
    let stage = Stage::up().await;
    traffic(async || stage.dial(0).await, &stage.echo).await;
    until("every connection is recorded", || stage.node.open() == 0).await;
    let records = stage.node.records();
    let who = &records[0]["src"]["identity"];
    assert_eq!(who, "spiffe://cluster.local/ns/shop/sa/waypoint", "{}", records[0]);
    assert!(records.iter().all(|r| r["verdict"] == "allowed"), "{records:#?}");

    // Many connections share few tunnels.
    let mut open = Vec::new();
    for n in 0..250 {
        let mut tcp = stage.dial(0).await;
        say(&mut tcp, format!("number {n}").as_bytes()).await;
        open.push(tcp);
    }
    assert_eq!(stage.node.open(), 250, "{}", stage.envoy.log());
    for tcp in &mut open {
        say(tcp, b"still here").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_end_the_connection_and_leave_the_tunnel() {
    if !peers::are_here() {
        return;
    }
    let stage = Stage::up().await;
    stage.is_cut(1).await;
    stage.node.learn([deny_all().into()]);
    stage.is_cut(0).await;
    stage.node.learn([ambit_state::Change::RemovePolicy("bank/nobody".to_owned())]);
    let mut tcp = stage.dial(0).await;
    say(&mut tcp, b"allowed again").await;
    // One that was entered while the policy came is cut as an open one.
    let reasons: Vec<_> = stage.reasons().into_iter().filter(|reason| reason != "policy-changed").collect();
    assert_eq!(reasons, ["connect-refused", "policy-denied"]);

    // A policy that newly denies cuts what is open; Envoy tells its client by an end or a reset.
    stage.node.learn([deny_all().into()]);
    let ended = within(tcp.read(&mut [0; 8])).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_drains_finishes_what_envoy_has_open() {
    if !peers::are_here() {
        return;
    }
    let stage = Stage::up().await;
    let mut tcp = stage.dial(0).await;
    say(&mut tcp, b"before").await;
    stage.pod.drain.begin();
    for _ in 0..20 {
        say(&mut tcp, &[7; 10_000]).await;
    }
    tokio::io::AsyncWriteExt::shutdown(&mut tcp).await.expect("half-close");
    assert!(crate::apps::rest(&mut tcp).await.is_empty());
}
