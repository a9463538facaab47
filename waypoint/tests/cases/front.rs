//! The waypoint's front: what is served at all, for how long, and how much of it one client may have.

use std::time::Duration;

use ambit_net::tls;
use ambit_net::tunnel::TunnelSettings;
use ambit_net::tunnel::client::{TunnelError, open};
use ambit_types::{AppProtocol, Reason};
use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use waypoint::stream::Stream;

use crate::rig::app::{App, Body, Executor, answer, text};
use crate::rig::client::{Read, read, request, request2};
use crate::rig::{Rig, Setup, fresh_ip, identity, service_key, start, within};

/// All that comes back until the end; none if the end is a broken one.
async fn rest(stream: &mut Stream) -> Option<String> {
    let mut all = Vec::new();
    let end = within(stream.read_to_end(&mut all)).await;
    end.ok().map(|_| String::from_utf8_lossy(&all).into_owned())
}

/// Waits for the end of a stream, whatever comes before it.
async fn ended(stream: &mut Stream) {
    let mut bytes = [0; 4096];
    within(async { while !matches!(stream.read(&mut bytes).await, Ok(0) | Err(_)) {} }).await;
}

async fn http1_to(rig: &Rig, authority: &str) -> hyper::client::conn::http1::SendRequest<Body> {
    let stream = rig.connect_with(rig.tunnel().await, authority, &[]).await.expect("it is served");
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    start(connection);
    sender
}

async fn ask(rig: &Rig, authority: &str, line: &str) -> Read {
    let mut sender = http1_to(rig, authority).await;
    read(within(sender.send_request(request(line, &[], text("")))).await.unwrap()).await
}

/// Echoes what it gets, after a greeting if it has one.
async fn echo(greeting: &'static str) -> App {
    App::raw("web-0", move |mut tcp| async move {
        let _ = tcp.write_all(greeting.as_bytes()).await;
        let mut bytes = [0; 1024];
        while let Ok(n @ 1..) = tcp.read(&mut bytes).await {
            if tcp.write_all(&bytes[..n]).await.is_err() {
                return;
            }
        }
    })
    .await
}

async fn expect(stream: &mut Stream, want: &str) {
    let mut bytes = vec![0; want.len()];
    within(stream.read_exact(&mut bytes)).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), want);
}

/// Neither silence nor another spelling gets past what only HTTP can be judged by.
#[tokio::test]
async fn an_undeclared_port_with_conditions_on_http_is_read_as_http() {
    let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
    let reads = "{action: ALLOW, rules: [{to: [{operation: {methods: [GET]}}]}]}";
    let rig = Setup::new().service("web", AppProtocol::Unknown, &[app.ip]).policy(reads).start().await;
    let lines = "Host: web.shop\r\nConnection: close\r\nX-Forwarded-Client-Cert: By=me\r\n\r\n";
    for (pause, first, want) in [
        (0, "GET / HTTP/1.1\r\n", "HTTP/1.1 200"),
        (300, "GET / HTTP/1.1\r\n", "HTTP/1.1 200"),
        (0, "\r\n\r\nGET / HTTP/1.1\r\n", "HTTP/1.1 200"),
        (0, "get / HTTP/1.1\r\n", "HTTP/1.1 403"),
        (300, "POST / HTTP/1.1\r\n", "HTTP/1.1 403"),
        (300, "\0\0\0\0", "HTTP/1.1 400"),
    ] {
        let mut stream = rig.connect().await;
        tokio::time::sleep(Duration::from_millis(pause)).await;
        stream.write_all([first, lines].concat().as_bytes()).await.unwrap();
        let answered = rest(&mut stream).await.unwrap_or_default();
        assert!(answered.starts_with(want), "row {pause} {first:?}: {answered:?}");
    }
    assert_eq!(app.got().len(), 3);
    for got in app.got() {
        let cert = got.headers["x-forwarded-client-cert"].to_str().unwrap();
        assert!(cert.ends_with("URI=spiffe://cluster.local/ns/shop/sa/cart"), "{cert}");
    }
}

