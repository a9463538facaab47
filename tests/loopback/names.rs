//! Workloads that have a name instead of an address: what a nameserver may say, and that no connection follows from it
//! where it must not. Addresses that are reached are shown in namespaces, since loopback's own are refused.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ambit_net::dns::Servers;
use ambit_state::Change;
use ambit_tests::certs::TestCa;
use ambit_tests::fakes;
use ambit_types::{Reason, TunnelProtocol, Workload};
use tokio::io::AsyncReadExt as _;
use tokio::net::UdpSocket;

use crate::ends::within;
use crate::node::{Addresses, Capture, NODE, Node, service, workload};

/// What a nameserver sends for a question.
type Reply = fn(&[u8]) -> Vec<Vec<u8>>;

/// Starts a nameserver; counts what it is asked.
async fn nameserver(reply: Reply) -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
    let (address, asked) = (socket.local_addr().expect("bound"), Arc::new(AtomicUsize::new(0)));
    let count = asked.clone();
    fakes::start(async move {
        let mut question = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut question).await {
            count.fetch_add(1, Ordering::SeqCst);
            for datagram in reply(&question[..length]) {
                socket.send_to(&datagram, client).await.expect("loopback");
            }
        }
    });
    (address, asked)
}

/// A response to a question with a code and records (RFC 1035 section 4.1).
fn response(question: &[u8], code: u8, records: &[u8], count: u8) -> Vec<Vec<u8>> {
    let head = [question[0], question[1], 0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0];
    vec![[&head[..], &question[12..], records].concat()]
}

/// An A record of the name that was asked for, which lives for a minute.
fn address(octets: [u8; 4]) -> Vec<u8> {
    [&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4][..], &octets].concat()
}

/// A workload by name.
fn by_name(key: &str, host: &str) -> Workload {
    let mut workload = workload(key, "n2", [0, 0, 0, 0].into());
    workload.addresses.clear();
    workload.hostname = host.into();
    workload.tunnel = TunnelProtocol::None;
    workload
}

/// Opens a connection to a service whose endpoint is known by name, twice, and wants both refused.
async fn refused(what: &str, nameservers: Vec<SocketAddr>, want: &str) {
    let ca = Arc::new(TestCa::new());
    let addresses = Addresses::new();
    let capture = Capture::at(addresses.at(9, 0)).await;
    let mut api = [by_name("bank/api", "api.example")];
    let service = service("bank/api", addresses.ip(9), capture.address().port(), &mut api);
    let [api] = api;
    let cart = workload("shop/cart", NODE, addresses.ip(1));
    let world = [Change::from(api), cart.into(), service.into()];
    let node = Node::new(&ca, world, |settings| settings.nameservers = Arc::new(Servers::These(nameservers)));
    let pod = node.pod("shop/cart");
    for _ in 0..2 {
        let (proxy, pod) = (node.proxy.clone(), pod.clone());
        let serve = |tcp, from| ztunnel::outbound::serve(proxy, pod, tcp, from);
        let (mut app, served) = capture.connect(addresses.ip(1), serve).await;
        assert!(within(app.read_u8()).await.is_err(), "{what}: it was answered");
        within(served).await.expect("it ends");
    }
    let record = node.record(Reason::DnsUpstreamFailed.code()).await;
    assert!(record["error"].as_str().is_some_and(|error| error.contains(want)), "{what}: {record:#}");
    assert_eq!((&record["verdict"], &record["path"]), (&"denied".into(), &"plaintext".into()), "{what}");
    let service = record["service"].as_str().unwrap_or_default();
    assert!(service.starts_with("api.bank."), "{what}: {record:#}");
}

#[tokio::test]
async fn what_is_not_resolved_is_refused_with_the_nameservers_word() {
    let rows: [(&str, Reply, &str); 6] = [
        ("NXDOMAIN", |q| response(q, 3, &[], 0), "says that api.example does not exist (NXDOMAIN)"),
        ("SERVFAIL", |q| response(q, 2, &[], 0), "answers \"Server Failure\" for api.example"),
        ("REFUSED", |q| response(q, 5, &[], 0), "answers \"Query Refused\" for api.example"),
        ("no address", |q| response(q, 0, &[], 0), "has no address in the families that may be used"),
        ("garbage", |_| vec![b"HTTP/1.1 400 Bad Request".to_vec(); 16], "is no DNS answer to the question"),
        (
            "loopback",
            |q| response(q, 0, &address([127, 0, 0, 1]), 1),
            "resolves to 127.0.0.1, which is loopback",
        ),
    ];
    for (what, reply, want) in rows {
        let (server, asked) = nameserver(reply).await;
        refused(what, vec![server], want).await;
        // One nameserver is asked twice at most; the second connection goes by what the first was told.
        let times = asked.load(Ordering::SeqCst);
        assert!((1..=2).contains(&times), "{what}: asked {times} times for two connections");
    }
}

#[tokio::test]
async fn nobody_to_ask_refuses_as_well() {
    refused("no nameserver", Vec::new(), "no nameserver is named").await;
    let gone = UdpSocket::bind("127.0.0.1:0").await.and_then(|socket| socket.local_addr()).expect("loopback");
    refused("a port that nothing listens on", vec![gone], "exchanging messages with nameserver").await;
}

/// An address that is told to somebody is no way to the metadata service of a cloud either.
#[tokio::test]
async fn no_name_leads_to_the_link() {
    let (server, _) = nameserver(|q| response(q, 0, &address([169, 254, 169, 254]), 1)).await;
    refused("link-local", vec![server], "which is link-local").await;
}
