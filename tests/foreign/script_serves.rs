//! `tests/peers/tunnel_server.py` takes our tunnels: each mode is a row, and the application must be told the truth.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ambit_tests::lab::Background;
use ambit_tests::node::{self, Node, Signer, TUNNEL_PORT, fresh_ip};
use ambit_tests::peers;
use ambit_types::service::Port;
use ambit_types::{AppProtocol, NetworkAddress, Service};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::apps::{dial, identity, is_refused, is_reset, pattern, rest, say, try_dial, until};

struct Stage {
    node: Node,
    script: Background,
    client: IpAddr,
    vip: SocketAddr,
    _signer: Arc<Signer>,
}

impl Stage {
    async fn up(mode: &str) -> Self {
        let signer = Arc::new(Signer::new());
        let folder = signer.files("web", &identity("bank", "web")).display().to_string();
        let node = Node::start(signer.clone());
        let (client, peer) = (fresh_ip(), fresh_ip());
        let own = node::workload("shop", "cart", client, true);
        let pod = node.pod(&own);
        let vip = node.capture(&pod, fresh_ip()).await;
        let mut service = Service::new("bank", "web", "web.bank.svc.cluster.local");
        service.vips = vec![NetworkAddress::new(own.network.clone(), vip.ip())];
        service.ports =
            vec![Port { service_port: vip.port(), target_port: 80, app_protocol: AppProtocol::Unknown }];
        let mut web = node::workload("bank", "web", peer, false);
        web.services.insert(service.key(), service.ports.clone());
        node.learn([own.into(), service.into(), web.into()]);
        let at = SocketAddr::new(peer, TUNNEL_PORT);
        let arguments = [mode.to_owned(), at.to_string(), folder, "web".to_owned()];
        let mut script = peers::script("tunnel_server.py", &arguments);
        peers::until_listening(&mut script, at).await;
        Self { node, script, client, vip, _signer: signer }
    }

    async fn dial(&self) -> TcpStream {
        dial(self.client, self.vip).await
    }

    /// Lines of the script that begin so.
    fn told(&self, word: &str) -> usize {
        self.script.stdout().lines().filter(|line| line.starts_with(word)).count()
    }

    /// An exchange that ends in order at both ends.
    async fn exchange(&self, bytes: usize) {
        let (mut read, mut write) = self.dial().await.into_split();
        let send = async {
            write.write_all(&pattern(bytes)).await.expect("it is taken");
            write.shutdown().await.expect("half-close");
        };
        let mut all = Vec::new();
        let receive = tokio::io::AsyncReadExt::read_to_end(&mut read, &mut all);
        let ((), got) = crate::apps::within(async { tokio::join!(send, receive) }).await;
        got.unwrap_or_else(|e| panic!("{e}; {}{}", self.script.stdout(), self.script.stderr()));
        assert!(all == pattern(bytes), "{} of {bytes} bytes, or others", all.len());
    }

    /// The connection is refused, and the record says why.
    async fn is_refused(&self, reason: &str) {
        let dialled = try_dial(self.client, self.vip).await;
        assert!(is_refused(dialled).await, "a refusal is a reset");
        until("the refusal is recorded", || !self.node.records().is_empty()).await;
        let record = &self.node.records()[0];
        assert_eq!(record["reason"], reason, "{record} {}{}", self.script.stdout(), self.script.stderr());
    }
}

/// Modes in which bytes pass whole and ends pass in order.
async fn carries(mode: &str, bytes: usize) {
    if !peers::are_here() {
        return;
    }
    let stage = Stage::up(mode).await;
    stage.exchange(bytes).await;
    stage.exchange(0).await;
    let mut open = Vec::new();
    for n in 0..5 {
        let mut tcp = stage.dial().await;
        say(&mut tcp, format!("number {n}").as_bytes()).await;
        open.push(tcp);
    }
    for tcp in &mut open {
        say(tcp, b"again").await;
        tcp.shutdown().await.expect("half-close");
        assert!(rest(tcp).await.is_empty());
    }
    until("every connection is recorded", || stage.node.open() == 0).await;
    let records = stage.node.records();
    assert!(records.iter().all(|r| r["verdict"] == "allowed"), "{records:#?}");
    println!("{mode}: {} tunnels", stage.told("tunnel"));
}

/// Modes in which a connection breaks after the first byte: the application must see a reset, never an end.
async fn breaks(mode: &str) {
    if !peers::are_here() {
        return;
    }
    let stage = Stage::up(mode).await;
    let mut tcp = stage.dial().await;
    // The script may have broken off already.
    let _ = tcp.write_all(b"first").await;
    assert!(is_reset(&mut tcp).await, "{mode}: an end in place of a reset");
    until("the connection is recorded", || stage.node.open() == 0).await;
}

/// Modes in which no stream comes about.
async fn refused(mode: &str, reason: &str) {
    if !peers::are_here() {
        return;
    }
    Stage::up(mode).await.is_refused(reason).await;
}

macro_rules! rows {
    ($($check:ident $mode:ident $(($($more:expr),*))?;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $mode() {
                $check(stringify!($mode) $(, $($more),*)?).await;
            }
        )*
    };
}

rows! {
    carries plain(3 << 20);
    carries one_stream(100_000);
    carries window_of_a_byte(2_000);
    carries window_shut_at_first(100_000);
    carries large_tables(100_000);
    carries large_frames(3 << 20);
    carries goaway(100_000);
    carries interim(1_000);
    carries trailers(100_000);
    carries settings_storm(100_000);
    carries ping_storm(100_000);
    carries padded(5_000);
    breaks resets;
    breaks hangs_up;
    breaks pushes;
    refused status_401("policy-denied");
    refused status_403("tunnel-rejected");
    refused status_404("tunnel-rejected");
    refused status_503("connect-refused");
    refused status_204("tunnel-rejected");
    refused status_302("tunnel-rejected");
    refused mute("peer-silent");
    refused large_answer("tunnel-protocol");
    refused tls12("tls-handshake-failed");
    refused other_alpn("tls-handshake-failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_ends_at_once_leaves_our_direction_open() {
    if !peers::are_here() {
        return;
    }
    let stage = Stage::up("ends_at_once").await;
    let mut tcp = stage.dial().await;
    assert!(rest(&mut tcp).await.is_empty());
    tcp.write_all(&pattern(100_000)).await.expect("our direction is open");
    tcp.shutdown().await.expect("half-close");
    until("both ends are done", || stage.node.open() == 0).await;
}

/// RFC 9113, 8.1: NO_ERROR after a whole answer means that the rest of the request is not wanted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_followed_by_a_reset_without_error_is_an_end() {
    if !peers::are_here() {
        return;
    }
    let stage = Stage::up("ends_then_resets").await;
    let mut tcp = stage.dial().await;
    tcp.write_all(b"first").await.expect("it is taken");
    assert_eq!(rest(&mut tcp).await, b"first");
    drop(tcp);
    until("both ends are done", || stage.node.open() == 0).await;
}
