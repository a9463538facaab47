//! Both ends of tunnels, made of the product's parts: a server that connects where it is asked to, a client with a
//! pool.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ambit_hbone::pool::Limits;
use ambit_hbone::request::{Connect, read};
use ambit_hbone::{Authority, ConnId, response};
use ambit_net::pool_driver::{Lease, Pool};
use ambit_net::relay::{Counters, Far, relay};
use ambit_net::tls::{self, Credential};
use ambit_net::tunnel::client::{Opened, Tunnel, TunnelError};
use ambit_net::tunnel::server::Asking;
use ambit_net::tunnel::{self, TunnelSettings};
use ambit_runtime::drain::Drain;
use ambit_tests::certs::{TestCa, now};
use ambit_tests::fakes;
use ambit_types::{Identity, Reason};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Longest time anything in these tests may take.
const BOUND: Duration = Duration::from_secs(10);

pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, work).await.expect("it hangs")
}

/// The product's settings with deadlines for tests.
pub(crate) fn quick() -> TunnelSettings {
    TunnelSettings {
        handshake_timeout: Duration::from_secs(3),
        connect_timeout: Duration::from_secs(3),
        ..TunnelSettings::default()
    }
}

pub(crate) fn server_identity() -> Identity {
    Identity::parse("spiffe://cluster.local/ns/bank/sa/web").expect("an identity")
}

pub(crate) fn client_identity() -> Identity {
    Identity::parse("spiffe://cluster.local/ns/shop/sa/cart").expect("an identity")
}

/// Accepts tunnels of the test CA and connects each stream where it asks to go.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    inner: Arc<Inner>,
}

struct Inner {
    credential: Credential,
    settings: Arc<TunnelSettings>,
    drain: Mutex<Drain>,
    deny: Mutex<Option<Reason>>,
    tunnels: AtomicUsize,
    asked: watch::Sender<usize>,
    /// Streams asked for while this is set are held and never answered.
    stalled: AtomicBool,
    served: watch::Sender<usize>,
    errors: Mutex<Vec<h2::Error>>,
}

impl Server {
    pub(crate) async fn start(ca: &TestCa, settings: TunnelSettings) -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), ca, settings).await
    }

    pub(crate) async fn start_at(at: SocketAddr, ca: &TestCa, settings: TunnelSettings) -> Self {
        let listener = TcpListener::bind(at).await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let inner = Arc::new(Inner {
            credential: ca.credential(&server_identity()),
            settings: Arc::new(settings),
            drain: Mutex::default(),
            deny: Mutex::default(),
            tunnels: AtomicUsize::new(0),
            asked: watch::Sender::new(0),
            stalled: AtomicBool::new(false),
            served: watch::Sender::new(0),
            errors: Mutex::default(),
        });
        let accepting = inner.clone();
        fakes::start(async move {
            while let Ok((tcp, peer)) = listener.accept().await {
                fakes::start(accepting.clone().tunnel(tcp, peer));
            }
        });
        Self { address, inner }
    }

    /// Tunnels that passed the handshake so far.
    pub(crate) fn tunnels(&self) -> usize {
        self.inner.tunnels.load(Ordering::SeqCst)
    }

    /// Streams that were asked for so far.
    pub(crate) fn asked(&self) -> usize {
        *self.inner.asked.borrow()
    }

    /// How tunnels ended that did not end well.
    pub(crate) fn errors(&self) -> Vec<String> {
        let errors = self.inner.errors.lock().unwrap_or_else(PoisonError::into_inner);
        errors.iter().map(ToString::to_string).collect()
    }

    pub(crate) async fn until_served(&self, n: usize) {
        let mut served = self.inner.served.subscribe();
        within(served.wait_for(|count| *count >= n)).await.expect("the server lives");
    }

    pub(crate) async fn until_asked(&self, n: usize) {
        let mut asked = self.inner.asked.subscribe();
        within(asked.wait_for(|count| *count >= n)).await.expect("the server lives");
    }

    /// From now on streams are held and never answered.
    pub(crate) fn stall(&self) {
        self.inner.stalled.store(true, Ordering::SeqCst);
    }

    pub(crate) fn deny(&self, reason: Option<Reason>) {
        *self.inner.deny.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// Sends the tunnels of now away; later ones are not concerned.
    pub(crate) fn drain_present_tunnels(&self) {
        let mut drain = self.inner.drain.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *drain).begin();
    }
}

impl Inner {
    async fn tunnel(self: Arc<Self>, tcp: TcpStream, peer: SocketAddr) {
        let drain = self.drain.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let timeout = self.settings.handshake_timeout;
        let Ok(accepted) = tls::server::accept(&self.credential, tcp, peer, timeout).await else { return };
        self.tunnels.fetch_add(1, Ordering::SeqCst);
        let until = accepted.peer_not_after.min(self.credential.not_after());
        let this = self.clone();
        let take = move |asking| {
            this.asked.send_modify(|n| *n += 1);
            fakes::start(this.clone().stream(asking));
        };
        let settings = self.settings.clone();
        let ended = tunnel::server::serve(accepted.stream, peer, until, settings, &drain, take).await;
        if let Err(error) = ended {
            self.errors.lock().unwrap_or_else(PoisonError::into_inner).push(error);
        }
        self.served.send_modify(|n| *n += 1);
    }

