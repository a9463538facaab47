//! The path: escapes, dot segments, slashes, and what stays ambiguous.
//!
//! Order as in Envoy: escaped slashes, then RFC 3986, then doubled slashes. Each step works on whole bytes and once,
//! so that normalising what is normal changes nothing.

use std::borrow::Cow;

use ambit_types::path::{ESCAPED_PLUS, stands_for_itself};

use super::{Ambiguity, Normalization, Options, Refusal};

/// Path and query of a target; a fragment is refused, or cut off where two readings are kept.
pub(super) fn split(raw: &[u8], ambiguity: Ambiguity) -> Result<(&[u8], Option<&[u8]>), Refusal> {
    let raw = match (raw.iter().position(|b| *b == b'#'), ambiguity) {
        (Some(_), Ambiguity::Refuse) => return Err(Refusal::Fragment),
        (Some(at), Ambiguity::Keep) => &raw[..at],
        (None, _) => raw,
    };
    if let Some(at) = raw.iter().position(|b| *b <= b' ' || *b == 0x7f) {
        return Err(Refusal::Byte { byte: raw[at], at });
    }
    match raw.iter().position(|b| *b == b'?') {
        Some(at) => Ok((&raw[..at], Some(&raw[at + 1..]))),
        None => Ok((raw, None)),
    }
}

/// The path in normal form. Borrowed where it already is.
pub(super) fn normalize<'a>(path: &'a [u8], options: &Options) -> Result<Cow<'a, [u8]>, Refusal> {
    if path.first() != Some(&b'/') {
        return Err(Refusal::PathForm);
    }
    if is_plain(path) {
        return Ok(Cow::Borrowed(path));
    }
    let normal = match options.normalization {
        Normalization::None => Cow::Borrowed(path),
        Normalization::Base => Cow::Owned(without_dots(&unescaped(path, false)?)),
        Normalization::MergeSlashes => Cow::Owned(merged(without_dots(&unescaped(path, false)?))),
        Normalization::DecodeAndMergeSlashes => Cow::Owned(merged(without_dots(&unescaped(path, true)?))),
    };
    match options.ambiguity {
        Ambiguity::Refuse => ambiguous(&normal).map_or(Ok(normal), Err),
        Ambiguity::Keep => Ok(normal),
    }
}

/// Whether no step would change or refuse anything: the common case, in one pass and without copying.
fn is_plain(path: &[u8]) -> bool {
    let special = |b: u8| matches!(b, b'%' | b'\\' | b';') || !b.is_ascii();
    let mut before = 0;
    for byte in path {
        let starts_oddly = before == b'/' && matches!(*byte, b'/' | b'.');
        if special(*byte) || starts_oddly {
            return false;
        }
        before = *byte;
    }
    true
}

/// Octets that stand for themselves decoded but for the plus sign, other escapes in upper case, backslashes turned;
/// with `slashes` escaped ones as well.
fn unescaped(path: &[u8], slashes: bool) -> Result<Vec<u8>, Refusal> {
    let mut out = Vec::with_capacity(path.len());
    let mut at = 0;
    while let Some(byte) = path.get(at).copied() {
        let (written, read): (&[u8], usize) = match byte {
            b'\\' => (b"/", 1),
            b'%' => {
                let octet = octet(&path[at..]).ok_or(Refusal::Percent { at })?;
                match octet {
                    b'/' | b'\\' if slashes => (b"/", 3),
                    b'+' => (ESCAPED_PLUS.as_bytes(), 3),
                    plain if stands_for_itself(plain) => (&[plain], 3),
                    other => (&escape(other), 3),
                }
            }
            other => (&[other], 1),
        };
        out.extend_from_slice(written);
        at += read;
    }
    Ok(out)
}

/// A normal path as it is compared, where that is another one. Every `%` of it begins an escape.
pub(super) fn compared(path: &[u8], normalization: Normalization) -> Option<Vec<u8>> {
    let escape = ESCAPED_PLUS.as_bytes();
    let is_read = normalization >= Normalization::Base && path.contains(&b'%');
    if !is_read || !path.windows(escape.len()).any(|window| window == escape) {
        return None;
    }
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((first, behind)) = rest.split_first() {
        let plus = rest.strip_prefix(escape);
        out.push(plus.map_or(*first, |_| b'+'));
        rest = plus.unwrap_or(behind);
    }
    Some(out)
}

