//! Which protocol a connection speaks: what is declared, else what its first bytes look like.
//!
//! Where nothing is declared the first bytes are waited for a short time only: who says nothing by then waits for
//! the server to speak first. Where a token is asked for, or a policy compares what only HTTP has, that would be a way
//! around it: such a port is read as HTTP.

use std::time::Duration;

use ambit_runtime::drain::Drain;
pub(super) use ambit_state::waypoint::{Reading, reading};

use crate::Limits;
use crate::stream::Stream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Longest method that is taken for HTTP/1.1.
const METHOD_BYTES_MAX: usize = 20;

/// Longest first line that is looked through for a version of HTTP.
const LINE_BYTES_MAX: usize = 2048;

/// Most bytes of empty lines before a request that are passed over.
const BLANK_BYTES_MAX: usize = 2048;

/// How long a client that has connected and said nothing is waited for once the waypoint leaves.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// TLS.
    Tls,
    /// Anything else, or the server speaks first.
    Other,
}

/// What some first bytes look like; none if more are needed.
fn guess(bytes: &[u8]) -> Option<Found> {
    // Empty lines before a request are allowed (RFC 9112 section 2.2). Each look begins at the first of them again, so
    // their number is bounded.
    let blank = bytes.iter().zip(b"\r\n".iter().cycle()).take(BLANK_BYTES_MAX);
    let blank = blank.take_while(|(byte, wanted)| byte == wanted).count();
    if blank == BLANK_BYTES_MAX {
        return Some(Found::Other);
    }
    let bytes = &bytes[blank - blank % 2..];
    if bytes.is_empty() || bytes == b"\r" {
        return None;
    }
    let begun = bytes.len().min(PREFACE.len());
    if bytes[..begun] == PREFACE[..begun] {
        return (begun == PREFACE.len()).then_some(Found::Http2);
    }
    if bytes[0] == 0x16 {
        return match bytes.get(1) {
            None => None,
            Some(3) => Some(Found::Tls),
            Some(_) => Some(Found::Other),
        };
    }
    let method = bytes.iter().take_while(|b| b.is_ascii_alphabetic() || **b == b'-').count();
    let is_upper = !bytes[..method].iter().any(u8::is_ascii_lowercase);
    match bytes.get(method) {
        Some(b' ') if (1..=METHOD_BYTES_MAX).contains(&method) && is_upper => Some(Found::Http1),
        Some(b' ') if (1..=METHOD_BYTES_MAX).contains(&method) => by_line(bytes),
        None if method <= METHOD_BYTES_MAX => None,
        Some(_) | None => Some(Found::Other),
    }
}

/// Methods in lower case are sound and rare, while other protocols begin alike: the line's end tells.
fn by_line(bytes: &[u8]) -> Option<Found> {
    let line = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    match line.iter().position(|byte| *byte == b'\n') {
        Some(end) => {
            let last = line[..end].trim_ascii_end().rsplit(|byte| *byte == b' ').next();
            let is_http = last.is_some_and(|version| version.starts_with(b"HTTP/1."));
            Some(if is_http { Found::Http1 } else { Found::Other })
        }
        None if bytes.len() < LINE_BYTES_MAX => None,
        None => Some(Found::Other),
    }
}

/// Waits for as many bytes as it takes to know; none if the client left. May be dropped.
pub(super) async fn settle(
    stream: &mut Stream,
    reading: Reading,
    limits: &Limits,
    drain: &Drain,
) -> Option<Found> {
    let wait = match reading {
        Reading::Stream => return Some(Found::Other),
        Reading::Unknown => limits.detect_wait,
        Reading::Http | Reading::Tls if begins(stream, limits, drain).await => limits.head_timeout,
        Reading::Http | Reading::Tls => return None,
    };
    let looked = tokio::time::timeout(wait, look(stream)).await;
    match (reading, looked) {
        (Reading::Unknown, Err(_)) => Some(Found::Other),
        (Reading::Unknown, Ok(found)) => Some(found.unwrap_or(Found::Other)),
        (Reading::Http, Ok(Some(Found::Http2))) => Some(Found::Http2),
        // What is no HTTP is answered as HTTP/1.1: 400.
        (Reading::Http, Ok(Some(_))) => Some(Found::Http1),
        (Reading::Tls, Ok(Some(Found::Tls))) => Some(Found::Tls),
        (Reading::Tls, Ok(Some(_))) => Some(Found::Other),
        (Reading::Http | Reading::Tls | Reading::Stream, Ok(None) | Err(_))
        | (Reading::Stream, Ok(Some(_))) => None,
    }
}

