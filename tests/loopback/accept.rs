//! Accept loops: what waits in the queue when a pod drains is served, not reset; what a listener hands on.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use ambit_net::socket::{Accepts, Keepalive, SocketFactory, SocketOptions};
use ambit_runtime::drain::Drain;
use ambit_runtime::tasks;
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use ztunnel::inpod::accept;

use crate::ends::within;

/// More than a task may do in one turn (tokio gives it 128 operations).
const WAITING: usize = 300;

#[tokio::test]
async fn a_drain_serves_what_waits_in_the_queue() {
    let sockets = SocketFactory::new(None, Arc::new(SocketOptions::default()));
    let listener = sockets.listen(([127, 0, 0, 1], 0).into(), Accepts::default()).expect("loopback");
    let to = listener.local_addr().expect("bound");
    let waiting: Vec<TcpStream> =
        (0..WAITING).map(|n| TcpStream::connect(to).unwrap_or_else(|e| panic!("{n}: {e}"))).collect();
    let drain = Drain::new();
    let connections = drain.clone();
    accept::spawn("accept-test", listener, &drain, move |mut tcp, _| {
        let work = async move { tcp.write_all(b"x").await.expect("the client waits") };
        tasks::spawn("connection", connections.track(work));
    });
    // Nothing has been accepted when the drain begins: this thread has run no other task yet.
    assert_eq!(within(drain.finish(Duration::from_secs(5))).await, 0);
    for (n, client) in waiting.into_iter().enumerate() {
        client.set_nonblocking(true).expect("a socket");
        let mut client = tokio::net::TcpStream::from_std(client).expect("a socket");
        let got = within(client.read_u8()).await;
        assert!(matches!(got, Ok(b'x')), "connection {n} of {WAITING}: {got:?}");
    }
}

/// What the listener was given costs no call for each connection.
#[tokio::test]
async fn accepted_sockets_have_the_options_of_their_listener() {
    let keepalive = Keepalive { time: Duration::from_secs(77), interval: Duration::from_secs(7), retries: 3 };
    let options =
        SocketOptions { keepalive: Some(keepalive), user_timeout: true, ..SocketOptions::default() };
    let sockets = SocketFactory::new(None, Arc::new(options));
    let local = Accepts { local: true, ..Accepts::default() };
    let listener = sockets.listen(([127, 0, 0, 1], 0).into(), local).expect("loopback");
    let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (accepted, _) = within(listener.accept()).await.expect("a client waits");
    assert!(accepted.nodelay().expect("a socket"));
    let socket = SockRef::from(&accepted);
    assert!(socket.keepalive().expect("a socket"));
    assert_eq!(socket.tcp_keepalive_time().expect("a socket"), keepalive.time);
    assert_eq!(socket.tcp_keepalive_interval().expect("a socket"), keepalive.interval);
    assert_eq!(socket.tcp_keepalive_retries().expect("a socket"), keepalive.retries);
    assert_eq!(socket.tcp_user_timeout().expect("a socket"), Some(Duration::from_secs(77 + 21)));
    let permitted = SockRef::from(&client).set_tcp_congestion(b"cubic").is_ok();
    assert_eq!(socket.tcp_congestion().expect("a socket").starts_with(b"cubic"), permitted);
}
