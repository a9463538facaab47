//! Bodies and time: what a slow client, a slow application or a greedy caller can hold, and for how long.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ambit_route::model::{
    Consent, Delay, Destination, DestinationPolicy, Fault, Fraction, HttpMatch, Outlier, Retry, Rule,
    Timeouts,
};
use ambit_runtime::metrics::Source as _;
use ambit_types::{AppProtocol, Reason};
use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use crate::rig::app::{App, Body, answer, text};
use crate::rig::client::{read, request, request2};
use crate::rig::{Rig, Setup, identity, service_key, start, within};
use crate::routing::to;

const GRPC: (&str, &str) = ("content-type", "application/grpc");

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn timed(request: Option<u64>, backend_request: Option<u64>) -> Rule<HttpMatch> {
    let timeouts =
        Timeouts { request: request.map(ms), backend_request: backend_request.map(ms), idle: None };
    Rule { timeouts, ..to("web") }
}

/// A body of what is sent to it, open as long as somebody may send.
fn fed() -> (mpsc::Sender<&'static [u8]>, Body) {
    let (send, recv) = mpsc::channel::<&'static [u8]>(8);
    let frames = futures_util::stream::unfold(recv, |mut recv| async move {
        let bytes = recv.recv().await?;
        Some((Ok(Frame::data(Bytes::from_static(bytes))), recv))
    });
    (send, StreamBody::new(frames).boxed())
}

/// A waypoint before an application, with a rule and other limits.
async fn rig(
    app: &App,
    protocol: AppProtocol,
    rules: Vec<Rule<HttpMatch>>,
    change: impl FnOnce(&mut waypoint::Limits),
) -> Rig {
    let mut setup = Setup::new().service("web", protocol, &[app.ip]);
    if !rules.is_empty() {
        setup = setup.http("web", rules);
    }
    change(&mut setup.limits);
    setup.start().await
}

#[tokio::test]
async fn an_application_that_stays_silent_is_not_waited_for_without_end() {
    let app = App::start("web-0", false, |_, _| std::future::pending()).await;
    let rig = rig(&app, AppProtocol::Http11, vec![], |limits| limits.idle_timeout = ms(200)).await;
    let answered = within(rig.get("GET /", &[])).await;
    assert_eq!((answered.status, answered.header("x-ambit-reason")), (504, "AMB3008"));
    let written = &rig.until_written(1).await[0];
    assert_eq!((written.flag, written.reason), ("SI", Some(Reason::UpstreamTimeout)));
}

