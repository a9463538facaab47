//! Connections that pods open, through the node's own proxy: which tunnel or endpoint is tried next, and what is not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ambit_net::tls::{self, Credential};
use ambit_state::{Change, PodRef};
use ambit_tests::certs::TestCa;
use ambit_tests::fakes;
use http::Response;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::ends::within;
use crate::node::{Addresses, Capture, NODE, Node, service, until, workload};

/// What a peer does with the second stream of a tunnel.
#[derive(Debug, Clone, Copy)]
enum Second {
    /// It serves it.
    Serve,
    /// It leaves the whole tunnel.
    Leave,
    /// It refuses the stream before anything is done with it.
    Refuse,
}

/// A peer of its own making; each stream it serves is greeted with one byte.
struct Peer {
    streams: Arc<AtomicUsize>,
    tunnels: Arc<AtomicUsize>,
}

impl Peer {
    /// Listens for tunnels; the first `moody` of them treat their second stream as said, and so forth.
    async fn start(at: SocketAddr, credential: Credential, moody: usize, second: Second) -> Self {
        let listener = TcpListener::bind(at).await.expect("loopback");
        let (streams, tunnels) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (count, opened) = (streams.clone(), tunnels.clone());
        let credential = Arc::new(credential);
        fakes::start(async move {
            while let Ok((tcp, peer)) = listener.accept().await {
                let n = opened.fetch_add(1, Ordering::SeqCst);
                let mood = if n < moody { second } else { Second::Serve };
                fakes::start(tunnel(tcp, peer, credential.clone(), mood, count.clone()));
            }
        });
        Self { streams, tunnels }
    }

    fn counts(&self) -> (usize, usize) {
        (self.tunnels.load(Ordering::SeqCst), self.streams.load(Ordering::SeqCst))
    }
}

async fn tunnel(
    tcp: TcpStream,
    peer: SocketAddr,
    credential: Arc<Credential>,
    mood: Second,
    count: Arc<AtomicUsize>,
) {
    let accepted = tls::server::accept(&credential, tcp, peer, Duration::from_secs(3)).await.expect("TLS");
    let mut connection = h2::server::handshake(accepted.stream).await.expect("HTTP/2");
    let mut first = true;
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        count.fetch_add(1, Ordering::SeqCst);
        let mood = if std::mem::take(&mut first) { Second::Serve } else { mood };
        match mood {
            Second::Leave => connection.abrupt_shutdown(h2::Reason::NO_ERROR),
            Second::Refuse => respond.send_reset(h2::Reason::REFUSED_STREAM),
            Second::Serve => {
                let mut send = respond.send_response(Response::new(()), false).expect("open");
                send.send_data("x".into(), false).expect("open");
                let mut body = request.into_body();
                fakes::start(async move {
                    while let Some(Ok(_)) = body.data().await {}
                    // The client may have gone altogether.
                    let _ = send.send_data("".into(), true);
                });
            }
        }
    }
}

async fn greeted(app: &mut TcpStream) -> std::io::Result<u8> {
    within(app.read_u8()).await
}

async fn hang_up(mut app: TcpStream) {
    app.shutdown().await.expect("open");
    let mut rest = Vec::new();
    within(app.read_to_end(&mut rest)).await.expect("an orderly end");
}

