//! Where the items of a list stand in a JSON text.
//!
//! The text has been accepted by a whole parser before; here only positions are found, and nothing is trusted to be
//! there: what does not fit is `None`.

use std::ops::Range;

/// A list in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Array {
    /// Position of its opening bracket.
    pub open: usize,
    /// Positions of its items, without the space around them.
    pub items: Vec<Range<usize>>,
}

/// The list that is the value of `key` in the object that is the text; of several the last, as parsers take it.
pub(super) fn array(text: &str, key: &str) -> Option<Array> {
    let bytes = text.as_bytes();
    let mut at = spaces(bytes, 0);
    if bytes.get(at) != Some(&b'{') {
        return None;
    }
    let mut found = None;
    at = spaces(bytes, at + 1);
    while bytes.get(at) == Some(&b'"') {
        let end = value(bytes, at)?;
        let name: String = serde_json::from_str(text.get(at..end)?).ok()?;
        at = spaces(bytes, end);
        if bytes.get(at) != Some(&b':') {
            return None;
        }
        at = spaces(bytes, at + 1);
        let end = value(bytes, at)?;
        if name == key {
            found = items(bytes, at);
        }
        at = spaces(bytes, end);
        match bytes.get(at) {
            Some(b',') => at = spaces(bytes, at + 1),
            Some(b'}') => return found,
            Some(_) | None => return None,
        }
    }
    found
}

fn items(bytes: &[u8], open: usize) -> Option<Array> {
    if bytes.get(open) != Some(&b'[') {
        return None;
    }
    let mut items = Vec::new();
    let mut at = spaces(bytes, open + 1);
    while bytes.get(at) != Some(&b']') {
        let end = value(bytes, at)?;
        items.push(at..end);
        at = spaces(bytes, end);
        match bytes.get(at) {
            Some(b',') => at = spaces(bytes, at + 1),
            Some(b']') => {}
            Some(_) | None => return None,
        }
    }
    Some(Array { open, items })
}

/// The end of the value that begins at a position.
fn value(bytes: &[u8], start: usize) -> Option<usize> {
    let mut depth = 0usize;
    let mut at = start;
    loop {
        match bytes.get(at)? {
            b'"' => at = string(bytes, at)?,
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' if depth == 0 => return (at > start).then_some(at),
            b'}' | b']' => {
                depth -= 1;
                at += 1;
            }
            b',' | b' ' | b'\t' | b'\n' | b'\r' if depth == 0 => return (at > start).then_some(at),
            _ => at += 1,
        }
        let closed = matches!(bytes.get(at.checked_sub(1)?), Some(b'}' | b']' | b'"'));
        if depth == 0 && closed {
            return Some(at);
        }
    }
}

/// The end of the string that begins at a position.
fn string(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        match bytes.get(at)? {
            b'\\' => at += 2,
            b'"' => return Some(at + 1),
            _ => at += 1,
        }
    }
}

fn spaces(bytes: &[u8], from: usize) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    from + rest.iter().take_while(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r')).count()
}
