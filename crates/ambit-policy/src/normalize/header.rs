//! Names and values of headers: which may be forwarded, and which a client cannot set.
//!
//! It does not know framing headers; whoever parses messages settles Content-Length and Transfer-Encoding.

/// Headers that only the mesh sets, by how their names begin.
const INTERNAL_PREFIXES: &[&str] = &["x-envoy-", "x-istio-", "x-ambit-"];

/// Headers that only the mesh sets, by name.
const INTERNAL_NAMES: &[&str] = &["x-forwarded-client-cert"];

/// Headers of one connection, or one hop, that do not go on. `te` and `upgrade` are not among them: whether trailers or
/// another protocol are wanted, policies may know.
const OF_ONE_HOP: &[&str] = &[
    "connection",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "transfer-encoding",
];

/// What is wrong with a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// The name is empty or no token.
    #[error("the header's name is no token of RFC 9110")]
    Name,
    /// The value has a control byte other than tab, so CR, LF or NUL.
    #[error("the value of a header whose name has {name_bytes} bytes holds byte {byte:#04x}")]
    Value {
        /// Length of the name.
        name_bytes: usize,
        /// The byte.
        byte: u8,
    },
}

/// Checks that a header can be forwarded in any version of HTTP.
///
/// # Errors
/// [`Malformed`] names the rule. Spec: RFC 9110 sections 5.1 and 5.5, RFC 9113 section 8.2.1.
pub fn check(name: &[u8], value: &[u8]) -> Result<(), Malformed> {
    if name.is_empty() || !name.iter().copied().all(is_token_byte) {
        return Err(Malformed::Name);
    }
    let control = |b: &&u8| (**b < b' ' && **b != b'\t') || **b == 0x7f;
    match value.iter().find(control) {
        Some(byte) => Err(Malformed::Value { name_bytes: name.len(), byte: *byte }),
        None => Ok(()),
    }
}

/// Whether a client cannot set the header: it is taken off every request at the mesh's edge, and no policy sees it.
///
/// `name` in any case.
pub fn is_internal(name: &str) -> bool {
    let begins = |prefix: &str| {
        name.as_bytes().get(..prefix.len()).is_some_and(|p| p.eq_ignore_ascii_case(prefix.as_bytes()))
    };
    INTERNAL_PREFIXES.iter().any(|p| begins(p)) || INTERNAL_NAMES.iter().any(|n| name.eq_ignore_ascii_case(n))
}

/// Whether no request has the header by the time policies see it: only the mesh sets it, it belongs to one connection,
/// or its name has an underscore, which some servers read as a dash.
///
/// `name` in any case.
pub fn is_taken_off(name: &str) -> bool {
    is_internal(name) || name.contains('_') || OF_ONE_HOP.iter().any(|n| name.eq_ignore_ascii_case(n))
}

/// Whether a byte may stand in a token of RFC 9110 section 5.6.2.
pub(crate) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
