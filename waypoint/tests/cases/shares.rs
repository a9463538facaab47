//! How much of the waypoint one client may have: handshakes, tunnels, frames of no use, and responses that it does not
//! take.

use std::time::Duration;

use ambit_net::tls;
use ambit_net::tunnel::TunnelSettings;
use ambit_net::tunnel::client::open;
use ambit_types::AppProtocol;
use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::front::rest;
use crate::rig::app::{App, Body, answer, text};
use crate::rig::client::{read, request2};
use crate::rig::{Rig, Setup, fresh_ip, identity, within};

/// A connection of an address that says nothing.
async fn silent(rig: &Rig, from: std::net::IpAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    within(socket.connect(rig.address)).await.unwrap()
}

#[tokio::test]
async fn half_open_handshakes_of_one_source_shut_out_nobody_else() {
    let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
    let mut setup = Setup::new().service("web", AppProtocol::Http11, &[app.ip]);
    (setup.limits.handshakes_max, setup.limits.source_handshakes_max) = (4, 2);
    let rig = setup.start().await;
    let from = fresh_ip();
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(silent(&rig, from).await);
    }
    let mut closed = 0;
    for tcp in &mut held {
        let end = tokio::time::timeout(Duration::from_millis(500), tcp.read(&mut [0; 1])).await;
        closed += usize::from(matches!(end, Ok(Ok(0) | Err(_))));
    }
    assert_eq!(closed, 4);
    assert_eq!(rig.get("GET /", &[]).await.status, 200);
}

/// Whether an identity gets one more tunnel.
async fn gets_a_tunnel(rig: &Rig, account: &str) -> bool {
    let credential = rig.ca.credential(&identity("shop", account));
    let tcp = TcpStream::connect(rig.address).await.unwrap();
    let settings = std::sync::Arc::new(TunnelSettings::default());
    let expected = [identity("shop", "waypoint")];
    let timeout = settings.handshake_timeout;
    let connected = tls::client::connect(&credential, &expected, tcp, rig.address, timeout).await;
    let Ok(connected) = connected else { return false };
    match open(connected, rig.address, credential.not_after(), settings).await {
        Ok(tunnel) => rig.connect_with(&tunnel, "10.9.0.1:80", &[]).await.is_ok(),
        Err(_) => false,
    }
}

#[tokio::test]
async fn an_identity_has_so_many_tunnels_and_no_more() {
    let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
    let mut setup = Setup::new().service("web", AppProtocol::Http11, &[app.ip]);
    setup.limits.peer_tunnels_max = 1;
    let rig = setup.start().await;
    assert_eq!(rig.get("GET /", &[]).await.status, 200);
    assert!(!gets_a_tunnel(&rig, "cart").await);
    assert!(gets_a_tunnel(&rig, "other").await);
    assert_eq!(rig.get("GET /", &[]).await.status, 200);
}

/// The kinds of the frames that came back.
async fn kinds(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = within(stream.read_to_end(&mut all)).await;
    let (mut kinds, mut left) = (Vec::new(), &all[..]);
    while let Some((&[a, b, c, kind, ..], rest)) = left.split_first_chunk::<9>() {
        kinds.push(kind);
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        left = rest.get(length..).unwrap_or_default();
    }
    kinds
}

const GOAWAY: u8 = 7;

