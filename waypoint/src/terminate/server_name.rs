//! The server name of a TLS handshake that is passed through: read, never answered. Pure.

/// Longest handshake that is looked at, in bytes.
pub(super) const HELLO_BYTES_MAX: usize = 16 << 10;

/// What is known of the name so far.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// The greeting is not complete yet.
    More,
    /// It names this server.
    Is(String),
    /// It names none, or is no greeting.
    None,
}

/// A greeting as far as it has come. Each byte is looked at once, however the greeting arrives.
#[derive(Debug, Default)]
pub(super) struct Greeting {
    /// What the records that are whole have carried.
    hello: Vec<u8>,
    /// Bytes of these records.
    taken: usize,
}

impl Greeting {
    /// Reads the server name out of the first records of a connection: `bytes` are all that came so far, those of
    /// before included. Spec: RFC 8446 section 4.1.2, RFC 6066 section 3.
    pub(super) fn name(&mut self, bytes: &[u8]) -> Name {
        loop {
            let rest = bytes.get(self.taken..).unwrap_or_default();
            let Some((header, body)) = rest.split_at_checked(5) else { return Name::More };
            let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
            if header[0] != 0x16 || length == 0 || self.hello.len() + length > HELLO_BYTES_MAX {
                return Name::None;
            }
            let Some(part) = body.get(..length) else { return Name::More };
            self.hello.extend_from_slice(part);
            self.taken += 5 + length;
            let Some(length) = hello_length(&self.hello) else { continue };
            if length > HELLO_BYTES_MAX {
                return Name::None;
            }
            if let Some(whole) = self.hello.get(4..4 + length) {
                return in_hello(whole).map_or(Name::None, Name::Is);
            }
        }
    }
}

/// Length of the greeting's body; none if not even that is there. What is no greeting has an impossible one.
fn hello_length(message: &[u8]) -> Option<usize> {
    match message {
        [1, a, b, c, ..] => Some(usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c)),
        [1, ..] | [] => None,
        [..] => Some(usize::MAX),
    }
}

fn in_hello(hello: &[u8]) -> Option<String> {
    let rest = hello.get(2 + 32..)?;
    let (_, rest) = prefixed(rest, 1)?;
    let (_, rest) = prefixed(rest, 2)?;
    let (_, rest) = prefixed(rest, 1)?;
    let (mut extensions, _) = prefixed(rest, 2)?;
    while !extensions.is_empty() {
        let (kind, rest) = extensions.split_at_checked(2)?;
        let (body, rest) = prefixed(rest, 2)?;
        if kind == [0, 0] {
            let (list, _) = prefixed(body, 2)?;
            let (name, _) = prefixed(list.strip_prefix(&[0])?, 2)?;
            let is_plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
            let fits = (1..=253).contains(&name.len()) && name.iter().all(is_plain);
            return fits.then(|| String::from_utf8_lossy(name).to_ascii_lowercase());
        }
        extensions = rest;
    }
    None
}

/// Splits off what a length of so many bytes announces.
fn prefixed(bytes: &[u8], width: usize) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_at_checked(width)?;
    let length = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::{Greeting, Name};

    fn server_name(bytes: &[u8]) -> Name {
        Greeting::default().name(bytes)
    }

    fn hello(name: &[u8]) -> Vec<u8> {
        let with_length = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
        let list = with_length(&[&[0][..], &with_length(name)].concat());
        let extensions = [&[0, 43, 0, 1, 0][..], &[0, 0], &with_length(&list)].concat();
        let body =
            [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 1], &[1, 0], &with_length(&extensions)].concat();
        let message = [&[1, 0][..], &with_length(&body)].concat();
        [&[0x16, 3, 1][..], &with_length(&message)].concat()
    }

    #[test]
    fn a_name_is_found_wherever_the_bytes_are_cut() {
        let whole = hello(b"Web.Shop");
        for cut in 0..whole.len() {
            assert_eq!(server_name(&whole[..cut]), Name::More, "cut at {cut}");
        }
        assert_eq!(server_name(&whole), Name::Is("web.shop".to_owned()));
    }

    /// As it arrives: byte by byte, and in many records.
    #[test]
    fn a_greeting_goes_on_where_it_stopped() {
        let whole = hello(b"Web.Shop");
        let small: Vec<u8> = whole[5..].iter().flat_map(|byte| [0x16, 3, 1, 0, 1, *byte]).collect();
        for bytes in [&whole, &small] {
            let mut greeting = Greeting::default();
            for end in 0..bytes.len() {
                assert_eq!(greeting.name(&bytes[..end]), Name::More, "{end} of {}", bytes.len());
            }
            assert_eq!(greeting.name(bytes), Name::Is("web.shop".to_owned()));
            assert_eq!(greeting.taken, bytes.len());
        }
    }

    #[test]
    fn what_is_no_greeting_has_no_name() {
        for bytes in
            [&b"GET / HTTP/1.1"[..], &[0x16, 3, 1, 0, 0], &[0x16, 3, 1, 0, 4, 2, 0, 0, 0], &hello(b"a b")]
        {
            assert_eq!(server_name(bytes), Name::None, "{}", bytes.escape_ascii());
        }
    }
}
