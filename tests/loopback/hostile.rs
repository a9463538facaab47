//! Strangers at both ends of a tunnel: refused in the handshake, with a reason, in time, and nobody hears of them.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use ambit_net::tls::{self, Credential, TlsError};
use ambit_runtime::clock;
use ambit_tests::certs::{Shown, Template, TestCa, now};
use ambit_tests::corpus::{self, PEER};
use ambit_tests::fakes;
use ambit_types::{Identity, Reason};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Longest time one case may take.
const BOUND: Duration = Duration::from_secs(5);
/// What a stranger would like an application to read.
const MARKER: &[u8] = b"let me in";

fn identity(text: &str) -> Identity {
    Identity::parse(text).expect("an identity")
}

fn own() -> Identity {
    identity("spiffe://cluster.local/ns/bank/sa/web")
}

#[tokio::test]
async fn a_server_refuses_strangers_in_the_handshake() {
    let ca = TestCa::new();
    let credential = ca.credential(&own());
    let mut report = Report::default();
    for case in corpus::cases(&ca) {
        let shown = case.shown.clone();
        let got = at_server(&credential, |tcp| async move { as_client(tcp, &shown, &[b"h2"]).await }).await;
        report.row(case.name, &got, case.want);
    }
    report.end(70);
}

#[tokio::test]
async fn a_client_refuses_strangers_in_the_handshake() {
    let ca = TestCa::new();
    let credential = ca.credential(&own());
    let mut report = Report::default();
    for case in corpus::cases(&ca) {
        let got = at_client(&credential, &[identity(PEER)], case.shown).await;
        report.row(case.name, &got, case.want);
    }
    report.end(70);
}

/// Rule 9: a clock may be a minute off, no more.
#[tokio::test]
async fn the_allowance_for_clocks_is_a_minute() {
    let ca = TestCa::new();
    let credential = ca.credential(&own());
    let mut report = Report::default();
    for (ahead, want) in [(30, "accepted"), (57, "accepted"), (64, "AMB2003"), (120, "AMB2003")] {
        let shown = ca.leaf(&Template { not_before: now() + ahead, ..Template::leaf(PEER) });
        let got = at_server(&credential, |tcp| async move { as_client(tcp, &shown, &[b"h2"]).await }).await;
        report.row(&format!("{ahead} s ahead"), &got, want);
    }
    report.end(4);
}

#[tokio::test]
async fn a_client_refuses_a_valid_peer_that_is_not_the_one_expected() {
    let ca = TestCa::new();
    let credential = ca.credential(&own());
    let mut report = Report::default();
    let cart = identity(PEER);
    let other = identity("spiffe://cluster.local/ns/shop/sa/pay");
    let rows: [(&str, Vec<Identity>, &str); 4] = [
        ("another account", vec![other.clone()], "AMB2005 rule 11"),
        ("nobody is expected", vec![], "AMB2005 rule 11"),
        ("one of two", vec![other, cart.clone()], "accepted"),
        ("that one", vec![cart], "accepted"),
    ];
    for (name, expected, want) in rows {
        let shown = ca.leaf(&Template::leaf(PEER));
        report.row(name, &at_client(&credential, &expected, shown).await, want);
    }
    report.end(4);
}

