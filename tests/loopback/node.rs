//! A node's own proxy without namespaces: pods are addresses of 127.0.0.0/8, and a test hands it connections as if
//! they had been redirected.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use ambit_hbone::pool::Limits;
use ambit_net::dns::Servers;
use ambit_net::socket::SocketOptions;
use ambit_net::tls::store::{Ca, CertificateStore, Signing};
use ambit_runtime::clock;
use ambit_runtime::drain::Drain;
use ambit_state::{Change, PodRef, SameNode, World};
use ambit_tests::certs::{TestCa, now};
use ambit_tests::fakes;
use ambit_types::service::Port;
use ambit_types::{AppProtocol, Identity, NetworkAddress, Service, TunnelProtocol, Workload};
use serde_json::Value;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use ztunnel::connections::Connections;
use ztunnel::mesh::Mesh;
use ztunnel::nearby::NodeAddresses;
use ztunnel::proxy::{Pod, Pods, Proxy, Settings};
use ztunnel::sources::PerSource;
use ztunnel::stale::Pairs;
use ztunnel::telemetry::{StaleFor, Telemetry};

use crate::ends::{quick, within};

/// The node under test; workloads elsewhere are on another one.
pub(crate) const NODE: &str = "n1";

/// Addresses of one test: nobody else on this machine has them.
pub(crate) struct Addresses(u16);

impl Addresses {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        Self(NEXT.fetch_add(1, Ordering::SeqCst))
    }

    pub(crate) fn ip(&self, last: u8) -> IpAddr {
        let [high, low] = self.0.to_be_bytes();
        Ipv4Addr::new(127, 100 + high, low, last).into()
    }

    pub(crate) fn at(&self, last: u8, port: u16) -> SocketAddr {
        (self.ip(last), port).into()
    }
}

/// A pod in the mesh: `NAMESPACE/NAME`, its account named like the pod.
pub(crate) fn workload(key: &str, node: &str, ip: IpAddr) -> Workload {
    let (namespace, name) = key.split_once('/').expect("NAMESPACE/NAME");
    let mut workload = Workload::new(format!("Kubernetes//Pod/{key}"), namespace, name);
    workload.service_account = name.into();
    workload.workload_name = name.into();
    workload.node = node.into();
    workload.addresses = vec![ip];
    workload.tunnel = TunnelProtocol::Hbone;
    // What says that no NetworkPolicy selects it.
    workload.settings = Some(Arc::default());
    workload
}

/// A service in front of workloads, which are told that they back it.
pub(crate) fn service(key: &str, vip: IpAddr, port: u16, backends: &mut [Workload]) -> Service {
    let (namespace, name) = key.split_once('/').expect("NAMESPACE/NAME");
    let mut service = Service::new(namespace, name, format!("{name}.{namespace}.svc.cluster.local"));
    service.vips = vec![NetworkAddress::new("".into(), vip)];
    service.ports = vec![Port { service_port: port, target_port: port, app_protocol: AppProtocol::Unknown }];
    for backend in backends {
        backend.services.insert(service.key(), Vec::new());
    }
    service
}

struct Signs(Arc<TestCa>);

impl Ca for Signs {
    fn sign<'a>(&'a self, identity: &'a Identity, csr_pem: &'a str) -> Signing<'a> {
        Box::pin(async move { Ok(self.0.answer(identity, csr_pem, now() + 3600)) })
    }
}

/// For how many seconds a node's control plane has been away; it is there at first.
#[derive(Debug, Default)]
pub(crate) struct Away(AtomicU64);

impl Away {
    /// It has been away for `seconds`; 0: it is there.
    pub(crate) fn set(&self, seconds: u64) {
        self.0.store(seconds, Ordering::SeqCst);
    }
}

impl StaleFor for Away {
    fn stale_for(&self) -> Option<u64> {
        Some(self.0.load(Ordering::SeqCst)).filter(|seconds| *seconds > 0)
    }
}

