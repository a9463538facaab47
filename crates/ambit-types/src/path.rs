//! Which octets of a path are written as themselves. Policies, routes and requests are brought into one form by it, so
//! that all three agree with the bytes that go upstream.
//!
//! One escape is compared undone and sent as it came: that of the plus sign. Many applications read the two alike, so a
//! policy about one must hold for the other; others, S3 among them, read a bare one as a blank.

use std::borrow::Cow;

/// The escape of the plus sign, which goes on as it came, in upper case.
pub const ESCAPED_PLUS: &str = "%2B";

/// Whether an octet stands in a path as itself, and its escape is undone.
///
/// These are the characters that a segment may have (`pchar` of RFC 3986 section 3.3), which every server decodes,
/// without `;`: servers that know parameters read that and `%3B` differently. A slash divides segments, and its escape
/// is ruled upon by itself.
pub fn stands_for_itself(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&octet)
}

/// A normalised path as policies and routes compare it: with [`ESCAPED_PLUS`] as a plus sign.
pub fn compared(path: &str) -> Cow<'_, str> {
    match path.contains(ESCAPED_PLUS) {
        true => Cow::Owned(path.replace(ESCAPED_PLUS, "+")),
        false => Cow::Borrowed(path),
    }
}

/// What a normalised path has after a prefix, if it begins with that once it is [`compared`].
pub fn after<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    prefix.chars().try_fold(path, |rest, letter| match letter {
        '+' => rest.strip_prefix('+').or_else(|| rest.strip_prefix(ESCAPED_PLUS)),
        other => rest.strip_prefix(other),
    })
}

#[cfg(test)]
mod tests {
    use super::{after, compared, stands_for_itself};

    #[test]
    fn an_escaped_plus_sign_is_compared_as_one() {
        for (path, want) in [("/a%2Bb+c", "/a+b+c"), ("/a%2b", "/a%2b"), ("/%252B", "/%252B"), ("/a", "/a")] {
            assert_eq!(compared(path), want, "{path}");
        }
        for (path, prefix, want) in [
            ("/a%2Bb/c", "/a+b", Some("/c")),
            ("/a+b/c", "/a+b", Some("/c")),
            ("/a%2Bb/c%2Bd", "/a+b", Some("/c%2Bd")),
            ("/a%2Bb", "/a", Some("%2Bb")),
            ("/a%2B", "/a+b", None),
            ("/a%2", "/a+", None),
            ("/\u{e9}%2B", "/\u{e9}+", Some("")),
            ("/a", "", Some("/a")),
        ] {
            assert_eq!(after(path, prefix), want, "{path} after {prefix}");
        }
    }

    #[test]
    fn every_character_of_a_segment_but_the_semicolon() {
        let those = (0..=u8::MAX).filter(|octet| stands_for_itself(*octet) && !octet.is_ascii_alphanumeric());
        assert_eq!(those.collect::<Vec<_>>(), b"!$&'()*+,-.:=@_~");
    }
}