#[tokio::test]
async fn a_rule_that_allows_more_time_than_the_usual_silence_means_it() {
    let app = App::start("web-0", false, |_, _| async {
        tokio::time::sleep(ms(600)).await;
        answer(200, "at last")
    })
    .await;
    let rules = vec![timed(Some(10_000), None)];
    let rig = rig(&app, AppProtocol::Http11, rules, |limits| limits.idle_timeout = ms(100)).await;
    assert_eq!(rig.get("GET /", &[]).await.body, "at last");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_408() {
    let app = App::start("web-0", true, |_, request| async {
        let _ = request.into_body().collect().await;
        answer(200, "ok")
    })
    .await;
    for (headers, flag, detail) in [
        (&[][..], "SI", "request_body_too_slow\n"),
        // A call may be silent for as long as it is not idle.
        (&[GRPC], "SI", ""),
    ] {
        let limits = |limits: &mut waypoint::Limits| {
            (limits.upload_rate_window, limits.idle_timeout) = (ms(200), ms(1000));
        };
        let rig = rig(&app, AppProtocol::Http2, vec![], limits).await;
        let (feed, body) = fed();
        feed.send(b"x").await.unwrap();
        let mut sender = rig.http2().await;
        let begun = tokio::time::Instant::now();
        let asked = sender.send_request(request2("POST /", headers, body));
        let answered = read(within(asked).await.unwrap()).await;
        let is_grpc = !headers.is_empty();
        assert_eq!((answered.status, answered.body.as_str()), (if is_grpc { 200 } else { 408 }, detail));
        assert_eq!(answered.headers.get("grpc-status").map(|v| v.as_bytes()), is_grpc.then_some(&b"4"[..]));
        assert_eq!(begun.elapsed() >= ms(900), is_grpc);
        assert_eq!(rig.until_written(1).await[0].flag, flag);
        drop(feed);
    }
}

#[tokio::test]
async fn a_limit_of_time_counts_to_the_last_byte() {
    let app = App::start("web-0", false, |_, request| async move {
        let first = futures_util::stream::iter([Ok(Frame::data(Bytes::from_static(b"first")))]);
        if request.uri().path() == "/silent" {
            let rest = futures_util::stream::pending();
            return Response::new(StreamBody::new(futures_util::StreamExt::chain(first, rest)).boxed());
        }
        // More is always there.
        let all = futures_util::stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(&[7; 1024]))));
        Response::new(StreamBody::new(all).boxed())
    })
    .await;
    for (rule, path) in [
        (timed(Some(300), None), "GET /endless"),
        (timed(Some(300), None), "GET /silent"),
        (timed(None, Some(300)), "GET /endless"),
        (timed(None, Some(300)), "GET /silent"),
    ] {
        let rig = rig(&app, AppProtocol::Http11, vec![rule], |_| {}).await;
        let mut sender = rig.http1().await;
        let response = within(sender.send_request(request(path, &[], text("")))).await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(within(response.into_body().collect()).await.is_err(), "{path}");
        let written = &rig.until_written(1).await[0];
        assert_eq!((written.code, written.flag, written.reason), (200, "UT", Some(Reason::UpstreamTimeout)));
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_holds_nothing_beyond_its_time() {
    let app = App::start("web-0", false, |_, _| async {
        let all = futures_util::stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(&[7; 1024]))));
        Response::new(StreamBody::new(all).boxed())
    })
    .await;
    let rig = rig(&app, AppProtocol::Http11, vec![timed(Some(400), None)], |_| {}).await;
    let mut sender = rig.http2().await;
    let response = within(sender.send_request(request2("GET /", &[], text("")))).await.unwrap();
    // Nothing is read of it.
    let written = &rig.until_written(1).await[0];
    assert_eq!(written.code, 200);
    drop(response);
}

#[tokio::test]
async fn an_attempt_that_is_over_takes_nothing_from_the_next_one() {
    let (read_by_old, noted) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (old, notes) = (read_by_old.clone(), noted.clone());
    let app = App::start("web-0", true, move |n, request| {
        let (old, notes) = (old.clone(), notes.clone());
        async move {
            let mut body = request.into_body();
            if n == 0 {
                start(async move {
                    while let Some(Ok(frame)) = body.frame().await {
                        old.fetch_add(frame.into_data().map_or(0, |data| data.len()), Ordering::SeqCst);
                    }
                });
                return answer(503, "not yet");
            }
            let all = body.collect().await.map(|all| all.to_bytes());
            notes.lock().unwrap().push(all.is_ok());
            Response::new(text(all.unwrap_or_default()))
        }
    })
    .await;
    let retry = Retry { consent: Consent::AnyMethod, ..Retry::of_codes(2, vec![503]) };
    let rig = rig(&app, AppProtocol::Http2, vec![Rule { retry: Some(retry), ..to("web") }], |_| {}).await;
    let (feed, body) = fed();
    feed.send(b"one ").await.unwrap();
    let mut sender = rig.http2().await;
    let asked = sender.send_request(request2("POST /", &[], body));
    let fed = async {
        app.until_got(2).await;
        for bytes in [b"two ", b"six ", b"ten "] {
            feed.send(bytes).await.unwrap();
            tokio::task::yield_now().await;
        }
        drop(feed);
    };
    let (answered, ()) = within(async { tokio::join!(asked, fed) }).await;
    let answered = read(answered.unwrap()).await;
    assert_eq!((answered.status, answered.body.as_str()), (200, "one two six ten "));
    assert_eq!(*noted.lock().unwrap(), [true]);
    assert!(read_by_old.load(Ordering::SeqCst) <= 4);
}

