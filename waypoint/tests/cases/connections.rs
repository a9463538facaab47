//! Connections to endpoints: how many there may be, who gives way to whom, how long they are waited for and kept, and
//! what is done with peers that are silent or send what is no response.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ambit_route::model::{Connections, Destination, DestinationPolicy, Retry, Rule};
use ambit_types::{AppProtocol, Identity, TunnelProtocol};
use hyper::client::conn::http1;
use hyper::server;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::rig::app::{App, Executor, answer, text};
use crate::rig::client::{Read, read, request};
use crate::rig::{Rig, Setup, identity, service_key, start, within, workload};
use crate::routing::to;

/// One request of an identity to an authority, on a tunnel of its own.
async fn ask_as(rig: &Rig, identity: &Identity, authority: &str) -> Read {
    let tunnel = rig.tunnel_of(identity).await;
    let stream = rig.connect_with(&tunnel, authority, &[]).await.expect("the waypoint serves it");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
    start(connection);
    let response = within(sender.send_request(request("GET /", &[], text("")))).await;
    read(response.expect("a response")).await
}

/// Serves one connection and answers each request after `pause`; `most` is how many there were at a time.
async fn serve(tcp: TcpStream, streams_max: Option<u32>, pause: Duration, most: Arc<AtomicUsize>) {
    let active = Arc::new(AtomicUsize::new(0));
    let service = service_fn(move |_| {
        let (active, most) = (active.clone(), most.clone());
        async move {
            most.fetch_max(active.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(pause).await;
            active.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, Infallible>(answer(200, "ok"))
        }
    });
    let io = TokioIo::new(tcp);
    let _ = match streams_max {
        None => server::conn::http1::Builder::new().serve_connection(io, service).await,
        Some(max) => {
            let mut builder = server::conn::http2::Builder::new(Executor);
            builder.max_concurrent_streams(max);
            builder.serve_connection(io, service).await
        }
    };
}

/// An application whose connections admit so many streams at a time, HTTP/1.1 if none; how many there were at a time
/// on one, and how many connections have ended.
async fn app(streams_max: Option<u32>, pause: Duration) -> (App, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let (most, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (seen, over) = (most.clone(), ended.clone());
    let app = App::raw("web-0", move |tcp| {
        let (seen, over) = (seen.clone(), over.clone());
        async move {
            serve(tcp, streams_max, pause, seen).await;
            over.fetch_add(1, Ordering::SeqCst);
        }
    });
    (app.await, most, ended)
}

fn protocol(streams_max: Option<u32>) -> AppProtocol {
    if streams_max.is_some() { AppProtocol::Http2 } else { AppProtocol::Http11 }
}

fn at_most(connections_max: u32) -> Destination {
    let connections = Connections { connections_max, ..Connections::default() };
    let policy = DestinationPolicy { connections, ..DestinationPolicy::default() };
    Destination { service: service_key("web"), policy }
}

async fn until(count: &AtomicUsize, n: usize) {
    within(async {
        while count.load(Ordering::SeqCst) < n {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

const WEB: &str = "10.9.0.1:80";

#[tokio::test]
async fn what_one_caller_leaves_idle_gives_way_to_another() {
    for streams_max in [None, Some(100)] {
        let (app, _, _) = app(streams_max, Duration::ZERO).await;
        let mut setup = Setup::new().service("web", protocol(streams_max), &[app.ip]).treated(at_most(1));
        setup.limits.connect_timeout = Duration::from_secs(5);
        let rig = setup.start().await;
        for (n, account) in ["cart", "pay", "cart"].into_iter().enumerate() {
            let answered = ask_as(&rig, &identity("shop", account), WEB).await;
            assert_eq!(answered.status, 200, "row {streams_max:?} {account}");
            assert_eq!(app.connections.load(Ordering::SeqCst), n + 1, "row {streams_max:?} {account}");
        }
    }
}

#[tokio::test]
async fn a_connection_that_does_not_become_free_is_waited_for_so_long() {
    for streams_max in [None, Some(1)] {
        let (app, most, _) = app(streams_max, Duration::from_secs(3600)).await;
        let mut setup = Setup::new().service("web", protocol(streams_max), &[app.ip]).treated(at_most(1));
        setup.limits.connect_timeout = Duration::from_secs(1);
        let rig = setup.start().await;
        let (cart, pay) = (identity("shop", "cart"), identity("shop", "pay"));
        let refused = async {
            until(&most, 1).await;
            ask_as(&rig, &pay, WEB).await
        };
        tokio::select! {
            answered = ask_as(&rig, &cart, WEB) => panic!("{answered:?}"),
            refused = refused => assert_eq!(refused.status, 503, "row {streams_max:?}"),
        }
        assert_eq!(rig.until_written(1).await[0].flag, "UO", "row {streams_max:?}");
    }
}

#[tokio::test]
async fn no_more_streams_than_the_peer_admits_and_those_that_wait_are_told() {
    let (app, most, _) = app(Some(2), Duration::from_millis(20)).await;
    let setup = Setup::new().service("web", AppProtocol::Http2, &[app.ip]).treated(at_most(1));
    let rig = setup.start().await;
    let all = futures_util::future::join_all((0..12).map(|_| rig.get("GET /", &[])));
    assert!(within(all).await.iter().all(|answered| answered.status == 200));
    assert_eq!((app.connections.load(Ordering::SeqCst), most.load(Ordering::SeqCst)), (1, 2));
}

#[tokio::test]
async fn a_peer_that_admits_no_stream_is_waited_for_and_then_it_is_503() {
    let (app, most, _) = app(Some(0), Duration::ZERO).await;
    let mut setup = Setup::new().service("web", AppProtocol::Http2, &[app.ip]);
    setup.limits.connect_timeout = Duration::from_secs(1);
    let rig = setup.start().await;
    assert_eq!(rig.get("GET /", &[]).await.status, 503);
    assert_eq!(rig.until_written(1).await[0].flag, "UO");
    assert_eq!((app.connections.load(Ordering::SeqCst), most.load(Ordering::SeqCst)), (1, 0));
}

/// A rule that tries once.
fn once() -> Rule<ambit_route::model::HttpMatch> {
    Rule { retry: Some(Retry::of_codes(0, Vec::new())), ..to("web") }
}

#[tokio::test]
async fn settings_that_never_come_are_a_failure_that_all_who_wait_share() {
    let app = App::raw("web-0", |mut tcp| async move {
        let _ = tokio::io::copy(&mut tcp, &mut tokio::io::sink()).await;
    })
    .await;
    let mut setup = Setup::new().service("web", AppProtocol::Http2, &[app.ip]).http("web", vec![once()]);
    setup.limits.connect_timeout = Duration::from_millis(1500);
    let rig = setup.start().await;
    let all = futures_util::future::join_all((0..5).map(|_| rig.get("GET /", &[])));
    assert!(within(all).await.iter().all(|answered| answered.status == 503));
    assert_eq!(app.connections.load(Ordering::SeqCst), 1, "one opens, five learn of it");
    assert!(rig.until_written(5).await.iter().all(|record| record.flag == "UF"));
}

#[tokio::test]
async fn callers_do_not_wait_for_each_others_connections() {
    let before = Arc::new(AtomicUsize::new(0));
    let counted = before.clone();
    let app = App::raw("web-0", move |mut tcp| {
        let n = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            if n == 0 {
                let _ = tokio::io::copy(&mut tcp, &mut tokio::io::sink()).await;
            } else {
                serve(tcp, Some(100), Duration::ZERO, Arc::default()).await;
            }
        }
    })
    .await;
    let setup = Setup::new().service("web", AppProtocol::Http2, &[app.ip]).http("web", vec![once()]);
    let rig = setup.start().await;
    let (cart, pay) = (identity("shop", "cart"), identity("shop", "pay"));
    let second = async {
        until(&before, 1).await;
        ask_as(&rig, &pay, WEB).await
    };
    tokio::select! {
        answered = ask_as(&rig, &cart, WEB) => panic!("before the other one: {answered:?}"),
        answered = second => assert_eq!(answered.status, 200),
    }
}

#[tokio::test]
async fn idle_connections_are_closed_after_a_while() {
    for streams_max in [None, Some(100)] {
        let (app, _, ended) = app(streams_max, Duration::ZERO).await;
        let mut setup = Setup::new().service("web", protocol(streams_max), &[app.ip]);
        setup.limits.idle_keep = Duration::from_millis(200);
        let rig = setup.start().await;
        assert_eq!(rig.get("GET /", &[]).await.status, 200, "row {streams_max:?}");
        until(&ended, 1).await;
        assert_eq!(app.connections.load(Ordering::SeqCst), 1, "row {streams_max:?}");
    }
}

#[tokio::test]
async fn a_request_that_ends_by_an_older_state_does_not_bring_it_back() {
    let go = Arc::new(Notify::new());
    let waits = go.clone();
    let one = App::start("web-0", false, move |_, _| {
        let waits = waits.clone();
        async move {
            waits.notified().await;
            answer(503, "one")
        }
    })
    .await;
    let two = App::start("web-1", false, |_, _| async { answer(200, "two") }).await;
    let rule = Rule { retry: Some(Retry::of_codes(1, vec![503])), ..to("web") };
    let setup = Setup::new().service("web", AppProtocol::Http11, &[one.ip]).http("web", vec![rule]);
    let mut rig = setup.start().await;
    let mut sender = rig.http1().await;
    let under_way = start(async move { sender.send_request(request("GET /", &[], text(""))).await });
    one.until_got(1).await;
    rig.change(|setup| {
        let mut other = workload("shop", "web-1", two.ip);
        other.services.insert(service_key("web"), Vec::new());
        setup.workloads = vec![other];
    });
    go.notify_one();
    let response = within(under_way).await.unwrap().unwrap();
    assert_eq!(read(response).await.body, "two");
    for _ in 0..5 {
        assert_eq!(rig.get("GET /", &[]).await.body, "two");
    }
    assert_eq!(one.got().len(), 1);
}

#[tokio::test]
async fn legacy_mutual_tls_is_refused_and_never_plaintext() {
    let app = App::start("web-0", false, |_, _| async { answer(200, "plaintext") }).await;
    let mut setup = Setup::new().service("web", AppProtocol::Http11, &[app.ip]);
    setup.workloads[0].tunnel = TunnelProtocol::LegacyIstioMtls;
    let rig = setup.start().await;
    assert_eq!(rig.get("GET /", &[]).await.status, 503);
    assert_eq!((app.connections.load(Ordering::SeqCst), app.proxy.asked().len()), (0, 0));
}

/// Each destination that is remembered keeps its connections; a client cannot make them as many as there are ports.
#[tokio::test]
async fn ports_that_a_client_chooses_are_remembered_up_to_a_bound() {
    let (app, _, ended) = app(None, Duration::ZERO).await;
    let mut setup = Setup::new().service("web", AppProtocol::Http11, &[]);
    let mut solo = workload("shop", "web-0", app.ip);
    solo.waypoint = setup.services[0].waypoint.clone();
    setup.workloads.push(solo);
    let rig = setup.start().await;
    let cart = identity("shop", "cart");
    assert_eq!(ask_as(&rig, &cart, &format!("{}:8080", app.ip)).await.status, 200);
    for port in 9000..9032 {
        assert_eq!(ask_as(&rig, &cart, &format!("{}:{port}", app.ip)).await.status, 503, "port {port}");
    }
    until(&ended, 1).await;
}

/// Answers `GET /N` with the Nth row and notes when the waypoint closes the connection.
async fn reciting(rows: Vec<String>) -> (App, Arc<AtomicUsize>) {
    let (rows, closed) = (Arc::new(rows), Arc::new(AtomicUsize::new(0)));
    let counted = closed.clone();
    let app = App::raw("web-0", move |mut tcp| {
        let (rows, counted) = (rows.clone(), counted.clone());
        async move {
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                if tcp.read_buf(&mut asked).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            let line = String::from_utf8(asked).unwrap();
            let n = line.split(['/', ' ']).nth(2).unwrap().parse::<usize>().unwrap();
            let _ = tcp.write_all(rows[n].as_bytes()).await;
            let _ = tokio::io::copy(&mut tcp, &mut tokio::io::sink()).await;
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    (app.await, closed)
}

#[tokio::test]
async fn responses_with_two_readings_are_502_and_their_connection_is_closed() {
    let informational = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let rows = vec![
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nhello".to_owned(),
        "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "HTTP/1.1 204 No Content\r\n\r\nhello".to_owned(),
        "HTTP/1.1 304 Not Modified\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 99999 X\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n".to_owned(),
        "nonsense\r\n\r\n".to_owned(),
        format!("{}HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", informational.repeat(9)),
    ];
    let count = rows.len();
    let (app, closed) = reciting(rows).await;
    let rig = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).start().await;
    for n in 0..count {
        assert_eq!(rig.get(&format!("GET /{n}"), &[]).await.status, 502, "row {n}");
        until(&closed, n + 1).await;
    }
    assert_eq!(app.connections.load(Ordering::SeqCst), count, "each is tried once");
}

#[tokio::test]
async fn responses_without_a_body_and_a_few_informational_ones_are_sound() {
    let informational = "HTTP/1.1 103 Early Hints\r\n\r\n";
    let rows = [
        ("HTTP/1.1 204 No Content\r\n\r\n".to_owned(), 204),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n".to_owned(), 204),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n".to_owned(), 304),
        (format!("{}HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", informational.repeat(8)), 200),
    ];
    let (app, _) = reciting(rows.iter().map(|(row, _)| row.clone()).collect()).await;
    let mut setup = Setup::new().service("web", AppProtocol::Http11, &[app.ip]);
    // The application answers once on each connection.
    let connections = Connections { requests_per_connection_max: 1, ..Connections::default() };
    let policy = DestinationPolicy { connections, ..DestinationPolicy::default() };
    setup = setup.treated(Destination { service: service_key("web"), policy });
    let rig = setup.start().await;
    for (n, (row, status)) in rows.iter().enumerate() {
        assert_eq!(rig.get(&format!("GET /{n}"), &[]).await.status, *status, "row {row:?}");
    }
}

/// Answers `GET /N` over HTTP/2 after N informational responses.
async fn hinting() -> App {
    App::raw("web-0", |tcp| async move {
        let Ok(mut connection) = h2::server::handshake(tcp).await else { return };
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let n: usize = request.uri().path()[1..].parse().unwrap();
            for _ in 0..n {
                let hint = http::Response::builder().status(103).body(()).unwrap();
                let _ = respond.send_informational(hint);
            }
            let Ok(mut body) = respond.send_response(http::Response::new(()), false) else { continue };
            let _ = body.send_data(bytes::Bytes::from_static(b"ok"), true);
        }
    })
    .await
}

#[tokio::test]
async fn informational_responses_are_bounded_on_http2_too() {
    let app = hinting().await;
    let setup = Setup::new().service("web", AppProtocol::Http2, &[app.ip]).http("web", vec![once()]);
    let rig = setup.start().await;
    for (n, want) in [(0, 200), (8, 200), (9, 502), (1000, 502), (8, 200)] {
        assert_eq!(rig.get(&format!("GET /{n}"), &[]).await.status, want, "row {n}");
    }
    assert_eq!(app.connections.load(Ordering::SeqCst), 3, "a connection ends with what is wrong on it");
}