/// However many tunnels of the pool the peer is leaving, the connection gets one that is good.
#[tokio::test]
async fn tunnels_that_refuse_a_stream_unseen_are_replaced() {
    for (second, moody) in [(Second::Leave, 1), (Second::Leave, 3), (Second::Refuse, 1), (Second::Refuse, 3)]
    {
        let ca = Arc::new(TestCa::new());
        let addresses = Addresses::new();
        let web = workload("bank/web", "n2", addresses.ip(2));
        let credential = ca.credential(&web.identity());
        let world = [web, workload("shop/cart", NODE, addresses.ip(1))].map(Change::from);
        let node = Node::new(&ca, world, |settings| settings.pool.streams_per_tunnel = 1);
        let pod = node.pod("shop/cart");
        let peer = Peer::start(addresses.at(2, 15008), credential, moody, second).await;
        let capture = Capture::at(addresses.at(2, 0)).await;
        let open = || {
            let (proxy, pod) = (node.proxy.clone(), pod.clone());
            capture.connect(addresses.ip(1), |tcp, from| ztunnel::outbound::serve(proxy, pod, tcp, from))
        };
        let mut apps = Vec::new();
        for _ in 0..moody {
            let (mut app, _) = open().await;
            assert_eq!(greeted(&mut app).await.expect("a stream"), b'x');
            apps.push(app);
        }
        for app in apps {
            hang_up(app).await;
        }
        until("all slots are free", Duration::from_secs(5), || pod.pool.counts() == (moody, 0)).await;
        let (mut app, _) = open().await;
        let got = greeted(&mut app).await;
        let counts = peer.counts();
        assert!(matches!(got, Ok(b'x')), "{second:?} by {moody}: {got:?}, tunnels and streams {counts:?}");
        // Each moody tunnel was asked once for its first stream and at most once more.
        assert!(counts.0 == moody + 1 && counts.1 <= 2 * moody + 1, "{second:?} by {moody}: {counts:?}");
    }
}

/// The same pod may have been here before under another address, and discovery may not have heard of it.
#[tokio::test]
async fn a_pod_is_joined_only_at_an_address_it_has() {
    let ca = Arc::new(TestCa::new());
    let node = Node::new(&ca, [], |_| {});
    let pod = node.pod("shop/cart");
    let other = PodRef { service_account: "pay".into(), ..pod.name.clone() };
    let rows = [
        (&pod.name, "127.0.0.1", true),
        // TEST-NET-3 and the documentation prefix: nobody has them.
        (&pod.name, "203.0.113.9", false),
        (&pod.name, "2001:db8::9", false),
        (&other, "127.0.0.1", false),
    ];
    for (name, ip, found) in rows {
        let ip = ip.parse().expect("an address");
        assert_eq!(node.proxy.pods.find(name, ip).is_some(), found, "{name:?} at {ip}");
    }
}

/// An endpoint gives way to another one after two seconds, but not to none.
#[tokio::test]
async fn the_last_endpoint_has_the_full_limit() {
    let ca = Arc::new(TestCa::new());
    let addresses = Addresses::new();
    let mut backends = [2, 3].map(|n| workload("bank/web", "n2", addresses.ip(n)));
    backends[1].uid = "Kubernetes//Pod/bank/web-2".into();
    let capture = Capture::at(addresses.at(9, 0)).await;
    let port = capture.address().port();
    let service = service("bank/web", addresses.ip(9), port, &mut backends);
    let credential = || ca.credential(&backends[0].identity());
    for n in [2, 3] {
        let listener = TcpListener::bind(addresses.at(n, 15008)).await.expect("loopback");
        let credential = Arc::new(credential());
        fakes::start(async move {
            while let Ok((tcp, peer)) = listener.accept().await {
                // Longer than an attempt may take while there is another one, shorter than a handshake may.
                tokio::time::sleep(Duration::from_millis(2500)).await;
                fakes::start(tunnel(tcp, peer, credential.clone(), Second::Serve, Arc::default()));
            }
        });
    }
    let [one, two] = backends;
    let cart = workload("shop/cart", NODE, addresses.ip(1));
    let world = [Change::from(one), two.into(), cart.into(), service.into()];
    let node = Node::new(&ca, world, |_| {});
    let (proxy, pod) = (node.proxy.clone(), node.pod("shop/cart"));
    let serve = |tcp, from| ztunnel::outbound::serve(proxy, pod, tcp, from);
    let (mut app, _) = capture.connect(addresses.ip(1), serve).await;
    let got = greeted(&mut app).await;
    assert!(matches!(got, Ok(b'x')), "{got:?}: {:#?}", node.records());
}