/// Waits for the first byte; false if none comes. Clients open connections long before they use them, so it is waited
/// for as long as between two requests.
async fn begins(stream: &mut Stream, limits: &Limits, drain: &Drain) -> bool {
    if !stream.held().is_empty() {
        return true;
    }
    let leaving = async {
        drain.draining().await;
        tokio::time::sleep(LAST_WAIT).await;
    };
    tokio::select! {
        biased;
        more = tokio::time::timeout(limits.keep_alive_timeout, stream.more()) => matches!(more, Ok(Ok(true))),
        () = leaving => false,
        () = drain.forced() => false,
    }
}

async fn look(stream: &mut Stream) -> Option<Found> {
    loop {
        if let Some(found) = guess(stream.held()) {
            return Some(found);
        }
        match stream.more().await {
            Ok(true) => {}
            Ok(false) if stream.held().is_empty() => return None,
            Ok(false) => return Some(Found::Other),
            Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BLANK_BYTES_MAX, Found, guess};

    #[test]
    fn first_bytes_tell_protocols_apart() {
        let rows: &[(&[u8], Option<Found>)] = &[
            (b"", None),
            (b"P", None),
            (b"PRI * HT", None),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(Found::Http2)),
            (b"PRI * HTTP/2.1", Some(Found::Http1)),
            (b"GET / HTTP/1.1", Some(Found::Http1)),
            (b"GE", None),
            (b"M-SEARCH *", Some(Found::Http1)),
            (b"get / HTTP/1.1", None),
            (b"get / HTTP/1.1\r\nHost: a\r\n", Some(Found::Http1)),
            (b"Get /a HTTP/1.0\n", Some(Found::Http1)),
            (b"get key\r\n", Some(Found::Other)),
            (b"get ", None),
            (b"\r", None),
            (b"\r\n", None),
            (b"\r\n\r\nGET / HTTP/1.1", Some(Found::Http1)),
            (b"\r\n\x00", Some(Found::Other)),
            (b"\n\nGET / HTTP/1.1", Some(Found::Other)),
            (b"\x16", None),
            (b"\x16\x03\x01", Some(Found::Tls)),
            (b"\x16\x01", Some(Found::Other)),
            (b"\x00\x00", Some(Found::Other)),
            (b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", Some(Found::Other)),
            (b" GET", Some(Found::Other)),
            (b"SSH-2.0-x", Some(Found::Other)),
        ];
        for (bytes, want) in rows {
            assert_eq!(guess(bytes), *want, "row {}", bytes.escape_ascii());
        }
    }

    #[test]
    fn empty_lines_are_passed_over_up_to_a_bound() {
        for (lines, more, want) in [
            (1000, "", None),
            (1000, "\r", None),
            (1000, "GET / HTTP/1.1", Some(Found::Http1)),
            (BLANK_BYTES_MAX / 2, "", Some(Found::Other)),
            (BLANK_BYTES_MAX / 2, "GET / HTTP/1.1", Some(Found::Other)),
            (1 << 20, "", Some(Found::Other)),
        ] {
            let bytes = format!("{}{more}", "\r\n".repeat(lines));
            assert_eq!(guess(bytes.as_bytes()), want, "row {lines} {more:?}");
        }
    }
}
