//! Limits that a rate limit service of the mesh counts, asked in Envoy's protocol; and where limits of a service hold.

use std::time::Duration;

use ambit_route::model::{
    Connections, Destination, DestinationPolicy, Frontend, Group, HttpRoute, LimitKey, LimitScope, RateLimit,
    RouteKey, Rule,
};
use ambit_types::AppProtocol;
use ambit_xds::proto::envoy::config::core::v3::HeaderValue as Line;
use ambit_xds::proto::envoy::service::ratelimit::v3::rate_limit_response::Code;
use ambit_xds::proto::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::rig::app::{App, Body, answer, text};
use crate::rig::client::request2;
use crate::rig::{PORT, Rig, Setup, fresh_ip, service_key, within};
use crate::routing::to;

fn limited(fail_open: bool, timeout: Duration) -> Rule<ambit_route::model::HttpMatch> {
    let domain = "shop".into();
    let scope = LimitScope::Global { service: service_key("limits"), port: PORT, domain, timeout, fail_open };
    let keys = vec![LimitKey::Caller, LimitKey::Header("x-user".into())];
    Rule { rate_limits: vec![RateLimit { name: "users".into(), keys, scope }], ..to("web") }
}

/// Reads the one message of a request.
async fn read(request: http::Request<Incoming>) -> RateLimitRequest {
    assert_eq!(request.uri().path(), "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit");
    assert_eq!(request.headers()["content-type"], "application/grpc");
    let body = request.into_body().collect().await.unwrap().to_bytes();
    RateLimitRequest::decode(body.slice(5..)).unwrap()
}

/// A message with its prefix, and the status behind it.
fn message(answer: &RateLimitResponse) -> Response<Body> {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(answer.encoded_len()).unwrap());
    framed.put(Bytes::from(answer.encode_to_vec()));
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(framed.freeze()).with_trailers(std::future::ready(Some(Ok(trailers))));
    let response = Response::builder().header("content-type", "application/grpc");
    response.body(body.map_err(|never: std::convert::Infallible| match never {}).boxed()).unwrap()
}

fn line(key: &str, value: &str) -> Line {
    Line { key: key.to_owned(), value: value.to_owned(), ..Line::default() }
}

/// Refuses user `bob`.
async fn limits() -> App {
    App::start("limits-0", true, |_, request| async move {
        let asked = read(request).await;
        assert_eq!(asked.domain, "shop");
        let entries = &asked.descriptors[0].entries;
        assert_eq!(entries[0].value, "spiffe://cluster.local/ns/shop/sa/cart");
        let is_over = entries[1].value == "bob";
        let mut answer = RateLimitResponse::default();
        answer.set_overall_code(if is_over { Code::OverLimit } else { Code::Ok });
        answer.response_headers_to_add =
            vec![line("x-ratelimit-limit", "5"), line("x-ambit-reason", "AMB1001")];
        if is_over {
            answer.response_headers_to_add.push(line("retry-after", "30"));
        } else {
            answer.request_headers_to_add =
                vec![line("x-plan", "free"), line("x-forwarded-client-cert", "By=x")];
        }
        message(&answer)
    })
    .await
}

async fn start(app: &App, limits: &[std::net::IpAddr], rule: Rule<ambit_route::model::HttpMatch>) -> Rig {
    let setup = Setup::new().service("web", AppProtocol::Http11, &[app.ip]);
    setup.service("limits", AppProtocol::Grpc, limits).http("web", vec![rule]).start().await
}

#[tokio::test]
async fn a_service_of_the_mesh_says_who_may_pass() {
    let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
    let limits = limits().await;
    let rig = start(&app, &[limits.ip], limited(false, Duration::from_secs(10))).await;
    let refused = rig.get("GET /", &[("x-user", "bob")]).await;
    assert_eq!((refused.status, refused.header("x-ambit-reason")), (429, "AMB2208"));
    assert_eq!((refused.header("x-envoy-ratelimited"), refused.header("retry-after")), ("true", "30"));
    assert_eq!(refused.header("x-ratelimit-limit"), "5");
    assert!(app.got().is_empty());
    let passed = rig.get("GET /", &[("x-user", "ann"), ("x-plan", "gold")]).await;
    assert_eq!((passed.status, passed.header("x-ratelimit-limit")), (200, "5"));
    assert!(!passed.headers.contains_key("x-ambit-reason"));
    let got = &app.got()[0].headers;
    assert_eq!(got["x-plan"], "free");
    assert!(got["x-forwarded-client-cert"].to_str().unwrap().contains("sa/cart"));
    assert_eq!(limits.got().len(), 2);
    let asked = &limits.proxy.asked()[0];
    assert_eq!(asked.peer.to_string(), "spiffe://cluster.local/ns/shop/sa/waypoint");
    assert!(!asked.headers.contains_key("x-ambit-client"), "the waypoint asks for itself");
}

#[tokio::test]
async fn a_request_without_the_header_is_not_asked_about() {
    let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
    let limits = limits().await;
    let rig = start(&app, &[limits.ip], limited(false, Duration::from_secs(10))).await;
    assert_eq!(rig.get("GET /", &[]).await.status, 200);
    assert!(limits.got().is_empty());
}

