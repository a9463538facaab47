//! Names that clients and applications make up without end: they add no series, and every request is counted.

use std::collections::BTreeSet;

use ambit_runtime::metrics::Source as _;
use ambit_types::AppProtocol;
use http::{Method, Request, Response};

use crate::rig::app::{App, Body, text};
use crate::rig::client::{read, request2};
use crate::rig::{Rig, Setup, identity, within};

/// Requests of one connection.
const OF_ONE: usize = 100;

/// Series of requests that there may be: of two protocols the statuses that are answered here and one for what is beyond
/// them, those of gRPC, and the waypoint's own answers. No more of them for ten times as many requests.
const SERIES_MAX: usize = 450;

/// How many requests: ten thousand with `AMBIT_SOAK=1`.
fn many() -> usize {
    let is_soak = std::env::var_os("AMBIT_SOAK")
        .is_some_and(|value| !["", "0", "false"].iter().any(|off| value == *off));
    if is_soak { 10_000 } else { 1000 }
}

/// Everything that a client writes is new each time: method, path, host, headers, name of the service.
fn made_up(n: usize) -> Request<Body> {
    let grpc = n.is_multiple_of(2);
    let line = format!("POST /made-up-{n}.Service/Call{n}?made-up={n}");
    let mut asked = request2(&line, &[("user-agent", &*format!("made-up-{n}"))], text(""));
    let uri = format!("http://made-up-{n}.example{}", asked.uri().path());
    *asked.uri_mut() = uri.parse().unwrap();
    let mut header = |name: String, value: String| {
        let name = http::HeaderName::try_from(name).unwrap();
        asked.headers_mut().insert(name, value.parse().unwrap());
    };
    header(format!("x-made-up-{n}"), format!("made-up-{n}"));
    for name in ["baggage", "x-request-id", "x-forwarded-for", "x-envoy-peer-metadata-id", "grpc-encoding"] {
        header(name.to_owned(), format!("made-up-{n}"));
    }
    if grpc {
        header("content-type".to_owned(), "application/grpc".to_owned());
        header("te".to_owned(), "trailers".to_owned());
    } else {
        header("content-type".to_owned(), format!("made-up/{n}"));
        *asked.method_mut() = Method::from_bytes(format!("MADEUP{n}").as_bytes()).unwrap();
    }
    asked
}

/// Answers with every status in turn, of HTTP and of gRPC.
fn answered(n: usize) -> Response<Body> {
    let status = match 400 + n % 600 {
        _ if n.is_multiple_of(4) => 200,
        // It ends the connection.
        421 => 422,
        status => status,
    };
    let answer = Response::builder().status(u16::try_from(status).unwrap());
    let answer = answer.header("content-type", "application/grpc").header("grpc-status", n.to_string());
    answer.header(format!("x-made-up-{n}"), format!("made-up-{n}")).body(text("")).unwrap()
}

fn page(rig: &Rig) -> String {
    let mut page = String::new();
    rig.waypoint.observe.series.write(&mut page);
    page
}

fn requests(page: &str) -> Vec<(&str, u64)> {
    let lines = page.lines().filter(|line| line.starts_with("istio_requests_total{"));
    lines.map(|line| line.rsplit_once(' ').unwrap()).map(|(of, n)| (of, n.parse().unwrap())).collect()
}

async fn ask(rig: &Rig, numbers: std::ops::Range<usize>) {
    let mut sender = rig.http2().await;
    for n in numbers {
        let asked = within(sender.send_request(made_up(n))).await;
        read(asked.unwrap_or_else(|e| panic!("request {n}: {e}"))).await;
    }
}

#[tokio::test]
async fn names_that_clients_and_applications_make_up_add_no_series() {
    let app = App::start("web-0", true, |n, _| async move { answered(n) }).await;
    let rig = Setup::new().service("web", AppProtocol::Http2, &[app.ip]).start().await;
    let many = many();
    for begin in (0..many).step_by(OF_ONE) {
        ask(&rig, begin..begin + OF_ONE).await;
        rig.until_written(begin + OF_ONE).await;
        let page = page(&rig);
        let counted: u64 = requests(&page).iter().map(|(_, n)| n).sum();
        assert_eq!(counted, u64::try_from(begin + OF_ONE).unwrap(), "{page}");
        assert!(requests(&page).len() <= SERIES_MAX, "{} series: {page}", requests(&page).len());
        let named = page.lines().find(|line| line.to_lowercase().replace('-', "").contains("madeup"));
        assert_eq!(named, None, "what a client writes is no label");
    }
    assert!(app.got().len() > many / 2, "most of them reached the application: {}", app.got().len());
}

/// Who calls is proven, so it is a label: one set for each identity, whatever it says of itself.
#[tokio::test]
async fn what_a_caller_says_of_itself_is_no_label() {
    let app = App::start("web-0", true, |_, _| async { answered(0) }).await;
    let rig = Setup::new().service("web", AppProtocol::Http2, &[app.ip]).start().await;
    for account in ["one", "two"] {
        let tunnel = rig.tunnel_of(&identity("far", account)).await;
        for n in 0..20 {
            let said = format!(
                "k8s.namespace.name=made-up-{n},k8s.deployment.name=made-up-{n},service.name=made-up-{n}"
            );
            let forwarded = format!("host=made-up-{n}.example");
            let headers = [("baggage", &*said), ("forwarded", &*forwarded)];
            let stream = rig.connect_with(&tunnel, "10.9.0.1:80", &headers).await.unwrap();
            let io = hyper_util::rt::TokioIo::new(stream);
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(crate::rig::app::Executor, io).await.unwrap();
            crate::rig::start(connection);
            read(within(sender.send_request(request2("GET /", &[], text("")))).await.unwrap()).await;
        }
    }
    rig.until_written(40).await;
    let page = page(&rig);
    let told = requests(&page);
    let callers: BTreeSet<&str> =
        told.iter().filter_map(|(of, _)| of.split("source_principal=\"").nth(1)?.split('"').next()).collect();
    assert_eq!(told.iter().map(|(_, n)| *n).collect::<Vec<_>>(), [20, 20], "{page}");
    assert_eq!(callers.len(), 2, "{page}");
    assert!(!page.contains("made-up"), "{page}");
}
