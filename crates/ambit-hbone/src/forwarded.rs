//! The `forwarded` header (RFC 7239): who the client was and which service it meant.
//!
//! Only a hint for telemetry: an address in it never becomes an identity.

use std::net::SocketAddr;

/// The header a client's proxy sends.
pub fn encode(client: SocketAddr, service: Option<&str>) -> String {
    match service {
        Some(host) if !host.contains(['"', ';', ',']) => format!("for=\"{client}\";host={host}"),
        Some(_) | None => format!("for=\"{client}\""),
    }
}

/// The `host=` of the header, unquoted; `None` if absent or not a plain name.
pub fn host(header: &str) -> Option<&str> {
    let value = header
        .split([';', ','])
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| key.eq_ignore_ascii_case("host"))
        .map(|(_, value)| value.trim().trim_matches('"'))?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'*');
    (!value.is_empty() && value.len() <= 253 && value.bytes().all(plain)).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::{encode, host};

    #[test]
    fn the_host_is_read_back_and_nothing_else() {
        let client = "[fd00::1]:7".parse().unwrap();
        assert_eq!(encode(client, Some("a.b")), "for=\"[fd00::1]:7\";host=a.b");
        assert_eq!(host(&encode(client, Some("a.b"))), Some("a.b"));
        assert_eq!(host(&encode(client, None)), None);
        assert_eq!(host("for=1.2.3.4; HOST=\"x.y\""), Some("x.y"));
        assert_eq!(host("host=a b"), None);
        assert_eq!(host("host="), None);
    }
}
