//! Requests of HTTP/1.1 byte for byte, as no client library sends them.

use std::fmt::Write as _;

/// A text in which `\xNN` is the byte NN.
pub(super) fn bytes(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.strip_prefix(b"x").and_then(|digits| digits.get(..2)).filter(|_| *first == b'\\');
        let byte = digits.and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 16).ok());
        out.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[3..] } else { after };
    }
    out
}

/// A request's bytes; hosts, then headers, in this order. It asks that the connection ends with the answer.
pub(super) fn request(method: &str, target: &str, hosts: &[String], headers: &[[String; 2]]) -> Vec<u8> {
    let mut out = [&bytes(method), &b" "[..], &bytes(target), b" HTTP/1.1\r\n"].concat();
    let mut line = |name: &str, value: &str| {
        out.extend([&bytes(name), &b": "[..], &bytes(value), b"\r\n"].concat());
    };
    hosts.iter().for_each(|host| line("Host", host));
    headers.iter().for_each(|[name, value]| line(name, value));
    // Without being named there, a wish to change the protocol is none.
    let is_upgrade = headers.iter().any(|[name, _]| name.eq_ignore_ascii_case("upgrade"));
    line("Connection", if is_upgrade { "close, upgrade" } else { "close" });
    out.extend(b"\r\n");
    out
}

/// Bytes in hexadecimal, as `http-peer rows` reads them.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