/// The product's settings with deadlines for tests; nothing is marked, because nothing is redirected.
fn settings() -> Settings {
    Settings {
        same_node: SameNode::Auto,
        connect_timeout: Duration::from_secs(5),
        tunnel: Arc::new(quick()),
        pool: Limits::default(),
        sockets: Arc::new(SocketOptions { local_congestion: None, ..SocketOptions::default() }),
        original_source: Some(false),
        response_baggage: false,
        ipv6: false,
        pod_connections_max: 1000,
        pod_handshakes_max: 100,
        per_source: PerSource { handshakes_max: 100, tunnels_max: 100 },
        nameservers: Arc::new(Servers::These(Vec::new())),
        node_addresses: Arc::new(NodeAddresses::beside(std::path::Path::new("/nowhere/ztunnel.sock"))),
    }
}

/// How long its control plane may be away for a node to let in pairs that are new.
pub(crate) const STALE_MAX: Duration = Duration::from_secs(60);

/// One node's proxy.
pub(crate) struct Node {
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) away: Arc<Away>,
}

impl Node {
    pub(crate) fn new(
        ca: &Arc<TestCa>,
        world: impl IntoIterator<Item = Change>,
        set: impl FnOnce(&mut Settings),
    ) -> Self {
        let mut settings = settings();
        set(&mut settings);
        let away = Arc::new(Away::default());
        let telemetry = Telemetry::new(NODE, 1000, away.clone());
        let applied = World::new(NODE).apply(world);
        let proxy = Proxy {
            mesh: Mesh::new(applied.snapshot),
            certificates: CertificateStore::new(Arc::new(Signs(ca.clone())), Arc::new(|| 1000)),
            connections: Connections::new(telemetry.clone()),
            telemetry,
            pods: Pods::default(),
            pairs: Pairs::new(Some(STALE_MAX), away.clone()),
            settings,
        };
        Self { proxy: Arc::new(proxy), away }
    }

    /// Captures a pod of [`workload`].
    pub(crate) fn pod(&self, key: &str) -> Arc<Pod> {
        let (namespace, name) = key.split_once('/').expect("NAMESPACE/NAME");
        let name = PodRef { namespace: namespace.into(), service_account: name.into(), name: name.into() };
        let pod = Arc::new(Pod::new(name, None, false, Drain::new(), &self.proxy.settings));
        self.proxy.pods.insert(pod.clone());
        pod
    }

    /// The records so far, oldest first.
    pub(crate) fn records(&self) -> Vec<Value> {
        self.proxy.telemetry.ring().last(1000).0.iter().map(|record| record.to_json()).collect()
    }

    /// Waits for a record with a code and gives it back.
    pub(crate) async fn record(&self, code: &str) -> Value {
        let mut news = self.proxy.telemetry.ring().follow();
        loop {
            if let Some(found) = self.records().into_iter().find(|record| record["code"] == code) {
                return found;
            }
            let _ = within(news.recv()).await;
        }
    }
}

/// Somewhere that applications connect to and the proxy takes over from.
pub(crate) struct Capture(TcpListener);

impl Capture {
    pub(crate) async fn at(address: SocketAddr) -> Self {
        Self(TcpListener::bind(address).await.expect("loopback"))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("bound")
    }

    /// An application's socket, connected from `source`, with what the proxy does with the other end.
    pub(crate) async fn connect<F>(
        &self,
        source: IpAddr,
        serve: impl FnOnce(TcpStream, SocketAddr) -> F,
    ) -> (TcpStream, JoinHandle<()>)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let app = connect_from(source, self.address()).await;
        let (captured, peer) = within(self.0.accept()).await.expect("it connected");
        (app, fakes::start(serve(captured, peer)))
    }

    /// The next connection, as the application that is served sees it.
    pub(crate) async fn accept(&self) -> TcpStream {
        within(self.0.accept()).await.expect("a connection").0
    }
}

/// A connection from one address to another.
pub(crate) async fn connect_from(source: IpAddr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((source, 0).into()).expect("loopback");
    within(socket.connect(to)).await.expect("it listens")
}

/// Waits until something holds of which nobody tells; so this looks again and again.
pub(crate) async fn until(what: &str, limit: Duration, holds: impl Fn() -> bool) {
    let begun = clock::monotonic();
    while !holds() {
        assert!(clock::monotonic().saturating_duration_since(begun) < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
