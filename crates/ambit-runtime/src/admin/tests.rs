//! The admin socket over a real Unix socket.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{Reply, Routes, client, server};
use crate::drain::Drain;
use crate::readiness::Readiness;

#[tokio::test]
async fn routes_answer_and_unknown_ones_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock");
    let readiness = Readiness::new();
    let part = readiness.part("discovery");
    readiness.complete();
    let routes = Routes::new()
        .health(&readiness)
        .get("/echo", |call| async move { Reply::json(&call.query) })
        .get("/lines", |_| async {
            let (send, lines) = tokio::sync::mpsc::channel(2);
            send.send(Bytes::from_static(b"one\n")).await.unwrap();
            Reply::stream(lines)
        });
    let drain = Drain::new();
    server::serve_unix(&socket, routes, &drain).unwrap();

    let rows = [
        ("/echo?a=1&b=x%2Fy+z", StatusCode::OK, r#"{"a":"1","b":"x/y z"}"#),
        ("/healthz/ready", StatusCode::INTERNAL_SERVER_ERROR, "not ready, pending: discovery\n"),
        ("/lines", StatusCode::OK, "one\n"),
        ("/nothing", StatusCode::NOT_FOUND, "no such path\n"),
    ];
    for (path, status, body) in rows {
        let answer = client::get(&socket, path).await.unwrap();
        assert_eq!((answer.status, &*answer.body), (status, body.as_bytes()), "row {path}");
    }
    let mut lines = client::stream(&socket, "/lines").await.unwrap();
    assert_eq!(lines.next().await.unwrap().as_deref(), Some(&b"one\n"[..]));
    assert_eq!(lines.next().await.unwrap(), None);
    let refused = client::stream(&socket, "/nothing").await.unwrap_err();
    assert!(refused.to_string().ends_with("404 Not Found"), "{refused}");
    part.set(true);
    assert_eq!(client::get(&socket, "/healthz/ready").await.unwrap().status, StatusCode::OK);
    assert_eq!(client::post(&socket, "/echo").await.unwrap().status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_post_carries_a_body_of_bounded_size() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock");
    let routes = Routes::new()
        .post("/count", |call| async move { Reply::text(StatusCode::OK, call.body.len().to_string()) });
    server::serve_unix(&socket, routes, &Drain::new()).unwrap();
    for (bytes, status) in [
        (0, StatusCode::OK),
        (server::BODY_BYTES_MAX, StatusCode::OK),
        (server::BODY_BYTES_MAX + 1, StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let answer = client::post_body(&socket, "/count", vec![b'x'; bytes]).await.unwrap();
        assert_eq!(answer.status, status, "{bytes} bytes");
        assert!(!status.is_success() || answer.body == bytes.to_string(), "{bytes} bytes: {:?}", answer.body);
    }
}

/// Longest time anything here may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A TCP surface whose answer is this long.
async fn tcp(longest: Duration, answer: usize) -> (std::net::SocketAddr, Drain) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, drain) = (listener.local_addr().unwrap(), Drain::new());
    let text = "x".repeat(answer);
    let routes =
        Routes::new().get("/", move |_| std::future::ready(Reply::text(StatusCode::OK, text.clone())));
    server::serve_tcp_within(longest, listener, routes, &drain);
    (address, drain)
}

async fn ask(address: std::net::SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    stream
}

/// Everything that comes until the other side ends it, in whatever way.
async fn rest(mut stream: TcpStream) -> usize {
    let mut all = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("it is held open");
    all.len()
}

/// Those who call and say nothing keep no prober out and hold no more than a bounded number of connections.
#[tokio::test]
async fn callers_who_hold_on_keep_nobody_out() {
    let (address, _drain) = tcp(PATIENCE * 2, 10).await;
    let mut held = Vec::new();
    for _ in 0..64 {
        // Each one has asked and gets its answer, but the server waits for no further request: so ask half.
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        held.push(stream);
    }
    let oldest = held.remove(0);
    assert!(rest(ask(address).await).await > 10, "the prober is answered");
    let cut = tokio::time::timeout(Duration::from_secs(1), rest(oldest)).await;
    assert_eq!(cut.expect("long before it is too late for its request"), 0);
}

/// Who asks and does not read the answer is cut off, and the memory of the answer is free again.
#[tokio::test]
async fn a_caller_who_does_not_read_is_cut_off() {
    const BYTES: usize = 64 << 20;
    let (address, _drain) = tcp(Duration::from_millis(200), BYTES).await;
    let stream = ask(address).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    let got = rest(stream).await;
    assert!(got < BYTES, "{got} bytes of the answer were still sent");
}
