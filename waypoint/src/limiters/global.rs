//! Limits that a rate limit service counts: what it is asked, in Envoy's protocol, and what its answer means.
//!
//! All limits of a request that one service counts in one domain are one question. A descriptor that the request has
//! no value for is left out of it, as Envoy does, and a question without descriptors is not asked.

use std::sync::Arc;
use std::time::Duration;

use ambit_policy::normalize::header::is_internal;
use ambit_route::limit::{Caller, descriptor};
use ambit_route::model::LimitScope;
use ambit_route::{Headers, Request, Rule};
use ambit_types::{ServiceKey, Str};
use ambit_xds::proto::envoy::config::core::v3::HeaderValue as Line;
use ambit_xds::proto::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use ambit_xds::proto::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use ambit_xds::proto::envoy::service::ratelimit::v3::rate_limit_response::Code;
use ambit_xds::proto::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};

use super::Excess;
use crate::calls::CallError;
use crate::grpc::GrpcError;
use crate::{Waypoint, grpc};

/// The one method of the protocol.
const METHOD: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

/// The name of the entry that stands for a limit without keys.
const WHOLE: &str = "generic_key";

/// Header lines of an answer that are taken over, and their bytes.
const LINES_MAX: usize = 32;
const LINE_BYTES_MAX: usize = 8 << 10;

/// Longest body that stands in place of ours.
const BODY_BYTES_MAX: usize = 16 << 10;

/// Lines that frame or route a message, or belong to one hop.
const STRUCTURAL: [&str; 14] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

static RATE_LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");

/// What one service is asked about a request in one domain.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Question {
    service: ServiceKey,
    port: u16,
    domain: Str,
    /// The shortest of its limits'.
    timeout: Duration,
    /// Whether all of its limits fail open.
    fail_open: bool,
    descriptors: Vec<RateLimitDescriptor>,
}

/// What admitted requests, and their responses, are given.
#[derive(Debug, Default)]
pub(crate) struct Granted {
    /// For the endpoint.
    pub(crate) request: HeaderMap,
    /// For the client.
    pub(crate) response: HeaderMap,
}

/// What the client of a refused request is told.
#[derive(Debug, Default)]
pub(crate) struct Over {
    /// Header lines.
    pub(crate) headers: HeaderMap,
    /// A body in place of ours.
    pub(crate) body: Option<Bytes>,
}

/// The questions about a request, in the order of its limits.
pub(crate) fn questions<H: Headers + ?Sized>(
    rule: &Rule,
    request: &Request<'_, H>,
    caller: &Caller<'_>,
) -> Vec<Question> {
    let mut questions: Vec<Question> = Vec::new();
    for limit in &rule.rate_limits {
        let LimitScope::Global { service, port, domain, timeout, fail_open } = &limit.scope else { continue };
        let whole = || Some(vec![(WHOLE.into(), limit.name.to_string())]);
        let words = if limit.keys.is_empty() { whole() } else { descriptor(&limit.keys, request, caller) };
        let Some(words) = words else { continue };
        let entry = |(key, value): (Str, String)| Entry { key: key.to_string(), value };
        let descriptor = RateLimitDescriptor { entries: words.into_iter().map(entry).collect() };
        let same = |q: &&mut Question| q.service == *service && q.port == *port && q.domain == *domain;
        match questions.iter_mut().find(same) {
            Some(question) => {
                question.timeout = question.timeout.min(*timeout);
                question.fail_open &= *fail_open;
                question.descriptors.push(descriptor);
            }
            None => questions.push(Question {
                service: service.clone(),
                port: *port,
                domain: domain.clone(),
                timeout: *timeout,
                fail_open: *fail_open,
                descriptors: vec![descriptor],
            }),
        }
    }
    questions
}

