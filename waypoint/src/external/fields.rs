//! Header fields that an authorizer may set, and those it may not: what frames or routes a message, belongs to one
//! hop, or tells who somebody is.

use ambit_policy::normalize::header::is_internal;
use ambit_xds::ext_authz::Field;
use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue};

use super::NoAnswer;
use crate::hooks::FieldChange;

/// Fields that frame or route a message, or belong to one hop.
const STRUCTURAL: [&str; 13] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Fields by which addresses are told.
const FORWARDED: [&str; 3] = ["forwarded", "x-forwarded-for", "x-forwarded-proto"];

/// Whether an authorizer may set it on a response.
pub(super) fn is_for_response(name: &str) -> bool {
    !is_internal(name) && !STRUCTURAL.contains(&name)
}

/// Whether an authorizer may set it on a request, or take it off.
pub(super) fn is_for_request(name: &str) -> bool {
    // Some servers read an underscore as a dash.
    is_for_response(name) && !FORWARDED.contains(&name) && !name.contains('_')
}

/// Fields of a message as changes; those that may not be set are left out.
///
/// # Errors
/// [`NoAnswer::Field`] if one is no field at all.
pub(super) fn changes(
    fields: Vec<Field>,
    may_be_set: fn(&str) -> bool,
) -> Result<Vec<FieldChange>, NoAnswer> {
    let mut changes = Vec::with_capacity(fields.len());
    for Field { name, value, way } in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| NoAnswer::Field)?;
        let value = HeaderValue::from_bytes(&value).map_err(|_| NoAnswer::Field)?;
        if may_be_set(name.as_str()) {
            changes.push(FieldChange { name, value, way });
        }
    }
    Ok(changes)
}

/// Names of a message; those that may not be taken off are left out.
///
/// # Errors
/// [`NoAnswer::Field`] if one is no name at all.
pub(super) fn names(names: Vec<String>) -> Result<Vec<HeaderName>, NoAnswer> {
    let mut read = Vec::with_capacity(names.len());
    for name in names {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| NoAnswer::Field)?;
        if is_for_request(name.as_str()) {
            read.push(name);
        }
    }
    Ok(read)
}

/// Whether a response's field belongs to its connection, by its `Connection`.
pub(super) fn is_of_connection(headers: &HeaderMap, name: &HeaderName) -> bool {
    let lines = headers.get_all(CONNECTION).iter();
    let mut listed = lines.flat_map(|line| line.as_bytes().split(|b| *b == b','));
    listed.any(|one| one.trim_ascii().eq_ignore_ascii_case(name.as_str().as_bytes()))
}
