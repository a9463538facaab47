//! Connections that are carried unread, from the first byte on or after an upgrade: how they are counted and
//! balanced, what failures mean, and when they end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use ambit_route::model::{Balance, Connections, Destination, DestinationPolicy, HashKey, Outlier};
use ambit_types::workload::Health;
use ambit_types::{AppProtocol, Reason};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use waypoint::stream::Stream;

use crate::rig::app::App;
use crate::rig::ca::TestCa;
use crate::rig::proxy::Proxy;
use crate::rig::{Rig, Setup, fresh_ip, identity, service_key, within};
use crate::streams::hello;

const WEB: &str = "10.9.0.1:80";
const GRACE: Duration = Duration::from_millis(100);
const ASKED: &[u8] =
    b"GET /ws HTTP/1.1\r\nHost: web.shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const AGREED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// The two ways to be carried, and what a port declares for them.
const WAYS: [(AppProtocol, bool); 2] = [(AppProtocol::Tcp, false), (AppProtocol::Http11, true)];

/// A head, and nothing that follows it.
async fn head(io: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    while !all.ends_with(b"\r\n\r\n") {
        let Ok(byte) = io.read_u8().await else { break };
        all.push(byte);
    }
    all
}

/// An application that sends everything back, once it has agreed to another protocol if it is to be asked for one.
async fn echo(name: &str, is_upgraded: bool) -> App {
    App::raw(name, move |mut tcp| async move {
        if is_upgraded {
            head(&mut tcp).await;
            if tcp.write_all(AGREED).await.is_err() {
                return;
            }
        }
        let (mut from, mut to) = tcp.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
    })
    .await
}

/// A connection that is carried; none if it is refused.
async fn open(rig: &Rig, is_upgraded: bool) -> Option<Stream> {
    let mut stream = rig.connect_with(rig.tunnel().await, WEB, &[]).await.ok()?;
    if is_upgraded {
        stream.write_all(ASKED).await.ok()?;
        let answered = within(head(&mut stream)).await;
        return answered.starts_with(b"HTTP/1.1 101 ").then_some(stream);
    }
    Some(stream)
}

async fn echoes(stream: &mut Stream) -> bool {
    let mut back = [0; 4];
    let sent = stream.write_all(b"ping").await;
    sent.is_ok() && within(stream.read_exact(&mut back)).await.is_ok() && back == *b"ping"
}

fn treated(policy: DestinationPolicy) -> Destination {
    Destination { service: service_key("web"), policy }
}

/// What is changed under an open stream.
type Edit = fn(&mut Setup);

#[tokio::test]
async fn what_is_open_goes_on_until_the_workload_is_gone() {
    for (protocol, is_upgraded) in WAYS {
        let app = echo("web-0", is_upgraded).await;
        let mut setup = Setup::new().service("web", protocol, &[app.ip]);
        setup.limits.gone_grace = GRACE;
        let mut rig = setup.start().await;
        let mut stream = open(&rig, is_upgraded).await.unwrap();
        rig.change(|setup| setup.workloads[0].health = Health::Unhealthy);
        assert!(open(&rig, is_upgraded).await.is_none(), "row {protocol:?}: takes nothing new");
        let changes: [(&str, Edit); 3] = [
            ("not ready", |_| ()),
            ("no endpoint", |setup| setup.workloads[0].services.clear()),
            ("declared anew", |setup| setup.services[0].ports[0].app_protocol = AppProtocol::Http2),
        ];
        for (name, change) in changes {
            rig.change(change);
            // That nothing happens can only be seen by waiting.
            tokio::time::sleep(GRACE * 3).await;
            assert!(echoes(&mut stream).await, "row {protocol:?}, {name}");
        }
        rig.change(|setup| {
            setup.workloads[0].health = Health::Healthy;
            setup.workloads[0].services.insert(service_key("web"), Vec::new());
            setup.services[0].ports[0].app_protocol = protocol;
        });
        assert!(
            echoes(&mut open(&rig, is_upgraded).await.unwrap()).await,
            "row {protocol:?}: takes new ones"
        );
        assert!(echoes(&mut stream).await, "row {protocol:?}: nor do they end when it is back");
        rig.change(|setup| setup.workloads.clear());
        let ended = within(stream.read(&mut [0; 1])).await;
        assert!(!matches!(ended, Ok(n) if n > 0), "row {protocol:?}: {ended:?}");
    }
}