/// Asks one after the other, up to the first no.
///
/// # Errors
/// [`Excess`].
pub(crate) async fn ask(waypoint: &Arc<Waypoint>, questions: Vec<Question>) -> Result<Granted, Excess> {
    let mut granted = Granted::default();
    for question in questions {
        let Question { service, port, domain, timeout, fail_open, descriptors } = question;
        let asked = RateLimitRequest { domain: domain.to_string(), descriptors, hits_addend: 1 };
        // Large, and not for every request: not a part of every request's future.
        let answer: Result<RateLimitResponse, _> =
            Box::pin(grpc::unary(waypoint, &service, port, METHOD, &asked, timeout)).await;
        // Whoever sends enough could bring an overflow about, and with it pass a limit that fails open.
        let is_overflow = matches!(answer, Err(GrpcError::Call(CallError::Overflow)));
        let fail_open = fail_open && !is_overflow;
        let verdict = match answer {
            Ok(answer) => read(answer),
            Err(error) => {
                tracing::debug!(%service, port, %error, "a rate limit service did not answer");
                Verdict::None
            }
        };
        let outcome = match (&verdict, fail_open) {
            (Verdict::Within(_), _) => "within",
            (Verdict::Over(_), _) => "over",
            (Verdict::None, true) => "unavailable-passed",
            (Verdict::None, false) => "unavailable-refused",
        };
        metrics::counter!("ambit_waypoint_rate_limit_questions_total", "outcome" => outcome).increment(1);
        match verdict {
            Verdict::Within(more) => {
                granted.request.extend(more.request);
                granted.response.extend(more.response);
            }
            Verdict::Over(over) => return Err(Excess::Over(Box::new(over))),
            Verdict::None if fail_open => {}
            Verdict::None => return Err(Excess::Unavailable),
        }
    }
    Ok(granted)
}

/// What an answer means.
#[derive(Debug)]
enum Verdict {
    Within(Granted),
    Over(Over),
    /// It says neither.
    None,
}

fn read(answer: RateLimitResponse) -> Verdict {
    match answer.overall_code() {
        Code::Ok => Verdict::Within(Granted {
            request: lines(&answer.request_headers_to_add),
            response: lines(&answer.response_headers_to_add),
        }),
        Code::OverLimit => {
            let mut headers = lines(&answer.response_headers_to_add);
            if !headers.contains_key(RETRY_AFTER)
                && let Some(seconds) = until_reset(&answer)
            {
                headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
            }
            headers.insert(&RATE_LIMITED, HeaderValue::from_static("true"));
            let body = Some(answer.raw_body).filter(|body| (1..=BODY_BYTES_MAX).contains(&body.len()));
            Verdict::Over(Over { headers, body })
        }
        Code::Unknown => Verdict::None,
    }
}

/// After how many seconds the last of the limits that are reached begins anew.
fn until_reset(answer: &RateLimitResponse) -> Option<u64> {
    let reached = answer.statuses.iter().filter(|status| status.code() == Code::OverLimit);
    let resets = reached.filter_map(|status| {
        let reset = status.duration_until_reset.as_ref()?;
        let begun = u64::from(reset.nanos > 0);
        Some(u64::try_from(reset.seconds).ok()? + begun)
    });
    resets.max()
}

/// Header lines that may be taken over: none that frame or route, none that only the mesh sets, and not too many.
fn lines(written: &[Line]) -> HeaderMap {
    let mut lines = HeaderMap::new();
    let mut bytes = 0;
    for line in written.iter().take(LINES_MAX) {
        let value = if line.raw_value.is_empty() { line.value.as_bytes() } else { &line.raw_value[..] };
        let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(line.key.as_bytes()), HeaderValue::from_bytes(value))
        else {
            continue;
        };
        bytes += name.as_str().len() + value.len();
        if bytes > LINE_BYTES_MAX {
            break;
        }
        let is_ours = is_internal(name.as_str()) || name.as_str().contains('_');
        if !is_ours && !STRUCTURAL.contains(&name.as_str()) {
            lines.append(name, value);
        }
    }
    lines
}

#[cfg(test)]
mod tests;
