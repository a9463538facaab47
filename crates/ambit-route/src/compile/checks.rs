//! Paths and names as people write them.

use ambit_types::path::stands_for_itself;

use super::error::PathFault;
use crate::model::limits::PATH_BYTES_MAX;

/// Brings a valid path into the form that requests have after normalisation: escapes of octets that a segment may have
/// undone but for `;`, the others in upper case (RFC 3986 section 6.2.2).
///
/// # Errors
/// [`PathFault`] for a path that no request can have, or that can be read in two ways (the API's own rules).
pub(super) fn path(text: &str) -> Result<String, PathFault> {
    if text.len() > PATH_BYTES_MAX {
        return Err(PathFault::TooLong);
    }
    if !text.starts_with('/') {
        return Err(PathFault::Relative);
    }
    if text.to_ascii_lowercase().contains("%2f") {
        return Err(PathFault::EncodedSlash);
    }
    let path = normal(text).ok_or(PathFault::Characters)?;
    // Dots may have come out of escapes.
    let segments = &path[1..];
    let inner = segments.strip_suffix('/').unwrap_or(segments);
    let is_clear = path == "/" || !inner.split('/').any(|segment| matches!(segment, "" | "." | ".."));
    is_clear.then_some(path).ok_or(PathFault::Segments)
}

/// None if there are bytes that a path does not have.
fn normal(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut path = String::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        if *byte == b'%' {
            let digits = text.get(at + 1..at + 3)?;
            let octet = digits.bytes().all(|d| d.is_ascii_hexdigit()).then_some(digits)?;
            let octet = u8::from_str_radix(octet, 16).ok()?;
            if stands_for_itself(octet) {
                path.push(char::from(octet));
            } else {
                path.push('%');
                path.push_str(&digits.to_ascii_uppercase());
            }
            at += 3;
            continue;
        }
        let is_path = stands_for_itself(*byte) || matches!(*byte, b';' | b'/');
        path.push(is_path.then_some(char::from(*byte))?);
        at += 1;
    }
    Some(path)
}

fn is_unreserved(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b'~')
}

/// What stands in for a path, or path pattern, that cannot be used: the segments at its begin that mean what they
/// say.
pub(super) fn readable_prefix(text: &str, is_pattern: bool) -> Box<str> {
    let has_no_meaning = |segment: &str| {
        let is_plain = |b: u8| is_unreserved(b) && !(is_pattern && b == b'.');
        matches!(segment, "" | "." | "..") || !segment.bytes().all(is_plain)
    };
    let text = if is_pattern { text.trim_start_matches('^') } else { text };
    // A bar makes alternatives, of which the first is no better than the others; a pattern need not be cut at a
    // slash, so that its last segment may go on.
    if is_pattern && text.contains('|') {
        return "".into();
    }
    let text = text.strip_prefix('/').unwrap_or(text);
    let mut prefix = String::new();
    let mut segments = text.split('/').peekable();
    while let Some(segment) = segments.next() {
        let may_go_on = is_pattern && segments.peek().is_none();
        if has_no_meaning(segment) || may_go_on || prefix.len() + segment.len() >= PATH_BYTES_MAX {
            break;
        }
        prefix.push('/');
        prefix.push_str(segment);
    }
    prefix.into()
}

/// Whether a text is a host name without wildcard, port or brackets.
pub(super) fn is_hostname(text: &str) -> bool {
    let is_label = |label: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}
