//! Host and port in one form: lower case, without trailing dot, addresses as they are printed.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::Refusal;

/// Longest host name, in bytes (RFC 1035 section 2.3.4).
const HOST_BYTES_MAX: usize = 253;

/// Host with optional port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Authority {
    text: String,
    host_bytes: usize,
    port: Option<u16>,
}

impl Authority {
    /// Reads an authority.
    ///
    /// # Errors
    /// [`Refusal`] for user parts, ports that are none, and hosts with two readings.
    pub fn parse(text: &[u8]) -> Result<Self, Refusal> {
        if text.is_empty() {
            return Err(Refusal::AuthorityMissing);
        }
        if text.contains(&b'@') {
            return Err(Refusal::UserInfo);
        }
        let text = std::str::from_utf8(text).map_err(|_| Refusal::HostName)?;
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (inside, port) = rest.split_once(']').ok_or(Refusal::HostName)?;
                let address: Ipv6Addr = inside.parse().map_err(|_| Refusal::HostName)?;
                (format!("[{address}]"), port)
            }
            None => {
                let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
                (name(host)?, port)
            }
        };
        let port = match port.strip_prefix(':') {
            Some(digits) => Some(number(digits)?),
            None if port.is_empty() => None,
            None => return Err(Refusal::HostName),
        };
        let host_bytes = host.len();
        let text = port.map_or_else(|| host.clone(), |port| format!("{host}:{port}"));
        Ok(Self { text, host_bytes, port })
    }

    /// Host and port as policies compare them and as they go upstream, such as `web.shop:8080` or `[::1]`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The host alone, an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        &self.text[..self.host_bytes]
    }

    /// The port, if one was named.
    pub fn port(&self) -> Option<u16> {
        self.port
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The one authority of a request; absolute form and `:authority` are held against Host, never preferred to it.
pub(super) fn agreed(authority: Option<&[u8]>, hosts: &[&[u8]]) -> Result<Authority, Refusal> {
    let host = match hosts {
        [] => None,
        [one] => Some(Authority::parse(one)?),
        several => return Err(Refusal::HostRepeated { count: several.len() }),
    };
    match (authority.map(Authority::parse).transpose()?, host) {
        (Some(authority), Some(host)) if authority != host => Err(Refusal::HostConflict),
        (Some(one), _) | (None, Some(one)) => Ok(one),
        (None, None) => Err(Refusal::AuthorityMissing),
    }
}

/// A DNS name or IPv4 address. Names are compared as they are: no conversion of international names, no escapes.
fn name(host: &str) -> Result<String, Refusal> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let labels = host.split('.').all(|label| !label.is_empty());
    if host.len() > HOST_BYTES_MAX || !labels || !host.bytes().all(byte) {
        return Err(Refusal::HostName);
    }
    // `0x7f.1`, `010.0.0.1` and `2130706433` are addresses to some and names to others.
    if ends_in_number(host) && host.parse::<Ipv4Addr>().is_err() {
        return Err(Refusal::HostName);
    }
    Ok(host.to_ascii_lowercase())
}

fn ends_in_number(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or(host);
    let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    last.bytes().all(|b| b.is_ascii_digit())
        || hexadecimal.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn number(digits: &str) -> Result<u16, Refusal> {
    let well = (1..=5).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let port: u16 = if well { digits.parse().map_err(|_| Refusal::Port)? } else { 0 };
    if port == 0 { Err(Refusal::Port) } else { Ok(port) }
}
