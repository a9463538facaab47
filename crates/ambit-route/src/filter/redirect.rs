//! The address a client is sent to (HTTPRequestRedirectFilter).

use std::fmt::Write;

use ambit_types::Str;

use super::NewPath;
use crate::model::Scheme;
use crate::request::Request;

/// An answer with another address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedirectTo {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// Scheme, if another.
    pub scheme: Option<Scheme>,
    /// Host, if another.
    pub hostname: Option<Str>,
    /// Port, if another.
    pub port: Option<u16>,
    /// Path, if another.
    pub path: Option<NewPath>,
}

impl RedirectTo {
    /// The value of `Location`: always with scheme and host, so that it means the same wherever it is read.
    ///
    /// A request without a host, for which the filter has none either, gets the path alone.
    pub fn location<H: ?Sized>(&self, request: &Request<'_, H>) -> String {
        let mut location = String::new();
        let host = self.hostname.as_deref().unwrap_or_else(|| without_port(request.authority));
        if !host.is_empty() {
            let scheme = self.scheme.unwrap_or(request.scheme);
            location.push_str(scheme.as_str());
            location.push_str("://");
            location.push_str(host);
            let port = self.port_towards(request.port);
            if port != scheme.port() {
                write!(location, ":{port}").expect("writing to a String cannot fail");
            }
        }
        let path = self.path.as_ref().map_or_else(|| request.path.into(), |path| path.of(request.path));
        // Alone, a path with two slashes in front would be read as a host.
        let path =
            if location.is_empty() { format!("/{}", path.trim_start_matches('/')).into() } else { path };
        location.push_str(&path);
        if let Some(query) = request.query {
            location.push('?');
            location.push_str(query);
        }
        location
    }

    /// An explicit port; else the well-known one of an explicit scheme; else the one the client addressed.
    fn port_towards(&self, addressed: u16) -> u16 {
        self.port.or_else(|| self.scheme.map(Scheme::port)).unwrap_or(addressed)
    }
}

/// The host of an authority; an IPv6 address keeps its brackets.
pub(super) fn without_port(authority: &str) -> &str {
    let after_brackets = authority.rfind(']').map_or(0, |at| at + 1);
    match authority[after_brackets..].find(':') {
        Some(at) => &authority[..after_brackets + at],
        None => authority,
    }
}
