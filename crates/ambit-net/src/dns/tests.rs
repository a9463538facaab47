//! A resolver against nameservers that answer, lie, refuse and say nothing.

use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record};
use tokio::net::{TcpListener, UdpSocket};

use super::*;
use crate::socket::SocketOptions;

/// Long enough for loopback, short enough for a test that waits for all of it.
const LIMIT: Duration = Duration::from_millis(600);

/// A nameserver and how often it was asked.
struct Nameserver {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Nameserver {
    /// Sends what `reply` makes of each question.
    async fn start(reply: impl Fn(&Message) -> Vec<Vec<u8>> + Send + 'static) -> Self {
        Self::at(UdpSocket::bind("127.0.0.1:0").await.unwrap(), reply)
    }

    fn at(socket: UdpSocket, reply: impl Fn(&Message) -> Vec<Vec<u8>> + Send + 'static) -> Self {
        let (address, asked) = (socket.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let count = asked.clone();
        beside(async move {
            let mut buffer = [0; 512];
            while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
                let question = Message::from_vec(&buffer[..length]).unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                for datagram in reply(&question) {
                    socket.send_to(&datagram, client).await.unwrap();
                }
            }
        });
        Self { address, asked }
    }

    fn count(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[expect(clippy::disallowed_methods, reason = "a test starts its own peers")]
fn beside(work: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(work);
}

fn answer(question: &Message, change: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut reply = Message::response(question.metadata.id, OpCode::Query);
    reply.queries.clone_from(&question.queries);
    change(&mut reply);
    reply.to_vec().unwrap()
}

fn with_address(question: &Message, last: u8) -> Vec<u8> {
    answer(question, |reply| {
        let data = RData::A(A::new(192, 0, 2, last));
        reply.answers.push(Record::from_rdata(question.queries[0].name.clone(), 60, data));
    })
}

fn coded(question: &Message, code: ResponseCode) -> Vec<u8> {
    answer(question, |reply| reply.metadata.response_code = code)
}

fn resolver(servers: &[SocketAddr]) -> Resolver {
    let sockets = SocketFactory::new(None, Arc::new(SocketOptions::default()));
    let servers = Arc::new(Servers::These(servers.to_vec()));
    let mut resolver = Resolver::new(servers, sockets, || 0x4321 << 48);
    resolver.limit = LIMIT;
    resolver
}

async fn resolve(resolver: &Resolver) -> Result<Vec<IpAddr>, DnsError> {
    resolver.resolve(&"api.example".into(), IpFamily::V4).await.map(|all| all.to_vec())
}

#[tokio::test]
async fn one_question_serves_all_who_ask_while_its_answer_holds() {
    let server = Nameserver::start(|question| vec![with_address(question, 1)]).await;
    let resolver = resolver(&[server.address]);
    let (first, second) = tokio::join!(resolve(&resolver), resolve(&resolver));
    let third = resolve(&resolver).await;
    for told in [first, second, third] {
        assert_eq!(told.unwrap(), [IpAddr::from([192, 0, 2, 1])]);
    }
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn failures_are_told_apart() {
    let rows: [(&str, Vec<Vec<u8>>, &str, usize); 3] = [
        ("silent", vec![], "no answer from nameserver", ROUNDS),
        ("garbage", vec![b"HTTP/1.1 400 Bad Request".to_vec()], "is no DNS answer to the question", ROUNDS),
        ("a flood of it", vec![vec![0; 40]; STRAYS_MAX], "is no DNS answer to the question", ROUNDS),
    ];
    for (what, datagrams, want, times) in rows {
        let server = Nameserver::start(move |_| datagrams.clone()).await;
        fails(what, &server, want, times).await;
    }
    let rows = [
        (ResponseCode::NXDomain, "does not exist (NXDOMAIN)", 1),
        (ResponseCode::ServFail, "answers \"Server Failure\" for api.example", ROUNDS),
        (ResponseCode::Refused, "answers \"Query Refused\" for api.example", ROUNDS),
    ];
    for (code, want, times) in rows {
        let server = Nameserver::start(move |question| vec![coded(question, code)]).await;
        fails(code.to_str(), &server, want, times).await;
    }
}

async fn fails(what: &str, server: &Nameserver, want: &str, times: usize) {
    let error = resolve(&resolver(&[server.address])).await.expect_err(what);
    assert!(error.to_string().contains(want), "{what}: {error}");
    assert_eq!(error.reason(), Reason::DnsUpstreamFailed, "{what}");
    assert_eq!(server.count(), times, "{what}");
}

#[tokio::test]
async fn a_port_that_nothing_listens_on_fails_at_once() {
    let gone = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let begun = clock::monotonic();
    let error = resolve(&resolver(&[gone])).await.unwrap_err();
    assert!(matches!(error, DnsError::Exchange { .. }), "{error:?}");
    assert!(clock::monotonic() - begun < LIMIT / 2, "it waited");
}

#[tokio::test]
async fn a_name_without_addresses_exists() {
    let server = Nameserver::start(|question| vec![answer(question, |_| {})]).await;
    assert_eq!(resolve(&resolver(&[server.address])).await.unwrap(), Vec::<IpAddr>::new());
}

#[tokio::test]
async fn forgeries_that_come_first_are_passed_over() {
    let server = Nameserver::start(|question| {
        let mut guessed = with_address(question, 66);
        guessed[0] ^= 1;
        let mut other = question.clone();
        other.queries[0].name = hickory_proto::rr::Name::from_ascii("api.example.org.").unwrap();
        vec![guessed, with_address(&other, 67), b"?".to_vec(), with_address(question, 1)]
    })
    .await;
    let told = resolve(&resolver(&[server.address])).await.unwrap();
    assert_eq!(told, [IpAddr::from([192, 0, 2, 1])]);
}

#[tokio::test]
async fn the_next_nameserver_is_asked_where_one_fails_and_not_where_it_answers() {
    let good = || Nameserver::start(|question| vec![with_address(question, 2)]);
    let fails = Nameserver::start(|question| vec![coded(question, ResponseCode::ServFail)]).await;
    let silent = Nameserver::start(|_| vec![]).await;
    for first in [fails, silent] {
        let second = good().await;
        let told = resolve(&resolver(&[first.address, second.address])).await.unwrap();
        assert_eq!(told, [IpAddr::from([192, 0, 2, 2])]);
        assert_eq!((first.count(), second.count()), (1, 1));
    }
    let (no, second) =
        (Nameserver::start(|question| vec![coded(question, ResponseCode::NXDomain)]).await, good().await);
    let told = resolve(&resolver(&[no.address, second.address])).await;
    assert!(matches!(told, Err(DnsError::NoName { .. })), "{told:?}");
    assert_eq!(second.count(), 0);
}

#[tokio::test]
async fn an_answer_that_did_not_fit_is_asked_for_by_tcp() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // The other protocol's ports are counted apart; somebody may have this one there.
    let Ok(socket) = UdpSocket::bind(listener.local_addr().unwrap()).await else { return };
    let server =
        Nameserver::at(socket, |question| vec![answer(question, |reply| reply.metadata.truncation = true)]);
    beside(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut bytes).await.unwrap();
        let whole = with_address(&Message::from_vec(&bytes).unwrap(), 3);
        stream.write_u16(u16::try_from(whole.len()).unwrap()).await.unwrap();
        stream.write_all(&whole).await.unwrap();
    });
    let told = resolve(&resolver(&[server.address])).await.unwrap();
    assert_eq!(told, [IpAddr::from([192, 0, 2, 3])]);
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn nobody_to_ask_is_an_error() {
    assert!(matches!(resolve(&resolver(&[])).await, Err(DnsError::NoServer { .. })));
    let wild = resolver(&[]).resolve(&"*.example".into(), IpFamily::V4).await;
    assert!(matches!(wild, Err(DnsError::Name { .. })), "{wild:?}");
}