#[tokio::test]
async fn many_small_frames_count_for_what_they_take() {
    let app = App::start("web-0", true, |_, request| async {
        let _ = request.into_body().collect().await;
        answer(503, "no")
    })
    .await;
    for (frames, attempts) in [(100, 3), (600, 1)] {
        let retry = Retry { consent: Consent::AnyMethod, ..Retry::of_codes(2, vec![503]) };
        let rig = rig(&app, AppProtocol::Http2, vec![Rule { retry: Some(retry), ..to("web") }], |_| {}).await;
        let all = (0..frames).map(|_| Ok(Frame::data(Bytes::from_static(b"x"))));
        let body = StreamBody::new(futures_util::stream::iter(all)).boxed();
        let mut sender = rig.http2().await;
        let answered = within(sender.send_request(request2("POST /", &[], body))).await.unwrap();
        assert_eq!(read(answered).await.status, 503);
        assert_eq!(rig.until_written(1).await[0].attempts, attempts, "{frames} frames");
    }
}

#[tokio::test]
async fn what_callers_bring_about_is_not_held_against_endpoints() {
    let handler = |_, request: http::Request<hyper::body::Incoming>| async move {
        if request.uri().path() == "/slow" {
            std::future::pending::<()>().await;
        }
        answer(200, "ok")
    };
    let (one, two) = (App::start("web-0", true, handler).await, App::start("web-1", true, handler).await);
    let outlier = Outlier { consecutive_errors: 1, ..Outlier::default() };
    let policy = DestinationPolicy { outlier: Some(outlier), ..Default::default() };
    let setup = Setup::new().service("web", AppProtocol::Http2, &[one.ip, two.ip]);
    let rig = setup.treated(Destination { service: service_key("web"), policy }).start().await;
    let mut sender = rig.http2().await;
    for _ in 0..6 {
        let headers = [GRPC, ("grpc-timeout", "20m")];
        let asked = sender.send_request(request2("POST /slow", &headers, text("")));
        assert_eq!(within(asked).await.unwrap().headers()["grpc-status"], "4");
    }
    let before = (one.got().len(), two.got().len());
    for _ in 0..40 {
        assert_eq!(rig.get("GET /", &[]).await.status, 200);
    }
    assert!(one.got().len() > before.0 && two.got().len() > before.1, "one of them was left out");
}

#[tokio::test]
async fn calls_speak_http2_whatever_their_port_is_said_to_carry_and_their_messages_are_counted() {
    let app = App::start("web-0", true, |_, request| async {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::builder().header("content-type", "application/grpc").body(text(body)).unwrap()
    })
    .await;
    let rig = rig(&app, AppProtocol::Http11, vec![], |_| {}).await;
    let (feed, body) = fed();
    for bytes in [&b"\0\0\0\0\x02ab\0\0"[..], b"\0\0\0", b"\0\0\0\0\x01c"] {
        feed.send(bytes).await.unwrap();
    }
    drop(feed);
    let mut sender = rig.http2().await;
    let asked = sender.send_request(request2("POST /shop.Cart/Add", &[GRPC, ("te", "trailers")], body));
    assert_eq!(read(within(asked).await.unwrap()).await.status, 200);
    rig.until_written(1).await;
    let mut scraped = String::new();
    rig.waypoint.observe.series.write(&mut scraped);
    for family in ["istio_request_messages_total{", "istio_response_messages_total{"] {
        let line = scraped.lines().find(|line| line.starts_with(family)).unwrap();
        assert!(line.ends_with(" 3"), "{line}");
    }
}

