//! Tunnels that come to a pod, through the node's own proxy: how many a source may have, and streams that are given up.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ambit_net::tls::{self, Credential};
use ambit_net::tunnel::client::{self, Tunnel, TunnelError};
use ambit_state::Change;
use ambit_tests::certs::TestCa;
use ambit_tests::fakes;
use ambit_types::{Identity, Reason, Workload};
use socket2::{Domain, Socket, Type};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use ztunnel::proxy::{Pod, Settings};

use crate::ends::{client_identity, quick, request, within};
use crate::node::{Addresses, NODE, Node, STALE_MAX, connect_from, until, workload};

/// A pod whose tunnel port the node's proxy serves.
pub(crate) struct Front {
    pub(crate) node: Node,
    pod: Arc<Pod>,
    pub(crate) addresses: Addresses,
    identity: Identity,
    credential: Credential,
    ca: Arc<TestCa>,
}

impl Front {
    /// The pod alone in the world.
    pub(crate) async fn start(set: impl FnOnce(&mut Settings)) -> Self {
        Self::start_in(|web, _| vec![Change::from(web)], set).await
    }

    /// The pod in a world that is made around its workload.
    pub(crate) async fn start_in(
        world: impl FnOnce(Workload, &Addresses) -> Vec<Change>,
        set: impl FnOnce(&mut Settings),
    ) -> Self {
        let ca = Arc::new(TestCa::new());
        let addresses = Addresses::new();
        let web = workload("bank/web", NODE, addresses.ip(2));
        let identity = web.identity();
        let node = Node::new(&ca, world(web, &addresses), set);
        let pod = node.pod("bank/web");
        let listener = TcpListener::bind(addresses.at(2, 15008)).await.expect("loopback");
        let (proxy, serving) = (node.proxy.clone(), pod.clone());
        fakes::start(async move {
            while let Ok((tcp, peer)) = listener.accept().await {
                fakes::start(ztunnel::inbound::tunnel(proxy.clone(), serving.clone(), tcp, peer));
            }
        });
        let credential = ca.credential(&client_identity());
        Self { node, pod, addresses, identity, credential, ca }
    }

    fn address(&self) -> SocketAddr {
        self.addresses.at(2, 15008)
    }

    /// A tunnel, which the proxy may refuse at once or when it is used.
    async fn tunnel(&self, source: IpAddr) -> Result<Tunnel, TunnelError> {
        self.tunnel_with(&self.credential, source).await
    }

    /// A tunnel of somebody.
    pub(crate) async fn tunnel_of(&self, who: &Identity, source: IpAddr) -> Result<Tunnel, TunnelError> {
        self.tunnel_with(&self.ca.credential(who), source).await
    }

    async fn tunnel_with(&self, credential: &Credential, source: IpAddr) -> Result<Tunnel, TunnelError> {
        let to = self.address();
        let tcp = connect_from(source, to).await;
        let expected = [self.identity.clone()];
        let connected = tls::client::connect(credential, &expected, tcp, to, Duration::from_secs(3)).await;
        let connected = connected.map_err(|cause| TunnelError::Tls(Arc::new(cause)))?;
        client::open(connected, to, credential.not_after(), Arc::new(quick())).await
    }

    /// A tunnel that has answered a request for a port where nobody listens.
    async fn proven(&self, source: IpAddr) -> Result<Tunnel, TunnelError> {
        let tunnel = self.tunnel(source).await?;
        let asked = within(tunnel.connect(request(self.addresses.at(2, 1)), &quick())).await;
        match asked.map(|_| ()).expect_err("nobody listens") {
            TunnelError::Refused { reason: Reason::ConnectRefused, .. } => Ok(tunnel),
            other => Err(other),
        }
    }
}

#[tokio::test]
async fn a_source_has_a_bounded_number_of_tunnels() {
    let front = Front::start(|settings| settings.per_source.tunnels_max = 3).await;
    let (greedy, other) = (front.addresses.ip(10), front.addresses.ip(11));
    let mut tunnels = Vec::new();
    for n in 0..3 {
        tunnels.push(front.proven(greedy).await.unwrap_or_else(|e| panic!("tunnel {n}: {e}")));
    }
    let fourth = front.proven(greedy).await.map(|_| ()).expect_err("a fourth tunnel of one source");
    assert!(!matches!(fourth, TunnelError::Refused { .. }), "{fourth:?}");
    let record = front.node.record("AMB7005").await;
    assert!(record["error"].as_str().is_some_and(|e| e.contains("3 tunnels")), "{record:#}");
    // Somebody else is not concerned, and one that ended makes room.
    let _other = front.proven(other).await.expect("another source");
    drop(tunnels.pop());
    until("the place of a closed tunnel is free", Duration::from_secs(5), || {
        front.pod.sources.held(greedy) == 2
    })
    .await;
    tunnels.push(front.proven(greedy).await.expect("there is room again"));
}