    async fn stream(self: Arc<Self>, asking: Asking) {
        if self.stalled.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let asked = match read(&asking.request, asking.extended) {
            Ok(asked) => asked,
            Err(refused) => {
                return asking.refuse(response::refused(refused.status(), Reason::TunnelProtocol));
            }
        };
        let denied = *self.deny.lock().unwrap_or_else(PoisonError::into_inner);
        let app = match (denied, asked.authority) {
            (Some(reason), _) => Err(reason),
            (None, Authority::Address(to)) => {
                TcpStream::connect(to).await.map_err(|_| Reason::ConnectRefused)
            }
            (None, Authority::Host { .. }) => Err(Reason::UnknownDestination),
        };
        match app {
            Err(reason) => asking.refuse(response::refused(response::status_of(reason), reason)),
            Ok(app) => {
                if let Ok((send, recv)) = asking.accept(response::accepted(None)) {
                    relay(app, Far::Tunnel { send, recv }, &Counters::default()).await;
                }
            }
        }
    }
}

/// Opens tunnels to servers of the test CA.
pub(crate) struct Client {
    pub(crate) pool: Pool<SocketAddr>,
    credential: Arc<Credential>,
    settings: Arc<TunnelSettings>,
}

impl Client {
    pub(crate) fn new(ca: &TestCa, settings: TunnelSettings) -> Self {
        Self::with(ca, settings, Limits::default())
    }

    pub(crate) fn with(ca: &TestCa, settings: TunnelSettings, limits: Limits) -> Self {
        Self::made(ca.credential(&client_identity()), settings, limits)
    }

    /// With a certificate that runs out.
    pub(crate) fn until(ca: &TestCa, settings: TunnelSettings, not_after: i64) -> Self {
        assert!(not_after > now());
        Self::made(ca.credential_until(&client_identity(), not_after), settings, Limits::default())
    }

    fn made(credential: Credential, settings: TunnelSettings, limits: Limits) -> Self {
        let pool = Pool::new(limits);
        Self { pool, credential: Arc::new(credential), settings: Arc::new(settings) }
    }

    pub(crate) async fn lease(&self, to: SocketAddr) -> Result<Lease<SocketAddr>, TunnelError> {
        self.pool.lease(&to, || open(self.credential.clone(), self.settings.clone(), to)).await
    }

    /// An application's socket whose bytes go through a tunnel to `to`; a tunnel that closed is replaced once.
    pub(crate) async fn through(&self, server: &Server, to: SocketAddr) -> Result<TcpStream, TunnelError> {
        self.through_by(server.address, to).await
    }

    /// The same by way of the server's address, or of a wire to it.
    async fn through_by(&self, by: SocketAddr, to: SocketAddr) -> Result<TcpStream, TunnelError> {
        for last in [false, true] {
            let lease = self.lease(by).await?;
            match lease.tunnel().connect(request(to), &self.settings).await {
                Ok(opened) => return Ok(joined(lease, opened).await),
                Err(error) if error.is_of_the_tunnel() && !last => lease.condemn(),
                Err(error) => return Err(error),
            }
        }
        unreachable!("the last attempt returns")
    }

    /// Two applications joined through a tunnel.
    pub(crate) async fn pair(&self, server: &Server) -> (TcpStream, TcpStream) {
        self.pair_by(server.address).await
    }

    /// The same by way of the server's address, or of a wire to it.
    pub(crate) async fn pair_by(&self, by: SocketAddr) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let to = listener.local_addr().expect("bound");
        let (near, far) = tokio::join!(self.through_by(by, to), listener.accept());
        (near.expect("a stream"), far.expect("the server connected").0)
    }

    /// Waits until this many slots are taken; the pool tells nobody, so this looks again and again.
    pub(crate) async fn until_streams(&self, n: u64) {
        let wait = async {
            while self.pool.counts().1 != n {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        within(wait).await;
    }
}

async fn open(
    credential: Arc<Credential>,
    settings: Arc<TunnelSettings>,
    to: SocketAddr,
) -> Result<Tunnel, TunnelError> {
    let tcp = TcpStream::connect(to).await.expect("loopback");
    let timeout = settings.handshake_timeout;
    let connected = tls::client::connect(&credential, &[server_identity()], tcp, to, timeout).await;
    let connected = connected.map_err(|cause| TunnelError::Tls(Arc::new(cause)))?;
    tunnel::client::open(connected, to, credential.not_after(), settings).await
}

pub(crate) fn request(to: SocketAddr) -> http::Request<()> {
    let authority = to.to_string();
    let connect = Connect {
        authority: &authority,
        baggage: "",
        forwarded: "",
        conn_id: ConnId::from_random(9),
        span: 1,
    };
    connect.request().expect("an address is an authority")
}

/// An application's socket, the other end of which is relayed into the stream.
async fn joined(lease: Lease<SocketAddr>, opened: Opened) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let app = TcpStream::connect(address).await.expect("loopback");
    let (near, _) = listener.accept().await.expect("it connected");
    fakes::start(async move {
        let Opened { send, recv, .. } = opened;
        relay(near, Far::Tunnel { send, recv }, &Counters::default()).await;
        drop(lease);
    });
    app
}
