//! The token of a request: every place is looked at, and what is found must be one and the same.

use super::rule::{Location, RuleSet};
use super::{Carrier, TokenError};
use crate::normalize::octet;

/// A token, the rules that look where it was found, and where that was.
pub(super) struct Located<'r> {
    pub(super) token: Vec<u8>,
    pub(super) rules: Vec<usize>,
    pub(super) locations: Vec<&'r Location>,
}

/// The one token of a request, if there is one.
pub(super) fn locate<'r>(
    rules: &'r RuleSet,
    carrier: &Carrier<'_>,
) -> Result<Option<Located<'r>>, TokenError> {
    let mut located: Option<Located<'r>> = None;
    for (location, indices) in rules.places() {
        for token in tokens_at(location, carrier)? {
            let found = located.get_or_insert_with(|| Located {
                token: token.clone(),
                rules: Vec::new(),
                locations: Vec::new(),
            });
            if found.token != token {
                return Err(TokenError::TwoTokens);
            }
            found.rules.extend(indices);
            found.locations.push(location);
        }
    }
    if let Some(found) = &mut located {
        found.rules.sort_unstable();
        found.rules.dedup();
        found.locations.dedup();
    }
    Ok(located)
}

/// Tokens at one place; an empty text is none.
fn tokens_at(location: &Location, carrier: &Carrier<'_>) -> Result<Vec<Vec<u8>>, TokenError> {
    let mut tokens = match location {
        Location::Header { name, prefix } => in_header(name.as_str(), prefix.as_bytes(), carrier)?,
        Location::Param(name) => in_query(name.as_bytes(), carrier.target.query().unwrap_or_default()),
        Location::Cookie(name) => in_cookies(name.as_bytes(), carrier),
    };
    tokens.retain(|token| !token.is_empty());
    Ok(tokens)
}

/// Behind the prefix of a header that came once. Two lines have two readings: some take the first, some the last.
fn in_header(name: &str, prefix: &[u8], carrier: &Carrier<'_>) -> Result<Vec<Vec<u8>>, TokenError> {
    let mut lines = 0;
    let mut tokens = Vec::new();
    carrier.headers.each(name, &mut |line| {
        lines += 1;
        let line = line.trim_ascii();
        let head = line.get(..prefix.len());
        if head.is_some_and(|head| head.eq_ignore_ascii_case(prefix)) {
            tokens.push(line[prefix.len()..].trim_ascii().to_vec());
        }
    });
    if lines > 1 && !tokens.is_empty() {
        return Err(TokenError::HeaderRepeated);
    }
    Ok(tokens)
}

fn in_query(name: &[u8], query: &[u8]) -> Vec<Vec<u8>> {
    let pairs = query.split(|b| *b == b'&').map(pair);
    pairs.filter(|(key, _)| decoded(key) == name).map(|(_, value)| decoded(value)).collect()
}

fn in_cookies(name: &[u8], carrier: &Carrier<'_>) -> Vec<Vec<u8>> {
    let mut tokens = Vec::new();
    carrier.headers.each("cookie", &mut |line| {
        for cookie in line.split(|b| *b == b';') {
            let (key, value) = pair(cookie);
            if key.trim_ascii() == name {
                tokens.push(unquoted(value.trim_ascii()).to_vec());
            }
        }
    });
    tokens
}

/// `KEY=VALUE`, or a key alone.
pub(super) fn pair(text: &[u8]) -> (&[u8], &[u8]) {
    match text.iter().position(|b| *b == b'=') {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &[]),
    }
}

/// A piece of a query with its escapes decoded, `+` as a blank; broken escapes stay as they are.
pub(super) fn decoded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at).copied() {
        let escaped = if byte == b'%' { octet(&text[at..]) } else { None };
        out.push(escaped.unwrap_or(if byte == b'+' { b' ' } else { byte }));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    out
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value)
}
