//! What our opening side makes of the statuses that other proxies answer with.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ambit_net::tls;
use ambit_net::tunnel::client::TunnelError;
use ambit_tests::certs::TestCa;
use ambit_tests::fakes;
use http::{Response, StatusCode};
use tokio::net::TcpListener;

use crate::ends::{Client, quick, request, server_identity, within};

/// A peer of the mesh that answers every CONNECT with a status and nothing else.
async fn answering(ca: &Arc<TestCa>, status: StatusCode) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let ca = ca.clone();
    fakes::start(async move {
        let credential = ca.credential(&server_identity());
        while let Ok((tcp, peer)) = listener.accept().await {
            let accepted = tls::server::accept(&credential, tcp, peer, Duration::from_secs(3)).await;
            let stream = accepted.expect("a client of the mesh").stream;
            let mut tunnel = h2::server::handshake(stream).await.expect("HTTP/2");
            while let Some(Ok((_, mut answer))) = tunnel.accept().await {
                let response = Response::builder().status(status).body(()).expect("a response");
                answer.send_response(response, true).expect("the stream is open");
            }
        }
    });
    address
}

#[tokio::test]
async fn an_application_that_a_peer_could_not_reach_is_no_policy_and_another_endpoint_is_tried() {
    // G33.
    let ca = Arc::new(TestCa::new());
    for (status, flag, again) in [(400, "DENY", false), (401, "DENY", false), (503, "CONNECT", true)] {
        let status = StatusCode::from_u16(status).expect("a status");
        let peer = answering(&ca, status).await;
        let client = Client::new(&ca, quick());
        let lease = client.lease(peer).await.expect("a tunnel");
        let answer = within(lease.tunnel().connect(request(peer), &quick())).await;
        let error = answer.map(|_| ()).expect_err("no stream");
        assert!(matches!(&error, TunnelError::Refused { status: s, .. } if *s == status), "{error}");
        assert_eq!((error.reason().flag(), error.is_before_any_byte()), (flag, again), "status {status}");
        assert!(!error.is_of_the_tunnel(), "the tunnel itself is good");
    }
}
