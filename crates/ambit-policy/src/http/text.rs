//! Texts that conditions compare: bytes against exact, prefix, suffix and presence, and the few richer forms.
//!
//! No regular expressions: dots, brackets and inner stars are literal. Every comparison is linear in the text, or
//! in text times pattern where a pattern has several stars.

use std::fmt;

use ambit_types::Str;

use crate::model::StringMatch;
use crate::normalize::header::is_token_byte;

/// Whether a text agrees; presence means not empty.
pub(super) fn agrees(wanted: &StringMatch, text: &[u8]) -> bool {
    match wanted {
        StringMatch::Exact(exact) => text == exact.as_bytes(),
        StringMatch::Prefix(prefix) => text.starts_with(prefix.as_bytes()),
        StringMatch::Suffix(suffix) => text.ends_with(suffix.as_bytes()),
        StringMatch::Presence => !text.is_empty(),
    }
}

/// The same without regard to ASCII case.
pub(super) fn agrees_in_any_case(wanted: &StringMatch, text: &[u8]) -> bool {
    match wanted {
        StringMatch::Exact(exact) => text.eq_ignore_ascii_case(exact.as_bytes()),
        StringMatch::Prefix(prefix) => {
            text.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix.as_bytes()))
        }
        StringMatch::Suffix(suffix) => {
            let start = text.len().checked_sub(suffix.len());
            start.is_some_and(|at| text[at..].eq_ignore_ascii_case(suffix.as_bytes()))
        }
        StringMatch::Presence => !text.is_empty(),
    }
}

/// The same for a text that lies in two pieces.
pub(super) fn pair_agrees_in_any_case(wanted: &StringMatch, head: &[u8], tail: &[u8]) -> bool {
    let same = |wanted: &[u8], head: &[u8], tail: &[u8]| {
        let parts = wanted.split_at_checked(head.len());
        parts.is_some_and(|(a, b)| a.eq_ignore_ascii_case(head) && b.eq_ignore_ascii_case(tail))
    };
    let total = head.len() + tail.len();
    match wanted {
        StringMatch::Exact(exact) => same(exact.as_bytes(), head, tail),
        StringMatch::Prefix(prefix) => {
            let in_head = prefix.len().min(head.len());
            let in_tail = prefix.len() - in_head;
            in_tail <= tail.len() && same(prefix.as_bytes(), &head[..in_head], &tail[..in_tail])
        }
        StringMatch::Suffix(suffix) => total.checked_sub(suffix.len()).is_some_and(|skipped| {
            let in_head = skipped.min(head.len());
            same(suffix.as_bytes(), &head[in_head..], &tail[skipped - in_head..])
        }),
        StringMatch::Presence => total > 0,
    }
}

/// A port as it stands behind a host.
pub(super) struct PortText {
    bytes: [u8; 6],
    start: usize,
}

impl PortText {
    /// Writes a port.
    pub(super) fn new(port: u16) -> Self {
        let (mut bytes, mut start, mut left) = ([b':'; 6], 6, port);
        loop {
            start -= 1;
            bytes[start] = b'0' + (left % 10) as u8;
            left /= 10;
            if left == 0 {
                break;
            }
        }
        Self { bytes, start: start - 1 }
    }

