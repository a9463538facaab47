//! Which bytes are followed, and where they stop.

use super::{Framing, Wait};

/// Follows a text whole and byte by byte; where it stopped, if it did.
#[track_caller]
fn check(text: &str, want: Result<(), usize>) {
    assert_eq!(Framing::default().follow(text.as_bytes()), want, "row {text:?}");
    let mut framing = Framing::default();
    let stopped = text.bytes().position(|byte| framing.follow(&[byte]).is_err());
    assert_eq!(stopped.map_or(Ok(()), Err), want, "row {text:?}, byte by byte");
}

#[test]
fn sound_messages_are_followed_to_the_next() {
    for text in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\na\nbGET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length:0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\na\nb\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n\n\n\0\0",
        "GET / HTTP/1.1\r\nContent-Lengthy: x\r\n\r\n",
    ] {
        check(text, Ok(()));
    }
}

#[test]
fn contradictions_stop_where_they_show() {
    for (before, after) in [
        ("POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding", ": chunked\r\n\r\n"),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length", ": 3\r\n\r\n"),
        ("POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length", ": 3\r\n\r\n"),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding", ": x\r\n\r\n"),
        ("POST / HTTP/1.1\r\nContent-Length: ", "+5\r\n\r\n"),
        ("POST / HTTP/1.1\r\nContent-Length: 5", ",5\r\n\r\n"),
        ("POST / HTTP/1.1\r\nContent-Length: 9999999999999999999", "9\r\n\r\n"),
        ("POST / HTTP/1.1\r\nContent-Length:\r", "\n\r\n"),
        ("GET / HTTP/1.1", "\nHost: a\r\n\r\n"),
        ("GET / HTTP/1.1\r\nHost: a\r", "b\r\n\r\n"),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3", "\nabc\r\n0\r\n\r\n"),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc", "0\r\n\r\n"),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", "x\r\n"),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\r", "\n"),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFF", "F\r\n"),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: 1", "\n\r\n"),
    ] {
        check(&[before, after].concat(), Err(before.len()));
    }
}

/// Only what has begun has to end, and each head by itself.
#[test]
fn heads_are_waited_for_from_their_first_byte_on() {
    for (text, want) in [
        ("", Some(Wait::Idle)),
        ("\r\n", Some(Wait::Idle)),
        ("G", Some(Wait::Head(0))),
        ("GET / HTTP/1.1\r\nHost: a\r\n", Some(Wait::Head(0))),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Some(Wait::Idle)),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET", Some(Wait::Head(1))),
        ("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\na", None),
        ("POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\na", Some(Wait::Idle)),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", None),
        ("GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\nG", None),
    ] {
        let mut framing = Framing::default();
        framing.follow(text.as_bytes()).unwrap();
        assert_eq!(framing.wait(), want, "row {text:?}");
    }
}
