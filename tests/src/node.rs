//! A node's proxy on loopback: the product's code for both directions, with a world and an authority of the test.
//!
//! There is no redirection, no control plane and no namespace:
//! a pod is an address of 127.0.0.0/8, and what is captured is what connects to [`Node::capture`].

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use ambit_net::dns::Servers;
use ambit_net::socket::SocketOptions;
use ambit_net::tls::credential::PemChain;
use ambit_net::tls::store::{Ca, CertificateStore, Signing};
use ambit_net::tunnel::TunnelSettings;
use ambit_runtime::clock;
use ambit_runtime::drain::Drain;
use ambit_state::{Change, PodRef, SameNode, World};
use ambit_types::{Identity, TrustDomain, TunnelProtocol, Workload};
use istiod_lite::ca::{Authority, store};
use rcgen::{KeyPair, PublicKeyData as _};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use ztunnel::connections::Connections;
use ztunnel::mesh::Mesh;
use ztunnel::nearby::NodeAddresses;
use ztunnel::proxy::{Pod, Pods, Proxy, Settings};
use ztunnel::sources::PerSource;
use ztunnel::stale::Pairs;
use ztunnel::telemetry::{StaleFor, Telemetry};
use ztunnel::writer::Writer;
use ztunnel::{inbound, outbound, random};

use crate::fakes;

/// Port that peers of a pod dial.
pub const TUNNEL_PORT: u16 = 15008;
/// Life of the certificates.
const LIFE: Duration = Duration::from_secs(3600);
/// Name of the node.
const NODE: &str = "here";

/// Addresses of 127.0.0.0/8 that no other test of this program has, and hardly one of another program.
///
/// # Panics
/// After 250 calls.
#[must_use]
pub fn fresh_ip() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(n < 251, "too many pods for one test program");
    let [.., high, low] = std::process::id().to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(127, high | 1, low, n))
}

/// The authority of `istiod-lite` in a folder of its own.
#[derive(Debug)]
pub struct Signer {
    authority: Authority,
    folder: TempDir,
}

impl Default for Signer {
    fn default() -> Self {
        Self::new()
    }
}

impl Signer {
    /// A fresh authority.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let authority = store::open(&folder.path().join("ca"), &TrustDomain::default(), clock::wall());
        Self { authority: authority.expect("a fresh authority"), folder }
    }

    /// Writes `NAME.pem` (leaf and intermediate), `NAME.key` and `roots.pem` for a peer; answers the folder.
    ///
    /// # Panics
    /// If they cannot be written.
    pub fn files(&self, name: &str, identity: &Identity) -> &Path {
        let key = KeyPair::generate().expect("a key");
        let issued = self.authority.issue(identity, &key.subject_public_key_info(), LIFE, clock::wall());
        let chain = issued.expect("the authority signs").chain;
        let (roots, chain) = chain.split_last().expect("a chain");
        let files = [
            (format!("{name}.pem"), chain.concat()),
            (format!("{name}.key"), key.serialize_pem()),
            ("roots.pem".to_owned(), roots.clone()),
        ];
        for (file, text) in files {
            std::fs::write(self.folder.path().join(file), text).expect("the folder is ours");
        }
        self.folder.path()
    }

    /// A file in the folder of [`Signer::files`].
    #[must_use]
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }
}

impl Ca for Signer {
    fn sign<'a>(&'a self, identity: &'a Identity, csr_pem: &'a str) -> Signing<'a> {
        Box::pin(async move {
            let request =
                rcgen::CertificateSigningRequestParams::from_pem(csr_pem).map_err(|e| e.to_string())?;
            let key = request.public_key.subject_public_key_info();
            let issued = self.authority.issue(identity, &key, LIFE, clock::wall());
            let mut chain = issued.map_err(|e| e.to_string())?.chain;
            let roots = chain.pop().unwrap_or_default();
            let leaf = chain.remove(0);
            Ok(PemChain { leaf, intermediates: chain, roots })
        })
    }
}

#[derive(Debug)]
struct NeverStale;

impl StaleFor for NeverStale {
    fn stale_for(&self) -> Option<u64> {
        None
    }
}

/// A node's proxy.
#[derive(Debug)]
pub struct Node {
    /// The product's own.
    pub proxy: Arc<Proxy>,
    writer: Writer,
    drain: Drain,
}

