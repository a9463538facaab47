//! Requests that pass: HTTP/1.1, HTTP/2, gRPC, WebSocket, and what endpoints are told.

use ambit_types::AppProtocol;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::rig::app::{App, answer, text};
use crate::rig::client::{read, request, request2};
use crate::rig::{Setup, start, within};

#[tokio::test]
async fn a_request_passes_and_the_endpoint_is_told_who_calls() {
    let app = App::start("web-0", false, |_, _| async { answer(200, "hello") }).await;
    let rig = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).start().await;
    let lies = [
        ("x-forwarded-client-cert", "By=me;URI=root"),
        ("x-envoy-original-path", "/admin"),
        ("connection", "x-gone"),
        ("x-gone", "1"),
        ("x_user", "root"),
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-for", "2.2.2.2, 3.3.3.3"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ];
    let answered = rig.get("GET /a/../b?q=1", &lies).await;
    assert_eq!((answered.status, answered.body.as_str()), (200, "hello"));
    let got = &app.got()[0];
    assert_eq!(got.line, "GET /b?q=1");
    let header =
        |name: &str| got.headers.get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
    assert_eq!(header("host"), "web.shop");
    let cert = "By=spiffe://cluster.local/ns/shop/sa/waypoint;URI=spiffe://cluster.local/ns/shop/sa/cart";
    assert_eq!(header("x-forwarded-client-cert"), cert);
    assert_eq!(header("x-forwarded-for"), "1.1.1.1, 2.2.2.2, 3.3.3.3, 127.0.0.1");
    assert_eq!(header("x-request-id").len(), 36);
    assert!(
        header("traceparent").starts_with("00-0af7651916cd43dd8448eb211c80319c-"),
        "{}",
        header("traceparent")
    );
    assert!(!header("traceparent").contains("b7ad6b7169203331"));
    for name in ["x-envoy-original-path", "x-gone", "x_user", "connection"] {
        assert!(!got.headers.contains_key(name), "{name}");
    }
    let asked = &app.proxy.asked()[0];
    assert_eq!(asked.peer.to_string(), "spiffe://cluster.local/ns/shop/sa/waypoint");
    assert_eq!(asked.authority, format!("{}:8080", app.ip));
    assert_eq!(asked.headers["x-ambit-client"], "spiffe://cluster.local/ns/shop/sa/cart");
    assert_eq!(asked.headers["x-ambit-hop"], "spiffe://cluster.local/ns/shop/sa/waypoint");
    assert!(asked.headers["traceparent"].to_str().unwrap().contains("00000000000000000000000000000007"));
    let written = rig.until_written(1).await;
    assert_eq!((written[0].code, written[0].flag, written[0].bytes), (200, "-", (0, 5)));
}

#[tokio::test]
async fn connections_are_kept_for_the_same_caller_only() {
    let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
    let rig = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).start().await;
    let mut sender = rig.http1().await;
    for _ in 0..5 {
        let response = sender.send_request(request("GET /", &[], text(""))).await.unwrap();
        assert_eq!(read(response).await.status, 200);
        within(sender.ready()).await.unwrap();
    }
    assert_eq!(rig.get("GET /", &[]).await.status, 200);
    assert_eq!(app.connections.load(std::sync::atomic::Ordering::SeqCst), 1);
    let other = rig.tunnel_of(&crate::rig::identity("jobs", "cron")).await;
    let stream = rig.connect_with(&other, "10.9.0.1:80", &[]).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    start(connection);
    let response = sender.send_request(request("GET /", &[], text(""))).await.unwrap();
    assert_eq!(read(response).await.status, 200);
    assert_eq!(app.connections.load(std::sync::atomic::Ordering::SeqCst), 2);
    assert_eq!(app.proxy.asked()[1].headers["x-ambit-client"], "spiffe://cluster.local/ns/jobs/sa/cron");
}

#[tokio::test]
async fn requests_and_responses_stream_and_keep_their_trailers() {
    let app = App::start("web-0", true, |_, request| async {
        let body = request.into_body().collect().await.unwrap();
        let sum = body.trailers().map_or(0, HeaderMap::len);
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        trailers.insert("grpc-message", HeaderValue::from(sum));
        let body = Full::new(body.to_bytes()).with_trailers(async { Some(Ok(trailers)) });
        let body = body.map_err(|never| match never {}).boxed();
        Response::builder().header("content-type", "application/grpc").body(body).unwrap()
    })
    .await;
    let rig = Setup::new().service("web", AppProtocol::Grpc, &[app.ip]).start().await;
    let mut sender = rig.http2().await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("1"));
    let body = Full::new(Bytes::from_static(b"message")).with_trailers(async { Some(Ok(trailers)) });
    let body = body.map_err(|never| match never {}).boxed();
    let headers = [("content-type", "application/grpc"), ("te", "trailers")];
    let response = sender.send_request(request2("POST /shop.Cart/Add", &headers, body)).await.unwrap();
    let answered = read(response).await;
    assert_eq!((answered.status, answered.body.as_str()), (200, "message"));
    assert_eq!(answered.trailers["grpc-status"], "0");
    assert_eq!(answered.trailers["grpc-message"], "1");
    assert_eq!(app.got()[0].headers["te"], "trailers");
}

