//! When a peer is pinged and given up, and that the stream underneath is otherwise left as it is.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncWrite, ReadBuf};

use super::{AsyncRead, Heard, Listening, Step, TunnelSettings, next};

#[test]
fn a_peer_is_pinged_when_quiet_and_given_up_when_it_stays_so() {
    let settings = TunnelSettings::default();
    let (ping, pong) = (settings.ping_after, settings.pong_timeout);
    let ms = Duration::from_millis;
    let rows = [
        ("just heard", ms(0), None, Step::Wait(ping)),
        ("almost quiet enough", ping - ms(1), None, Step::Wait(ms(1))),
        ("quiet", ping, None, Step::Ping),
        ("long quiet", ping * 9, None, Step::Ping),
        ("just pinged", ping, Some(ms(0)), Step::Wait(pong)),
        ("no answer yet", ping + pong - ms(1), Some(pong - ms(1)), Step::Wait(ms(1))),
        ("no answer", ping + pong, Some(pong), Step::GiveUp),
        ("no answer, but data", ms(1), Some(pong), Step::Wait(pong - ms(1))),
        ("no answer, and no more data", pong, Some(pong * 3), Step::GiveUp),
    ];
    for (name, quiet, unanswered, step) in rows {
        assert_eq!(next(quiet, unanswered, &settings), step, "{name}");
    }
}

#[test]
fn a_peer_that_vanished_is_given_up_within_twenty_seconds() {
    let settings = TunnelSettings::default();
    assert!(settings.ping_after + settings.pong_timeout <= Duration::from_secs(18), "{settings:?}");
}

/// Takes vectored writes, or says that it does not; has one read with a byte and then an end.
struct Below {
    vectored: bool,
    unread: usize,
}

impl super::Abandon for Below {
    fn abandon(&self) {}

    fn tcp(&self) -> Option<&super::TcpStream> {
        None
    }
}

impl AsyncRead for Below {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        into.put_slice(&[7][..self.unread]);
        self.unread = 0;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Below {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(from.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(from.iter().map(|slice| slice.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        self.vectored
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn vectored_writes_pass_whole() {
    let mut cx = Context::from_waker(Waker::noop());
    for vectored in [true, false] {
        let mut stream = Listening::new(Below { vectored, unread: 0 }, Heard::now());
        assert_eq!(stream.is_write_vectored(), vectored);
        let parts = [IoSlice::new(b"head"), IoSlice::new(b"body")];
        let written = Pin::new(&mut stream).poll_write_vectored(&mut cx, &parts);
        assert!(matches!(written, Poll::Ready(Ok(8))), "{written:?}");
    }
}

#[test]
fn bytes_are_a_sign_of_life_and_an_end_is_none() {
    let mut cx = Context::from_waker(Waker::noop());
    let heard = Heard::now();
    let long_ago = heard.since - Duration::from_secs(60);
    let heard = Heard { since: long_ago, ..heard };
    let mut stream = Listening::new(Below { vectored: true, unread: 1 }, heard.clone());
    let now = long_ago + Duration::from_secs(60);
    let mut read = || {
        let mut bytes = [0; 8];
        let mut into = ReadBuf::new(&mut bytes);
        let _ = Pin::new(&mut stream).poll_read(&mut cx, &mut into);
        heard.quiet_at(now)
    };
    assert!(read() < Duration::from_secs(1));
    heard.shared.last.store(0, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(read(), Duration::from_secs(60));
}
