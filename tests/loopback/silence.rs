//! Peers that are quiet and peers that are gone: who is pinged, and how soon a tunnel is given up.

use std::time::Duration;

use ambit_net::tunnel::TunnelSettings;
use ambit_runtime::clock;
use ambit_tests::certs::{Template, TestCa};
use ambit_tests::fakes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::ends::{Client, Server, client_identity, quick, within};
use crate::floods::{DATA, END_HEADERS, HEADERS, PING, Raw, SETTINGS, connect, frame};

/// P13: whatever arrives is a sign of life, so a tunnel that carries something is not pinged.
#[tokio::test]
async fn only_a_quiet_peer_is_pinged() {
    let pause = Duration::from_millis(50);
    let settings = TunnelSettings { ping_after: 10 * pause, ..quick() };
    let data = frame(DATA, 0, 1, b"something");
    let ping = frame(PING, 0, 0, &[7; 8]);
    let rows = [("data", data, false), ("its own pings", ping, false), ("nothing", Vec::new(), true)];
    for (name, unit, pinged) in rows {
        let ca = TestCa::new();
        let server = Server::start(&ca, settings.clone()).await;
        server.stall();
        let mut raw = Raw::open(&ca, server.address).await;
        raw.flood(1, |_| frame(HEADERS, END_HEADERS, 1, &connect())).await;
        for _ in 0..30 {
            raw.flood(1, |_| unit.clone()).await;
            tokio::time::sleep(pause).await;
        }
        let heard = raw.hang_up().await;
        // Answers to its own pings carry its payload.
        let pings = heard.iter().filter(|(kind, _, payload)| *kind == PING && payload[..] != [7; 8]).count();
        assert_eq!(pings > 0, pinged, "{name}: {pings} pings");
    }
}

/// Both ends give up a peer that vanished, however lately it was heard, and their applications see a reset.
#[tokio::test]
async fn a_peer_that_vanished_costs_no_more_than_a_ping() {
    let ca = TestCa::new();
    let settings = TunnelSettings {
        ping_after: Duration::from_secs(1),
        pong_timeout: Duration::from_millis(200),
        ..quick()
    };
    for busy in [false, true] {
        let server = Server::start(&ca, settings.clone()).await;
        let wire = fakes::Wire::start(server.address).await;
        let client = Client::new(&ca, settings.clone());
        let (mut near, mut far) = client.pair_by(wire.address).await;
        near.write_all(b"here").await.expect("open");
        within(far.read_exact(&mut [0; 4])).await.expect("open");
        wire.cut();
        let cut = clock::monotonic();
        if busy {
            near.write_all(&[7; 100_000]).await.expect("the kernel takes it");
        }
        for (name, app) in [("client", &mut near), ("server", &mut far)] {
            let ended = within(app.read(&mut [0; 8])).await;
            let took = clock::monotonic().saturating_duration_since(cut);
            let error = ended.expect_err("no orderly end");
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{name}");
            assert!(took < Duration::from_millis(1700), "{name} after {took:?}, busy: {busy}");
        }
        server.until_served(1).await;
        client.until_streams(0).await;
        assert_eq!(client.pool.counts(), (0, 0));
    }
}

/// An orderly end would wait behind whatever the peer has not acknowledged; a reset waits for nothing.
#[tokio::test]
async fn a_silent_peer_is_given_up_with_a_reset() {
    let ca = TestCa::new();
    let pause = Duration::from_millis(100);
    let settings = TunnelSettings { ping_after: pause, pong_timeout: pause, ..quick() };
    let server = Server::start(&ca, settings).await;
    let shown = ca.leaf(&Template::leaf(&client_identity().to_string()));
    let tcp = TcpStream::connect(server.address).await.expect("loopback");
    let mut silent = fakes::connect_to_anybody(tcp, &shown, &[b"h2"]).await.expect("the certificate is good");
    let preface = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, &[])].concat();
    silent.write_all(&preface).await.expect("open");
    let error = loop {
        match within(silent.read(&mut [0; 256])).await {
            Ok(0) => panic!("an orderly end"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}
