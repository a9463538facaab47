//! Accept loops: what waits in the queue when a pod drains is served, not reset.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use ambit_net::socket::{SocketFactory, SocketOptions};
use ambit_runtime::drain::Drain;
use ambit_runtime::tasks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use ztunnel::inpod::accept;

use crate::ends::within;

/// More than a task may do in one turn (tokio gives it 128 operations).
const WAITING: usize = 300;

#[tokio::test]
async fn a_drain_serves_what_waits_in_the_queue() {
    let sockets = SocketFactory::new(None, Arc::new(SocketOptions::default()));
    let listener = sockets.listen(([127, 0, 0, 1], 0).into(), false).expect("loopback");
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
