//! Envoy's external authorization (`envoy.service.auth.v3`): what is told of a request, and what an answer means.
//!
//! Values to messages and back; the call itself is the waypoint's. An answer is read strictly and within bounds:
//! what says yes and no at once is a no, what says neither is no answer, and what asks for a change that is not made
//! here is no answer either. Whether a header may be set at all is decided by who sets it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::proto::envoy::config::core::v3 as config;
use crate::proto::envoy::service::auth::v3 as auth;

#[cfg(test)]
mod tests;

/// Path of the one method.
pub const METHOD: &str = "/envoy.service.auth.v3.Authorization/Check";

/// Most header fields of an answer, over all of its lists.
pub const FIELDS_MAX: usize = 64;

/// Most bytes of names and values of an answer's header fields.
pub const FIELD_BYTES_MAX: usize = 16 << 10;

/// Most bytes of a refusal's body.
pub const BODY_BYTES_MAX: usize = 64 << 10;

/// Caller or called.
#[derive(Debug, Clone)]
pub struct Party {
    /// Where it is.
    pub address: SocketAddr,
    /// Its proven identity, as a SPIFFE URI; empty if there is none.
    pub principal: String,
}

/// A request as an authorizer is told of it.
#[derive(Debug, Clone)]
pub struct Asked<'a> {
    /// Who calls.
    pub source: Party,
    /// What was called, and who guards it.
    pub destination: Party,
    /// When, in seconds since 1970.
    pub unix_seconds: u64,
    /// The method.
    pub method: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// Host and port.
    pub host: &'a str,
    /// `HTTP/1.1` or `HTTP/2`.
    pub protocol: &'a str,
    /// Bytes of the body, if they are known.
    pub size: Option<u64>,
    /// Headers by names in lower case.
    pub headers: BTreeMap<String, String>,
}

/// The message that asks.
pub fn request(asked: Asked<'_>) -> auth::CheckRequest {
    use auth::attribute_context::{HttpRequest, Request};
    let seconds = i64::try_from(asked.unix_seconds).unwrap_or(i64::MAX);
    let http = HttpRequest {
        id: asked.headers.get("x-request-id").cloned().unwrap_or_default(),
        method: asked.method.to_owned(),
        headers: asked.headers,
        path: asked.path.to_owned(),
        host: asked.host.to_owned(),
        scheme: "http".to_owned(),
        size: asked.size.map_or(-1, |size| i64::try_from(size).unwrap_or(i64::MAX)),
        protocol: asked.protocol.to_owned(),
    };
    auth::CheckRequest {
        attributes: Some(auth::AttributeContext {
            source: Some(peer(asked.source)),
            destination: Some(peer(asked.destination)),
            request: Some(Request {
                time: Some(prost_types::Timestamp { seconds, nanos: 0 }),
                http: Some(http),
            }),
        }),
    }
}

fn peer(party: Party) -> auth::attribute_context::Peer {
    use config::address::Address as Kind;
    use config::socket_address::PortSpecifier;
    let socket = config::SocketAddress {
        protocol: config::socket_address::Protocol::Tcp.into(),
        address: party.address.ip().to_canonical().to_string(),
        port_specifier: Some(PortSpecifier::PortValue(party.address.port().into())),
    };
    auth::attribute_context::Peer {
        address: Some(config::Address { address: Some(Kind::SocketAddress(socket)) }),
        principal: party.principal,
    }
}

/// How a field changes the fields that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// In place of all of its name.
    Set,
    /// Beside those of its name.
    Append,
    /// Only if there is none of its name.
    AddIfAbsent,
    /// In place of all of its name, if there is any.
    SetIfPresent,
}

/// A header field of an answer; nothing about its bytes is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Vec<u8>,
    /// How it changes those that are there.
    pub way: Way,
}

/// What an authorizer said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Yes.
    Allowed {
        /// Changes of the request, in order.
        request: Vec<Field>,
        /// Names taken off the request, after the changes.
        remove: Vec<String>,
        /// Changes of the response.
        response: Vec<Field>,
    },
    /// No.
    Denied {
        /// The status for the client, 200 to 599; nothing if the authorizer names none that a response can have.
        status: Option<u16>,
        /// Headers for the client.
        headers: Vec<Field>,
        /// The body for the client.
        body: String,
    },
}