#[tokio::test]
async fn an_undeclared_port_is_http_however_the_request_is_spelt() {
    let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
    let rig = Setup::new().service("web", AppProtocol::Unknown, &[app.ip]).start().await;
    for first in ["\r\nGET / HTTP/1.1\r\n", "get / HTTP/1.1\r\n"] {
        let lines = "Host: web.shop\r\nConnection: close\r\nX-Forwarded-Client-Cert: By=me\r\n\r\n";
        let answered = rig.raw([first, lines].concat().as_bytes()).await;
        assert!(answered.starts_with("HTTP/1.1 200"), "row {first:?}: {answered:?}");
    }
    for got in app.got() {
        assert_ne!(got.headers["x-forwarded-client-cert"], "By=me");
    }
}

#[tokio::test]
async fn requests_for_what_has_moved_away_are_misdirected() {
    let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
    let mut rig = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).start().await;
    let (mut old, mut new) = (rig.http1().await, rig.http2().await);
    let response = old.send_request(request("GET /", &[], text(""))).await.unwrap();
    assert_eq!(read(response).await.status, 200);
    let response = new.send_request(request2("GET /", &[], text(""))).await.unwrap();
    assert_eq!(read(response).await.status, 200);
    rig.change(|setup| setup.services[0].waypoint = None);
    within(old.ready()).await.unwrap();
    let answered = read(old.send_request(request("GET /", &[], text(""))).await.unwrap()).await;
    assert_eq!((answered.status, answered.header("connection")), (421, "close"));
    assert_eq!(answered.header("x-ambit-reason"), Reason::WaypointNotServing.code());
    let answered = read(new.send_request(request2("GET /", &[], text(""))).await.unwrap()).await;
    assert_eq!(answered.status, 421);
    within(async {
        while new.ready().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(app.got().len(), 2);
    let written = rig.until_written(4).await;
    assert_eq!((written[3].code, written[3].reason), (421, Some(Reason::WaypointNotServing)));
}

const DENY_ALL: &str = "{action: DENY, rules: [{from: [{source: {namespaces: [shop]}}]}]}";

#[tokio::test]
async fn copied_connections_are_cut_once_they_would_not_be_allowed() {
    for (protocol, greeting) in [(AppProtocol::Tcp, "220 hello\r\n"), (AppProtocol::Unknown, "220 hello\r\n")]
    {
        for is_moved in [false, true] {
            let app = echo(greeting).await;
            let mut rig = Setup::new().service("web", protocol, &[app.ip]).start().await;
            let mut stream = rig.connect().await;
            expect(&mut stream, greeting).await;
            rig.change(|_| {});
            rig.change(|setup| {
                setup.policies.push(("{action: DENY, rules: [{to: [{operation: {ports: ['81']}}]}]}", false))
            });
            stream.write_all(b"EHLO me").await.unwrap();
            expect(&mut stream, "EHLO me").await;
            rig.change(|setup| match is_moved {
                true => setup.services[0].waypoint = None,
                false => setup.policies.push((DENY_ALL, false)),
            });
            ended(&mut stream).await;
            let written = rig.until_written(1).await;
            assert_eq!(written[0].reason, Some(Reason::PolicyChanged), "row {protocol:?} {is_moved}");
        }
    }
}

/// Answers the first head with another protocol, and then echoes.
async fn upgrading() -> App {
    App::raw("web-0", |mut tcp| async move {
        let mut head = Vec::new();
        let mut bytes = [0; 1024];
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(n @ 1..) = tcp.read(&mut bytes).await else { return };
            head.extend_from_slice(&bytes[..n]);
        }
        let switched = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
        let _ = tcp.write_all(switched).await;
        while let Ok(n @ 1..) = tcp.read(&mut bytes).await {
            let _ = tcp.write_all(&bytes[..n]).await;
        }
    })
    .await
}

#[tokio::test]
async fn upgraded_connections_are_cut_once_they_would_not_be_allowed() {
    let others = "{action: DENY, rules: [{to: [{operation: {paths: [/other]}}]}]}";
    for deny in [
        "{action: DENY, rules: [{to: [{operation: {paths: [/ws]}}]}]}",
        // Nothing is kept by which it could be decided.
        "{action: DENY, rules: [{when: [{key: 'request.headers[x-a]', values: [b]}]}]}",
    ] {
        let app = upgrading().await;
        let mut rig = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).start().await;
        let mut stream = rig.connect().await;
        let head = "GET /ws HTTP/1.1\r\nHost: web.shop\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut got = Vec::new();
        while !got.ends_with(b"\r\n\r\n") {
            got.push(within(stream.read_u8()).await.unwrap());
        }
        assert!(got.starts_with(b"HTTP/1.1 101"), "{}", got.escape_ascii());
        rig.change(|setup| setup.policies.push((others, false)));
        stream.write_all(b"hello").await.unwrap();
        expect(&mut stream, "hello").await;
        rig.change(|setup| setup.policies.push((deny, false)));
        ended(&mut stream).await;
    }
}

