//! Key material in text, found by what it looks like, in clear or in base64. Pure.
//!
//! What is found here is taken out before anything is written, and looked for once more in what was written.

use std::fmt;
use std::ops::Range;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use regex::bytes::Regex;

#[cfg(test)]
mod tests;

/// How often something may be base64 of base64.
const DEPTH: usize = 3;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A private key as PEM, whole or a part of it.
    PrivateKey,
    /// A private key in base64: its PEM, or the key itself without PEM around it.
    EncodedKey,
    /// A JSON web token with its three parts.
    Token,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PrivateKey => "private key",
            Self::EncodedKey => "private key in base64",
            Self::Token => "JSON web token",
        })
    }
}

/// Something that was found, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Which bytes.
    pub(super) range: Range<usize>,
    /// What it is.
    pub(super) kind: Kind,
}

/// The first or last line of a private key.
static MARKER: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?-u)-----(?:BEGIN|END) [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"));

/// Base64 of `PRIVATE KEY-----`, wherever it begins in its group of three bytes.
static PEM_IN_BASE64: LazyLock<Regex> = LazyLock::new(|| {
    let shifted = |shift: usize| {
        let text = [&b"   "[..shift], b"PRIVATE KEY-----"].concat();
        let encoded = STANDARD_NO_PAD.encode(&text);
        // Characters that bytes before or behind have a part in.
        let whole = text.len() * 8 / 6;
        encoded[(shift * 8).div_ceil(6)..whole].replace('+', r"\+")
    };
    pattern(&format!("(?-u){}|{}|{}", shifted(0), shifted(1), shifted(2)))
});

/// Text that may be base64, of either alphabet, also in lines, also where a line's end is written as `\n`.
static BASE64: LazyLock<Regex> = LazyLock::new(|| {
    let end = r"[ \t]*(?:\r?\n|\\r|\\n)[ \t]*";
    pattern(&format!("(?-u)[A-Za-z0-9+/_-]{{32,}}={{0,2}}(?:(?:{end})+[A-Za-z0-9+/_-]+={{0,2}})*"))
});

/// One line of it.
static BASE64_LINE: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?-u)[A-Za-z0-9+/_-]{32,}"));

/// Three parts that dots join, the first of which may be base64 of an object.
static TOKEN: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"(?-u)e[wy][A-Za-z0-9_-]{6,}={0,2}\.[A-Za-z0-9_-]{2,}={0,2}\.[A-Za-z0-9_-]{8,}={0,2}")
});

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a pattern of this file compiles, which a test shows")
}

/// Everything that is found in a text, in order, without overlap.
pub(super) fn keys(text: &[u8]) -> Vec<Found> {
    let mut found = pem(text);
    found.extend(encoded(text, DEPTH));
    found.extend(tokens(text));
    found.sort_by_key(|one| (one.range.start, one.kind));
    let mut all: Vec<Found> = Vec::new();
    for one in found {
        match all.last_mut() {
            Some(last) if one.range.start < last.range.end => {
                last.range.end = last.range.end.max(one.range.end);
            }
            Some(_) | None => all.push(one),
        }
    }
    all
}

/// Private keys in PEM: from the first line to the last; where one of the two is missing, with what may belong to it.
fn pem(text: &[u8]) -> Vec<Found> {
    let is_begin = |marker: &Range<usize>| text[marker.clone()].starts_with(b"-----BEGIN");
    let is_body = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=\\ \t\r\n".contains(byte);
    let mut markers = MARKER.find_iter(text).map(|one| one.range()).peekable();
    let (mut found, mut done) = (Vec::new(), 0);
    while let Some(marker) = markers.next() {
        let range = if !is_begin(&marker) {
            let before = text[done..marker.start].iter().rev().take_while(|&byte| is_body(byte)).count();
            marker.start - before..marker.end
        } else if let Some(end) = markers.next_if(|next| !is_begin(next)) {
            marker.start..end.end
        } else {
            let behind = text[marker.end..].iter().take_while(|&byte| is_body(byte)).count();
            marker.start..marker.end + behind
        };
        done = range.end;
        found.push(Found { range, kind: Kind::PrivateKey });
    }
    found
}

