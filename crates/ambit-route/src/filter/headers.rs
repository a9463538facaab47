//! Which header changes a person may ask for.

use std::collections::BTreeSet;

use ambit_types::Str;

use crate::model::HeaderChange;
use crate::model::limits::HEADER_CHANGES_MAX;

/// Headers that frame a message or say where it goes: changing them would let what was authorised differ from what is
/// sent.
const FRAMING: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Headers by which the mesh tells who calls and what became of it, by name.
const IDENTIFYING: &[&str] = &["x-forwarded-client-cert"];

/// The same by how their names begin: on requests, where clients cannot send them either.
const IDENTIFYING_PREFIXES: &[&str] = &["x-ambit-", "x-envoy-", "x-istio-"];

/// The same on responses. Other proxies' headers may be taken off there, as people do.
const TELLING_PREFIXES: &[&str] = &["x-ambit-"];

/// Whose headers are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    /// A request's.
    Request,
    /// A response's.
    Response,
}

/// What is wrong with a header change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The name is not one.
    #[error("{name:?} is no header name")]
    Name {
        /// As written.
        name: String,
    },
    /// The value would end the header.
    #[error("the value of {name} holds control characters")]
    Value {
        /// Of which header.
        name: String,
    },
    /// The header frames the message.
    #[error("{name} frames the message and is not changed by header filters; for the host use URLRewrite")]
    Framing {
        /// Which.
        name: String,
    },
    /// The header is the mesh's own.
    #[error("{name} is set by the mesh itself, and by nobody else")]
    Reserved {
        /// Which.
        name: String,
    },
    /// The name stands in the change more than once.
    #[error("{name} is named more than once")]
    Repeated {
        /// Which.
        name: String,
    },
    /// A list is too long.
    #[error("more than {HEADER_CHANGES_MAX} headers in one list")]
    TooMany,
}

/// Checks a change and puts its names in lower case.
///
/// # Errors
/// [`HeaderError`] for the first thing that is wrong.
pub(crate) fn check_change(change: &HeaderChange, of: Of) -> Result<HeaderChange, HeaderError> {
    let lists = [change.set.len(), change.add.len(), change.remove.len()];
    if lists.iter().any(|length| *length > HEADER_CHANGES_MAX) {
        return Err(HeaderError::TooMany);
    }
    let mut seen = BTreeSet::new();
    let mut name = |name: &Str| {
        let lower = check_name(name, of)?;
        if seen.insert(lower.clone()) {
            Ok(lower)
        } else {
            Err(HeaderError::Repeated { name: lower.to_string() })
        }
    };
    let mut pairs = |list: &[(Str, Str)]| {
        let checked = list.iter().map(|(key, value)| {
            let key = name(key)?;
            let is_whole = is_field_value(value);
            is_whole
                .then(|| (key.clone(), value.clone()))
                .ok_or_else(|| HeaderError::Value { name: key.to_string() })
        });
        let mut pairs = checked.collect::<Result<Vec<_>, _>>()?;
        pairs.shrink_to_fit();
        Ok(pairs)
    };
    let (set, add) = (pairs(&change.set)?, pairs(&change.add)?);
    let mut remove = change.remove.iter().map(&mut name).collect::<Result<Vec<_>, _>>()?;
    remove.shrink_to_fit();
    Ok(HeaderChange { set, add, remove })
}

fn check_name(name: &Str, of: Of) -> Result<Str, HeaderError> {
    if !is_token(name) {
        return Err(HeaderError::Name { name: name.to_string() });
    }
    let lower = name.to_ascii_lowercase();
    if FRAMING.contains(&&*lower) {
        return Err(HeaderError::Framing { name: lower });
    }
    if is_reserved(&lower, of) {
        return Err(HeaderError::Reserved { name: lower });
    }
    Ok(lower.into())
}

/// Whether only the mesh itself sets a header. `name` is in lower case.
fn is_reserved(name: &str, of: Of) -> bool {
    // Some servers read an underscore as a dash.
    let name = name.replace('_', "-");
    let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    match of {
        Of::Request => IDENTIFYING.contains(&&*name) || begins(IDENTIFYING_PREFIXES),
        Of::Response => begins(TELLING_PREFIXES),
    }
}

/// Whether a text is a token (RFC 9110 section 5.6.2), as names of headers and methods are.
pub(crate) fn is_token(text: &str) -> bool {
    let is_part = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(is_part)
}

/// Whether a text can be a header's value (RFC 9110 section 5.5).
fn is_field_value(text: &str) -> bool {
    text.bytes().all(|b| b == b'\t' || (b >= b' ' && b != 0x7f))
}