/// The octet of the escape that `text` begins with.
pub(crate) fn octet(text: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = text else { return None };
    Some(digit(*high)? << 4 | digit(*low)?)
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

fn escape(octet: u8) -> [u8; 3] {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    [b'%', DIGITS[usize::from(octet >> 4)], DIGITS[usize::from(octet & 0xf)]]
}

/// RFC 3986 section 5.2.4, for a path that begins with a slash; `..` at the root stays at the root.
fn without_dots(path: &[u8]) -> Vec<u8> {
    let segments: Vec<&[u8]> = path.get(1..).unwrap_or_default().split(|b| *b == b'/').collect();
    let mut kept: Vec<&[u8]> = Vec::with_capacity(segments.len());
    for (index, segment) in segments.iter().enumerate() {
        let dots = is_dots(segment);
        if dots && *segment == b".." {
            kept.pop();
        }
        if !dots {
            kept.push(segment);
        } else if index + 1 == segments.len() {
            kept.push(b"");
        }
    }
    let mut out = Vec::with_capacity(path.len());
    for segment in kept {
        out.push(b'/');
        out.extend_from_slice(segment);
    }
    if out.is_empty() {
        out.push(b'/');
    }
    out
}

fn is_dots(segment: &[u8]) -> bool {
    matches!(segment, b"." | b"..")
}

fn merged(mut path: Vec<u8>) -> Vec<u8> {
    path.dedup_by(|a, b| *a == b'/' && *b == b'/');
    path
}

/// What servers still read differently.
fn ambiguous(path: &[u8]) -> Option<Refusal> {
    for (at, byte) in path.iter().copied().enumerate() {
        let refusal = match byte {
            b'\\' => Some(Refusal::Backslash),
            b'%' => match octet(&path[at..]) {
                None => Some(Refusal::Percent { at }),
                Some(b'/' | b'\\') => Some(Refusal::EscapedSlash),
                Some(b'.') => Some(Refusal::EscapedDot),
                Some(0) => Some(Refusal::EscapedNul),
                Some(b'%') => twice(&path[at + 3..]),
                Some(_) => None,
            },
            other if !other.is_ascii() => Some(Refusal::NotAscii { byte: other, at }),
            _ => None,
        };
        if refusal.is_some() {
            return refusal;
        }
    }
    path.split(|b| *b == b'/').find_map(dot_segment)
}

/// `%25` before two digits becomes another escape when decoded once more.
fn twice(rest: &[u8]) -> Option<Refusal> {
    let [high, low, ..] = rest else { return None };
    (digit(*high).is_some() && digit(*low).is_some()).then_some(Refusal::EscapedTwice)
}

fn dot_segment(segment: &[u8]) -> Option<Refusal> {
    let escaped = segment.windows(3).position(|w| w.eq_ignore_ascii_case(b"%3b"));
    let plain = segment.iter().position(|b| *b == b';');
    let parameters = [escaped, plain].into_iter().flatten().min();
    match parameters {
        Some(at) if is_dots(&segment[..at]) => Some(Refusal::DotParameter),
        None if is_dots(segment) => Some(Refusal::DotSegment),
        Some(_) | None => None,
    }
}

/// The path as servers see it that drop `;parameters` from segments, where that is another one.
pub(super) fn without_parameters(path: &[u8], normalization: Normalization) -> Option<Vec<u8>> {
    if !path.contains(&b';') {
        return None;
    }
    let mut bare = Vec::with_capacity(path.len());
    for (index, segment) in path.split(|b| *b == b'/').enumerate() {
        if index > 0 {
            bare.push(b'/');
        }
        let end = segment.iter().position(|b| *b == b';').unwrap_or(segment.len());
        bare.extend_from_slice(&segment[..end]);
    }
    let bare = match normalization {
        Normalization::None => bare,
        Normalization::Base => without_dots(&bare),
        Normalization::MergeSlashes | Normalization::DecodeAndMergeSlashes => merged(without_dots(&bare)),
    };
    Some(bare)
}
