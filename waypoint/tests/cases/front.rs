//! The waypoint's front: what a connection is read as, and for how long it is served.

use std::time::Duration;

use ambit_types::{AppProtocol, Reason};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use waypoint::stream::Stream;

use crate::rig::app::{App, answer, text};
use crate::rig::client::{read, request, request2};
use crate::rig::{Setup, within};

/// All that comes back until the end; none if the end is a broken one.
pub(crate) async fn rest(stream: &mut Stream) -> Option<String> {
    let mut all = Vec::new();
    let end = within(stream.read_to_end(&mut all)).await;
    end.ok().map(|_| String::from_utf8_lossy(&all).into_owned())
}

/// Waits for the end of a stream, whatever comes before it.
async fn ended(stream: &mut Stream) {
    let mut bytes = [0; 4096];
    within(async { while !matches!(stream.read(&mut bytes).await, Ok(0) | Err(_)) {} }).await;
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