/// Why a message is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unreadable {
    /// Neither a status nor a response.
    #[error("the answer says neither yes nor no")]
    Nothing,
    /// More fields than [`FIELDS_MAX`].
    #[error("the answer has {0} header fields, more than {FIELDS_MAX}")]
    Fields(usize),
    /// More bytes than [`FIELD_BYTES_MAX`].
    #[error("header fields of the answer have {0} bytes, more than {FIELD_BYTES_MAX}")]
    FieldBytes(usize),
    /// More bytes than [`BODY_BYTES_MAX`].
    #[error("the body of the answer has {0} bytes, more than {BODY_BYTES_MAX}")]
    Body(usize),
    /// A change that is not made here.
    #[error("the answer wants query parameters changed, which is not supported")]
    Query,
}

/// Reads an answer.
///
/// # Errors
/// [`Unreadable`] if it is none.
pub fn answer(response: auth::CheckResponse) -> Result<Answer, Unreadable> {
    use auth::check_response::HttpResponse;
    let status = response.status.map(|status| status.code);
    match (status, response.http_response) {
        (None, None) => Err(Unreadable::Nothing),
        (None | Some(0), Some(HttpResponse::OkResponse(ok))) => allowed(ok),
        (Some(0), None) => allowed(auth::OkHttpResponse::default()),
        (_, Some(HttpResponse::DeniedResponse(denied))) => refused(denied),
        (Some(_), Some(HttpResponse::OkResponse(_)) | None) => refused(auth::DeniedHttpResponse::default()),
    }
}

fn allowed(ok: auth::OkHttpResponse) -> Result<Answer, Unreadable> {
    if !ok.query_parameters_to_set.is_empty() || !ok.query_parameters_to_remove.is_empty() {
        return Err(Unreadable::Query);
    }
    // The protocol appends to a request's headers only when told to, and to a response's unless told otherwise.
    let request = fields(ok.headers, Way::Set);
    let response = fields(ok.response_headers_to_add, Way::Append);
    let remove = ok.headers_to_remove;
    let lines = request.iter().chain(&response).map(|field| field.name.len() + field.value.len());
    bounded(lines.chain(remove.iter().map(String::len)))?;
    Ok(Answer::Allowed { request, remove, response })
}

fn refused(denied: auth::DeniedHttpResponse) -> Result<Answer, Unreadable> {
    let headers = fields(denied.headers, Way::Set);
    bounded(headers.iter().map(|field| field.name.len() + field.value.len()))?;
    if denied.body.len() > BODY_BYTES_MAX {
        return Err(Unreadable::Body(denied.body.len()));
    }
    let status = denied.status.and_then(|status| u16::try_from(status.code).ok());
    let status = status.filter(|status| (200..600).contains(status));
    Ok(Answer::Denied { status, headers, body: denied.body })
}

fn bounded(lengths: impl Iterator<Item = usize>) -> Result<(), Unreadable> {
    let (mut count, mut bytes) = (0usize, 0usize);
    for length in lengths {
        count += 1;
        bytes = bytes.saturating_add(length);
    }
    if count > FIELDS_MAX {
        return Err(Unreadable::Fields(count));
    }
    if bytes > FIELD_BYTES_MAX {
        return Err(Unreadable::FieldBytes(bytes));
    }
    Ok(())
}

/// Fields with names; `otherwise` is the way of those that say nothing.
fn fields(options: Vec<config::HeaderValueOption>, otherwise: Way) -> Vec<Field> {
    use config::header_value_option::HeaderAppendAction as Action;
    let read = |option: config::HeaderValueOption| {
        let action = Action::try_from(option.append_action);
        let header = option.header?;
        let way = match (option.append, action) {
            (Some(true), _) => Way::Append,
            (Some(false), _) | (None, Ok(Action::OverwriteIfExistsOrAdd)) => Way::Set,
            (None, Ok(Action::AddIfAbsent)) => Way::AddIfAbsent,
            (None, Ok(Action::OverwriteIfExists)) => Way::SetIfPresent,
            // The number of appending is also that of saying nothing.
            (None, Ok(Action::AppendIfExistsOrAdd) | Err(_)) => otherwise,
        };
        let value = if header.raw_value.is_empty() { header.value.into() } else { header.raw_value.to_vec() };
        Some(Field { name: header.key, value, way })
    };
    options.into_iter().filter_map(read).collect()
}