/// Of several that were asked for another protocol without getting it, none carries a second request.
#[tokio::test]
async fn a_refused_upgrade_is_the_last_request_of_its_connection() {
    let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
    let rig = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).start().await;
    let rows = [
        ("HTTP/1.1", "Upgrade: websocket\r\n"),
        ("HTTP/1.1", "Connection: keep-alive\r\nUpgrade: websocket\r\n"),
        (
            "HTTP/1.1",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        ),
        ("HTTP/1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\n"),
        ("HTTP/1.0", "Connection: keep-alive\r\nUpgrade: websocket\r\n"),
    ];
    for (version, lines) in rows {
        let one = |path: &str, lines: &str| format!("GET {path} {version}\r\nHost: web.shop\r\n{lines}\r\n");
        let both = [one("/first", lines), one("/second", "")].concat();
        let answered = rig.raw(both.as_bytes()).await;
        assert_eq!(answered.matches("HTTP/1.").count(), 1, "row {version} {lines:?}: {answered:?}");
    }
    assert!(app.got().iter().all(|got| got.line == "GET /first"), "{:?}", app.got());
    assert_eq!(app.got().len(), rows.len());
}

#[tokio::test]
async fn a_head_is_timed_from_its_first_byte_and_idleness_by_itself() {
    let app = App::start("web-0", false, |_, _| async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        answer(200, "ok")
    })
    .await;
    let mut setup = Setup::new().service("web", AppProtocol::Http11, &[app.ip]);
    setup.limits.head_timeout = Duration::from_millis(200);
    setup.limits.keep_alive_timeout = Duration::from_secs(2);
    let rig = setup.start().await;
    let head = b"GET / HTTP/1.1\r\nHost: web.shop\r\n\r\n";
    let mut stream = rig.connect().await;
    for _ in 0..2 {
        // Longer than a head may take; the answer takes longer too.
        tokio::time::sleep(Duration::from_millis(500)).await;
        stream.write_all(head).await.unwrap();
        expect(&mut stream, "HTTP/1.1 200 OK").await;
        let mut left = Vec::new();
        while !left.ends_with(b"\r\n\r\nok") {
            left.push(within(stream.read_u8()).await.unwrap());
        }
    }
    assert_eq!(rest(&mut stream).await.expect("an orderly end of an idle connection"), "");
    for begun in [&b"G"[..], b"GET / HTTP/1.1\r\nHost: web.shop\r\n"] {
        let mut slow = rig.connect().await;
        slow.write_all(begun).await.unwrap();
        tokio::time::timeout(Duration::from_millis(1500), ended(&mut slow)).await.expect("a slow head ends");
    }
    assert_eq!(app.got().len(), 2);
}

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

/// The source's proxy sends connections to a workload's own address through the waypoint of a service before it.
#[tokio::test]
async fn a_workload_is_served_on_the_ports_of_its_bound_services() {
    let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
    let deny = "{action: DENY, rules: [{to: [{operation: {paths: [/admin]}}]}]}";
    let reads = "{action: ALLOW, rules: [{to: [{operation: {methods: [GET]}}]}]}";
    let setup = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).policy_of("web", deny);
    let setup = setup.service("api", AppProtocol::Http11, &[]).policy_of("api", reads);
    let mut setup = setup.service("bare", AppProtocol::Http11, &[]);
    setup.services[2].waypoint = None;
    setup.services[2].ports[0].target_port = 9090;
    for name in ["api", "bare"] {
        setup.workloads[0].services.insert(service_key(name), Vec::new());
    }
    setup.workloads[0].settings = Some(Default::default());
    let mut rig = setup.start().await;
    let pod = format!("{}:8080", app.ip);
    for (line, want) in [("GET /", 200), ("GET /admin", 403), ("POST /", 403), ("POST /admin", 403)] {
        assert_eq!(ask(&rig, &pod, line).await.status, want, "row {line}");
    }
    assert_eq!(app.got().len(), 1);
    for port in [9090, 80] {
        let authority = format!("{}:{port}", app.ip);
        let opened = rig.connect_with(rig.tunnel().await, &authority, &[]).await;
        let is_refused =
            matches!(opened, Err(TunnelError::Refused { reason: Reason::WaypointNotServing, .. }));
        assert!(is_refused, "row {port}");
    }
    let mut kept = http1_to(&rig, &pod).await;
    let response = kept.send_request(request("GET /", &[], text(""))).await.unwrap();
    assert_eq!(read(response).await.status, 200);
    rig.change(|setup| setup.services.iter_mut().for_each(|service| service.waypoint = None));
    within(kept.ready()).await.unwrap();
    let response = kept.send_request(request("GET /", &[], text(""))).await.unwrap();
    assert_eq!(read(response).await.status, 421);
}

