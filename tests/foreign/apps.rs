//! Applications at the ends, and a client that behaves like one.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ambit_tests::fakes;
use ambit_types::Identity;
use tokio::io::{AsyncReadExt, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Longest time anything in these tests may take.
const BOUND: Duration = Duration::from_secs(20);
/// Pause between two looks at a condition.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

#[track_caller]
pub(crate) fn identity(namespace: &str, name: &str) -> Identity {
    Identity::parse(&format!("spiffe://cluster.local/ns/{namespace}/sa/{name}")).expect("an identity")
}

pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, work).await.expect("it hangs")
}

/// Looks again and again until the condition holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let look = async {
        while !holds() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    assert!(tokio::time::timeout(BOUND, look).await.is_ok(), "{what}: it never comes to that");
}

/// How a connection ended, as the application saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// In order, after so many bytes.
    Ended(usize),
    /// By a reset, after so many bytes.
    Reset(usize),
}

/// An application at an address.
#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl App {
    /// Sends back what it gets, and its end with it.
    pub(crate) async fn echo(ip: IpAddr) -> Self {
        let (listener, app) = Self::bind(ip).await;
        let seen = app.seen.clone();
        fakes::start(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                fakes::start(echo(tcp, seen.clone()));
            }
        });
        app
    }

    /// Sends `bytes` at once and ends its direction, then reads to the end.
    pub(crate) async fn source(ip: IpAddr, bytes: usize) -> Self {
        let (listener, app) = Self::bind(ip).await;
        let seen = app.seen.clone();
        fakes::start(async move {
            while let Ok((mut tcp, _)) = listener.accept().await {
                let seen = seen.clone();
                fakes::start(async move {
                    let (mut read, mut write) = tcp.split();
                    let send = async {
                        // The client may break off.
                        let _ = write.write_all(&pattern(bytes)).await;
                        let _ = write.shutdown().await;
                    };
                    let (heard, ()) = tokio::join!(drink(&mut read), send);
                    seen.lock().unwrap_or_else(PoisonError::into_inner).push(heard);
                });
            }
        });
        app
    }

    /// Nobody listens there.
    pub(crate) async fn nobody(ip: IpAddr) -> SocketAddr {
        Self::bind(ip).await.1.address
    }

    async fn bind(ip: IpAddr) -> (TcpListener, Self) {
        let listener = TcpListener::bind((ip, 0)).await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        (listener, Self { address, seen: Arc::default() })
    }

    /// How its connections ended, in that order.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn echo(mut tcp: TcpStream, seen: Arc<Mutex<Vec<Seen>>>) {
    let mut count = 0;
    let mut buffer = vec![0; 64 << 10];
    let end = loop {
        match tcp.read(&mut buffer).await {
            Ok(0) => break Seen::Ended(count),
            Err(_) => break Seen::Reset(count),
            Ok(n) => {
                count += n;
                if tcp.write_all(&buffer[..n]).await.is_err() {
                    break Seen::Reset(count);
                }
            }
        }
    };
    seen.lock().unwrap_or_else(PoisonError::into_inner).push(end);
    // A client that is gone needs no end.
    let _ = tcp.shutdown().await;
}

async fn drink(read: &mut (impl AsyncReadExt + Unpin)) -> Seen {
    let mut count = 0;
    let mut buffer = vec![0; 64 << 10];
    loop {
        match read.read(&mut buffer).await {
            Ok(0) => return Seen::Ended(count),
            Ok(n) => count += n,
            Err(_) => return Seen::Reset(count),
        }
    }
}

/// Bytes whose order can be checked.
pub(crate) fn pattern(bytes: usize) -> Vec<u8> {
    (0..=250).cycle().take(bytes).collect()
}

/// Connects from an address of ours.
pub(crate) async fn dial(from: IpAddr, to: SocketAddr) -> TcpStream {
    try_dial(from, to).await.expect("somebody listens")
}

/// Connects from an address of ours to who may refuse at once: then the reset can come before the call returns.
pub(crate) async fn try_dial(from: IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("an option");
    socket.bind((from, 0).into()).expect("loopback");
    within(socket.connect(to)).await
}

/// Sends and expects the same back.
pub(crate) async fn say(tcp: &mut TcpStream, text: &[u8]) {
    tcp.write_all(text).await.expect("it is taken");
    let mut back = vec![0; text.len()];
    within(tcp.read_exact(&mut back)).await.expect("the echo comes back");
    assert_eq!(back, text);
}

/// Reads to an orderly end.
pub(crate) async fn rest(tcp: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    within(tcp.read_to_end(&mut all)).await.expect("an orderly end");
    all
}

/// Reads until the connection fails; true if it does by a reset.
pub(crate) async fn is_reset(tcp: &mut TcpStream) -> bool {
    let mut all = Vec::new();
    within(tcp.read_to_end(&mut all)).await.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset)
}

/// Whether a connection is refused: by a reset, however soon.
pub(crate) async fn is_refused(dialled: std::io::Result<TcpStream>) -> bool {
    match dialled {
        Ok(mut tcp) => is_reset(&mut tcp).await,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

/// Everything that must work between an application and one behind any tunnel.
pub(crate) async fn traffic(dial: impl AsyncFn() -> TcpStream, echo: &App) {
    const BULK: usize = 8 << 20;
    let mut tcp = dial().await;
    say(&mut tcp, b"hello").await;
    tcp.shutdown().await.expect("half-close");
    assert!(rest(&mut tcp).await.is_empty(), "nothing more comes");
    until("the application sees the end", || echo.seen().contains(&Seen::Ended(5))).await;

    let (mut read, mut write) = dial().await.into_split();
    let send = async {
        write.write_all(&pattern(BULK)).await.expect("it is taken");
        write.shutdown().await.expect("half-close");
    };
    let mut all = Vec::new();
    let ((), got) = within(async { tokio::join!(send, read.read_to_end(&mut all)) }).await;
    got.expect("an orderly end");
    assert!(all == pattern(BULK), "{} of {BULK} bytes, or others", all.len());

    let mut tcp = dial().await;
    say(&mut tcp, b"and gone").await;
    ambit_net::socket::reset_on_close(&tcp);
    drop(tcp);
    // Envoy in front of the application ends its connection in order where a stream was reset.
    let cut = |seen: &Seen| [Seen::Reset(8), Seen::Ended(8)].contains(seen);
    until("the application sees that it is over", || echo.seen().iter().any(cut)).await;
}
