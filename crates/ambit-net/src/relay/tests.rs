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

/// Fills the way from `writer` until neither its socket nor the relay takes any more.
async fn fill(writer: &TcpStream) {
    let mut idle = 0;
    while idle < 5 {
        match tokio::time::timeout(Duration::from_millis(50), writer.writable()).await {
            Ok(ready) => {
                ready.unwrap();
                match writer.try_write(&[1; 65536]) {
                    Ok(_) => idle = 0,
                    Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => idle += 1,
                    Err(e) => panic!("{e}"),
                }
            }
            Err(_) => idle += 1,
        }
    }
}

#[tokio::test]
async fn what_a_side_sent_before_it_stopped_taking_data_still_arrives() {
    // A server that answers and closes without reading the rest of an upload: its kernel sends a reset.
    let (mut client, task, mut server) = joined().await;
    client.write_all(b"upload").await.unwrap();
    server.read_exact(&mut [0; 3]).await.unwrap();
    server.write_all(b"413 too large").await.unwrap();
    drop(server);
    let mut got = Vec::new();
    let mut piece = [0; 64];
    // Whether the end is orderly or a reset, the answer comes first.
    let _ = within(async {
        loop {
            let _ = client.try_write(&[0; 4096]);
            match client.read(&mut piece).await {
                Ok(0) | Err(_) => return,
                Ok(n) => got.extend_from_slice(&piece[..n]),
            }
        }
    })
    .await;
    assert_eq!(got, b"413 too large");
    within(task).await.unwrap();
}

#[tokio::test]
async fn a_reset_passes_while_the_other_side_takes_nothing() {
    for by_client in [true, false] {
        let (client, task, server) = joined().await;
        let (writer, mut reader) = if by_client { (client, server) } else { (server, client) };
        fill(&writer).await;
        crate::socket::reset_on_close(&writer);
        drop(writer);
        let want = if by_client { End::ResetByNear } else { End::ResetByFar };
        assert_eq!(within(task).await.unwrap().0, want);
        let error = within(async {
            let mut piece = vec![0; 65536];
            loop {
                match reader.read(&mut piece).await {
                    Ok(0) => return None,
                    Ok(_) => {}
                    Err(e) => return Some(e.kind()),
                }
            }
        })
        .await;
        assert_eq!(error, Some(std::io::ErrorKind::ConnectionReset), "a cut upload must not look complete");
    }
}

#[tokio::test]
async fn a_reset_after_a_half_close_passes() {
    let (mut client, task, mut server) = joined().await;
    client.shutdown().await.unwrap();
    assert_eq!(within(server.read(&mut [0; 8])).await.unwrap(), 0);
    crate::socket::reset_on_close(&client);
    drop(client);
    assert_eq!(within(task).await.unwrap().0, End::ResetByNear);
}
