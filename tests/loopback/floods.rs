//! Peers with a valid certificate that flood the tunnel with frames: dismissed after a bounded number of them.

use std::net::SocketAddr;
use std::time::Duration;

use ambit_runtime::clock;
use ambit_tests::certs::{Template, TestCa};
use ambit_tests::fakes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;

use crate::ends::{Server, client_identity, quick, within};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
pub(crate) const END_HEADERS: u8 = 4;
const ENHANCE_YOUR_CALM: u32 = 11;
const COMPRESSION_ERROR: u32 = 9;
/// CANCEL, as the payload of a RST_STREAM.
const CANCEL: [u8; 4] = [0, 0, 0, 8];

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A field whose name is in the static table, not indexed.
fn named(index: u8, value: &[u8]) -> Vec<u8> {
    let length = u8::try_from(value.len()).expect("short");
    [&[index, length][..], value].concat()
}

/// A field with a new name, not indexed; lengths up to 127 + 2^14.
fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[0][..], &length(name.len()), name, &length(value.len()), value].concat()
}

fn length(n: usize) -> Vec<u8> {
    match n.checked_sub(127) {
        None => vec![u8::try_from(n).expect("short")],
        Some(rest) => {
            let low = u8::try_from(rest & 0x7f).expect("7 bits");
            vec![0x7f, low | 0x80, u8::try_from(rest >> 7).expect("short")]
        }
    }
}

/// The head of a CONNECT to an address where nobody listens.
pub(crate) fn connect() -> Vec<u8> {
    [named(2, b"CONNECT"), named(1, b"127.0.0.1:1")].concat()
}

/// A valid peer that writes frames of its own making.
pub(crate) struct Raw {
    write: WriteHalf<TlsStream<TcpStream>>,
    /// Every frame the server sent: kind, stream, payload.
    heard: JoinHandle<Vec<(u8, u32, Vec<u8>)>>,
}

impl Raw {
    pub(crate) async fn open(ca: &TestCa, address: SocketAddr) -> Self {
        let shown = ca.leaf(&Template::leaf(&client_identity().to_string()));
        let tcp = TcpStream::connect(address).await.expect("loopback");
        let stream = fakes::connect_to_anybody(tcp, &shown, &[b"h2"]).await.expect("the certificate is good");
        let (read, mut write) = tokio::io::split(stream);
        let preface = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, &[])].concat();
        write.write_all(&preface).await.expect("open");
        Self { write, heard: fakes::start(listen(read)) }
    }

    /// Sends units until the server hangs up or there are no more; how many were taken.
    pub(crate) async fn flood(&mut self, count: u32, unit: impl Fn(u32) -> Vec<u8>) -> u32 {
        for n in 0..count {
            if self.write.write_all(&unit(n)).await.is_err() {
                return n;
            }
            // The server runs on this very thread: without a turn it would never hang up.
            if n % 32 == 0 {
                tokio::task::yield_now().await;
            }
        }
        count
    }

    /// Ends our side; everything the server said until it hung up.
    pub(crate) async fn hang_up(mut self) -> Vec<(u8, u32, Vec<u8>)> {
        let _ = self.write.shutdown().await;
        self.rest().await
    }

    /// Everything the server said until it hung up.
    async fn rest(mut self) -> Vec<(u8, u32, Vec<u8>)> {
        let _ = self.write.flush().await;
        let heard = within(self.heard).await.expect("no panic");
        drop(self.write);
        heard
    }

    /// The code the server dismissed us with.
    async fn dismissed(self) -> u32 {
        let heard = self.rest().await;
        let goaway = heard.iter().rfind(|(kind, ..)| *kind == GOAWAY);
        let (_, _, payload) = goaway.unwrap_or_else(|| panic!("no GOAWAY, {} frames", heard.len()));
        u32::from_be_bytes(payload[4..8].try_into().expect("four bytes"))
    }
}

async fn listen(mut read: ReadHalf<TlsStream<TcpStream>>) -> Vec<(u8, u32, Vec<u8>)> {
    let mut all = Vec::new();
    let mut head = [0; 9];
    while read.read_exact(&mut head).await.is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).expect("24 bits")];
        if read.read_exact(&mut payload).await.is_err() {
            break;
        }
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        all.push((head[3], stream, payload));
    }
    all
}

/// T-01 (CVE-2023-44487): opening and resetting streams.
#[tokio::test]
async fn rapid_reset_is_dismissed() {
    let ca = TestCa::new();
    let server = Server::start(&ca, quick()).await;
    let mut raw = Raw::open(&ca, server.address).await;
    let begun = clock::monotonic();
    let taken = raw
        .flood(20_000, |n| {
            let stream = 2 * n + 1;
            [frame(HEADERS, END_HEADERS, stream, &connect()), frame(RST_STREAM, 0, stream, &CANCEL)].concat()
        })
        .await;
    let asked = server.asked();
    let took = clock::monotonic().saturating_duration_since(begun);
    assert!(taken < 20_000 || asked < 2_000, "{taken} resets were taken, {asked} streams served in {took:?}");
    assert_eq!(raw.dismissed().await, ENHANCE_YOUR_CALM);
    server.until_served(1).await;
}

/// T-02 (RUSTSEC-2024-0003): frames that make us send resets.
#[tokio::test]
async fn errors_of_the_peers_making_are_dismissed() {
    let ca = TestCa::new();
    let server = Server::start(&ca, quick()).await;
    let mut raw = Raw::open(&ca, server.address).await;
    // Content-length and the length of the body disagree: an error of the stream.
    let bad = [connect(), literal(b"connection", b"close")].concat();
    let taken = raw.flood(20_000, |n| frame(HEADERS, END_HEADERS, 2 * n + 1, &bad)).await;
    assert_eq!(raw.dismissed().await, ENHANCE_YOUR_CALM, "{taken} taken");
    assert_eq!(server.asked(), 0);
}