#[tokio::test]
async fn floods_of_frames_without_users_end_with_goaway() {
    let app = App::start("web-0", true, |_, _| async { answer(200, "ok") }).await;
    let rig = Setup::new().service("web", AppProtocol::Http2, &[app.ip]).start().await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let rows: [(&str, &[u8]); 5] = [
        ("PING", b"\0\0\x08\x06\0\0\0\0\0abcdefgh"),
        ("SETTINGS", b"\0\0\0\x04\0\0\0\0\0"),
        ("WINDOW_UPDATE", b"\0\0\x04\x08\0\0\0\0\0\0\0\0\x01"),
        ("PRIORITY", b"\0\0\x05\x02\0\0\0\0\x01\0\0\0\0\0"),
        ("unknown", b"\0\0\0\xfa\0\0\0\0\0"),
    ];
    for (name, frame) in rows {
        let mut stream = rig.connect().await;
        let flood = [&preface[..], &frame.repeat(150)].concat();
        let _ = stream.write_all(&flood).await;
        let kinds = kinds(&mut stream).await;
        assert!(kinds.contains(&GOAWAY), "row {name}: {kinds:?}");
    }
    // The tunnel itself.
    let credential = rig.ca.credential(&identity("shop", "flood"));
    for (name, frame) in rows {
        let tcp = TcpStream::connect(rig.address).await.unwrap();
        let expected = [identity("shop", "waypoint")];
        let timeout = Duration::from_secs(10);
        let connected =
            tls::client::connect(&credential, &expected, tcp, rig.address, timeout).await.unwrap();
        let mut stream = connected.stream;
        let flood = [&preface[..], &frame.repeat(150)].concat();
        let _ = stream.write_all(&flood).await;
        let _ = stream.flush().await;
        let kinds = kinds(&mut stream).await;
        assert!(kinds.contains(&GOAWAY), "row {name}, tunnel: {kinds:?}");
    }
}

/// So many MiB.
fn long(mib: usize) -> Body {
    let unit = Bytes::from(vec![7; 1 << 16]);
    let frames = (0..mib << 4).map(move |_| Ok(Frame::data(unit.clone())));
    StreamBody::new(futures_util::stream::iter(frames)).boxed()
}

#[tokio::test]
async fn a_client_that_takes_nothing_loses_its_response_only() {
    let app = App::start("web-0", true, |_, request| async move {
        match request.uri().path() {
            "/long" => Response::new(long(64)),
            _ => answer(200, "ok"),
        }
    })
    .await;
    let mut setup = Setup::new().service("web", AppProtocol::Http2, &[app.ip]);
    setup.limits.stall_timeout = Duration::from_millis(300);
    let rig = setup.start().await;
    let mut sender = rig.http2().await;
    let stalled = sender.send_request(request2("GET /long", &[], text(""))).await.unwrap();
    rig.until_written(1).await;
    let mut body = stalled.into_body();
    let end = within(async {
        loop {
            match body.frame().await {
                Some(Ok(_)) => {}
                end => return end.is_some(),
            }
        }
    });
    assert!(end.await, "the response ends in order");
    let answered = read(sender.send_request(request2("GET /", &[], text(""))).await.unwrap()).await;
    assert_eq!(answered.body, "ok");
    // Over HTTP/1.1 the connection is all there is to lose.
    let mut stream = rig.connect().await;
    stream.write_all(b"GET /long HTTP/1.1\r\nHost: web.shop\r\n\r\n").await.unwrap();
    rig.until_written(3).await;
    assert!(rest(&mut stream).await.is_none(), "the response ends in order");
}

/// Each connection cancels less than it may, all of one tunnel together more.
#[tokio::test]
async fn new_connections_on_a_tunnel_are_no_clean_slate() {
    let app = App::start("web-0", true, |_, _| async {
        std::future::pending::<()>().await;
        answer(200, "ok")
    })
    .await;
    let mut setup = Setup::new().service("web", AppProtocol::Http2, &[app.ip]);
    setup.limits.resets_max = 20;
    let rig = setup.start().await;
    let dismissed = async {
        for _ in 0..500 {
            let mut sender = rig.http2().await;
            for _ in 0..10 {
                if sender.ready().await.is_err() {
                    return true;
                }
                let asked = sender.send_request(request2("GET /", &[], text("")));
                if let Ok(Err(_)) = tokio::time::timeout(Duration::from_millis(1), asked).await {
                    return true;
                }
            }
        }
        false
    };
    assert!(within(dismissed).await, "it went on for ever");
}
