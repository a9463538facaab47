//! What reaches the stream, in how many writes, and when.

use std::sync::Mutex;

use ambit_runtime::tasks;
use bytes::Bytes;
use futures_util::future::join_all;
use tokio::io::{AsyncWriteExt as _, DuplexStream};

use super::*;

/// A stream that notes its writes, and takes so many bytes.
#[derive(Debug, Clone, Default)]
struct Wire(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    writes: Vec<Vec<u8>>,
    room: usize,
    is_shut: bool,
    is_broken: bool,
}

impl Wire {
    fn with_room(room: usize) -> Self {
        Self(Arc::new(Mutex::new(Taken { room, ..Taken::default() })))
    }

    /// What it has been written, in hyphens where it was more than one write.
    fn taken(&self) -> String {
        let taken = self.0.lock().unwrap();
        let writes: Vec<_> = taken.writes.iter().map(|write| String::from_utf8_lossy(write)).collect();
        writes.join("-")
    }

    fn set(&self, change: impl FnOnce(&mut Taken)) {
        change(&mut self.0.lock().unwrap());
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(from)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut taken = self.0.lock().unwrap();
        if taken.is_broken {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if taken.room == 0 {
            return Poll::Pending;
        }
        let mut write: Vec<u8> = from.iter().flat_map(|piece| piece.iter().copied()).collect();
        write.truncate(taken.room);
        taken.room -= write.len();
        let written = write.len();
        taken.writes.push(write);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().unwrap().is_shut = true;
        Poll::Ready(Ok(()))
    }
}

/// An outbox that has found out that it is worth waiting.
fn waiting(room: usize) -> (Wire, Outbox<Wire>) {
    let wire = Wire::with_room(room);
    let mut outbox = Outbox::new(wire.clone());
    outbox.worth.waited(true);
    (wire, outbox)
}

/// Writes and flushes as the library does for a frame.
async fn send(outbox: &mut Outbox<Wire>, frame: &[u8]) {
    outbox.write_all(frame).await.unwrap();
    outbox.flush().await.unwrap();
}

/// Whatever else is ready runs, and so ends a wait.
async fn turn() {
    tokio::task::yield_now().await;
}

fn now<T>(poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn waiting_is_given_up_where_it_brings_nothing_and_tried_again() {
    let mut worth = Worth::default();
    assert!(!worth.is_given());
    for _ in 0..TRY_AFTER {
        assert!(!worth.is_given());
        worth.passed();
    }
    assert!(worth.is_given());
    worth.waited(false);
    assert!(!worth.is_given());
    worth.waited(true);
    for _ in 0..PATIENCE {
        assert!(worth.is_given());
        worth.waited(false);
    }
    assert!(!worth.is_given());
}

#[tokio::test]
async fn a_lone_write_goes_out_at_once() {
    let wire = Wire::with_room(100);
    let mut outbox = Outbox::new(wire.clone());
    send(&mut outbox, b"head").await;
    assert_eq!(wire.taken(), "head");
    turn().await;
    send(&mut outbox, b"next").await;
    assert_eq!(wire.taken(), "head-next");
}

#[tokio::test]
async fn what_is_written_in_a_turn_goes_out_together() {
    let (wire, mut outbox) = waiting(100);
    for frame in [b"one", b"two", b"six"] {
        send(&mut outbox, frame).await;
    }
    assert_eq!(wire.taken(), "");
    turn().await;
    outbox.flush().await.unwrap();
    assert_eq!(wire.taken(), "onetwosix");
    assert!(outbox.held.capacity() == 0 && outbox.wait.is_none());
    send(&mut outbox, b"ten").await;
    assert_eq!(wire.taken(), "onetwosix");
}

/// The beginning of a connection is driven by another task than the rest of it.
#[tokio::test]
async fn whoever_drives_it_is_woken() {
    let (wire, mut outbox) = waiting(100);
    let begun = now(|cx| {
        assert!(Pin::new(&mut outbox).poll_write(cx, b"settings").is_ready());
        Pin::new(&mut outbox).poll_flush(cx)
    });
    assert!(matches!(begun, Poll::Ready(Ok(()))));
    let driven = tasks::spawn("test", async move {
        std::future::poll_fn(|cx| {
            let _ = Pin::new(&mut outbox).poll_flush(cx);
            if outbox.held.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    });
    driven.await.unwrap();
    assert_eq!(wire.taken(), "settings");
}

#[tokio::test]
async fn who_only_reads_lets_it_out() {
    let (near, mut far) = tokio::io::duplex(100);
    let mut outbox = Outbox::new(near);
    outbox.worth.waited(true);
    outbox.write_all(b"settings").await.unwrap();
    outbox.flush().await.unwrap();
    let reads = tasks::spawn("test", async move {
        tokio::io::copy(&mut outbox, &mut tokio::io::sink()).await.unwrap();
    });
    // The task that began the wait is this one; whoever reads is woken by what comes.
    turn().await;
    far.write_all(b"preface").await.unwrap();
    let mut read = [0; 8];
    tokio::io::AsyncReadExt::read_exact(&mut far, &mut read).await.unwrap();
    assert_eq!(&read, b"settings");
    drop(far);
    reads.await.unwrap();
}

#[tokio::test]
async fn a_large_write_goes_with_what_is_held() {
    let (wire, mut outbox) = waiting(usize::MAX);
    let large = vec![b'x'; LARGE_BYTES];
    send(&mut outbox, b"head").await;
    send(&mut outbox, &large).await;
    assert_eq!(wire.taken(), format!("head{}", "x".repeat(LARGE_BYTES)));
    send(&mut outbox, &large).await;
    assert_eq!(wire.0.lock().unwrap().writes.len(), 2);
}

#[tokio::test]
async fn order_is_kept_however_little_is_taken_at_a_time() {
    let (wire, mut outbox) = waiting(3);
    send(&mut outbox, b"small").await;
    let large = vec![b'x'; LARGE_BYTES];
    for _ in 0..2 {
        let polled = now(|cx| Pin::new(&mut outbox).poll_write(cx, &large));
        assert!(polled.is_pending());
    }
    assert_eq!(wire.taken(), "sma");
    wire.set(|wire| wire.room = 4);
    assert!(matches!(now(|cx| Pin::new(&mut outbox).poll_write(cx, &large)), Poll::Ready(Ok(2))));
    assert_eq!(wire.taken(), "sma-llxx");
}

#[tokio::test]
async fn a_full_outbox_takes_nothing_before_something_goes() {
    let (wire, mut outbox) = waiting(0);
    let unit = [b'x'; 1 << 10];
    for _ in 0..HELD_BYTES_MAX / unit.len() {
        send(&mut outbox, &unit).await;
    }
    assert!(now(|cx| Pin::new(&mut outbox).poll_write(cx, &unit)).is_pending());
    turn().await;
    assert!(now(|cx| Pin::new(&mut outbox).poll_flush(cx)).is_pending());
    assert_eq!(outbox.held.len(), HELD_BYTES_MAX);
    wire.set(|wire| wire.room = HELD_BYTES_MAX);
    outbox.flush().await.unwrap();
    send(&mut outbox, b"x").await;
    assert_eq!(wire.0.lock().unwrap().writes.len(), 1);
}

#[tokio::test]
async fn the_end_comes_behind_what_is_held() {
    let (wire, mut outbox) = waiting(3);
    send(&mut outbox, b"goaway").await;
    assert!(now(|cx| Pin::new(&mut outbox).poll_shutdown(cx)).is_pending());
    assert!(!wire.0.lock().unwrap().is_shut);
    wire.set(|wire| wire.room = 3);
    outbox.shutdown().await.unwrap();
    assert_eq!(wire.taken(), "goa-way");
    assert!(wire.0.lock().unwrap().is_shut);
}

#[tokio::test]
async fn a_fault_of_the_stream_is_told() {
    let (wire, mut outbox) = waiting(100);
    send(&mut outbox, b"one").await;
    wire.set(|wire| wire.is_broken = true);
    turn().await;
    let told = |error: io::Error| error.kind() == io::ErrorKind::ConnectionReset;
    assert!(outbox.flush().await.is_err_and(told));
    assert!(outbox.shutdown().await.is_err_and(told));
}

/// A connection's far end that counts what is written.
#[derive(Debug)]
struct Counted {
    stream: DuplexStream,
    wire: Wire,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.wire.set(|wire| wire.writes.push(Vec::new()));
        Pin::new(&mut self.stream).poll_write(cx, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.wire.set(|wire| wire.writes.push(Vec::new()));
        Pin::new(&mut self.stream).poll_write_vectored(cx, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Bytes of a response: a frame of its own, which the library flushes.
const BODY_BYTES: usize = 2000;

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(asked) = connection.accept().await {
        let Ok((_, mut respond)) = asked else { return };
        tasks::spawn("test-stream", async move {
            let mut body = respond.send_response(http::Response::new(()), false).unwrap();
            body.send_data(Bytes::from(vec![7; BODY_BYTES]), true).unwrap();
        });
    }
}

async fn ask(mut requests: h2::client::SendRequest<Bytes>) {
    let (answer, _) = requests.send_request(http::Request::new(()), true).unwrap();
    let mut body = answer.await.unwrap().into_body();
    let mut read = 0;
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        read += data.len();
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    assert_eq!(read, BODY_BYTES);
}

/// Writes for so many rounds of so many requests at a time.
async fn writes(rounds: usize, requests: usize) -> usize {
    let (near, far) = tokio::io::duplex(1 << 20);
    let wire = Wire::default();
    let counted = Counted { stream: far, wire: wire.clone() };
    let served = tasks::spawn("test-server", serve(Outbox::new(counted)));
    let asked = tasks::spawn("test-client", async move {
        let (requests_of, connection) = h2::client::handshake(near).await.unwrap();
        tasks::spawn("test-connection", async move { drop(connection.await) });
        for _ in 0..rounds {
            join_all((0..requests).map(|_| ask(requests_of.clone()))).await;
        }
    });
    asked.await.unwrap();
    served.abort();
    wire.0.lock().unwrap().writes.len()
}

/// With the library alone each response is a write.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn responses_of_a_turn_are_few_writes() {
    let together = writes(50, 8).await;
    assert!(together < 50 * 4, "{together} writes of 400 responses");
    let alone = writes(50, 1).await;
    assert!(alone >= 50, "{alone} writes of 50 responses one after the other");
}
