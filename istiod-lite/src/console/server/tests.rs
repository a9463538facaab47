//! The surface over a real socket: the bundle, data, and what every answer carries.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ambit_net::tls::provider;
use ambit_runtime::admin::{Reply, Routes};
use ambit_runtime::drain::Drain;
use bytes::Bytes;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::PrivateKeyDer;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

use super::{CONNECTIONS_EACH_MAX, CONTENT_SECURITY_POLICY, Desk, serve, serve_tls, serve_within};
use crate::console::Guard;

const TOKEN: &str = "0123456789abcdef";
/// Longest time anything here may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A console with one path of data and one that is none of its own.
async fn console(guard: Guard) -> (SocketAddr, Drain) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, drain) = (listener.local_addr().unwrap(), Drain::new());
    let routes = Routes::new()
        .get("/api/v1/nodes", |_| async { Reply::json(&json!({"secretless": true})) })
        .get("/config_dump", |_| async { Reply::json(&json!({"dump": true})) });
    serve(listener, routes, guard, &drain);
    (address, drain)
}

/// The whole answer to a request with further header lines.
async fn ask(address: SocketAddr, path: &str, more: &str) -> String {
    let call = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{more}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    };
    tokio::time::timeout(PATIENCE, call).await.unwrap()
}

#[track_caller]
fn is(answer: &str, status: u16) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert!(answer.contains(CONTENT_SECURITY_POLICY), "{answer}");
    for header in ["x-content-type-options: nosniff", "x-frame-options: DENY", "cache-control: no-store"] {
        assert!(answer.contains(header), "{header}: {answer}");
    }
    assert!(!answer.contains("access-control-"), "{answer}");
}

#[tokio::test]
async fn the_bundle_and_data_are_served_and_nothing_else() {
    let (address, drain) = console(Guard::new(None)).await;
    let page = ask(address, "/", "").await;
    is(&page, 200);
    assert!(page.contains("text/html") && page.contains("/app.js") && page.contains("/app.css"), "{page}");
    for (path, kind) in
        [("/app.js", "text/javascript"), ("/app.css", "text/css"), ("/icon.svg", "image/svg+xml")]
    {
        let file = ask(address, path, "").await;
        is(&file, 200);
        assert!(file.contains(kind), "{path}");
    }
    let data = ask(address, "/api/v1/nodes", "").await;
    is(&data, 200);
    assert!(data.ends_with(r#"{"secretless":true}"#), "{data}");
    // Routes that are not of the API are for the admin socket alone.
    for path in ["/config_dump", "/logging", "/app.js/", "/../Cargo.toml", "/api/v2/nodes"] {
        is(&ask(address, path, "").await, 404);
    }
    is(&ask(address, "/api/v1/nodes", "origin: https://evil.example\r\n").await, 403);
    drain.begin();
}

/// What the bundle holds needs nothing that the policy forbids.
#[tokio::test]
async fn the_page_has_no_script_or_style_of_its_own_and_asks_nobody_else() {
    let (address, drain) = console(Guard::new(None)).await;
    let page = ask(address, "/", "").await;
    for part in page.split("<script").skip(1) {
        assert!(part.contains("src=\"/") && part.contains("></script>"), "a script in the page: {part}");
    }
    assert!(!page.contains("<style") && !page.contains(" style="), "{page}");
    assert!(!page.contains("https://") && !page.contains("href=\"http"), "{page}");
    drain.begin();
}

#[tokio::test]
async fn without_the_token_there_is_no_data() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, TOKEN).unwrap();
    let (address, drain) = console(Guard::new(Some(path))).await;
    is(&ask(address, "/", "").await, 200);
    let refused = ask(address, "/api/v1/nodes", "").await;
    is(&refused, 401);
    assert!(refused.contains("www-authenticate: Bearer") && !refused.contains("secretless"), "{refused}");
    is(&ask(address, "/api/v1/nodes", &format!("authorization: Bearer {TOKEN}\r\n")).await, 200);
    is(&ask(address, "/api/v1/nodes", &format!("x-ambit-console-token: {TOKEN}\r\n")).await, 200);
    // It is never taken from the address, where it would be logged.
    is(&ask(address, &format!("/api/v1/nodes?token={TOKEN}"), "").await, 401);
    drain.begin();
}