#[tokio::test]
async fn a_service_that_does_not_answer_refuses_unless_it_may_fail() {
    let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
    let slow = App::start("limits-0", true, |_, _| std::future::pending()).await;
    let garbage = App::start("limits-0", true, |_, _| async { answer(200, "ok") }).await;
    let short = Duration::from_millis(200);
    for (name, limits) in [
        ("slow", vec![slow.ip]),
        ("garbage", vec![garbage.ip]),
        ("absent", vec![]),
        ("down", vec![fresh_ip()]),
    ] {
        let rig = start(&app, &limits, limited(false, short)).await;
        let refused = within(rig.get("GET /", &[("x-user", "ann")])).await;
        assert_eq!((refused.status, refused.header("x-ambit-reason")), (503, "AMB2209"), "{name}");
        assert_eq!(rig.until_written(1).await[0].flag, "RLSE", "{name}");
        let rig = start(&app, &limits, limited(true, short)).await;
        assert_eq!(within(rig.get("GET /", &[("x-user", "ann")])).await.status, 200, "{name}");
    }
}

#[tokio::test]
async fn a_flood_does_not_open_a_limit_that_fails_open() {
    let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
    let slow = App::start("limits-0", true, |_, _| std::future::pending()).await;
    let connections = Connections { requests_max: 1, ..Connections::default() };
    let policy = DestinationPolicy { connections, ..DestinationPolicy::default() };
    let setup = Setup::new().service("web", AppProtocol::Http11, &[app.ip]);
    let setup = setup.service("limits", AppProtocol::Grpc, &[slow.ip]);
    let setup = setup.treated(Destination { service: service_key("limits"), policy });
    let rig = setup.http("web", vec![limited(true, Duration::from_secs(10))]).start().await;
    let mut sender = rig.http2().await;
    let first = crate::rig::start(async move {
        // It is still waiting when the test ends.
        let _ = sender.send_request(request2("GET /", &[("x-user", "ann")], text(Bytes::new()))).await;
    });
    slow.until_got(1).await;
    assert_eq!(rig.get("GET /", &[("x-user", "ann")]).await.status, 503);
    assert!(app.got().is_empty());
    first.abort();
}

/// A rule that lets so many requests of all callers pass.
fn few(requests: u32) -> Rule<ambit_route::model::HttpMatch> {
    let scope = LimitScope::Local { requests, interval: Duration::from_secs(3600), burst: 0 };
    Rule { rate_limits: vec![RateLimit { name: "few".into(), keys: Vec::new(), scope }], ..to("web") }
}

/// The service with a rule in place of routes, on a port that declares nothing.
fn unrouted(endpoint: std::net::IpAddr, rule: Rule<ambit_route::model::HttpMatch>) -> Setup {
    let mut setup = Setup::new().service("web", AppProtocol::Unknown, &[endpoint]);
    let route = HttpRoute { key: RouteKey::new("shop", "web"), created: 0, rules: vec![rule] };
    setup.routes.frontends.push(Frontend {
        service: service_key("web"),
        port: PORT,
        producer: Some(Group::Unrouted(vec![route])),
        consumers: Default::default(),
    });
    setup
}

/// The status of one request to an authority.
async fn status_at(rig: &Rig, authority: &str) -> String {
    let mut stream = rig.connect_with(rig.tunnel().await, authority, &[]).await.unwrap();
    within(async {
        let asked = b"GET / HTTP/1.1\r\nHost: web.shop\r\nConnection: close\r\n\r\n";
        stream.write_all(asked).await.unwrap();
        let mut answered = Vec::new();
        // The waypoint may close as it likes once it has answered.
        let _ = stream.read_to_end(&mut answered).await;
        String::from_utf8_lossy(answered.get(9..12).unwrap_or_default()).into_owned()
    })
    .await
}

#[tokio::test]
async fn limits_hold_where_nothing_is_declared_for_what_turns_out_to_be_requests() {
    let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
    let rig = unrouted(app.ip, few(2)).start().await;
    for want in ["200", "200", "429"] {
        assert_eq!(status_at(&rig, "10.9.0.1:80").await, want);
    }
    let first = App::raw("web-0", |mut tcp| async move {
        let _ = tcp.write_all(b"220 hello").await;
        let _ = tokio::io::copy(&mut tcp, &mut tokio::io::sink()).await;
    })
    .await;
    let rig = unrouted(first.ip, few(2)).start().await;
    for n in 0..3 {
        let mut stream = rig.connect().await;
        let mut greeting = [0; 9];
        within(stream.read_exact(&mut greeting)).await.unwrap();
        assert_eq!(&greeting, b"220 hello", "row {n}: the server may speak first, and is not counted");
    }
}

#[tokio::test]
async fn a_pods_own_address_is_no_way_around_the_limits_of_its_services() {
    for is_declared in [true, false] {
        let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
        let mut setup = match is_declared {
            true => Setup::new().service("web", AppProtocol::Http11, &[app.ip]).http("web", vec![few(3)]),
            false => unrouted(app.ip, few(3)),
        };
        setup.workloads[0].settings = Some(Default::default());
        let rig = setup.start().await;
        let pod = format!("{}:8080", app.ip);
        for (authority, want) in
            [("10.9.0.1:80", "200"), (&pod, "200"), (&pod, "200"), (&pod, "429"), ("10.9.0.1:80", "429")]
        {
            assert_eq!(status_at(&rig, authority).await, want, "row {authority}, declared: {is_declared}");
        }
    }
}
