//! Traces and counts from end to end: real requests, and a collector of the test that reads what the waypoint exports.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ambit_route::model::{Backoff, Filter, Fraction, Mirror, Retry, Rule, Target};
use ambit_runtime::drain::Drain;
use ambit_runtime::metrics::Source as _;
use ambit_types::AppProtocol;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use waypoint::observe::otel::Settings;
use waypoint::observe::{Setup as Observing, export};

use crate::rig::app::{App, answer, text};
use crate::rig::client::{request, request2};
use crate::rig::{PORT, Setup, service_key, start, within};
use crate::routing::to;

const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// The parts of OTLP that these tests read, by the numbers of `trace.proto`.
mod otlp {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Request {
        #[prost(message, repeated, tag = "1")]
        pub(super) of_resources: Vec<OfResource>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct OfResource {
        #[prost(message, repeated, tag = "2")]
        pub(super) of_scopes: Vec<OfScope>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct OfScope {
        #[prost(message, repeated, tag = "2")]
        pub(super) spans: Vec<Span>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Span {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) trace: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub(super) id: Vec<u8>,
        #[prost(bytes = "vec", tag = "4")]
        pub(super) parent: Vec<u8>,
        #[prost(string, tag = "5")]
        pub(super) name: String,
        #[prost(int32, tag = "6")]
        pub(super) kind: i32,
    }
}

const SERVER: i32 = 2;
const CLIENT: i32 = 3;

/// Keeps the spans that come.
#[derive(Clone)]
struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<otlp::Span>>>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("an address");
        let collector = Self { address, spans: Arc::default() };
        let serving = collector.clone();
        start(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let collector = serving.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let collector = collector.clone();
                    async move { Ok::<_, Infallible>(collector.take(request).await) }
                });
                let builder = hyper::server::conn::http1::Builder::new();
                start(builder.serve_connection(TokioIo::new(tcp), service));
            }
        });
        collector
    }

    async fn take(&self, request: Request<Incoming>) -> Response<Empty<Bytes>> {
        assert_eq!(request.uri().path(), "/v1/traces");
        assert_eq!(request.headers()["content-type"], "application/x-protobuf");
        let body = request.into_body().collect().await.expect("a whole body").to_bytes();
        let request = otlp::Request::decode(body).expect("OTLP");
        let scopes = request.of_resources.into_iter().flat_map(|of| of.of_scopes);
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        spans.extend(scopes.flat_map(|of| of.spans));
        Response::new(Empty::new())
    }

    /// Telemetry that exports here what a sampler takes.
    fn observing(&self, sampler: &str) -> Observing {
        let endpoint = format!("http://{}", self.address);
        let settings = Settings::read(|name| match name {
            "OTEL_EXPORTER_OTLP_ENDPOINT" => Some(endpoint.clone()),
            "OTEL_TRACES_SAMPLER" => Some(sampler.to_owned()),
            _ => None,
        });
        let settings = settings.expect("settings");
        let exporter = export::start(&settings, "waypoint", &Drain::new()).expect("an exporter");
        Observing { sampler: settings.sampler, exporter, ..Observing::default() }
    }

    /// The spans, once the exporter has sent all it had.
    async fn of(&self, exporter: Option<export::Exporter>) -> Vec<otlp::Span> {
        within(exporter.expect("an exporter").finish()).await;
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn quick(retry: Retry) -> Retry {
    let millis = std::time::Duration::from_millis;
    Retry { backoff: Backoff { base: millis(1), max: millis(2) }, ..retry }
}

#[tokio::test]
async fn a_chain_of_three_services_is_one_trace_with_right_parents() {
    let app = App::start("web-0", false, |_, _| async { answer(200, "hello") }).await;
    let collector = Collector::start().await;
    let observing = collector.observing("parentbased_always_off");
    let exporter = observing.exporter.clone();
    let setup = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).observing(observing);
    let rig = setup.start().await;
    // Each service passes on what it got, as applications do.
    let mut context = CALLER.to_owned();
    for n in 0..3 {
        rig.get("GET /", &[("traceparent", &context)]).await;
        app.got()[n].headers["traceparent"].to_str().unwrap().clone_into(&mut context);
    }
    rig.until_written(3).await;
    let spans = collector.of(exporter).await;
    let by_id: BTreeMap<String, &otlp::Span> = spans.iter().map(|span| (hex(&span.id), span)).collect();
    assert_eq!(by_id.len(), 6, "{spans:?}");
    assert!(spans.iter().all(|span| hex(&span.trace) == "0af7651916cd43dd8448eb211c80319c"));
    // From the last context back to the caller.
    let mut at = context.split('-').nth(2).unwrap().to_owned();
    for _ in 0..3 {
        for kind in [CLIENT, SERVER] {
            let span = by_id[&at];
            assert_eq!(span.kind, kind, "{span:?}");
            at = hex(&span.parent);
        }
    }
    assert_eq!(at, "b7ad6b7169203331");
}

