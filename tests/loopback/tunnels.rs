//! Tunnels between two of our own ends: what applications see through them, and how they end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ambit_hbone::pool::Limits;
use ambit_net::tls::TlsError;
use ambit_net::tunnel::TunnelSettings;
use ambit_net::tunnel::client::TunnelError;
use ambit_runtime::clock;
use ambit_tests::certs::{TestCa, now};
use ambit_tests::fakes;
use ambit_types::Reason;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::ends::{Client, Server, quick, server_identity, within};

/// A closed port of loopback.
async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    listener.local_addr().expect("bound")
}

async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    fakes::start(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            fakes::start(async move {
                let (mut read, mut write) = tcp.split();
                // The client may break off.
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    address
}

async fn say(tcp: &mut TcpStream, text: &[u8]) {
    tcp.write_all(text).await.expect("the tunnel takes it");
    let mut back = vec![0; text.len()];
    within(tcp.read_exact(&mut back)).await.expect("the echo comes back");
    assert_eq!(back, text);
}

#[tokio::test]
async fn bytes_go_both_ways_and_ends_pass() {
    let ca = TestCa::new();
    let server = Server::start(&ca, quick()).await;
    let client = Client::new(&ca, quick());
    let mut app = client.through(&server, echo().await).await.expect("a stream");
    say(&mut app, b"hello").await;
    app.shutdown().await.expect("half-close");
    let mut rest = Vec::new();
    within(app.read_to_end(&mut rest)).await.expect("an orderly end");
    assert!(rest.is_empty());
}

#[tokio::test]
async fn half_close_leaves_the_other_direction_open() {
    let ca = TestCa::new();
    let server = Server::start(&ca, quick()).await;
    let client = Client::new(&ca, quick());
    for client_first in [true, false] {
        let (mut near, mut far) = client.pair(&server).await;
        let (first, second) = if client_first { (&mut near, &mut far) } else { (&mut far, &mut near) };
        first.write_all(b"that is all").await.expect("open");
        first.shutdown().await.expect("open");
        let mut heard = Vec::new();
        within(second.read_to_end(&mut heard)).await.expect("an orderly end");
        assert_eq!(heard, b"that is all");
        second.write_all(&[7; 100_000]).await.expect("still open");
        second.shutdown().await.expect("still open");
        let mut heard = Vec::new();
        within(first.read_to_end(&mut heard)).await.expect("an orderly end");
        assert_eq!(heard.len(), 100_000, "client first: {client_first}");
    }
}

#[tokio::test]
async fn a_reset_is_a_reset_at_the_other_end() {
    let ca = TestCa::new();
    let server = Server::start(&ca, quick()).await;
    let client = Client::new(&ca, quick());
    for by_client in [true, false] {
        let (near, far) = client.pair(&server).await;
        let (first, mut second) = if by_client { (near, far) } else { (far, near) };
        ambit_net::socket::reset_on_close(&first);
        drop(first);
        let error = within(second.read(&mut [0; 8])).await.expect_err("no orderly end");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "by client: {by_client}");
    }
}

#[tokio::test]
async fn bulk_passes_whole_against_a_slow_reader() {
    const BYTES: usize = 24 << 20;
    let ca = TestCa::new();
    let server = Server::start(&ca, quick()).await;
    let client = Client::new(&ca, quick());
    let (mut near, mut far) = client.pair(&server).await;
    let writer = fakes::start(async move {
        let unit: Vec<u8> = (0..=250).collect();
        let all = unit.repeat(BYTES / unit.len());
        near.write_all(&all).await.expect("open");
        near.shutdown().await.expect("open");
        (near, all.len())
    });
    let mut got = 0_usize;
    let mut piece = vec![0; 50_000];
    loop {
        let n = within(far.read(&mut piece)).await.expect("open");
        if n == 0 {
            break;
        }
        assert!((0..n).all(|i| usize::from(piece[i]) == (got + i) % 251), "bytes differ after {got}");
        got += n;
    }
    assert_eq!(got, within(writer).await.expect("no panic").1);
}

#[tokio::test]
async fn refusals_carry_status_and_reason() {
    let ca = TestCa::new();
    let server = Server::start(&ca, quick()).await;
    let client = Client::new(&ca, quick());
    let error = client.through(&server, nobody().await).await.unwrap_err();
    let TunnelError::Refused { status, reason, .. } = &error else { panic!("{error:?}") };
    assert_eq!((status.as_u16(), *reason), (503, Reason::ConnectRefused));
    assert!(error.is_before_any_byte() && !error.is_of_the_tunnel());
    server.deny(Some(Reason::DenyRuleMatched));
    let error = client.through(&server, echo().await).await.unwrap_err();
    let TunnelError::Refused { status, reason, .. } = &error else { panic!("{error:?}") };
    assert_eq!((status.as_u16(), *reason), (401, Reason::DenyRuleMatched));
    assert!(!error.is_before_any_byte(), "a policy's answer is final");
    server.deny(None);
    let mut app = client.through(&server, echo().await).await.expect("the tunnel lives on");
    say(&mut app, b"still here").await;
    assert_eq!(server.tunnels(), 1);
}

#[tokio::test]
async fn streams_share_tunnels_up_to_the_limit_and_slots_come_back() {
    let ca = TestCa::new();
    let server = Server::start(&ca, quick()).await;
    let limits = Limits { streams_per_tunnel: 4, ..Limits::default() };
    let client = Client::with(&ca, quick(), limits);
    let to = echo().await;
    let mut apps = Vec::new();
    for n in 0..10 {
        apps.push(client.through(&server, to).await.unwrap_or_else(|e| panic!("stream {n}: {e}")));
    }
    assert_eq!((server.tunnels(), client.pool.counts()), (3, (3, 10)));
    for app in &mut apps {
        say(app, b"each").await;
    }
    apps.truncate(1);
    client.until_streams(1).await;
    for _ in 0..11 {
        apps.push(client.through(&server, to).await.expect("a slot is free again"));
    }
    assert_eq!(server.tunnels(), 3, "no tunnel was opened while others had room");
}

/// A peer's own limit counts, whatever ours is.
#[tokio::test]
async fn a_peer_that_allows_fewer_streams_is_asked_for_no_more() {
    let ca = TestCa::new();
    let server = Server::start(&ca, TunnelSettings { streams_max: 2, ..quick() }).await;
    let client = Client::new(&ca, quick());
    let to = echo().await;
    let mut apps = Vec::new();
    for n in 0..6 {
        let mut app = within(client.through(&server, to)).await.unwrap_or_else(|e| panic!("stream {n}: {e}"));
        say(&mut app, b"room").await;
        apps.push(app);
    }
    assert!(server.tunnels() >= 3, "{} tunnels of 2 streams for 6", server.tunnels());
}

/// G34: those who wait for a tunnel that somebody else opens hear of its failure.
#[tokio::test]
async fn waiters_are_told_when_the_tunnel_they_wait_for_fails() {
    let ca = TestCa::new();
    let hole = fakes::BlackHole::start().await;
    let settings = TunnelSettings { handshake_timeout: Duration::from_millis(600), ..quick() };
    let limits = Limits { streams_per_tunnel: 1, opening_max: 1, ..Limits::default() };
    let client = Arc::new(Client::with(&ca, settings, limits));
    let begun = clock::monotonic();
    let callers: Vec<_> = (0..20)
        .map(|_| {
            let (client, to) = (client.clone(), hole.address);
            fakes::start(async move { client.lease(to).await.map(|_| ()) })
        })
        .collect();
    for caller in callers {
        let error = within(caller).await.expect("no panic").unwrap_err();
        let TunnelError::Tls(cause) = &error else { panic!("{error:?}") };
        assert!(matches!(**cause, TlsError::Timeout { .. }), "{cause:?}");
    }
    let took = clock::monotonic().saturating_duration_since(begun);
    assert!(took < Duration::from_secs(5), "20 callers of a dead peer took {took:?}");
}

/// G9: a peer that swallows everything holds up nobody else, and its own callers only up to the deadline.
#[tokio::test]
async fn a_black_hole_holds_up_no_other_peer() {
    let ca = TestCa::new();
    let hole = fakes::BlackHole::start().await;
    let server = Server::start(&ca, quick()).await;
    let client = Arc::new(Client::new(&ca, quick()));
    let stuck = {
        let (client, to) = (client.clone(), hole.address);
        fakes::start(async move { client.lease(to).await.map(|_| ()) })
    };
    hole.reached().await;
    let begun = clock::monotonic();
    let to = echo().await;
    for _ in 0..20 {
        let mut app = client.through(&server, to).await.expect("another peer");
        say(&mut app, b"quick").await;
    }
    let took = clock::monotonic().saturating_duration_since(begun);
    assert!(took < Duration::from_millis(2500), "{took:?}");
    let error = within(stuck).await.expect("no panic").unwrap_err();
    assert_eq!(error.reason(), Reason::TlsHandshakeFailed);
    assert!(error.is_before_any_byte());
}

/// A caller that gives up while it opens a tunnel does not leave the others waiting (G34).
#[tokio::test]
async fn an_abandoned_opening_wakes_the_next() {
    let ca = TestCa::new();
    let hole = fakes::BlackHole::start().await;
    let limits = Limits { streams_per_tunnel: 100, opening_max: 1, ..Limits::default() };
    let settings = TunnelSettings { handshake_timeout: Duration::from_millis(700), ..quick() };
    let client = Arc::new(Client::with(&ca, settings, limits));
    let first = tokio::time::timeout(Duration::from_millis(200), client.lease(hole.address)).await;
    assert!(first.is_err(), "nobody answers");
    let begun = clock::monotonic();
    assert!(within(client.lease(hole.address)).await.is_err());
    let took = clock::monotonic().saturating_duration_since(begun);
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[tokio::test]
async fn a_drained_tunnel_finishes_its_streams_and_takes_no_new_ones() {
    let ca = TestCa::new();
    let server = Server::start(&ca, quick()).await;
    let client = Client::new(&ca, quick());
    let to = echo().await;
    let mut old = client.through(&server, to).await.expect("a stream");
    say(&mut old, b"before").await;
    server.drain_present_tunnels();
    // Until the client has been told, streams may still come on the old tunnel; none of them may fail.
    let mut new = client.through(&server, to).await.expect("a stream");
    for _ in 0..200 {
        say(&mut new, b"after").await;
        if server.tunnels() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        new = client.through(&server, to).await.expect("a stream");
    }
    say(&mut old, b"the old one lives").await;
    assert_eq!(server.tunnels(), 2);
    old.shutdown().await.expect("open");
    let mut rest = Vec::new();
    within(old.read_to_end(&mut rest)).await.expect("an orderly end");
    drop(old);
    server.until_served(1).await;
    say(&mut new, b"the new one too").await;
}

#[tokio::test]
async fn a_certificate_that_ran_out_takes_no_new_streams_and_cuts_no_old_ones() {
    let ca = TestCa::new();
    let server = Server::start(&ca, quick()).await;
    let client = Client::until(&ca, quick(), now() + 2);
    let to = echo().await;
    let mut old = client.through(&server, to).await.expect("a stream");
    say(&mut old, b"before").await;
    let lease = client.lease(server.address).await.expect("the same tunnel");
    assert!(lease.tunnel().is_usable(clock::unix_seconds()));
    let end = u64::try_from(now() + 2).expect("after 1970");
    while clock::unix_seconds() <= end {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!lease.tunnel().is_usable(clock::unix_seconds()));
    drop(lease);
    let error = within(client.through(&server, to)).await.expect_err("no certificate, no stream");
    // A new tunnel is tried, and the peer refuses the certificate that has run out.
    assert!(error.is_of_the_tunnel(), "{error:?}");
    assert_eq!(server.tunnels(), 1);
    say(&mut old, b"the old one lives").await;
}

/// P13: a peer that vanished without a word is found by PING, at both ends.
#[tokio::test]
async fn a_silent_peer_is_found() {
    let ca = TestCa::new();
    let settings = TunnelSettings {
        ping_after: Duration::from_millis(200),
        pong_timeout: Duration::from_secs(1),
        ..quick()
    };
    let server = Server::start(&ca, settings.clone()).await;
    let wire = fakes::Wire::start(server.address).await;
    let client = Client::new(&ca, settings);
    let lease = client.lease(wire.address).await.expect("a tunnel");
    let closed = lease.tunnel().closed();
    // With the wire whole, PINGs are answered and the tunnel stays.
    assert!(tokio::time::timeout(Duration::from_secs(2), closed).await.is_err());
    wire.cut();
    let begun = clock::monotonic();
    within(lease.tunnel().closed()).await;
    server.until_served(1).await;
    let took = clock::monotonic().saturating_duration_since(begun);
    assert!(took < Duration::from_secs(6), "{took:?}");
    assert_eq!(lease.tunnel().identity(), &server_identity());
}

/// Pools forget keys and tunnels that nobody uses.
#[tokio::test]
async fn an_idle_tunnel_is_closed() {
    let ca = TestCa::new();
    let server = Server::start(&ca, quick()).await;
    let limits = Limits { idle_timeout: Duration::from_millis(100), ..Limits::default() };
    let client = Client::with(&ca, quick(), limits);
    drop(client.through(&server, echo().await).await.expect("a stream"));
    client.until_streams(0).await;
    // The sweep comes every five seconds.
    tokio::time::timeout(Duration::from_secs(12), server.until_served(1)).await.expect("it is closed");
    assert_eq!(client.pool.counts(), (0, 0));
}

/// A peer that forgets its tunnels does not hold them for ever; one that uses them keeps them (G7).
#[tokio::test]
async fn a_tunnel_without_streams_is_sent_away() {
    const IDLE: Duration = Duration::from_millis(300);
    let ca = TestCa::new();
    let server = Server::start(&ca, TunnelSettings { idle_timeout: IDLE, ..quick() }).await;
    let client = Client::new(&ca, quick());
    let to = echo().await;
    let mut app = client.through(&server, to).await.expect("a stream");
    tokio::time::sleep(4 * IDLE).await;
    say(&mut app, b"still in use").await;
    let mut second = client.through(&server, to).await.expect("a stream");
    assert_eq!(server.tunnels(), 1, "a tunnel with a stream was left");
    say(&mut second, b"both").await;
    drop((app, second));
    client.until_streams(0).await;
    let begun = clock::monotonic();
    server.until_served(1).await;
    let took = clock::monotonic().saturating_duration_since(begun);
    assert!(took > IDLE / 2, "{took:?}");
    let mut again = client.through(&server, to).await.expect("another tunnel");
    say(&mut again, b"new").await;
    assert_eq!(server.tunnels(), 2);
}

/// The pool is told of a peer that leaves, and offers its tunnel to nobody.
#[tokio::test]
async fn a_tunnel_the_peer_is_leaving_is_not_usable() {
    let ca = TestCa::new();
    let server = Server::start(&ca, quick()).await;
    let client = Client::new(&ca, quick());
    let mut app = client.through(&server, echo().await).await.expect("a stream");
    say(&mut app, b"before").await;
    let lease = client.lease(server.address).await.expect("the same tunnel");
    assert!(lease.tunnel().is_usable(clock::unix_seconds()));
    server.drain_present_tunnels();
    let told = async {
        while lease.tunnel().is_usable(clock::unix_seconds()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(told).await;
    say(&mut app, b"the stream lives").await;
}