/// T-03 (CVE-2024-27919): header blocks without end.
#[tokio::test]
async fn endless_continuation_is_dismissed() {
    for piece in [0_usize, 1, 1000] {
        let ca = TestCa::new();
        let server = Server::start(&ca, quick()).await;
        let mut raw = Raw::open(&ca, server.address).await;
        raw.flood(1, |_| frame(HEADERS, 0, 1, &connect())).await;
        let field = literal(b"x", &vec![b'a'; piece.saturating_sub(5)]);
        let unit = if piece < 6 { vec![0; piece] } else { field };
        raw.flood(20_000, |_| frame(CONTINUATION, 0, 1, &unit)).await;
        let code = raw.dismissed().await;
        assert!(code != 0, "pieces of {piece} bytes: code {code}");
        server.until_served(1).await;
        assert_eq!(server.asked(), 0);
    }
}

/// T-04 (RUSTSEC-2026-0258): empty DATA frames on a stream nobody drains.
#[tokio::test]
async fn empty_data_frames_are_dismissed() {
    let ca = TestCa::new();
    let server = Server::start(&ca, quick()).await;
    server.stall();
    let mut raw = Raw::open(&ca, server.address).await;
    raw.flood(1, |_| frame(HEADERS, END_HEADERS, 1, &connect())).await;
    server.until_asked(1).await;
    raw.flood(200_000, |_| frame(DATA, 0, 1, &[])).await;
    assert_eq!(raw.dismissed().await, ENHANCE_YOUR_CALM);
}

/// T-05 (CVE-2026-47774): limits hold for decoded header bytes.
#[tokio::test]
async fn header_bombs_are_refused() {
    let ca = TestCa::new();
    let server = Server::start(&ca, quick()).await;
    let fields = |n: usize, bytes: usize| {
        let each = |i: usize| literal(format!("x-{i}").as_bytes(), &vec![b'a'; bytes]);
        [connect(), (0..n).flat_map(each).collect()].concat()
    };
    let rows: [(&str, Vec<u8>, bool); 4] = [
        ("32 short fields", fields(32, 10), true),
        ("33 short fields", fields(33, 10), false),
        ("8 KiB in few fields", fields(9, 1000), false),
        ("14 KiB in few fields", fields(14, 1000), false),
    ];
    for (name, block, fits) in rows {
        let mut raw = Raw::open(&ca, server.address).await;
        raw.flood(1, |_| frame(HEADERS, END_HEADERS, 1, &block)).await;
        // Ends our side of the connection in order, so that the server answers and leaves.
        raw.flood(1, |_| frame(GOAWAY, 0, 0, &[0; 8])).await;
        let heard = raw.rest().await;
        let answer = heard.iter().find(|(kind, stream, _)| *kind == HEADERS && *stream == 1);
        let (_, _, head) = answer.unwrap_or_else(|| panic!("{name}: no answer, {heard:?}"));
        // Anything but a 431 (in Huffman's code) means that it was read: nobody listens at the address asked for.
        let too_large = head.windows(3).any(|w| w == [0x69, 0x90, 0xff]);
        assert_eq!(!too_large, fits, "{name}: {head:x?}");
    }
}

/// T-05: peers are told to remember no fields, and one who does so still pays for what its references decode to.
#[tokio::test]
async fn references_to_headers_count_as_what_they_decode_to() {
    let ca = TestCa::new();
    let server = Server::start(&ca, quick()).await;
    let mut raw = Raw::open(&ca, server.address).await;
    // Once with "remember this", then by its number in the table: 1,000 bytes that mean 90,000.
    let field = [&[0x40][..], &length(1), b"x", &length(900), &[b'a'; 900]].concat();
    let block = [connect(), field, vec![0xbe; 100]].concat();
    raw.flood(1, |_| frame(HEADERS, END_HEADERS, 1, &block)).await;
    let heard = raw.rest().await;
    let settings = heard.iter().find(|(kind, ..)| *kind == SETTINGS).expect("the server's settings");
    let entries: Vec<&[u8]> = settings.2.chunks(6).collect();
    assert!(entries.contains(&&[0, 1, 0, 0, 0, 0][..]), "no table size of 0 in {entries:x?}");
    let goaway = heard.iter().rfind(|(kind, ..)| *kind == GOAWAY).expect("dismissed");
    let code = u32::from_be_bytes(goaway.2[4..8].try_into().expect("four bytes"));
    assert!([ENHANCE_YOUR_CALM, COMPRESSION_ERROR].contains(&code), "code {code}");
    assert_eq!(server.asked(), 0);
}

/// A flood of one peer does not take the server from others.
#[tokio::test]
async fn others_are_served_during_a_flood() {
    let ca = TestCa::new();
    let server = Server::start(&ca, quick()).await;
    let begun = clock::monotonic();
    for _ in 0..3 {
        let mut raw = Raw::open(&ca, server.address).await;
        raw.flood(2_000, |n| {
            let stream = 2 * n + 1;
            [frame(HEADERS, END_HEADERS, stream, &connect()), frame(RST_STREAM, 0, stream, &CANCEL)].concat()
        })
        .await;
        let client = crate::ends::Client::new(&ca, quick());
        // Refused, because nobody listens there: but answered.
        within(client.through(&server, ([127, 0, 0, 1], 1).into())).await.expect_err("nobody listens");
    }
    let took = clock::monotonic().saturating_duration_since(begun);
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert_eq!(server.errors().len(), 3, "{:?}", server.errors());
}
