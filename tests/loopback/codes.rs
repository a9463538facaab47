//! Codes that only a shortage or an end brings about: what each failure is called, provoked where that is possible.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ambit_net::socket::{SocketError, SocketFactory, SocketOptions};
use ambit_net::tls::error::reason_of;
use ambit_net::tunnel::client::TunnelError;
use ambit_runtime::conntrack::Usage;
use ambit_state::Change;
use ambit_tests::certs::TestCa;
use ambit_types::Reason;
use rustls::CertificateError;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::ends::{client_identity, quick, request, within};
use crate::inbound::{Front, Full};
use crate::node::{Addresses, Capture, NODE, Node, workload};

/// Numbers of the kernel's answers; the same on every architecture that is supported.
const EPERM: i32 = 1;
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;
const EADDRNOTAVAIL: i32 = 99;

/// A connection that has not ended when its pod's grace is over is cut, and its record says why.
#[tokio::test]
async fn a_connection_that_outlives_the_grace_is_cut_as_draining() {
    let ca = Arc::new(TestCa::new());
    let addresses = Addresses::new();
    let world = [("shop/cart", 1), ("bank/web", 2)].map(|(key, n)| workload(key, NODE, addresses.ip(n)));
    let node = Node::new(&ca, world.map(Change::from), |_| {});
    let (cart, _web) = (node.pod("shop/cart"), node.pod("bank/web"));
    let capture = Capture::at(addresses.at(2, 0)).await;
    let (proxy, pod) = (node.proxy.clone(), cart.clone());
    let serve = |tcp, from| ztunnel::outbound::serve(proxy, pod, tcp, from);
    let (_client, served) = capture.connect(addresses.ip(1), serve).await;
    let _app = capture.accept().await;
    cart.drain.finish(Duration::ZERO).await;
    within(served).await.expect("it ends");
    let record = node.record(Reason::Draining.code()).await;
    assert_eq!((&record["verdict"], &record["path"]), (&"denied".into(), &"local".into()), "{record:#}");
}

/// A queue that is full takes no further connection, and nobody says so: that looks like a filter on the way.
#[tokio::test]
async fn silence_of_the_other_end_is_a_time_out() {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("loopback");
    listener.listen(0).expect("it listens");
    let address = listener.local_addr().ok().and_then(|a| a.as_socket()).expect("bound");
    let options = SocketOptions { local_congestion: None, ..SocketOptions::default() };
    let sockets = SocketFactory::new(None, Arc::new(options));
    let mut held = Vec::new();
    let error = loop {
        assert!(held.len() < 16, "the queue is never full");
        match sockets.connect(address, None, Duration::from_millis(300)).await {
            Ok(tcp) => held.push(tcp),
            Err(error) => break error,
        }
    };
    assert_eq!(ztunnel::admit::reason_of(&error), Reason::ConnectTimeout, "{error:?}");
}

/// The same silence, where the kernel says that connection tracking is full: it dropped the first packet itself.
#[tokio::test]
async fn silence_under_a_full_table_of_connection_tracking_is_called_by_its_name() {
    let folder = TempDir::new().expect("a temporary folder");
    let front = Front::start(|settings| {
        let conntrack = folder.path().to_owned();
        settings.connect_timeout = Duration::from_millis(300);
        settings.sockets = Arc::new(SocketOptions { conntrack, ..(*settings.sockets).clone() });
    })
    .await;
    let at = front.addresses.at(2, 7004);
    let _full = Full::at(at);
    let tunnel = front.tunnel_of(&client_identity(), front.addresses.ip(10)).await.expect("a tunnel");
    for (count, max, want) in [
        ("7", "8", Reason::ConnectTimeout),
        ("8", "8", Reason::ConntrackFull),
        ("8", "0", Reason::ConnectTimeout),
    ] {
        for (file, number) in [("nf_conntrack_count", count), ("nf_conntrack_max", max)] {
            std::fs::write(folder.path().join(file), format!("{number}\n")).expect("a temporary folder");
        }
        let refused =
            within(tunnel.connect(request(at), &quick())).await.map(drop).expect_err("nobody answers");
        assert!(
            matches!(refused, TunnelError::Refused { reason, .. } if reason == want),
            "{count} of {max}: {refused:?}"
        );
    }
    let record = front.node.record("AMB7004").await;
    assert!(record["error"].as_str().is_some_and(|error| error.contains("8 of 8")), "{record:#}");
}

#[test]
fn shortages_of_the_kernel_have_codes_of_their_own() {
    let address: SocketAddr = ([10, 0, 0, 1], 15008).into();
    let open = |errno| SocketError::Open { address, cause: io::Error::from_raw_os_error(errno) };
    let connect = |errno| SocketError::Connect { address, cause: io::Error::from_raw_os_error(errno) };
    let usage = Usage { count: 9, max: 8 };
    let rows = [
        (open(EMFILE), Reason::FdExhausted),
        (open(ENFILE), Reason::FdExhausted),
        (open(EADDRNOTAVAIL), Reason::PortsExhausted),
        (connect(EADDRNOTAVAIL), Reason::PortsExhausted),
        // Without a table that is full it is no more than silence.
        (connect(EPERM), Reason::ConnectTimeout),
        (SocketError::ConntrackFull { address, usage }, Reason::ConntrackFull),
    ];
    for (error, want) in rows {
        assert_eq!(ztunnel::admit::reason_of(&error), want, "{error:?}");
    }
}

#[test]
fn a_revoked_certificate_is_not_taken_for_a_malformed_one() {
    let revoked = rustls::Error::InvalidCertificate(CertificateError::Revoked);
    assert_eq!(reason_of(&revoked), Reason::CertificateRevoked);
}
