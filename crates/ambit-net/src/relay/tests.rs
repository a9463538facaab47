//! Relays over real sockets: every way a connection can end looks as it would without us.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{Counters, End, Far, relay};

/// Client, the relay's task, server.
async fn joined() -> (TcpStream, tokio::task::JoinHandle<(End, (u64, u64))>, TcpStream) {
    let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let back = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(front.local_addr().unwrap()).await.unwrap();
    let (near, _) = front.accept().await.unwrap();
    let far = TcpStream::connect(back.local_addr().unwrap()).await.unwrap();
    let (server, _) = back.accept().await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "a test joins its own task")]
    let task = tokio::spawn(async move {
        let counters = Counters::default();
        let end = relay(near, Far::Tcp(far), &counters).await;
        (end, counters.read())
    });
    (client, task, server)
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("the relay hangs")
}

#[tokio::test]
async fn half_close_passes_and_the_other_way_stays_open() {
    let (mut client, task, mut server) = joined().await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut asked = Vec::new();
    within(server.read_to_end(&mut asked)).await.unwrap();
    assert_eq!(asked, b"question");
    server.write_all(b"answer").await.unwrap();
    drop(server);
    let mut got = Vec::new();
    within(client.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"answer");
    assert_eq!(within(task).await.unwrap(), (End::Closed, (8, 6)));
}

#[tokio::test]
async fn a_reset_passes_both_ways() {
    for by_client in [true, false] {
        let (client, task, server) = joined().await;
        let (first, mut second) = if by_client { (client, server) } else { (server, client) };
        crate::socket::reset_on_close(&first);
        drop(first);
        let error = within(second.read(&mut [0; 8])).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        let want = if by_client { End::ResetByNear } else { End::ResetByFar };
        assert_eq!(within(task).await.unwrap().0, want);
    }
}

#[tokio::test]
async fn a_cut_relay_resets_both_sides() {
    let (mut client, task, mut server) = joined().await;
    client.write_all(b"x").await.unwrap();
    server.read_exact(&mut [0]).await.unwrap();
    task.abort();
    for side in [&mut client, &mut server] {
        let error = within(side.read(&mut [0; 8])).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn bulk_arrives_whole_with_a_slow_reader() {
    let (mut client, task, mut server) = joined().await;
    let sent: Vec<u8> = (0..8_000_000_u32).map(|i| (i % 251) as u8).collect();
    let copy = sent.clone();
    let write = async move {
        client.write_all(&copy).await.unwrap();
        client.shutdown().await.unwrap();
        client
    };
    let read = async {
        let mut got = Vec::new();
        let mut piece = [0; 1000];
        loop {
            let n = server.read(&mut piece).await.unwrap();
            if n == 0 {
                return (got, server);
            }
            got.extend_from_slice(&piece[..n]);
        }
    };
    let (client, (got, server)) = within(async { tokio::join!(write, read) }).await;
    assert!(got == sent, "bytes differ");
    drop((client, server));
    assert_eq!(within(task).await.unwrap().0, End::Closed);
}
