//! An authorizer that is asked with a request like the one it is asked about, without its body.

use ambit_policy::http::Answer;
use ambit_policy::http::provider::{HttpCheck, Provider, StringMatch, is_listed};
use ambit_types::ServiceKey;
use ambit_xds::ext_authz::{BODY_BYTES_MAX, FIELD_BYTES_MAX, FIELDS_MAX, Unreadable, Way};
use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, LOCATION, TE, UPGRADE,
    WWW_AUTHENTICATE,
};
use http::{Method, Request, StatusCode, Uri};

use super::NoAnswer;
use super::fields::{is_for_request, is_for_response, is_of_connection};
use crate::calls::{self, CallError};
use crate::hooks::{Asked, Checked, FieldChange};

/// Asks, and reads the answer. Waits as long as it takes.
pub(super) async fn check(
    provider: &Provider,
    check: &HttpCheck,
    service: &ServiceKey,
    asked: &Asked<'_>,
) -> Result<Checked, NoAnswer> {
    let request = question(check, asked)?;
    let sent = calls::send(asked.waypoint, service, provider.port, asked.authority, request, false).await;
    let called = sent.map_err(|error| {
        let is_untold = matches!(error, CallError::Request);
        if is_untold { NoAnswer::Untold("an authority that cannot be written") } else { error.into() }
    })?;
    let (head, body) = called.response.into_parts();
    let status = head.status.as_u16();
    // A response to CONNECT or an upgrade is none, since nobody asked for either.
    if !(200..500).contains(&status) {
        return Err(NoAnswer::Status(status));
    }
    bounded(&head.headers)?;
    let body = calls::collect(body, BODY_BYTES_MAX).await;
    drop(called.ticket);
    if head.status == StatusCode::OK {
        return match body {
            // The body of a yes is read only so that the connection can be used again.
            Ok(_) | Err(CallError::TooLong(_)) => Ok(allowed(check, &head.headers)),
            Err(error) => Err(error.into()),
        };
    }
    let (body, _) = body?;
    let answer_headers = denied(check, &head.headers);
    Ok(Checked { status: Some(status), answer_headers, body, ..Checked::plain(Answer::Denied) })
}

/// The request that asks.
pub(super) fn question(check: &HttpCheck, asked: &Asked<'_>) -> Result<Request<Bytes>, NoAnswer> {
    let method = Method::from_bytes(asked.method.as_bytes());
    let method = method.map_err(|_| NoAnswer::Untold("a method that is none"))?;
    if method == Method::CONNECT {
        return Err(NoAnswer::Untold("method CONNECT"));
    }
    if !asked.path.starts_with('/') {
        return Err(NoAnswer::Untold("a target that is no path"));
    }
    let target = format!("{}{}", check.path_prefix, asked.path);
    let mut request = Request::new(Bytes::new());
    *request.method_mut() = method;
    *request.uri_mut() = Uri::try_from(target).map_err(|_| NoAnswer::Untold("a path that is none"))?;
    let headers = request.headers_mut();
    for (name, value) in asked.headers {
        let is_sent = name == AUTHORIZATION || is_listed(&check.request_headers, name.as_str());
        // There is no body, so its length is another one; and the connection is another one.
        let is_others = [CONTENT_LENGTH, TE, UPGRADE].contains(name);
        if is_sent && !is_others {
            headers.append(name.clone(), value.clone());
        }
    }
    for (name, value) in &check.additional_headers {
        let name = HeaderName::from_bytes(name.as_str().as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    }
    Ok(request)
}

fn bounded(headers: &HeaderMap) -> Result<(), Unreadable> {
    if headers.len() > FIELDS_MAX {
        return Err(Unreadable::Fields(headers.len()));
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > FIELD_BYTES_MAX { Err(Unreadable::FieldBytes(bytes)) } else { Ok(()) }
}

/// What a yes changes.
pub(super) fn allowed(check: &HttpCheck, headers: &HeaderMap) -> Checked {
    let mut request = listed(headers, &check.upstream_on_allow, is_for_request);
    // The first of a name takes the place of the client's, the others stand beside it.
    let mut before: Option<HeaderName> = None;
    for change in &mut request {
        if before.as_ref() != Some(&change.name) {
            change.way = Way::Set;
            before = Some(change.name.clone());
        }
    }
    let response = listed(headers, &check.downstream_on_allow, is_for_response);
    Checked { request, response, ..Checked::plain(Answer::Allowed) }
}

/// What the client of a refused request is told: what is listed, where to go and how to prove itself; or everything.
pub(super) fn denied(check: &HttpCheck, headers: &HeaderMap) -> HeaderMap {
    let list = &check.downstream_on_deny;
    let mut told = HeaderMap::new();
    for (name, value) in headers {
        let always = list.is_empty() || name == LOCATION || name == WWW_AUTHENTICATE;
        let is_told = always || is_listed(list, name.as_str());
        if is_told && is_for_response(name.as_str()) && !is_of_connection(headers, name) {
            told.append(name.clone(), value.clone());
        }
    }
    told
}

/// Fields that are listed and may be set, those of one name one after the other.
fn listed(headers: &HeaderMap, list: &[StringMatch], may_be_set: fn(&str) -> bool) -> Vec<FieldChange> {
    let fields = headers.iter().filter(|(name, _)| {
        is_listed(list, name.as_str()) && may_be_set(name.as_str()) && !is_of_connection(headers, name)
    });
    let change = |(name, value): (&HeaderName, &HeaderValue)| FieldChange {
        name: name.clone(),
        value: value.clone(),
        way: Way::Append,
    };
    fields.map(change).collect()
}
