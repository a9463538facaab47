//! Messages with two readings, and clients that only cost.

use std::time::Duration;

use ambit_types::AppProtocol;

use crate::rig::app::{App, answer, text};
use crate::rig::client::{read, request2};
use crate::rig::{Setup, start, within};

/// Each is answered 400 and closed, and nothing of it reaches an endpoint.
#[tokio::test]
async fn messages_with_two_readings_reach_nobody() {
    let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
    let rig = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).start().await;
    let post =
        |headers: &str, body: &str| format!("POST / HTTP/1.1\r\nHost: web.shop\r\n{headers}\r\n{body}");
    let smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web.shop\r\n\r\n";
    let rows = [
        // Both framings, in both orders (H1).
        post("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", smuggled),
        post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", smuggled),
        post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", smuggled),
        post("Transfer-Encoding: chunked, identity\r\n", smuggled),
        post("Transfer-Encoding: gzip, chunked\r\n", smuggled),
        post("Transfer-Encoding: xchunked\r\n", smuggled),
        post("Transfer-Encoding : chunked\r\n", smuggled),
        post("Transfer-Encoding:\x0bchunked\r\n", smuggled),
        post("Transfer-Encoding\t: chunked\r\n", smuggled),
        post("X: y\r\n Transfer-Encoding: chunked\r\n", smuggled),
        post("Content-Length: +5\r\n", "hello"),
        post("Content-Length: 5,5\r\n", "hello"),
        post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"),
        post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello"),
        post("Content-Length: 0x5\r\n", "hello"),
        post("Content-Length: 99999999999999999999\r\n", "hello"),
        post("Content-Length: -5\r\n", "hello"),
        post("Content-Length: \r\n", "hello"),
        // Framing that HTTP/1.0 does not have (H2).
        "POST / HTTP/1.0\r\nHost: web.shop\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        // Line ends that some read and some do not (H5).
        "GET / HTTP/1.1\nHost: web.shop\n\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: web.shop\r\nX: a\nY: b\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: web.shop\r\nX: a\rY: b\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: web.shop\r\nX: a\0b\r\n\r\n".to_owned(),
        // Whom it is for (H7).
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: \r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: web.shop\r\nHost: web.shop\r\n\r\n".to_owned(),
        "GET http://other/ HTTP/1.1\r\nHost: web.shop\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: root@web.shop\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: web.shop:\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: web.shop:80:90\r\n\r\n".to_owned(),
        // What it is about (H8).
        "CONNECT web.shop:80 HTTP/1.1\r\nHost: web.shop:80\r\n\r\n".to_owned(),
        "GET * HTTP/1.1\r\nHost: web.shop\r\n\r\n".to_owned(),
        "GET web.shop/ HTTP/1.1\r\nHost: web.shop\r\n\r\n".to_owned(),
        "GET /a b HTTP/1.1\r\nHost: web.shop\r\n\r\n".to_owned(),
        "G@T / HTTP/1.1\r\nHost: web.shop\r\n\r\n".to_owned(),
        " GET / HTTP/1.1\r\nHost: web.shop\r\n\r\n".to_owned(),
        "GET / HTTP/1.2\r\nHost: web.shop\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: web.shop\r\nX y: z\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: web.shop\r\n: z\r\n\r\n".to_owned(),
    ];
    for row in &rows {
        let answered = rig.raw(row.as_bytes()).await;
        assert!(answered.starts_with("HTTP/1.1 400"), "row {row:?}: {answered:?}");
        assert_eq!(answered.matches("HTTP/1.1").count(), 1, "row {row:?}: {answered:?}");
    }
    assert!(app.got().is_empty(), "{:?}", app.got());
}

/// The head passes, the body does not: the endpoint never sees a whole message.
#[tokio::test]
async fn chunks_with_two_readings_are_no_end() {
    use http_body_util::BodyExt as _;
    let app = App::start("web-0", false, |_, request| async {
        let whole = request.into_body().collect().await.is_ok();
        assert!(!whole, "a body that cannot be read has no end");
        answer(200, "ok")
    })
    .await;
    let rig = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).start().await;
    let head = "POST / HTTP/1.1\r\nHost: web.shop\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in [
        "FFFFFFFFFFFFFFFFF\r\nx",
        "3\nabc\r\n0\r\n\r\n",
        "3\r\nabcX0\r\n\r\n",
        "-1\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
    ] {
        let answered = rig.raw([head, body].concat().as_bytes()).await;
        assert!(!answered.starts_with("HTTP/1.1 200"), "row {body:?}: {answered:?}");
    }
}

#[tokio::test]
async fn what_follows_a_sound_message_is_judged_by_itself() {
    let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
    let rig = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).start().await;
    let two = "GET /1 HTTP/1.1\r\nHost: web.shop\r\n\r\nPOST /2 HTTP/1.1\r\nHost: web.shop\r\n\
        Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let answered = rig.raw(two.as_bytes()).await;
    assert!(answered.starts_with("HTTP/1.1 200") && answered.contains("HTTP/1.1 400"), "{answered}");
    assert_eq!(app.got().len(), 1);
}

#[tokio::test]
async fn heads_are_bounded() {
    let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
    let rig = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).start().await;
    let many = (0..150).map(|n| format!("x-{n}: 1\r\n")).collect::<String>();
    let long = format!("x: {}\r\n", "y".repeat(100_000));
    for headers in [many, long] {
        let answered = rig.raw(format!("GET / HTTP/1.1\r\nHost: web.shop\r\n{headers}\r\n").as_bytes()).await;
        assert!(answered.starts_with("HTTP/1.1 431"), "{answered:?}");
    }
    assert!(app.got().is_empty());
}

#[tokio::test]
async fn a_client_that_only_cancels_is_dismissed_and_others_are_not() {
    let app = App::start("web-0", true, |n, _| async move {
        if n > 0 {
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
        answer(200, "ok")
    })
    .await;
    let calm = App::start("api-0", true, |_, _| async { answer(200, "calm") }).await;
    let setup = Setup::new().service("web", AppProtocol::Http2, &[app.ip]);
    let rig = setup.service("api", AppProtocol::Http2, &[calm.ip]).start().await;
    let mut sender = rig.http2().await;
    let first = read(sender.send_request(request2("GET /", &[], text(""))).await.unwrap()).await;
    assert_eq!(first.status, 200);
    let dismissed = async {
        for _ in 0..5000 {
            if sender.ready().await.is_err() {
                return true;
            }
            let asked = sender.send_request(request2("GET /", &[], text("")));
            // Long enough to be taken, too short to be answered.
            let _ = tokio::time::timeout(Duration::from_micros(500), asked).await;
        }
        false
    };
    assert!(within(dismissed).await, "it went on for ever");
    let stream = rig.connect_with(rig.tunnel().await, "10.9.0.2:80", &[]).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut other, connection) =
        hyper::client::conn::http2::handshake(crate::rig::app::Executor, io).await.unwrap();
    start(connection);
    let answered = read(other.send_request(request2("GET /", &[], text(""))).await.unwrap()).await;
    assert_eq!(answered.body, "calm");
}