#[tokio::test]
async fn a_server_refuses_everything_that_is_no_proper_handshake() {
    let ca = TestCa::new();
    let credential = ca.credential(&own());
    let shown = ca.leaf(&Template::leaf(PEER));
    let mut report = Report::default();
    let (one, two, three) = (shown.clone(), shown.clone(), shown.clone());
    let got = at_server(&credential, |tcp| async move { as_client(tcp, &one, &[b"http/1.1"]).await }).await;
    report.row("another ALPN", &got, "AMB2008");
    let got = at_server(&credential, |tcp| async move { as_client(tcp, &two, &[]).await }).await;
    report.row("no ALPN", &got, "AMB2008");
    let nobody = Shown { chain: Vec::new(), key: three.key };
    let got = at_server(&credential, |tcp| async move { as_client(tcp, &nobody, &[b"h2"]).await }).await;
    report.row("no client certificate", &got, "AMB2008");
    let mut record = vec![0x17, 3, 3, 0xff, 0xff];
    record.resize(70_000, 0);
    let raw: [(&str, Vec<u8>); 7] = [
        ("only TLS 1.2", fakes::client_hello_tls12()),
        ("plain HTTP", b"GET / HTTP/1.1\r\nHost: web\r\n\r\n".to_vec()),
        ("plain HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("SSL 3 record", vec![0x16, 3, 0, 0, 4, 1, 0, 0, 0]),
        ("a record longer than any", record),
        ("an alert first", vec![0x15, 3, 3, 0, 2, 1, 0]),
        ("nothing, then the end", Vec::new()),
    ];
    for (name, bytes) in raw {
        let got = at_server(&credential, |tcp| as_bytes(tcp, bytes)).await;
        report.row(name, &got, "AMB2008");
    }
    report.end(10);
}

#[tokio::test]
async fn a_client_refuses_tls_1_2() {
    let ca = TestCa::new();
    let credential = ca.credential(&own());
    let (listener, address) = listen().await;
    let server = fakes::start(async move {
        let (tcp, _) = listener.accept().await.expect("a client comes");
        as_bytes(tcp, fakes::server_hello_tls12()).await
    });
    let tcp = TcpStream::connect(address).await.expect("loopback");
    let error = tls::client::connect(&credential, &[identity(PEER)], tcp, address, BOUND).await.unwrap_err();
    assert_eq!(words(&error), "AMB2008");
    server.await.expect("the server ends");
}

/// T-45: a handshake in pieces of one byte is as good as any.
#[tokio::test]
async fn a_handshake_byte_by_byte_is_accepted() {
    let ca = TestCa::new();
    let credential = ca.credential(&own());
    let shown = ca.leaf(&Template::leaf(PEER));
    let got = at_server(&credential, |tcp| async move {
        tcp.set_nodelay(true).expect("loopback");
        as_client(fakes::Dribble(tcp), &shown, &[b"h2"]).await
    })
    .await;
    assert_eq!(got.outcome, "accepted");
}

/// G8, T-45: peers that begin a handshake and stop cost a bounded time, whatever they have sent.
#[tokio::test]
async fn half_a_handshake_ends_in_time() {
    let ca = TestCa::new();
    let credential = ca.credential(&own());
    let hello = fakes::client_hello_tls12();
    let allowed = Duration::from_millis(400);
    for sent in [0, 1, 5, 40, hello.len() - 1] {
        let (listener, address) = listen().await;
        let mut client = TcpStream::connect(address).await.expect("loopback");
        client.write_all(&hello[..sent]).await.expect("loopback");
        let (tcp, peer) = listener.accept().await.expect("a client came");
        let begun = clock::monotonic();
        let error = tls::server::accept(&credential, tcp, peer, allowed).await.unwrap_err();
        let took = clock::monotonic().saturating_duration_since(begun);
        assert!(matches!(error, TlsError::Timeout { .. }), "{sent} bytes: {error:?}");
        assert_eq!(error.reason(), Reason::TlsHandshakeFailed);
        assert!(took >= allowed && took < allowed * 8, "{sent} bytes: {took:?}");
    }
}

/// A stranger's connection, as the side under test saw it.
struct Got {
    outcome: String,
    took: Duration,
    /// Bytes of the stranger that were delivered.
    delivered: usize,
}

#[derive(Default)]
struct Report {
    rows: usize,
    refused: usize,
    wrong: String,
}

impl Report {
    fn row(&mut self, name: &str, got: &Got, want: &str) {
        self.rows += 1;
        self.refused += usize::from(want != "accepted");
        let delivered = if want == "accepted" { MARKER.len() } else { 0 };
        if got.outcome != want || got.delivered != delivered || got.took > BOUND {
            let Got { outcome, took, delivered } = got;
            let _ = writeln!(self.wrong, "{name}: {outcome}, expected {want}; {delivered} bytes, {took:?}");
        }
    }

    #[track_caller]
    fn end(self, rows_min: usize) {
        assert!(self.wrong.is_empty(), "{} rows:\n{}", self.rows, self.wrong);
        assert!(self.rows >= rows_min, "only {} rows", self.rows);
    }
}

/// The code of a refusal and the number of the rule, if one was broken.
fn words(error: &TlsError) -> String {
    match error.rule() {
        Some(rule) => format!("{} rule {rule}", error.reason().code()),
        None => error.reason().code().to_owned(),
    }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    (listener, address)
}

/// Puts a stranger before our server.
async fn at_server<F, W>(credential: &Credential, stranger: F) -> Got
where
    F: FnOnce(TcpStream) -> W,
    W: Future<Output = ()> + Send + 'static,
{
    let (listener, address) = listen().await;
    let stranger = fakes::start(stranger(TcpStream::connect(address).await.expect("loopback")));
    let (tcp, peer) = listener.accept().await.expect("the stranger came");
    let begun = clock::monotonic();
    let accepted = tls::server::accept(credential, tcp, peer, BOUND).await;
    let took = clock::monotonic().saturating_duration_since(begun);
    let got = match accepted {
        Ok(accepted) => {
            assert_eq!(accepted.peer, identity(PEER));
            Got { outcome: "accepted".to_owned(), took, delivered: delivered(accepted.stream).await }
        }
        Err(error) => Got { outcome: words(&error), took, delivered: 0 },
    };
    within(stranger).await.expect("the stranger ends");
    got
}

/// Puts a stranger behind our client.
async fn at_client(credential: &Credential, expected: &[Identity], shown: Shown) -> Got {
    let (listener, address) = listen().await;
    let heard = fakes::start(async move {
        let (tcp, _) = listener.accept().await.expect("the client came");
        fakes::accept_anybody(tcp, &shown).await
    });
    let begun = clock::monotonic();
    let tcp = TcpStream::connect(address).await.expect("loopback");
    let connected = tls::client::connect(credential, expected, tcp, address, BOUND).await;
    let took = clock::monotonic().saturating_duration_since(begun);
    let outcome = match connected {
        Ok(mut connected) => {
            connected.stream.write_all(MARKER).await.expect("the peer reads");
            connected.stream.shutdown().await.expect("the peer reads");
            "accepted".to_owned()
        }
        Err(error) => words(&error),
    };
    Got { outcome, took, delivered: within(heard).await.expect("the stranger ends") }
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND * 2, work).await.expect("it hangs")
}

/// How many bytes a peer had to say.
async fn delivered(mut stream: impl AsyncRead + Unpin) -> usize {
    let mut all = Vec::new();
    // A peer that breaks off has said what it has said.
    let _ = within(stream.read_to_end(&mut all)).await;
    all.len()
}

/// Shows a chain, says the marker as soon as TLS lets it, and leaves when the other side does.
async fn as_client<S>(tcp: S, shown: &Shown, alpn: &[&[u8]])
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if let Ok(mut stream) = fakes::connect_to_anybody(tcp, shown, alpn).await {
        // The server may have hung up already.
        let _ = stream.write_all(MARKER).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty(), "a server said {} bytes to a stranger", answer.len());
    }
}

/// Says bytes, ends its side, and waits for the other side to go.
async fn as_bytes(mut tcp: TcpStream, bytes: Vec<u8>) {
    let _ = tcp.write_all(&bytes).await;
    let _ = tcp.shutdown().await;
    let _ = tcp.read_to_end(&mut Vec::new()).await;
}