/// A connection takes a place of the pod it goes to for as long as it lives, also when no tunnel is between.
#[tokio::test]
async fn a_joined_connection_takes_a_place_of_its_destination() {
    let ca = Arc::new(TestCa::new());
    let addresses = Addresses::new();
    let world = [("shop/cart", 1), ("bank/web", 2)].map(|(key, n)| workload(key, NODE, addresses.ip(n)));
    let node = Node::new(&ca, world.map(Change::from), |settings| settings.pod_connections_max = 2);
    let (cart, web) = (node.pod("shop/cart"), node.pod("bank/web"));
    let capture = Capture::at(addresses.at(2, 0)).await;
    let held = web.quota.clone().try_acquire_many_owned(1).expect("a place");
    let open = || {
        let (proxy, pod) = (node.proxy.clone(), cart.clone());
        capture.connect(addresses.ip(1), |tcp, from| ztunnel::outbound::serve(proxy, pod, tcp, from))
    };
    let (mut first, _) = open().await;
    let mut app = capture.accept().await;
    app.write_all(b"x").await.expect("open");
    assert_eq!(greeted(&mut first).await.expect("joined"), b'x');
    let (mut second, _) = open().await;
    assert!(greeted(&mut second).await.is_err(), "a third connection of a pod that may have two");
    let record = node.record("AMB7005").await;
    assert_eq!((&record["path"], &record["dst"]["workload"]), (&"local".into(), &"web".into()), "{record:#}");
    // Its end gives the place back.
    drop((first, app));
    until("the place is free", Duration::from_secs(5), || web.quota.available_permits() == 1).await;
    let (mut third, _) = open().await;
    let mut app = capture.accept().await;
    app.write_all(b"x").await.expect("open");
    assert_eq!(greeted(&mut third).await.expect("joined"), b'x');
    drop(held);
}

/// The same for plaintext that comes to a pod.
#[tokio::test]
async fn a_plaintext_connection_takes_a_place() {
    let ca = Arc::new(TestCa::new());
    let addresses = Addresses::new();
    let world = [Change::from(workload("bank/web", NODE, addresses.ip(2)))];
    let node = Node::new(&ca, world, |settings| settings.pod_connections_max = 1);
    let web = node.pod("bank/web");
    let capture = Capture::at(addresses.at(2, 0)).await;
    let open = || {
        let (proxy, pod) = (node.proxy.clone(), web.clone());
        capture.connect(addresses.ip(1), |tcp, from| ztunnel::passthrough::plaintext(proxy, pod, tcp, from))
    };
    let (mut first, _) = open().await;
    let mut app = capture.accept().await;
    app.write_all(b"x").await.expect("open");
    assert_eq!(greeted(&mut first).await.expect("let in"), b'x');
    let (mut second, _) = open().await;
    assert!(greeted(&mut second).await.is_err(), "a second connection of a pod that may have one");
    let record = node.record("AMB7005").await;
    assert_eq!(
        (&record["path"], &record["dst"]["workload"]),
        (&"plaintext".into(), &"web".into()),
        "{record:#}"
    );
    drop((first, app));
    until("the place is free", Duration::from_secs(5), || web.quota.available_permits() == 1).await;
}

/// A connection that is refused before anything is known of it has a record like any other.
#[tokio::test]
async fn a_connection_that_its_own_pod_has_no_place_for_is_recorded() {
    let ca = Arc::new(TestCa::new());
    let addresses = Addresses::new();
    let world = [Change::from(workload("shop/cart", NODE, addresses.ip(1)))];
    let node = Node::new(&ca, world, |settings| settings.pod_connections_max = 1);
    let cart = node.pod("shop/cart");
    let capture = Capture::at(addresses.at(2, 0)).await;
    let _held = cart.place().expect("a place");
    let (proxy, pod) = (node.proxy.clone(), cart.clone());
    let serve = |tcp, from| ztunnel::outbound::serve(proxy, pod, tcp, from);
    let (mut app, _) = capture.connect(addresses.ip(1), serve).await;
    assert!(greeted(&mut app).await.is_err(), "a second connection of a pod that may have one");
    let record = node.record("AMB7005").await;
    assert_eq!((&record["direction"], &record["src"]["workload"]), (&"outbound".into(), &"cart".into()));
    let whereto = capture.address().to_string();
    assert_eq!(
        (&record["verdict"], &record["dst"]["addr"]),
        (&"denied".into(), &whereto.into()),
        "{record:#}"
    );
}