    /// `:80`.
    pub(super) fn behind_colon(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

/// Reads `*`, `x*`, `*x` or `x`; other stars are literal. The text must not be empty.
pub(super) fn text_match(text: &str) -> StringMatch {
    match (text, text.strip_prefix('*'), text.strip_suffix('*')) {
        ("*", ..) => StringMatch::Presence,
        (_, Some(suffix), _) => StringMatch::Suffix(suffix.into()),
        (_, None, Some(prefix)) => StringMatch::Prefix(prefix.into()),
        (exact, None, None) => StringMatch::Exact(exact.into()),
    }
}

/// A name of a namespace in which every `*` stands for any number of characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Glob(Str);

impl Glob {
    /// Takes a pattern as written; only the star is special.
    pub fn new(pattern: impl Into<Str>) -> Self {
        Self(pattern.into())
    }

    /// How every name that agrees begins, and whether that is all of it.
    pub(super) fn beginning(&self) -> (&str, bool) {
        self.0.split_once('*').map_or((&*self.0, true), |(beginning, _)| (beginning, false))
    }

    /// Whether a name agrees as a whole.
    pub fn agrees(&self, name: &str) -> bool {
        let mut pieces = self.0.split('*');
        let Some(rest) = pieces.next().and_then(|first| name.strip_prefix(first)) else { return false };
        let Some(last) = pieces.next_back() else { return rest.is_empty() };
        let Some(mut rest) = rest.strip_suffix(last) else { return false };
        for piece in pieces {
            let Some(at) = rest.find(piece) else { return false };
            rest = &rest[at + piece.len()..];
        }
        true
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Name of a header, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HeaderName(Str);

impl HeaderName {
    /// Reads a name in any case; none if it is no token of RFC 9110.
    pub fn parse(name: &str) -> Option<Self> {
        let well = !name.is_empty() && name.bytes().all(is_token_byte);
        well.then(|| Self(name.to_ascii_lowercase().into()))
    }

    /// The name, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Issuer and subject of a token: `ISSUER/SUBJECT`, split at the last slash, with a star at one end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestPrincipal {
    whole: StringMatch,
    issuer: StringMatch,
    subject: StringMatch,
}

impl RequestPrincipal {
    /// Reads a value: `*`, `ISS/SUB`, `*/SUB`, `*ISS/SUB`, `ISS/*`, `ISS/SUB*`, `*SUB`, `ISS*`.
    ///
    /// None if it has neither slash nor star, or nothing on one side of the slash: nobody has such a principal.
    pub fn parse(text: &str) -> Option<Self> {
        use StringMatch::{Exact, Prefix, Presence, Suffix};
        let some = |text: &str| (!text.is_empty()).then(|| Str::from(text));
        let whole = text_match(text);
        let (issuer, subject) = match &whole {
            Presence => (Presence, Presence),
            Exact(exact) => {
                let (issuer, subject) = exact.rsplit_once('/')?;
                (Exact(some(issuer)?), Exact(some(subject)?))
            }
            Suffix(suffix) => match suffix.rsplit_once('/') {
                None => (Presence, Suffix(suffix.clone())),
                Some((issuer, "*")) => (some(issuer).map_or(Presence, Suffix), Presence),
                Some((issuer, subject)) => (some(issuer).map_or(Presence, Suffix), Exact(some(subject)?)),
            },
            Prefix(prefix) => match prefix.rsplit_once('/') {
                None => (Prefix(prefix.clone()), Presence),
                Some((issuer, subject)) => (Exact(some(issuer)?), some(subject).map_or(Presence, Prefix)),
            },
        };
        Some(Self { whole, issuer, subject })
    }

    /// The only joined text that agrees, if there is only one.
    pub(super) fn exact(&self) -> Option<&str> {
        match &self.whole {
            StringMatch::Exact(text) => Some(text),
            StringMatch::Prefix(_) | StringMatch::Suffix(_) | StringMatch::Presence => None,
        }
    }

    /// Whether the split value agrees with both parts.
    pub(super) fn agrees(&self, issuer: &str, subject: &str) -> bool {
        agrees(&self.issuer, issuer.as_bytes()) && agrees(&self.subject, subject.as_bytes())
    }

    /// Whether the value agrees with the joined text, wherever a slash in the subject would split it.
    pub(super) fn agrees_joined(&self, issuer: &str, subject: &str) -> bool {
        crate::matcher::pieces_agree(&self.whole, &[issuer, "/", subject])
    }
}

impl fmt::Display for RequestPrincipal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shorthand::string_match;

    #[test]
    fn a_text_in_two_pieces_agrees_as_the_whole() {
        let wanted = [
            "a", "ab", "AB:8", "ab:80", "ab:*", "a*", "ab:8*", "abc*", "*:80", "*b:80", "*ab:80", "*xab:80",
            "*0", "*",
        ];
        for wanted in wanted.map(string_match) {
            for (head, port) in [("ab", 80), ("AB", 80), ("ab", 8), ("a", 0), ("", 80), ("b", 65535)] {
                let port = PortText::new(port);
                let whole = [head.as_bytes(), port.behind_colon()].concat();
                assert_eq!(
                    pair_agrees_in_any_case(&wanted, head.as_bytes(), port.behind_colon()),
                    agrees_in_any_case(&wanted, &whole),
                    "{wanted} {}",
                    whole.escape_ascii()
                );
            }
        }
        assert_eq!(PortText::new(65535).behind_colon(), b":65535");
        assert_eq!(PortText::new(0).behind_colon(), b":0");
    }
}
