//! What routing may know of a request: borrowed from whoever holds it, read but never changed.
//!
//! The bytes are those that authorization has seen and that are forwarded: normalised once, before anybody looks
//! here. Of a path only the escape of a plus sign is compared undone (see [`ambit_types::path`]).

use std::borrow::Cow;

use crate::model::Scheme;

#[cfg(test)]
mod tests;

/// The header lines of a request or response.
pub trait Headers {
    /// Values of the lines with this name, in order. `name` is in lower case.
    fn lines<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]>;
}

impl<N: AsRef<str>, V: AsRef<[u8]>> Headers for [(N, V)] {
    fn lines<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |(n, _)| n.as_ref().eq_ignore_ascii_case(name)).map(|(_, v)| v.as_ref())
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> Headers for Vec<(N, V)> {
    fn lines<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.as_slice().lines(name)
    }
}

/// The head of a request.
#[derive(Debug)]
pub struct Request<'a, H: ?Sized> {
    /// Method, as received.
    pub method: &'a str,
    /// Scheme the client used towards the mesh.
    pub scheme: Scheme,
    /// Host, with a port if the client wrote one; empty if it gave none. No routing depends on it.
    pub authority: &'a str,
    /// Port of the service that the client addressed.
    pub port: u16,
    /// Path without its query, as it is forwarded.
    pub path: &'a str,
    /// Query without its question mark.
    pub query: Option<&'a str>,
    /// Header lines.
    pub headers: &'a H,
}

/// What was not kept of a request that is asked about later. Headers and queries never are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hidden {
    /// Whether its host was not.
    pub host: bool,
    /// Whether method and path were not, or it is not known that it was a request.
    pub request: bool,
}

impl<H: ?Sized> Clone for Request<'_, H> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<H: ?Sized> Copy for Request<'_, H> {}

/// Splits a request target into path and query. A fragment, which has no business in a request, is cut off first.
pub fn split_target(target: &str) -> (&str, Option<&str>) {
    let target = target.split_once('#').map_or(target, |(before, _)| before);
    match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    }
}

impl<H: Headers + ?Sized> Request<'_, H> {
    /// Values of a header as conditions and keys read it. Host is the authority, whatever the version of HTTP; it
    /// does not stand among the lines. `name` is in lower case.
    pub(crate) fn header_lines<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let is_host = name == "host";
        let host = Some(self.authority.as_bytes()).filter(|host| is_host && !host.is_empty());
        host.into_iter().chain(self.headers.lines(name).filter(move |_| !is_host))
    }

    /// Whether this is a gRPC call, which is answered in gRPC's own words; gRPC-Web is not.
    pub fn is_grpc(&self) -> bool {
        self.headers.lines("content-type").next().is_some_and(is_grpc_content)
    }

    /// Service and method of a gRPC path, `/SERVICE/METHOD`.
    pub fn grpc_call(&self) -> Option<(&str, &str)> {
        let (service, method) = self.path.strip_prefix('/')?.split_once('/')?;
        let whole = !service.is_empty() && !method.is_empty() && !method.contains('/');
        whole.then_some((service, method))
    }

    /// The first value of a query parameter, decoded; the name is compared decoded, too.
    pub fn query_value(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let mut pairs = query_pairs(self.query?);
        pairs.find(|(key, _)| *decoded(key) == *name.as_bytes()).map(|(_, value)| decoded(value))
    }

    /// The first value of a cookie.
    pub fn cookie(&self, name: &str) -> Option<&[u8]> {
        self.headers.lines("cookie").flat_map(|line| line.split(|b| *b == b';')).find_map(|pair| {
            let pair = pair.trim_ascii();
            let at = pair.iter().position(|b| *b == b'=')?;
            (pair[..at] == *name.as_bytes()).then(|| &pair[at + 1..])
        })
    }
}

/// Names and values of a query, still encoded; a name alone has an empty value.
pub(crate) fn query_pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// Whether a content type is gRPC's.
fn is_grpc_content(value: &[u8]) -> bool {
    let kind = b"application/grpc";
    let head = value.get(..kind.len()).is_some_and(|head| head.eq_ignore_ascii_case(kind));
    head && matches!(value.get(kind.len()), None | Some(b'+' | b';' | b' '))
}

/// Undoes percent-encoding and `+`; what is not a valid escape stays as it is. Allocates only if there is something
/// to undo.
pub(crate) fn decoded(text: &str) -> Cow<'_, [u8]> {
    let bytes = text.as_bytes();
    if !bytes.iter().any(|b| matches!(b, b'%' | b'+')) {
        return Cow::Borrowed(bytes);
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let escape = match byte {
            b'%' => hex(bytes.get(at + 1)).zip(hex(bytes.get(at + 2))),
            _ => None,
        };
        match (escape, byte) {
            (Some((high, low)), _) => {
                out.push(high << 4 | low);
                at += 2;
            }
            (None, b'+') => out.push(b' '),
            (None, _) => out.push(*byte),
        }
        at += 1;
    }
    Cow::Owned(out)
}

fn hex(digit: Option<&u8>) -> Option<u8> {
    let value = char::from(*digit?).to_digit(16)?;
    u8::try_from(value).ok()
}