#[tokio::test]
async fn they_count_as_connections_as_long_as_they_are_open() {
    for (protocol, is_upgraded) in WAYS {
        let app = echo("web-0", is_upgraded).await;
        let connections = Connections { connections_max: 1, ..Connections::default() };
        let policy = DestinationPolicy { connections, ..DestinationPolicy::default() };
        let mut setup = Setup::new().service("web", protocol, &[app.ip]).treated(treated(policy));
        setup.limits.connect_timeout = Duration::from_secs(1);
        let rig = setup.start().await;
        let mut stream = open(&rig, is_upgraded).await.unwrap();
        assert!(echoes(&mut stream).await, "row {protocol:?}");
        assert!(open(&rig, is_upgraded).await.is_none(), "row {protocol:?}: one more than there may be");
        assert_eq!(app.connections.load(Ordering::SeqCst), 1, "row {protocol:?}");
        drop(stream);
        within(async {
            while open(&rig, is_upgraded).await.is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn connections_of_one_address_stay_with_one_endpoint() {
    let apps = [echo("web-0", false).await, echo("web-1", false).await, echo("web-2", false).await];
    let balance = Balance::ConsistentHash(vec![HashKey::SourceAddress]);
    let policy = DestinationPolicy { balance, ..DestinationPolicy::default() };
    let ips = apps.each_ref().map(|app| app.ip);
    let setup = Setup::new().service("web", AppProtocol::Tcp, &ips).treated(treated(policy));
    let rig = setup.start().await;
    for _ in 0..8 {
        assert!(echoes(&mut open(&rig, false).await.unwrap()).await);
    }
    let mut counts = apps.each_ref().map(|app| app.connections.load(Ordering::SeqCst));
    counts.sort_unstable();
    assert_eq!(counts, [0, 0, 8]);
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_reached_is_left_out() {
    let up = echo("web-0", false).await;
    let down = fresh_ip();
    let proxy = Proxy::start(&TestCa::shared(), &identity("shop", "web-1"), down).await;
    let outlier = Outlier { consecutive_gateway_errors: 1, ..Outlier::default() };
    let policy = DestinationPolicy {
        outlier: Some(outlier),
        balance: Balance::RoundRobin,
        ..DestinationPolicy::default()
    };
    let setup = Setup::new().service("web", AppProtocol::Tcp, &[up.ip, down]).treated(treated(policy));
    let rig = setup.start().await;
    for _ in 0..8 {
        assert!(echoes(&mut open(&rig, false).await.unwrap()).await);
    }
    assert_eq!((up.connections.load(Ordering::SeqCst), proxy.asked().len()), (8, 1));
}

#[tokio::test]
async fn who_gives_up_is_not_connected_any_further() {
    for (protocol, first) in
        [(AppProtocol::Tcp, b"anything".to_vec()), (AppProtocol::Tls, hello("web.example"))]
    {
        let silent = fresh_ip();
        let listener = TcpListener::bind((silent, 15008)).await.unwrap();
        let rig = Setup::new().service("web", protocol, &[silent]).start().await;
        let opening = async {
            let mut stream = rig.connect_with(rig.tunnel().await, WEB, &[]).await.unwrap();
            stream.write_all(&first).await.unwrap();
            let _ = stream.read(&mut [0; 1]).await;
        };
        let held = tokio::select! {
            () = opening => panic!("row {protocol:?}: nobody answers"),
            accepted = within(listener.accept()) => accepted.unwrap(),
        };
        let written = tokio::time::timeout(Duration::from_secs(5), rig.until_written(1)).await;
        let reason = written.expect("given up with the client")[0].reason;
        assert_eq!(reason, Some(Reason::PeerSilent), "row {protocol:?}");
        drop(held);
    }
}