impl Node {
    /// A proxy that knows nothing yet.
    #[must_use]
    pub fn start(ca: Arc<dyn Ca>) -> Self {
        let telemetry = Telemetry::new(NODE, 10_000, Arc::new(NeverStale));
        let settings = Settings {
            same_node: SameNode::Hbone,
            connect_timeout: Duration::from_secs(3),
            tunnel: Arc::new(TunnelSettings {
                handshake_timeout: Duration::from_secs(3),
                connect_timeout: Duration::from_secs(5),
                ..TunnelSettings::default()
            }),
            pool: ambit_hbone::pool::Limits::default(),
            sockets: Arc::new(SocketOptions { local_congestion: None, ..SocketOptions::default() }),
            original_source: Some(false),
            response_baggage: true,
            ipv6: true,
            pod_connections_max: 10_000,
            pod_handshakes_max: 100,
            per_source: PerSource { handshakes_max: 100, tunnels_max: 100 },
            nameservers: Arc::new(Servers::These(Vec::new())),
            node_addresses: Arc::new(NodeAddresses::beside(Path::new("/nowhere/ztunnel.sock"))),
        };
        let proxy = Proxy {
            mesh: Mesh::new(World::new(NODE).snapshot()),
            certificates: CertificateStore::new(ca, Arc::new(random::number)),
            connections: Connections::new(telemetry.clone()),
            telemetry,
            pods: Pods::default(),
            pairs: Pairs::default(),
            settings,
        };
        proxy.connections.watch(proxy.mesh.clone());
        let writer = Writer::start(proxy.mesh.clone(), NODE);
        Self { proxy: Arc::new(proxy), writer, drain: Drain::new() }
    }

    /// Tells it about the world.
    pub fn learn(&self, changes: impl IntoIterator<Item = Change>) {
        self.writer.apply(changes.into_iter().collect());
    }

    /// A pod of this node that is captured.
    #[must_use]
    pub fn pod(&self, workload: &Workload) -> Arc<Pod> {
        let name = PodRef::of(workload);
        let pod = Pod::new(name, None, false, self.drain.child(), &self.proxy.settings);
        let pod = Arc::new(pod);
        self.proxy.pods.insert(pod.clone());
        pod
    }

    /// Takes tunnels for a pod, at its address and a free port.
    ///
    /// # Panics
    /// If loopback has no port left.
    pub async fn listen(&self, pod: &Arc<Pod>, ip: IpAddr) -> SocketAddr {
        let listener = TcpListener::bind((ip, 0)).await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let (proxy, pod) = (self.proxy.clone(), pod.clone());
        fakes::start(async move {
            while let Ok((tcp, peer)) = listener.accept().await {
                fakes::start(inbound::tunnel(proxy.clone(), pod.clone(), tcp, peer));
            }
        });
        address
    }

    /// Takes what a pod sends to an address, which must be on loopback and free.
    ///
    /// # Panics
    /// If it is neither.
    pub async fn capture(&self, pod: &Arc<Pod>, ip: IpAddr) -> SocketAddr {
        let listener = TcpListener::bind((ip, 0)).await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let (proxy, pod) = (self.proxy.clone(), pod.clone());
        fakes::start(async move {
            while let Ok((tcp, peer)) = listener.accept().await {
                fakes::start(outbound::serve(proxy.clone(), pod.clone(), tcp, peer));
            }
        });
        address
    }

    /// The records of connections that ended, oldest first.
    #[must_use]
    pub fn records(&self) -> Vec<Value> {
        self.proxy.telemetry.ring().last(usize::MAX).0.iter().map(|record| record.to_json()).collect()
    }

    /// Connections that are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.proxy.connections.flows().len()
    }
}

/// A workload that speaks HBONE, at an address; on this node if `here`.
#[must_use]
pub fn workload(namespace: &str, name: &str, ip: IpAddr, here: bool) -> Workload {
    let mut workload = Workload::new(format!("Kubernetes//Pod/{namespace}/{name}"), namespace, name);
    workload.addresses = vec![ip];
    workload.service_account = name.into();
    workload.canonical_name = name.into();
    workload.tunnel = TunnelProtocol::Hbone;
    workload.node = if here { NODE } else { "elsewhere" }.into();
    workload
}
