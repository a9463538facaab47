//! The `:authority` of a CONNECT: where the client wants to go.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ambit_types::{Str, canonical};

/// Longest authority we read, in bytes: a host name of 253 and a port.
const BYTES_MAX: usize = 260;

/// A destination by address or by service host name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Authority {
    /// `10.1.2.3:80` or `[fd00::1]:80`; never IPv4-mapped.
    Address(SocketAddr),
    /// `cart.shop.svc.cluster.local:80`.
    Host {
        /// The name, lower case.
        host: Str,
        /// The port.
        port: u16,
    },
}

/// A text that names no destination.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("authority {text:?} is neither IP:PORT nor HOST:PORT")]
pub struct AuthorityError {
    /// What was given, shortened.
    pub text: String,
}

impl Authority {
    /// Reads an authority. User information, paths, zones and port 0 are refused.
    ///
    /// # Errors
    /// [`AuthorityError`]. Spec: RFC 9113 section 8.5, RFC 3986 section 3.2.
    pub fn parse(text: &str) -> Result<Self, AuthorityError> {
        let refuse = || AuthorityError { text: text.chars().take(80).collect() };
        if text.len() > BYTES_MAX {
            return Err(refuse());
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            let scoped = matches!(address, SocketAddr::V6(v6) if v6.scope_id() != 0) || text.contains('%');
            return if address.port() == 0 || scoped {
                Err(refuse())
            } else {
                Ok(Self::Address(canonical(address)))
            };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(refuse)?;
        let port = parse_port(port).ok_or_else(refuse)?;
        // Something that only looks like an address (`010.1.1.1`, `1.2.3`) must not become a name.
        let numeric = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        if numeric || host.parse::<IpAddr>().is_ok() || !is_host_name(host) {
            return Err(refuse());
        }
        Ok(Self::Host { host: Str::from(host.to_ascii_lowercase()), port })
    }

    /// The port asked for.
    pub fn port(&self) -> u16 {
        match self {
            Self::Address(address) => address.port(),
            Self::Host { port, .. } => *port,
        }
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Host { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

fn parse_port(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0)
}

fn is_host_name(host: &str) -> bool {
    let label = |part: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        (1..=63).contains(&part.len())
            && part.bytes().all(inner)
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    host.len() <= 253 && host.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::Authority;

    #[test]
    fn authorities_are_read_strictly() {
        let rows = [
            ("10.1.2.3:80", Some("10.1.2.3:80")),
            ("[fd00::1]:80", Some("[fd00::1]:80")),
            ("[::ffff:10.1.2.3]:80", Some("10.1.2.3:80")),
            ("Cart.shop.svc.cluster.local:8080", Some("cart.shop.svc.cluster.local:8080")),
            ("cart:1", Some("cart:1")),
            ("10.1.2.3", None),
            ("10.1.2.3:0", None),
            ("10.1.2.3:65536", None),
            ("10.1.2.3:+80", None),
            ("10.1.2.3:080000", None),
            ("010.1.2.3:80", None),
            ("1.2.3:80", None),
            ("fd00::1:80", None),
            ("[fe80::1%eth0]:80", None),
            ("[fe80::1%2]:80", None),
            ("user@host:80", None),
            ("host:80/path", None),
            ("ho st:80", None),
            (":80", None),
            ("", None),
            ("host:", None),
            ("-bad:80", None),
            ("a..b:80", None),
        ];
        for (text, want) in rows {
            assert_eq!(Authority::parse(text).ok().map(|a| a.to_string()).as_deref(), want, "row {text:?}");
        }
    }
}