/// What a reader does not take is free again, and its place too.
#[tokio::test]
async fn a_reader_that_takes_nothing_is_dropped() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, drain) = (listener.local_addr().unwrap(), Drain::new());
    let (hand, mut streams) = mpsc::channel(1);
    let routes = Routes::new().get("/api/v1/events", move |_| {
        let (send, events) = mpsc::channel(1);
        hand.try_send(send).expect("it is asked for once");
        async move { Reply::events(events) }
    });
    let desk = Desk { routes, guard: Guard::new(None), tls: None };
    serve_within(Duration::from_millis(200), listener, desk, &drain);
    let mut reader = TcpStream::connect(address).await.unwrap();
    let head = format!("GET /api/v1/events HTTP/1.1\r\nhost: {address}\r\n\r\n");
    reader.write_all(head.as_bytes()).await.unwrap();
    let filled = async {
        let send: mpsc::Sender<Bytes> = streams.recv().await.unwrap();
        let piece = Bytes::from(vec![b'x'; 1 << 20]);
        let mut sent: usize = 0;
        while send.send(piece.clone()).await.is_ok() {
            sent += piece.len();
        }
        sent
    };
    let sent = tokio::time::timeout(PATIENCE, filled).await.expect("it is waited for without end");
    assert!(sent > 0, "it was never told anything");
    drain.begin();
}

#[tokio::test]
async fn a_route_learns_who_calls() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, drain) = (listener.local_addr().unwrap(), Drain::new());
    let routes = Routes::new().get("/api/v1/peer", |call| async move { Reply::json(&call.peer) });
    serve(listener, routes, Guard::new(None), &drain);
    let answer = ask(address, "/api/v1/peer", "").await;
    assert!(answer.ends_with("\"127.0.0.1\""), "{answer}");
    drain.begin();
}

#[tokio::test]
async fn one_caller_has_no_more_connections_than_its_share() {
    let (address, drain) = console(Guard::new(None)).await;
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS_EACH_MAX {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!("GET /api/v1/nodes HTTP/1.1\r\nhost: {address}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        // Answered, and kept open for the next request.
        assert!(tokio::time::timeout(PATIENCE, stream.read_u8()).await.unwrap().is_ok());
        held.push(stream);
    }
    let mut more = TcpStream::connect(address).await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, more.read(&mut [0; 1])).await.expect("it is let in");
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    drop(held.pop());
    let again = async {
        // Its end is noticed a moment later.
        loop {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let head = format!("GET /api/v1/nodes HTTP/1.1\r\nhost: {address}\r\n\r\n");
            let asked = stream.write_all(head.as_bytes()).await.is_ok();
            if asked && stream.read_u8().await.is_ok() {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("a place is given back");
    drain.begin();
}

/// Where others can call, a token is not to be read on the way.
#[tokio::test]
async fn by_tls_there_is_no_answer_in_the_clear() {
    let own = rcgen::generate_simple_self_signed(vec!["istiod.test".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
    let settings = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(own.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, drain) = (listener.local_addr().unwrap(), Drain::new());
    let routes = Routes::new().get("/api/v1/nodes", |_| async { Reply::json(&json!({"secretless": true})) });
    serve_tls(listener, settings, routes, Guard::new(None), &drain);
    let head = "GET /api/v1/nodes HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

    let told = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = "istiod.test".try_into().unwrap();
        let mut stream = TlsConnector::from(Arc::new(client)).connect(name, stream).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    };
    let told = tokio::time::timeout(PATIENCE, told).await.unwrap();
    is(&told, 200);
    let clear = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A reset says the same as an end.
        let _ = stream.read_to_end(&mut answer).await;
        answer
    };
    let clear = tokio::time::timeout(PATIENCE, clear).await.unwrap();
    assert!(!String::from_utf8_lossy(&clear).contains("HTTP/1.1"), "{clear:?}");
    drain.begin();
}
