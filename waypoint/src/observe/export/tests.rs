//! Spans arriving at a collector of the test, by both protocols, and collectors that do not take them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ambit_runtime::drain::Drain;
use ambit_runtime::tasks;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::{ExportError, Exporter, start};
use crate::observe::otel::Settings;
use crate::observe::otlp::{ExportRequest, ExportResponse, Span};

const BOUND: Duration = Duration::from_secs(20);

/// What a collector got.
#[derive(Debug, Clone)]
struct Got {
    path: String,
    headers: HeaderMap,
    request: ExportRequest,
}

/// A collector that answers each request with the next of some statuses, and with the last of them from then on.
struct Collector {
    address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
    news: watch::Receiver<usize>,
}

impl Collector {
    async fn start(is_grpc: bool, statuses: &'static [u16]) -> Self {
        Self::start_with(is_grpc, statuses, None).await
    }

    async fn start_with(is_grpc: bool, statuses: &'static [u16], tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let got: Arc<Mutex<Vec<Got>>> = Arc::default();
        let (told, news) = watch::channel(0);
        let serving = Serving { is_grpc, statuses, kept: got.clone(), told: Arc::new(told) };
        tasks::spawn("collector", async move {
            loop {
                let Ok((tcp, _)) = listener.accept().await else { return };
                let (serving, tls) = (serving.clone(), tls.clone());
                tasks::spawn("collector-connection", async move {
                    match tls {
                        None => serving.serve(tcp).await,
                        Some(tls) => {
                            // A client that does not trust us leaves.
                            if let Ok(io) = tls.accept(tcp).await {
                                serving.serve(io).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, got, news }
    }

    async fn until(&mut self, n: usize) -> Vec<Got> {
        tokio::time::timeout(BOUND, self.news.wait_for(|got| *got >= n)).await.unwrap().unwrap();
        self.got.lock().unwrap().clone()
    }
}

/// What answers requests.
#[derive(Clone)]
struct Serving {
    is_grpc: bool,
    statuses: &'static [u16],
    kept: Arc<Mutex<Vec<Got>>>,
    told: Arc<watch::Sender<usize>>,
}

impl Serving {
    async fn serve(self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let (io, is_grpc) = (TokioIo::new(io), self.is_grpc);
        let service = service_fn(move |request| {
            let Self { is_grpc, statuses, kept, told } = self.clone();
            async move { Ok::<_, Infallible>(answer(request, is_grpc, statuses, &kept, &told).await) }
        });
        // The exporter may leave at any time.
        let _ = match is_grpc {
            true => http2::Builder::new(crate::terminate::Tasks).serve_connection(io, service).await,
            false => http1::Builder::new().serve_connection(io, service).await,
        };
    }
}

async fn answer(
    request: Request<Incoming>,
    is_grpc: bool,
    statuses: &[u16],
    kept: &Mutex<Vec<Got>>,
    told: &watch::Sender<usize>,
) -> Response<BoxBody<Bytes, Infallible>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let body = if is_grpc { body.slice(5..) } else { body };
    let got = Got {
        path: parts.uri.path().to_owned(),
        headers: parts.headers,
        request: ExportRequest::decode(body).unwrap(),
    };
    let n = {
        let mut kept = kept.lock().unwrap();
        kept.push(got);
        kept.len()
    };
    told.send_replace(n);
    let status = statuses[(n - 1).min(statuses.len() - 1)];
    let message = ExportResponse::default().encode_to_vec();
    if !is_grpc {
        return Response::builder().status(status).body(Full::new(Bytes::from(message)).boxed()).unwrap();
    }
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap());
    frame.put_slice(&message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(status));
    let body = Full::new(frame.freeze()).with_trailers(async move { Some(Ok(trailers)) });
    Response::builder().header("content-type", "application/grpc").body(body.boxed()).unwrap()
}

fn settings(address: SocketAddr, protocol: &str, more: &[(&str, &str)]) -> Settings {
    let endpoint = format!("http://{address}");
    Settings::read(|name| match name {
        "OTEL_EXPORTER_OTLP_ENDPOINT" => Some(endpoint.clone()),
        "OTEL_EXPORTER_OTLP_PROTOCOL" => Some(protocol.to_owned()),
        "OTEL_EXPORTER_OTLP_HEADERS" => Some("api-key=secret".to_owned()),
        name => more.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()),
    })
    .unwrap()
}

fn exporter(address: SocketAddr, protocol: &str, more: &[(&str, &str)]) -> Exporter {
    start(&settings(address, protocol, more), "shop/waypoint", &Drain::new()).unwrap().unwrap()
}

fn span(name: &str) -> Span {
    Span { name: name.to_owned(), ..Span::default() }
}

fn names(got: &Got) -> Vec<&str> {
    let scopes = got.request.resource_spans.iter().flat_map(|of| &of.scope_spans);
    scopes.flat_map(|of| &of.spans).map(|span| span.name.as_str()).collect()
}

#[tokio::test]
async fn spans_arrive_by_both_protocols_and_at_the_end_at_once() {
    for (protocol, status, path) in [
        ("http/protobuf", &[200][..], "/v1/traces"),
        ("grpc", &[0], "/opentelemetry.proto.collector.trace.v1.TraceService/Export"),
    ] {
        let mut collector = Collector::start(protocol == "grpc", status).await;
        // Longer than the test: only a full batch, or the end, sends.
        let more = [("OTEL_BSP_SCHEDULE_DELAY", "3600000"), ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")];
        let exporter = exporter(collector.address, protocol, &more);
        for name in ["a", "b", "c"] {
            exporter.take(span(name));
        }
        let got = collector.until(1).await;
        assert_eq!((names(&got[0]), got[0].path.as_str()), (vec!["a", "b"], path), "row {protocol}");
        assert_eq!(got[0].headers["api-key"], "secret", "row {protocol}");
        let resource = got[0].request.resource_spans[0].resource.as_ref().unwrap();
        assert_eq!(format!("{:?}", resource.attributes[0]).matches("shop/waypoint").count(), 1);
        tokio::time::timeout(BOUND, exporter.finish()).await.unwrap();
        assert_eq!(names(&collector.until(2).await[1]), ["c"], "row {protocol}");
    }
}

#[tokio::test]
async fn a_batch_waits_no_longer_than_its_delay() {
    let mut collector = Collector::start(false, &[200]).await;
    let exporter = exporter(collector.address, "http/protobuf", &[("OTEL_BSP_SCHEDULE_DELAY", "10")]);
    exporter.take(span("a"));
    assert_eq!(names(&collector.until(1).await[0]), ["a"]);
}

#[tokio::test]
async fn what_may_succeed_later_is_sent_again_and_nothing_else_is() {
    for (protocol, statuses, sent) in [
        ("http/protobuf", &[503, 200][..], 2),
        ("http/protobuf", &[400, 200], 1),
        ("grpc", &[14, 0], 2),
        ("grpc", &[3, 0], 1),
    ] {
        let mut collector = Collector::start(protocol == "grpc", statuses).await;
        let exporter = exporter(collector.address, protocol, &[("OTEL_BSP_SCHEDULE_DELAY", "1")]);
        exporter.take(span("a"));
        collector.until(sent).await;
        tokio::time::timeout(BOUND, exporter.finish()).await.unwrap();
        assert_eq!(collector.got.lock().unwrap().len(), sent, "row {protocol} {statuses:?}");
    }
}

#[tokio::test]
async fn a_collector_that_is_silent_blocks_nobody_and_not_the_end() {
    // It accepts and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let more = [("OTEL_BSP_MAX_QUEUE_SIZE", "4"), ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")];
    for protocol in ["http/protobuf", "grpc"] {
        let exporter = exporter(address, protocol, &more);
        for _ in 0..1000 {
            exporter.take(span("a"));
        }
        tokio::time::timeout(BOUND, exporter.finish()).await.unwrap();
    }
}

#[tokio::test]
async fn without_an_endpoint_there_is_no_exporter_and_a_forced_drain_ends_one() {
    assert!(start(&Settings::default(), "w", &Drain::new()).unwrap().is_none());
    let mut collector = Collector::start(false, &[200]).await;
    let drain = Drain::new();
    let more = [("OTEL_BSP_SCHEDULE_DELAY", "3600000")];
    let exporter = start(&settings(collector.address, "http/protobuf", &more), "w", &drain).unwrap().unwrap();
    exporter.take(span("a"));
    drain.finish(Duration::ZERO).await;
    assert_eq!(names(&collector.until(1).await[0]), ["a"]);
    tokio::time::timeout(BOUND, exporter.gone.cancelled()).await.unwrap();
}

/// A certificate for `localhost` with what serves by it, and a file with it in PEM.
fn tls(name: &str, is_grpc: bool) -> (TlsAcceptor, std::path::PathBuf) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let path = std::env::temp_dir().join(format!("ambit-{}-{name}.pem", std::process::id()));
    std::fs::write(&path, certificate.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    if is_grpc {
        config.alpn_protocols = vec![b"h2".to_vec()];
    }
    (TlsAcceptor::from(Arc::new(config)), path)
}

#[tokio::test]
async fn https_takes_a_collector_with_the_roots_named_and_no_other() {
    for (protocol, status) in [("http/protobuf", &[200][..]), ("grpc", &[0])] {
        let is_grpc = protocol == "grpc";
        let (serves, right) = tls(&format!("right-{is_grpc}"), is_grpc);
        let (_, wrong) = tls(&format!("wrong-{is_grpc}"), is_grpc);
        let mut collector = Collector::start_with(is_grpc, status, Some(serves)).await;
        let endpoint = format!("https://localhost:{}", collector.address.port());
        for (roots, name) in [(&wrong, "untrusted"), (&right, "trusted")] {
            let more = [
                ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint.as_str()),
                ("OTEL_EXPORTER_OTLP_CERTIFICATE", roots.to_str().unwrap()),
            ];
            let exporter = exporter(collector.address, protocol, &more);
            exporter.take(span(name));
            tokio::time::timeout(BOUND, exporter.finish()).await.unwrap();
        }
        assert_eq!(names(&collector.until(1).await[0]), ["trusted"], "row {protocol}");
        std::fs::write(&wrong, "no certificate").unwrap();
        let more = [
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint.as_str()),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", wrong.to_str().unwrap()),
        ];
        let settings = settings(collector.address, protocol, &more);
        std::fs::remove_file(&right).unwrap();
        let refused = start(&settings, "w", &Drain::new());
        assert!(matches!(refused, Err(ExportError::NoRoots { .. })), "row {protocol}: {refused:?}");
        std::fs::remove_file(&wrong).unwrap();
        let missing = start(&settings, "w", &Drain::new());
        assert!(matches!(missing, Err(ExportError::Roots { .. })), "row {protocol}: {missing:?}");
    }
}
