//! Long bodies with flat memory, and connections that are passed through.

use std::time::Duration;

use ambit_route::model::{Backend, Frontend, Group, RouteKey, StreamRoute};
use ambit_types::{AppProtocol, Reason};
use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::rig::app::{App, Body, text};
use crate::rig::client::request;
use crate::rig::{PORT, Setup, service_key, within};
use crate::routing::backend;

const UNIT: usize = 64 << 10;

/// So many bytes as they are taken.
fn long(bytes: usize) -> Body {
    let unit = Bytes::from(vec![7; UNIT]);
    let frames = (0..bytes / UNIT).map(move |_| Ok(Frame::data(unit.clone())));
    StreamBody::new(futures_util::stream::iter(frames)).boxed()
}

async fn count(
    mut body: impl hyper::body::Body<Data = Bytes, Error = hyper::Error> + Unpin,
) -> (usize, usize) {
    let (mut bytes, mut most) = (0, 0);
    while let Some(frame) = body.frame().await {
        bytes += frame.unwrap().into_data().map_or(0, |data| data.len());
        most = most.max(resident());
    }
    (bytes, most)
}

/// Bytes of memory that this process holds.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_bodies_pass_both_ways_with_flat_memory() {
    const ALL: usize = 64 << 20;
    let app = App::start("web-0", false, |_, request| async {
        if request.method() == "GET" {
            return Response::new(long(ALL));
        }
        let (bytes, most) = count(request.into_body()).await;
        Response::new(text(format!("{bytes} {most}")))
    })
    .await;
    let rig = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).start().await;
    assert_eq!(rig.get("POST /", &[]).await.status, 200);
    let before = resident();
    let mut sender = rig.http1().await;
    let response = sender.send_request(request("GET /", &[], text(""))).await.unwrap();
    let (bytes, most) = within(count(response.into_body())).await;
    assert_eq!(bytes, ALL);
    assert!(most < before + (48 << 20), "{} MiB more", most.saturating_sub(before) >> 20);
    let answered = rig.ask(request("POST /", &[], long(ALL))).await;
    let (bytes, most) = answered.body.split_once(' ').unwrap();
    assert_eq!(bytes, ALL.to_string());
    assert!(most.parse::<usize>().unwrap() < before + (48 << 20));
    let written = rig.until_written(3).await;
    assert_eq!(written[1].bytes, (0, ALL as u64));
    assert_eq!(written[2].bytes.0, ALL as u64);
}

async fn greeter(name: &str, greeting: &'static str) -> App {
    App::raw(name, move |mut tcp| async move {
        let _ = tcp.write_all(greeting.as_bytes()).await;
        let mut bytes = [0; 1024];
        while let Ok(n) = tcp.read(&mut bytes).await {
            if n == 0 || tcp.write_all(&bytes[..n]).await.is_err() {
                return;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_server_may_speak_first() {
    for protocol in [AppProtocol::Tcp, AppProtocol::Unknown] {
        let app = greeter("web-0", "220 hello\r\n").await;
        let rig = Setup::new().service("web", protocol, &[app.ip]).start().await;
        let mut stream = rig.connect().await;
        let mut bytes = [0; 11];
        within(stream.read_exact(&mut bytes)).await.unwrap();
        assert_eq!(&bytes, b"220 hello\r\n");
        stream.write_all(b"EHLO me").await.unwrap();
        let mut bytes = [0; 7];
        within(stream.read_exact(&mut bytes)).await.unwrap();
        assert_eq!(&bytes, b"EHLO me");
        stream.shutdown().await.unwrap();
        assert_eq!(within(stream.read(&mut bytes)).await.unwrap(), 0);
        let written = rig.until_written(1).await;
        assert_eq!((written[0].code, written[0].bytes), (0, (7, 18)), "{protocol:?}");
    }
}

#[tokio::test]
async fn undeclared_ports_speak_what_they_speak() {
    let app = App::start("web-0", false, |_, _| async { crate::rig::app::answer(200, "ok") }).await;
    let rig = Setup::new().service("web", AppProtocol::Unknown, &[app.ip]).start().await;
    assert_eq!(rig.get("GET /", &[]).await.status, 200);
    assert_eq!(rig.until_written(1).await[0].code, 200);
}

#[tokio::test]
async fn conditions_on_http_refuse_what_is_not_read_as_http() {
    let app = greeter("web-0", "220 hello\r\n").await;
    let deny = "{action: DENY, rules: [{to: [{operation: {paths: [/admin]}}]}]}";
    let rig = Setup::new().service("web", AppProtocol::Tcp, &[app.ip]).policy(deny).start().await;
    let opened = rig.connect_with(rig.tunnel().await, "10.9.0.1:80", &[]).await;
    assert!(opened.is_err());
    assert_eq!(rig.until_written(1).await[0].reason, Some(Reason::PolicyUnevaluable));
    assert!(app.proxy.asked().is_empty());
}

#[tokio::test]
async fn routes_split_connections_by_server_name() {
    let (one, two) = (greeter("v1-0", "one").await, greeter("v2-0", "two").await);
    let route = |name: &str, hostnames: &[&str], to: Backend| StreamRoute {
        key: RouteKey::new("shop", name),
        created: 0,
        hostnames: hostnames.iter().map(|name| (*name).into()).collect(),
        backends: vec![to],
    };
    let routes = vec![route("a", &["a.example"], backend("v1", 1)), route("b", &[], backend("v2", 1))];
    let setup = Setup::new().service("web", AppProtocol::Tls, &[]);
    let setup = setup.service("v1", AppProtocol::Tcp, &[one.ip]);
    let mut setup = setup.service("v2", AppProtocol::Tcp, &[two.ip]);
    setup.routes.frontends.push(Frontend {
        service: service_key("web"),
        port: PORT,
        producer: Some(Group::Tls(routes)),
        consumers: Default::default(),
    });
    let rig = setup.start().await;
    for (name, want) in [("a.example", "one"), ("A.Example", "one"), ("b.example", "two")] {
        let mut stream = rig.connect().await;
        stream.write_all(&hello(name)).await.unwrap();
        let mut bytes = [0; 3];
        within(stream.read_exact(&mut bytes)).await.unwrap();
        assert_eq!(std::str::from_utf8(&bytes).unwrap(), want, "row {name}");
    }
}

/// A TLS greeting that names a server.
pub(super) fn hello(name: &str) -> Vec<u8> {
    let with_length = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    let list = with_length(&[&[0][..], &with_length(name.as_bytes())].concat());
    let extensions = [&[0, 0][..], &with_length(&list)].concat();
    let body = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0], &with_length(&extensions)].concat();
    let message = [&[1, 0][..], &with_length(&body)].concat();
    [&[0x16, 3, 1][..], &with_length(&message)].concat()
}

#[tokio::test]
async fn requests_under_way_survive_a_drain() {
    let app = App::start("web-0", false, |_, _| async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        crate::rig::app::answer(200, "ok")
    })
    .await;
    let rig = Setup::new().service("web", AppProtocol::Http11, &[app.ip]).start().await;
    let mut sender = rig.http1().await;
    let asked = sender.send_request(request("GET /", &[], text("")));
    let drained = async {
        app.until_got(1).await;
        rig.waypoint.drain.finish(Duration::from_secs(5)).await
    };
    let (answered, cut) = within(async { tokio::join!(asked, drained) }).await;
    assert_eq!((answered.unwrap().status().as_u16(), cut), (200, 0));
}