/// A waypoint that the workload names itself knows no rules of services that are bound to another one.
#[tokio::test]
async fn a_workload_bound_here_is_no_way_around_the_waypoint_of_its_service() {
    let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
    let mut setup = Setup::new().service("web", AppProtocol::Http11, &[app.ip]);
    let here = setup.services[0].waypoint.clone();
    let mut elsewhere = here.clone().unwrap();
    elsewhere.destination = ambit_types::Destination::Hostname(service_key("other-waypoint"));
    setup.services[0].waypoint = Some(elsewhere.clone());
    // Another of its ports leads to the same one of the application.
    let also = ambit_types::service::Port { service_port: 81, ..setup.services[0].ports[0] };
    setup.services[0].ports.insert(0, also);
    setup.workloads[0].waypoint = here.clone();
    setup.workloads[0].settings = Some(Default::default());
    let mut rig = setup.start().await;
    let pod = format!("{}:8080", app.ip);
    for authority in [&*pod, "10.9.0.1:80", "10.9.0.1:81"] {
        let opened = rig.connect_with(rig.tunnel().await, authority, &[]).await;
        let is_refused =
            matches!(opened, Err(TunnelError::Refused { reason: Reason::WaypointNotServing, .. }));
        assert!(is_refused, "row {authority}");
    }
    assert!(app.got().is_empty());
    // Both bound here: one knows all the rules.
    rig.change(|setup| setup.services[0].waypoint = here);
    let mut kept = http1_to(&rig, &pod).await;
    let response = kept.send_request(request("GET /", &[], text(""))).await.unwrap();
    assert_eq!(read(response).await.status, 200);
    // The workload leaves; the service's rules are no longer all.
    rig.change(|setup| setup.workloads[0].waypoint = Some(elsewhere));
    within(kept.ready()).await.unwrap();
    let response = kept.send_request(request("GET /", &[], text(""))).await.unwrap();
    assert_eq!(read(response).await.status, 421);
    assert_eq!(ask(&rig, "10.9.0.1:80", "GET /").await.status, 200);
    assert_eq!(app.got().len(), 2);
}

/// With another control plane a workload's own address is a way around the waypoints of its services, which users know.
#[tokio::test]
async fn other_control_planes_send_no_workloads_here() {
    let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
    let rig = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).start().await;
    let opened = rig.connect_with(rig.tunnel().await, &format!("{}:8080", app.ip), &[]).await;
    assert!(matches!(opened, Err(TunnelError::Refused { reason: Reason::WaypointNotServing, .. })));
}

#[tokio::test]
async fn a_workload_speaks_what_its_service_declares() {
    let app = App::start("web-0", true, |_, _| async { answer(200, "ok") }).await;
    let mut setup = Setup::new().service("web", AppProtocol::Http2, &[app.ip]);
    setup.workloads[0].settings = Some(Default::default());
    let rig = setup.start().await;
    let stream = rig.connect_with(rig.tunnel().await, &format!("{}:8080", app.ip), &[]).await.unwrap();
    let io = TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(Executor, io).await.unwrap();
    start(connection);
    let answered = read(sender.send_request(request2("GET /", &[], text(""))).await.unwrap()).await;
    assert_eq!((answered.status, answered.body.as_str()), (200, "ok"));
}