#[tokio::test]
async fn one_caller_does_not_take_the_places_of_all() {
    let app = App::start("web-0", false, |_, request| async move {
        if request.uri().path() == "/slow" {
            std::future::pending::<()>().await;
        }
        answer(200, "ok")
    })
    .await;
    let rig = rig(&app, AppProtocol::Http11, vec![], |limits| limits.requests_per_caller_max = Some(1)).await;
    let mut slow = rig.http1().await;
    let held = start(slow.send_request(request("GET /slow", &[], text(""))));
    app.until_got(1).await;
    let refused = rig.get("GET /", &[]).await;
    assert_eq!((refused.status, refused.header("x-ambit-reason")), (503, "AMB7005"));
    let other = rig.tunnel_of(&identity("jobs", "cron")).await;
    let stream = rig.connect_with(&other, "10.9.0.1:80", &[]).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    start(connection);
    let answered = within(sender.send_request(request("GET /", &[], text("")))).await.unwrap();
    assert_eq!(answered.status(), 200);
    held.abort();
}

#[tokio::test]
async fn all_callers_together_have_a_bound() {
    let app = App::start("web-0", false, |_, _| std::future::pending()).await;
    let rig = rig(&app, AppProtocol::Http11, vec![], |limits| {
        (limits.requests_max, limits.requests_per_caller_max) = (1, Some(1));
    })
    .await;
    let mut slow = rig.http1().await;
    let held = start(slow.send_request(request("GET /", &[], text(""))));
    app.until_got(1).await;
    let other = rig.tunnel_of(&identity("jobs", "cron")).await;
    let stream = rig.connect_with(&other, "10.9.0.1:80", &[]).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    start(connection);
    let refused = within(sender.send_request(request("GET /", &[], text("")))).await.unwrap();
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["x-ambit-reason"], "AMB7002");
    held.abort();
}

#[tokio::test]
async fn a_backend_does_not_park_requests() {
    let app = App::start("web-0", false, |_, _| async {
        Response::builder().status(503).header("retry-after", "3600").body(text("later")).unwrap()
    })
    .await;
    let rule = Rule { retry: Some(Retry::of_codes(3, vec![503])), ..to("web") };
    let rig = rig(&app, AppProtocol::Http11, vec![rule], |_| {}).await;
    let answered = within(rig.get("GET /", &[])).await;
    assert_eq!((answered.status, answered.header("retry-after"), app.got().len()), (503, "3600", 1));
}

#[tokio::test]
async fn a_fault_takes_of_the_requests_time() {
    let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
    let always = Fraction::ALL;
    let delay = Some(Delay { pause: Duration::from_secs(3600), fraction: always });
    let rule = Rule { fault: Some(Fault { delay, abort: None }), ..timed(Some(100), None) };
    let rig = rig(&app, AppProtocol::Http11, vec![rule], |_| {}).await;
    assert_eq!((within(rig.get("GET /", &[])).await.status, app.got().len()), (504, 0));
}

#[tokio::test]
async fn an_upgraded_connection_keeps_its_place_and_ends_when_it_is_idle() {
    let app = App::raw("web-0", |mut tcp| async move {
        let mut bytes = [0; 4096];
        let _ = tcp.read(&mut bytes).await;
        let agreed = b"HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
        let _ = tcp.write_all(agreed).await;
        while let Ok(n) = tcp.read(&mut bytes).await {
            if n == 0 || tcp.write_all(&bytes[..n]).await.is_err() {
                return;
            }
        }
    })
    .await;
    let limits = |limits: &mut waypoint::Limits| {
        (limits.requests_per_caller_max, limits.upgraded_idle_timeout) = (Some(1), ms(800));
    };
    let rig = rig(&app, AppProtocol::Http11, vec![], limits).await;
    let mut sender = rig.http1().await;
    let asked = request("GET /", &[("connection", "Upgrade"), ("upgrade", "echo")], text(""));
    let mut response = within(sender.send_request(asked)).await.unwrap();
    assert_eq!(response.status(), 101);
    let mut io = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    let begun = tokio::time::Instant::now();
    let mut byte = [0];
    for _ in 0..4 {
        io.write_all(b"x").await.unwrap();
        within(io.read_exact(&mut byte)).await.unwrap();
        assert_eq!(rig.get("GET /", &[]).await.status, 503, "the place is taken");
        tokio::time::sleep(ms(300)).await;
    }
    assert!(begun.elapsed() >= ms(1200), "what moves is not idle");
    assert_eq!(within(io.read(&mut byte)).await.unwrap_or(0), 0);
}