#[tokio::test]
async fn a_response_without_messages_stays_one() {
    let app = App::start("web-0", true, |_, _| async {
        let builder =
            Response::builder().header("content-type", "application/grpc").header("grpc-status", "5");
        builder.body(http_body_util::Empty::new().map_err(|never| match never {}).boxed()).unwrap()
    })
    .await;
    let rig = Setup::new().service("web", AppProtocol::Grpc, &[app.ip]).start().await;
    let mut sender = rig.http2().await;
    let request = request2("POST /shop.Cart/Add", &[("content-type", "application/grpc")], text("x"));
    let response = sender.send_request(request).await.unwrap();
    assert!(hyper::body::Body::is_end_stream(response.body()));
    assert_eq!(response.headers()["grpc-status"], "5");
}

#[tokio::test]
async fn versions_of_http_are_translated() {
    let old = App::start("web-0", false, |_, _| async { answer(200, "old") }).await;
    let new = App::start("api-0", true, |_, _| async { answer(200, "new") }).await;
    let setup = Setup::new().service("web", AppProtocol::Http11, &[old.ip]);
    let rig = setup.service("api", AppProtocol::Http2, &[new.ip]).start().await;
    let mut sender = rig.http2().await;
    let answered = read(sender.send_request(request2("GET /x", &[], text(""))).await.unwrap()).await;
    assert_eq!((answered.status, answered.body.as_str()), (200, "old"));
    assert_eq!(old.got()[0].headers["host"], "web.shop");
    let stream = rig.connect_with(rig.tunnel().await, "10.9.0.2:80", &[]).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    start(connection);
    let answered = read(sender.send_request(request("GET /y", &[], text(""))).await.unwrap()).await;
    assert_eq!((answered.status, answered.body.as_str()), (200, "new"));
    assert_eq!(new.got()[0].line, "GET http://web.shop/y");
}

#[tokio::test]
async fn another_protocol_is_carried_after_both_sides_agreed() {
    let app = App::start("web-0", false, |_, mut request| async move {
        let protocol = request.headers()["upgrade"].clone();
        let upgraded = hyper::upgrade::on(&mut request);
        start(async move {
            let mut io = TokioIo::new(upgraded.await.unwrap());
            let mut bytes = [0; 4096];
            loop {
                let n = io.read(&mut bytes).await.unwrap_or(0);
                if n == 0 || io.write_all(&bytes[..n]).await.is_err() {
                    return;
                }
            }
        });
        let builder =
            Response::builder().status(101).header("connection", "upgrade").header("upgrade", protocol);
        builder.body(text("")).unwrap()
    })
    .await;
    let rig = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).start().await;
    let mut sender = rig.http1().await;
    let headers = [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-key", "x")];
    let mut response = sender.send_request(request("GET /ws", &headers, text(""))).await.unwrap();
    assert_eq!(response.status(), 101);
    let mut io = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    for n in [1_usize, 100, 200_000] {
        let sent = vec![7; n];
        let (mut near, mut far) = tokio::io::split(&mut io);
        let mut back = vec![0; n];
        let (a, b) = within(async { tokio::join!(far.write_all(&sent), near.read_exact(&mut back)) }).await;
        a.unwrap();
        b.unwrap();
        assert!(sent == back, "{n} bytes");
    }
}

#[tokio::test]
async fn an_upgrade_that_is_refused_closes_both_connections() {
    let app = App::start("web-0", false, |_, _| async { answer(200, "no") }).await;
    let rig = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).start().await;
    let hidden = b"GET /ws HTTP/1.1\r\nHost: web.shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\
        GET /smuggled HTTP/1.1\r\nHost: web.shop\r\n\r\n";
    let answered = rig.raw(hidden).await;
    assert!(answered.starts_with("HTTP/1.1 200"), "{answered}");
    assert!(answered.to_ascii_lowercase().contains("connection: close"), "{answered}");
    assert_eq!(app.got().len(), 1);
}

#[tokio::test]
async fn a_body_is_awaited_only_when_it_is_wanted() {
    let app = App::start("web-0", false, |_, request| async {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(text(body))
    })
    .await;
    let rig = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).start().await;
    let mut stream = rig.connect().await;
    let head = b"POST / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let mut bytes = [0; 25];
    within(stream.read_exact(&mut bytes)).await.unwrap();
    assert_eq!(&bytes, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.unwrap();
    let mut bytes = [0; 15];
    within(stream.read_exact(&mut bytes)).await.unwrap();
    assert_eq!(&bytes, b"HTTP/1.1 200 OK");
    assert!(!app.got()[0].headers.contains_key("expect"));
    assert_eq!(rig.get("GET /", &[("expect", "the-unexpected")]).await.status, 417);
    assert_eq!(app.got().len(), 1);
}

#[tokio::test]
async fn events_arrive_as_they_are_sent() {
    let app = App::start("web-0", false, |_, _| async {
        let (send, recv) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, hyper::Error>>(1);
        start(async move {
            for n in 0..3 {
                let _ = send.send(Ok(Frame::data(Bytes::from(format!("event {n}\n"))))).await;
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        });
        Response::new(StreamBody::new(tokio_stream(recv)).boxed())
    })
    .await;
    let rig = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).start().await;
    let mut sender = rig.http1().await;
    let mut body = sender.send_request(request("GET /", &[], text(""))).await.unwrap().into_body();
    for n in 0..3 {
        let frame = within(body.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), format!("event {n}\n"));
    }
}

/// A channel as a stream of frames.
fn tokio_stream<T: Send + 'static>(
    mut recv: tokio::sync::mpsc::Receiver<T>,
) -> impl futures_util::Stream<Item = T> + Send + Sync {
    futures_util::stream::poll_fn(move |cx| recv.poll_recv(cx))
}
