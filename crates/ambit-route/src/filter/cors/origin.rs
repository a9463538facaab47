//! Which origins may call: exactly, by the end of their host, or all.

use ambit_types::Str;

use super::CorsError;
use crate::filter::redirect::without_port;

/// The origins of a filter.
#[derive(Debug, Clone)]
pub(super) struct Origins {
    /// Whether `*` is among them.
    pub(super) any: bool,
    listed: Vec<Origin>,
}

/// One origin, in lower case.
#[derive(Debug, Clone)]
struct Origin {
    scheme: String,
    host: Host,
    port: Option<u16>,
}

#[derive(Debug, Clone)]
enum Host {
    Exact(String),
    /// Everything before this, dots included; begins with a dot.
    Under(String),
    Any,
}

/// What is wrong with an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// It has no scheme.
    #[error("write SCHEME://HOST[:PORT] or *")]
    Scheme,
    /// Its host is not one.
    #[error(
        "a host has letters, digits, dots and hyphens; a star may stand for all of it or for what is before a dot"
    )]
    Host,
    /// Its port is not one.
    #[error("a port is a number up to 65535")]
    Port,
}

impl Origins {
    pub(super) fn compile(list: &[Str]) -> Result<Self, CorsError> {
        let named = list.iter().filter(|text| &***text != "*");
        let compiled = named.map(|text| {
            Origin::compile(text).map_err(|cause| CorsError::Origin { text: text.to_string(), cause })
        });
        Ok(Self { any: list.iter().any(|text| &**text == "*"), listed: compiled.collect::<Result<_, _>>()? })
    }

    /// Whether a page of this origin may call. `null`, which any sandboxed page can claim, is nobody's.
    pub(super) fn admits(&self, origin: &str) -> bool {
        let Some((scheme, host, port)) = split(origin) else { return false };
        self.any || self.listed.iter().any(|listed| listed.is(&scheme, &host, port))
    }
}

impl Origin {
    fn compile(text: &str) -> Result<Self, OriginError> {
        let (scheme, rest) = text.split_once("://").ok_or(OriginError::Scheme)?;
        if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return Err(OriginError::Scheme);
        }
        let host = without_port(rest);
        let port = port_of(&rest[host.len()..]).ok_or(OriginError::Port)?;
        let host = match host.strip_prefix('*') {
            Some("") => Host::Any,
            Some(rest) if rest.starts_with('.') && is_host(&rest[1..]) => {
                Host::Under(rest.to_ascii_lowercase())
            }
            None if is_host(host) => Host::Exact(host.to_ascii_lowercase()),
            Some(_) | None => return Err(OriginError::Host),
        };
        Ok(Self { scheme: scheme.to_ascii_lowercase(), host, port })
    }

    fn is(&self, scheme: &str, host: &str, port: Option<u16>) -> bool {
        let same_host = match &self.host {
            Host::Exact(exact) => exact == host,
            Host::Under(end) => host.len() > end.len() && host.ends_with(end.as_str()),
            Host::Any => true,
        };
        same_host && self.scheme == scheme && self.port == port
    }
}

/// Scheme, host and port of an origin a browser sent, in lower case.
fn split(origin: &str) -> Option<(String, String, Option<u16>)> {
    let lower = origin.to_ascii_lowercase();
    let (scheme, rest) = lower.split_once("://")?;
    let host = without_port(rest);
    let port = port_of(&rest[host.len()..])?;
    is_host(host).then(|| (scheme.to_owned(), host.to_owned(), port))
}

/// A port with its colon, or nothing; none if it is neither.
fn port_of(text: &str) -> Option<Option<u16>> {
    match text.strip_prefix(':') {
        Some(digits) => digits.parse().ok().map(Some),
        None => text.is_empty().then_some(None),
    }
}

fn is_host(text: &str) -> bool {
    let address = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if let Some(address) = address {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let is_part = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    !text.is_empty() && text.bytes().all(is_part)
}
