//! The admin socket over a real Unix socket.

use bytes::Bytes;
use http::StatusCode;

use super::{Reply, Routes, client, server};
use crate::drain::Drain;
use crate::readiness::Readiness;

#[tokio::test]
async fn routes_answer_and_unknown_ones_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock");
    let readiness = Readiness::new();
    let part = readiness.part("discovery");
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
    part.set(true);
    assert_eq!(client::get(&socket, "/healthz/ready").await.unwrap().status, StatusCode::OK);
    assert_eq!(client::post(&socket, "/echo").await.unwrap().status, StatusCode::METHOD_NOT_ALLOWED);
}
