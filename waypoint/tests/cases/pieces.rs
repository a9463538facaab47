//! Bodies in very many small pieces, and connections with very many requests: nothing of them is lost, and what they
//! cost behind the waypoint is bounded.

use std::time::Duration;

use ambit_route::model::{Consent, Retry, Rule};
use ambit_types::AppProtocol;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};

use crate::rig::app::{App, text};
use crate::rig::client::{read, request2};
use crate::rig::{Setup, start, within};
use crate::routing::to;

/// Letters, so many that their order shows.
fn letters(count: usize) -> String {
    ('a'..='z').cycle().take(count).collect()
}

/// What came of a body, in how many frames, and its trailers.
async fn taken(mut body: Incoming) -> (String, usize, HeaderMap) {
    let (mut all, mut frames, mut trailers) = (Vec::new(), 0, HeaderMap::new());
    while let Some(frame) = body.frame().await {
        match frame.unwrap().into_data() {
            Ok(data) => {
                all.extend_from_slice(&data);
                frames += 1;
            }
            Err(other) => trailers = other.into_trailers().unwrap(),
        }
    }
    (String::from_utf8(all).unwrap(), frames, trailers)
}

#[tokio::test]
async fn small_frames_go_on_together_also_when_they_are_sent_again() {
    const FRAMES: usize = 300;
    let app = App::start("web-0", true, |n, request| async move {
        let (all, frames, trailers) = taken(request.into_body()).await;
        let status = if n == 0 { 503 } else { 200 };
        let sum = trailers.get("x-sum").cloned().unwrap_or(HeaderValue::from_static("none"));
        let response = Response::builder().status(status).header("x-sum", sum).header("x-frames", frames);
        response.body(text(all)).unwrap()
    })
    .await;
    let retry = Retry { consent: Consent::AnyMethod, ..Retry::of_codes(2, vec![503]) };
    let setup = Setup::new().service("web", AppProtocol::Http2, &[app.ip]);
    let rig = setup.http("web", vec![Rule { retry: Some(retry), ..to("web") }]).start().await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("7"));
    let data = letters(FRAMES).into_bytes().into_iter();
    let data = data.map(|byte| Ok(Frame::data(Bytes::from(vec![byte]))));
    let body =
        StreamBody::new(futures_util::stream::iter(data.chain([Ok(Frame::trailers(trailers))]))).boxed();
    let mut sender = rig.http2().await;
    let asked = sender.send_request(request2("POST /", &[("te", "trailers")], body));
    let answered = read(within(asked).await.unwrap()).await;
    assert_eq!((answered.status, answered.header("x-sum")), (200, "7"));
    assert_eq!(answered.body, letters(FRAMES));
    let frames: usize = answered.header("x-frames").parse().unwrap();
    assert!(frames < FRAMES / 3, "{frames} frames");
    let written = &rig.until_written(1).await[0];
    assert_eq!((written.attempts, written.bytes.0), (2, FRAMES as u64));
}

#[tokio::test]
async fn tiny_chunks_reach_an_application_whole_and_no_faster_than_they_may() {
    const CHUNKS: usize = 6000;
    for is_http2 in [false, true] {
        let app = App::start("web-0", is_http2, |_, request| async move {
            let (all, frames, _) = taken(request.into_body()).await;
            Response::builder().header("x-frames", format!("={frames}=")).body(text(all)).unwrap()
        })
        .await;
        let protocol = if is_http2 { AppProtocol::Http2 } else { AppProtocol::Http11 };
        let rig = Setup::new().service("web", protocol, &[app.ip]).start().await;
        let head = "POST / HTTP/1.1\r\nHost: web.shop\r\nConnection: close\r\n";
        let chunks: String = letters(CHUNKS).chars().map(|letter| format!("1\r\n{letter}\r\n")).collect();
        let begun = tokio::time::Instant::now();
        let asked = format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n");
        let answered = rig.raw(asked.as_bytes()).await;
        let windows = usize::try_from(begun.elapsed().as_millis()).unwrap() / 10 + 2;
        assert!(answered.starts_with("HTTP/1.1 200") && answered.ends_with(&letters(CHUNKS)), "{answered}");
        let frames: usize = answered.split('=').nth(1).unwrap().parse().unwrap();
        // Of a window: those that go on as they come, and what is held back.
        assert!(frames <= windows * 70, "{frames} frames in {windows} windows");
        assert!(CHUNKS <= windows * 1024, "{windows} windows");
        assert_eq!(rig.until_written(1).await[0].bytes.0, CHUNKS as u64);
    }
}

#[tokio::test]
async fn a_few_small_chunks_are_not_waited_for() {
    let app = App::start("web-0", false, |_, request| async move {
        let first = request.into_body().frame().await.unwrap().unwrap();
        Response::new(text(first.into_data().unwrap()))
    })
    .await;
    let rig = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).start().await;
    // The rest never comes.
    let (_feed, recv) = tokio::sync::mpsc::channel::<()>(1);
    let first = futures_util::stream::iter([Ok(Frame::data(Bytes::from_static(b"first")))]);
    let rest = futures_util::stream::unfold(recv, |mut recv| async move {
        recv.recv().await;
        None
    });
    let body = StreamBody::new(futures_util::StreamExt::chain(first, rest)).boxed();
    let mut sender = rig.http1().await;
    let asked = sender.send_request(crate::rig::client::request("POST /", &[], body));
    assert_eq!(read(within(asked).await.unwrap()).await.body, "first");
}

#[tokio::test]
async fn a_connection_whose_requests_are_not_answered_has_them_begun_one_after_the_other() {
    const REQUESTS: usize = 150;
    let app = App::start("web-0", true, |_, _| std::future::pending()).await;
    let setup = Setup::new().service("web", AppProtocol::Http2, &[app.ip]);
    let rig = setup.start().await;
    let mut sender = rig.http2().await;
    let begun = tokio::time::Instant::now();
    let ask = |_| start(sender.send_request(request2("GET /", &[], text(""))));
    let asked: Vec<_> = (0..REQUESTS).map(ask).collect();
    app.until_got(REQUESTS).await;
    // All but the first 32, one with each millisecond.
    assert!(begun.elapsed() >= Duration::from_millis(100), "{:?}", begun.elapsed());
    asked.iter().for_each(tokio::task::JoinHandle::abort);
}