#[tokio::test]
async fn attempts_are_spans_of_one_request_and_what_nobody_samples_has_none() {
    let app = App::start("web-0", false, |n, _| async move {
        if n == 0 { answer(503, "not yet") } else { answer(200, "at last") }
    })
    .await;
    let collector = Collector::start().await;
    let observing = collector.observing("parentbased_always_off");
    let exporter = observing.exporter.clone();
    let rule = Rule { retry: Some(quick(Retry::of_codes(1, vec![503]))), ..to("web") };
    let setup = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).http("web", vec![rule]);
    let rig = setup.observing(observing).start().await;
    rig.get("GET /", &[("traceparent", CALLER)]).await;
    rig.get("GET /", &[("traceparent", &CALLER.replace("-01", "-00"))]).await;
    rig.get("GET /", &[]).await;
    rig.until_written(3).await;
    let got: Vec<String> =
        app.got().iter().map(|got| got.headers["traceparent"].to_str().unwrap().to_owned()).collect();
    let spans = collector.of(exporter).await;
    let kinds: Vec<i32> = spans.iter().map(|span| span.kind).collect();
    assert_eq!(kinds, [SERVER, CLIENT, CLIENT], "{spans:?}");
    assert_eq!(spans[0].name, "shop/route rule 0");
    for (n, attempt) in spans[1..].iter().enumerate() {
        assert_eq!(attempt.parent, spans[0].id);
        assert_eq!(got[n].split('-').nth(2).unwrap(), hex(&attempt.id), "attempt {n}");
    }
    assert!(got[2].ends_with("-00") && got[3].ends_with("-00"), "{got:?}");
}

#[tokio::test]
async fn metrics_add_up_to_the_requests_sent_however_they_end() {
    let app = App::start("web-0", false, |n, _| async move {
        match n % 3 {
            0 => answer(200, "hello"),
            1 => answer(404, "no"),
            _ => answer(503, "broken"),
        }
    })
    .await;
    let policy = "{action: DENY, rules: [{to: [{operation: {paths: [/secret]}}]}]}";
    let rule = Rule { retry: Some(quick(Retry::of_codes(1, vec![503]))), ..to("web") };
    let setup = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).http("web", vec![rule]);
    let rig = setup.policy(policy).start().await;
    for _ in 0..10 {
        rig.get("GET /", &[]).await;
        assert_eq!(rig.get("GET /secret", &[]).await.status, 403);
    }
    assert_eq!(rig.get("GET /", &[("expect", "the-unexpected")]).await.status, 417);
    let written = rig.until_written(21).await;
    let attempts: u32 = written.iter().map(|one| one.attempts).sum();
    let mut text = String::new();
    rig.waypoint.observe.series.write(&mut text);
    let sum = |family: &str| -> u64 {
        let lines = text.lines().filter(|line| line.starts_with(family));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    };
    assert_eq!((written.len(), sum("istio_requests_total{")), (21, 21), "{text}");
    assert_eq!(sum("istio_request_duration_milliseconds_count{"), 21);
    assert_eq!(sum("ambit_waypoint_attempts_total"), u64::from(attempts));
    assert_eq!(sum("ambit_waypoint_attempts_total"), u64::try_from(app.got().len()).unwrap());
    assert_eq!(sum("ambit_waypoint_route_requests_total{"), 10);
    assert_eq!(rig.waypoint.observe.flows.memory().records, 21);
}

#[tokio::test]
async fn a_request_counts_once_whoever_breaks_it_off_and_whatever_it_becomes() {
    let breaking = App::raw("web-0", |mut tcp| async move {
        let mut head = [0; 4096];
        let n = tcp.read(&mut head).await.unwrap_or(0);
        let asked = String::from_utf8_lossy(&head[..n]).into_owned();
        if asked.starts_with("GET /broken") {
            // Less than it promises.
            let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
        } else if asked.starts_with("GET /ws") {
            let agreed = b"HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
            let _ = tcp.write_all(agreed).await;
        } else {
            // The client gives up first.
            let _ = tcp.read(&mut head).await;
        }
    })
    .await;
    let copied = App::start("copy-0", false, |_, _| async { answer(200, "a copy") }).await;
    let target = Target::Service { service: service_key("copy"), port: PORT };
    let filters = vec![Filter::Mirror(Mirror { target, fraction: Fraction::ALL })];
    let setup = Setup::new().service("web", AppProtocol::Http11, &[breaking.ip]);
    let setup = setup.service("copy", AppProtocol::Http11, &[copied.ip]);
    let rig = setup.http("web", vec![Rule { filters, ..to("web") }]).start().await;
    let mut sender = rig.http1().await;
    // The connection may break before its head has left.
    if let Ok(broken) = within(sender.send_request(request("GET /broken", &[], text("")))).await {
        assert!(within(broken.into_body().collect()).await.is_err());
    }
    let mut sender = rig.http1().await;
    let headers = [("connection", "Upgrade"), ("upgrade", "websocket")];
    let agreed = within(sender.send_request(request("GET /ws", &headers, text("")))).await.expect("a head");
    assert_eq!(agreed.status(), 101);
    let mut sender = rig.http2().await;
    let left = sender.send_request(request2("GET /left", &[], text("")));
    tokio::select! {
        answered = left => panic!("nobody answers: {answered:?}"),
        () = copied.until_got(3) => {}
    }
    let written = rig.until_written(3).await;
    let mut ends: Vec<_> = written.iter().map(|one| (one.code, one.flag)).collect();
    ends.sort_unstable();
    assert_eq!(ends, [(0, "DC"), (101, "-"), (200, "UC")]);
    assert_eq!(rig.waypoint.observe.flows.memory().records, 3);
    let mut text = String::new();
    rig.waypoint.observe.series.write(&mut text);
    let counted = text.lines().filter(|line| line.starts_with("istio_requests_total{"));
    let counted: Vec<_> = counted.map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert_eq!(counted, ["1", "1", "1"], "{text}");
}