/// Runs of base64 that hold a key, from the line in which it shows to the end of the run.
fn encoded(text: &[u8], depth: usize) -> Vec<Found> {
    let mut found = Vec::new();
    for run in BASE64.find_iter(text) {
        let mut lines = BASE64_LINE.find_iter(run.as_bytes());
        if let Some(line) = lines.find(|line| is_key(line.as_bytes(), depth)) {
            let range = run.start() + line.start()..run.end();
            found.push(Found { range, kind: Kind::EncodedKey });
        }
    }
    found
}

/// Whether a line of base64 is a key's, or the first one of it.
fn is_key(line: &[u8], depth: usize) -> bool {
    if PEM_IN_BASE64.is_match(line) {
        return true;
    }
    let decoded = decode(line);
    if is_der_key(&decoded) || MARKER.is_match(&decoded) {
        return true;
    }
    depth > 1 && BASE64_LINE.find_iter(&decoded).any(|inner| is_key(inner.as_bytes(), depth - 1))
}

/// Whether bytes begin as a private key does: PKCS #8, PKCS #1 or SEC 1.
fn is_der_key(bytes: &[u8]) -> bool {
    const SEQUENCE: u8 = 0x30;
    const INTEGER: u8 = 0x02;
    const OCTETS: u8 = 0x04;
    let Some((SEQUENCE, inner)) = element(bytes) else { return false };
    let [INTEGER, 1, version @ (0 | 1), rest @ ..] = inner else { return false };
    match element(rest) {
        // The algorithm, whose name comes first.
        Some((SEQUENCE, algorithm)) => algorithm.first() == Some(&0x06),
        // The modulus.
        Some((INTEGER, _)) => *version == 0 && rest.get(1).is_some_and(|length| *length > 0x3f),
        // The key of a curve.
        Some((OCTETS, _)) => *version == 1 && matches!(rest.get(1), Some(0x1c..=0x42)),
        Some(_) | None => false,
    }
}

/// The tag of an element of DER, and what comes behind its length, as far as it is there.
fn element(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (length, rest) = rest.split_first()?;
    let more = if *length < 0x80 { 0 } else { usize::from(length & 0x7f) };
    let is_sane = more <= 4 && *length != 0x80;
    is_sane.then(|| rest.get(more..)).flatten().map(|inner| (*tag, inner))
}

fn tokens(text: &[u8]) -> Vec<Found> {
    let token = |one: regex::bytes::Match<'_>| {
        let first = one.as_bytes().split(|byte| *byte == b'.').next().unwrap_or_default();
        let from = (0..first.len()).find(|from| is_header(&first[*from..]))?;
        Some(Found { range: one.start() + from..one.end(), kind: Kind::Token })
    };
    TOKEN.find_iter(text).filter_map(token).collect()
}

/// Whether it is base64 of the beginning of an object.
fn is_header(first: &[u8]) -> bool {
    if !(first.starts_with(b"ey") || first.starts_with(b"ew")) {
        return false;
    }
    let decoded = decode(first);
    let inner = decoded.strip_prefix(b"{").map(<[u8]>::trim_ascii_start);
    inner.is_some_and(|inner| inner.starts_with(b"\"")) && decoded.contains(&b':')
}

/// What base64 of either alphabet stands for, but for an unfinished group at its end; nothing if it is none.
fn decode(text: &[u8]) -> Vec<u8> {
    let usual = |byte: &u8| match byte {
        b'-' => b'+',
        b'_' => b'/',
        other => *other,
    };
    let text: Vec<u8> = text.iter().take_while(|byte| **byte != b'=').map(usual).collect();
    let whole = text.len() / 4 * 4;
    STANDARD_NO_PAD.decode(&text[..whole]).unwrap_or_default()
}