/// G8: who opens connections and says nothing keeps others from nothing.
#[tokio::test]
async fn a_source_has_a_bounded_number_of_unfinished_handshakes() {
    let front = Front::start(|settings| settings.per_source.handshakes_max = 2).await;
    let (silent, other) = (front.addresses.ip(10), front.addresses.ip(11));
    let mut mute = Vec::new();
    for _ in 0..2 {
        mute.push(connect_from(silent, front.address()).await);
    }
    until("both are being handled", Duration::from_secs(5), || front.pod.sources.held(silent) == 2).await;
    let mut third = connect_from(silent, front.address()).await;
    // Closed at once, long before the limit of a handshake.
    let end =
        tokio::time::timeout(Duration::from_secs(1), third.read(&mut [0])).await.expect("it is refused");
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    let record = front.node.record("AMB7005").await;
    assert!(record["error"].as_str().is_some_and(|e| e.contains("handshakes")), "{record:#}");
    let _other = front.proven(other).await.expect("another source");
    mute.clear();
    until("the handshakes are over", Duration::from_secs(5), || front.pod.sources.held(silent) == 0).await;
    let _again = front.proven(silent).await.expect("there is room again");
}

/// Without control plane for longer than allowed, who was let in goes on, and nobody else comes in.
#[tokio::test]
async fn a_node_that_is_stale_for_too_long_lets_in_only_pairs_it_has_seen() {
    let front = Front::start(|_| {}).await;
    let app = TcpListener::bind(front.addresses.at(2, 0)).await.expect("loopback");
    let other = TcpListener::bind(front.addresses.at(2, 0)).await.expect("loopback");
    let [app, other] = [&app, &other].map(|listener| listener.local_addr().expect("bound"));
    let stranger = Identity::parse("spiffe://cluster.local/ns/shop/sa/late").expect("an identity");
    let known = front.tunnel(front.addresses.ip(10)).await.expect("a tunnel");
    let unknown = front.tunnel_of(&stranger, front.addresses.ip(11)).await.expect("a tunnel");
    let ask = async |tunnel: &Tunnel, to| within(tunnel.connect(request(to), &quick())).await.map(drop);
    ask(&known, app).await.expect("nothing is stale");

    front.node.away.set(STALE_MAX.as_secs());
    ask(&known, app).await.expect("not stale for too long yet");
    front.node.away.set(STALE_MAX.as_secs() + 1);
    ask(&known, app).await.expect("it was let in before");
    for (who, tunnel, to) in [("a stranger", &unknown, app), ("at another port", &known, other)] {
        let refused = ask(tunnel, to).await.expect_err(who);
        assert!(
            matches!(refused, TunnelError::Refused { reason: Reason::StateTooOld, .. }),
            "{who}: {refused:?}"
        );
    }
    let record = front.node.record("AMB6006").await;
    assert_eq!(record["verdict"], "denied", "{record:#}");

    front.node.away.set(0);
    ask(&unknown, app).await.expect("the control plane is back");
}

/// An application that takes nobody: its queue is full.
pub(crate) struct Full {
    _listener: Socket,
    _queue: Vec<Socket>,
}

impl Full {
    pub(crate) fn at(address: SocketAddr) -> Self {
        let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let listener = socket();
        listener.bind(&address.into()).expect("loopback");
        listener.listen(0).expect("bound");
        let connect = |_| {
            let client = socket();
            client.set_nonblocking(true).expect("a socket");
            // In progress: the first gets the one place there is, the second waits for ever.
            let _ = client.connect(&address.into());
            client
        };
        Self { _listener: listener, _queue: (0..2).map(connect).collect() }
    }
}

#[tokio::test]
async fn a_stream_that_was_reset_stops_reaching_the_application() {
    let front = Front::start(|settings| settings.pod_connections_max = 10).await;
    let at = front.addresses.at(2, 7000);
    let _full = Full::at(at);
    let tunnel = front.tunnel(front.addresses.ip(10)).await.expect("a tunnel");
    let asking = fakes::start(tunnel.connect(request(at), &quick()));
    until("the application is being reached", Duration::from_secs(5), || {
        front.pod.quota.available_permits() == 9
    })
    .await;
    // Dropping what waits for the answer resets the stream.
    asking.abort();
    until("nothing waits for it any more", Duration::from_secs(1), || {
        front.pod.quota.available_permits() == 10
    })
    .await;
    let record = front.node.record("AMB4003").await;
    assert!(record["error"].as_str().is_some_and(|e| e.contains("gave up")), "{record:#}");
}
