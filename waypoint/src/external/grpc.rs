//! An authorizer that is asked in Envoy's gRPC protocol, version 3.

use std::collections::BTreeMap;

use ambit_policy::http::Answer as Verdict;
use ambit_policy::http::provider::Provider;
use ambit_runtime::clock;
use ambit_types::ServiceKey;
use ambit_xds::ext_authz::{self, Answer, METHOD, Party, Way};
use ambit_xds::proto::envoy::service::auth::v3::CheckResponse;
use bytes::Bytes;
use http::Version;
use http::header::{CONTENT_LENGTH, COOKIE, HeaderMap};

use super::NoAnswer;
use super::fields::{self, is_for_request, is_for_response};
use crate::grpc::unary;
use crate::hooks::{Asked, Checked};

/// Asks, and reads the answer.
pub(super) async fn check(
    provider: &Provider,
    service: &ServiceKey,
    asked: &Asked<'_>,
) -> Result<Checked, NoAnswer> {
    let question = ext_authz::request(told(asked)?);
    let (port, timeout) = (provider.port, provider.timeout);
    let response: CheckResponse = unary(asked.waypoint, service, port, METHOD, &question, timeout).await?;
    read(ext_authz::answer(response)?)
}

/// What an answer comes to.
pub(super) fn read(answer: Answer) -> Result<Checked, NoAnswer> {
    match answer {
        Answer::Allowed { request, remove, response } => Ok(Checked {
            request: fields::changes(request, is_for_request)?,
            remove: fields::names(remove)?,
            response: fields::changes(response, is_for_response)?,
            ..Checked::plain(Verdict::Allowed)
        }),
        Answer::Denied { status, headers, body } => {
            let mut answer_headers = HeaderMap::new();
            for change in fields::changes(headers, is_for_response)? {
                match change.way {
                    // There is nothing yet that they could replace but each other, as several cookies would.
                    Way::Set | Way::Append => _ = answer_headers.append(change.name, change.value),
                    Way::AddIfAbsent | Way::SetIfPresent => change.apply(&mut answer_headers),
                }
            }
            let body = Bytes::from(body);
            Ok(Checked { status, answer_headers, body, ..Checked::plain(Verdict::Denied) })
        }
    }
}

/// What an authorizer is told.
fn told<'a>(asked: &Asked<'a>) -> Result<ext_authz::Asked<'a>, NoAnswer> {
    let own = asked.waypoint.state().own.identity();
    Ok(ext_authz::Asked {
        source: Party { address: asked.source, principal: asked.peer.to_string() },
        destination: Party { address: asked.destination, principal: own.to_string() },
        unix_seconds: clock::unix_seconds(),
        method: asked.method,
        path: asked.path,
        host: asked.authority,
        protocol: if asked.version == Version::HTTP_2 { "HTTP/2" } else { "HTTP/1.1" },
        size: size(asked),
        headers: lines(asked)?,
    })
}

/// Bytes of the body, if the caller has said so.
fn size(asked: &Asked<'_>) -> Option<u64> {
    asked.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Every line of every header, those of one name joined, and what HTTP/2 writes as headers too.
pub(super) fn lines(asked: &Asked<'_>) -> Result<BTreeMap<String, String>, NoAnswer> {
    let pseudo = [
        (":authority", asked.authority),
        (":method", asked.method),
        (":path", asked.path),
        (":scheme", "http"),
    ];
    let mut all: BTreeMap<String, String> =
        pseudo.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    for name in asked.headers.keys() {
        let separator = if name == COOKIE { "; " } else { "," };
        let mut joined = String::new();
        for (index, value) in asked.headers.get_all(name).iter().enumerate() {
            if index > 0 {
                joined.push_str(separator);
            }
            // Told otherwise than it goes on, it would be judged otherwise than it is read.
            let text = std::str::from_utf8(value.as_bytes());
            joined.push_str(text.map_err(|_| NoAnswer::Untold("a header that is no UTF-8"))?);
        }
        all.insert(name.as_str().to_owned(), joined);
    }
    Ok(all)
}
