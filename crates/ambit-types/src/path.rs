//! Which octets of a path are written as themselves. Policies, routes and requests are brought into one form by it, so
//! that all three agree with the bytes that go upstream.

/// Whether an octet stands in a path as itself, and its escape is undone.
///
/// These are the characters that a segment may have (`pchar` of RFC 3986 section 3.3), which every server decodes,
/// without `;`: servers that know parameters read that and `%3B` differently. A slash divides segments, and its escape
/// is ruled upon by itself.
pub fn stands_for_itself(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&octet)
}

#[cfg(test)]
mod tests {
    use super::stands_for_itself;

    #[test]
    fn every_character_of_a_segment_but_the_semicolon() {
        let those = (0..=u8::MAX).filter(|octet| stands_for_itself(*octet) && !octet.is_ascii_alphanumeric());
        assert_eq!(those.collect::<Vec<_>>(), b"!$&'()*+,-.:=@_~");
    }
}
