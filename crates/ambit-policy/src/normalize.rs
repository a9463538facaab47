//! The request target, normalised once: what policy compares is what routing sees and what goes upstream, but for the
//! escape of a plus sign, which is compared undone and sent as it came (see [`ambit_types::path`]).
//!
//! A [`Target`] is only made by [`normalize()`], so whoever holds one holds a target with one reading. What has two
//! is refused, with the reason. It judges method, scheme, authority, path and query; bodies, framing and the rest of
//! the headers belong to whoever parsed them ([`header`] has the rules for names and values).

use std::borrow::Cow;

mod authority;
pub mod header;
mod path;
mod refusal;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

pub use authority::Authority;
pub(crate) use path::octet;
pub use refusal::Refusal;

/// Longest path with query, in bytes, unless [`Options`] say otherwise.
pub const TARGET_BYTES_MAX: usize = 64 * 1024;

/// Longest method, in bytes.
pub const METHOD_BYTES_MAX: usize = 64;

/// How much of a path is normalised; each includes the ones before it (Istio's `pathNormalization`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Normalization {
    /// Nothing.
    None,
    /// Dot segments are resolved, `\` becomes `/`, octets that a segment may have as they are are decoded (all of
    /// `pchar` but `;`, see [`ambit_types::path`]; that of `+` only to compare), other escapes written in upper case.
    Base,
    /// Also `//` becomes `/`. The default; Istio's own is `BASE`.
    #[default]
    MergeSlashes,
    /// First `%2F` and `%5C` become `/`, then all of the above.
    DecodeAndMergeSlashes,
}

/// What becomes of a path that different servers read differently even after normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Ambiguity {
    /// The request is refused. The default; needed wherever a policy or a route of the service compares paths.
    #[default]
    Refuse,
    /// It goes on as it is, without its fragment: for services that nobody protects by path, or that opted out.
    Keep,
}

/// How targets are normalised; the same for policy, routing and upstream of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How much of the path is normalised.
    pub normalization: Normalization,
    /// What becomes of two readings.
    pub ambiguity: Ambiguity,
    /// Longest path with query, in bytes; default [`TARGET_BYTES_MAX`].
    pub target_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            normalization: Normalization::default(),
            ambiguity: Ambiguity::default(),
            target_bytes_max: TARGET_BYTES_MAX,
        }
    }
}

/// A request's target as it came, whatever the version of HTTP.
#[derive(Debug, Clone, Copy, Default)]
pub struct Received<'a> {
    /// Method, or `:method`.
    pub method: &'a [u8],
    /// `:scheme`, or that of a target in absolute form.
    pub scheme: Option<&'a [u8]>,
    /// `:authority`, or that of a target in absolute form.
    pub authority: Option<&'a [u8]>,
    /// Every line of the header Host.
    pub hosts: &'a [&'a [u8]],
    /// Path with query: `:path`, or the target in origin form.
    pub path: Option<&'a [u8]>,
    /// `:protocol` of an extended CONNECT (RFC 8441).
    pub protocol: Option<&'a [u8]>,
}

/// Scheme of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// `http`.
    Http,
    /// `https`.
    Https,
}

/// A target with one reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target<'a> {
    method: &'a str,
    scheme: Option<Scheme>,
    authority: Authority,
    /// The path as it goes on.
    sent: Cow<'a, [u8]>,
    /// The path as it is compared; none if that is the same.
    compared: Option<Vec<u8>>,
    bare_path: Option<Vec<u8>>,
    query: Option<&'a [u8]>,
    protocol: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// The method, case as it came. `GET` for an extended CONNECT, which is an upgrade.
    pub fn method(&self) -> &'a str {
        self.method
    }

    /// The scheme, if the request named one.
    pub fn scheme(&self) -> Option<Scheme> {
        self.scheme
    }

    /// Host and port, the only ones to use for this request.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The path without query as it is compared: begins with `/`, or is `*`.
    pub fn path(&self) -> &[u8] {
        self.compared.as_deref().unwrap_or(&self.sent)
    }

    /// The path without query as it goes on: an escaped plus sign is still one.
    pub fn sent_path(&self) -> &[u8] {
        &self.sent
    }

    /// The path as servers read it that ignore `;parameters`; none where that is no second reading.
    pub fn bare_path(&self) -> Option<&[u8]> {
        self.bare_path.as_deref()
    }

    /// The query without `?`, untouched.
    pub fn query(&self) -> Option<&'a [u8]> {
        self.query
    }

    /// The protocol that an extended CONNECT asks for.
    pub fn protocol(&self) -> Option<&'a str> {
        self.protocol
    }

    /// What goes upstream as `:path` or request target: the path that was judged, and the query.
    pub fn path_and_query(&self) -> Vec<u8> {
        self.path_with(self.query)
    }

    /// The same with another query, such as one without its token.
    pub fn path_with(&self, query: Option<&[u8]>) -> Vec<u8> {
        match query {
            Some(query) => [&*self.sent, b"?", query].concat(),
            None => self.sent.to_vec(),
        }
    }
}

/// Normalises a target.
///
/// # Errors
/// [`Refusal`] where it is malformed or has two readings; nothing of it may be forwarded. Spec: RFC 9110 section 4,
/// RFC 9112 section 3, RFC 9113 section 8.3.1, RFC 3986 section 6.
pub fn normalize<'a>(received: &Received<'a>, options: &Options) -> Result<Target<'a>, Refusal> {
    let method = token(received.method).ok_or(Refusal::Method)?;
    let protocol = match (method, received.protocol) {
        ("CONNECT", Some(protocol)) => Some(token(protocol).ok_or(Refusal::Protocol)?),
        ("CONNECT", None) => return Err(Refusal::Connect),
        (_, Some(_)) => return Err(Refusal::Protocol),
        (_, None) => None,
    };
    let scheme = received.scheme.map(scheme).transpose()?;
    let authority = authority::agreed(received.authority, received.hosts)?;
    let raw = received.path.filter(|path| !path.is_empty()).ok_or(Refusal::PathMissing)?;
    if raw.len() > options.target_bytes_max {
        return Err(Refusal::TooLong { bytes: raw.len(), bytes_max: options.target_bytes_max });
    }
    let (path, query) = path::split(raw, options.ambiguity)?;
    let sent = match (method, path) {
        ("OPTIONS", b"*") => Cow::Borrowed(path),
        _ => path::normalize(path, options)?,
    };
    let compared = path::compared(&sent, options.normalization);
    let bare_path = path::without_parameters(compared.as_deref().unwrap_or(&sent), options.normalization);
    // An upgrade is a GET in HTTP/1.1; policies must not have to say both.
    let method = if protocol.is_some() { "GET" } else { method };
    Ok(Target { method, scheme, authority, sent, compared, bare_path, query, protocol })
}

fn scheme(text: &[u8]) -> Result<Scheme, Refusal> {
    if text.eq_ignore_ascii_case(b"http") {
        Ok(Scheme::Http)
    } else if text.eq_ignore_ascii_case(b"https") {
        Ok(Scheme::Https)
    } else {
        Err(Refusal::Scheme)
    }
}

/// A token of RFC 9110 section 5.6.2, not too long.
fn token(text: &[u8]) -> Option<&str> {
    let short = (1..=METHOD_BYTES_MAX).contains(&text.len());
    let text = std::str::from_utf8(text).ok()?;
    (short && text.bytes().all(header::is_token_byte)).then_some(text)
}
