//! What a condition looked like, for who asks why. Secrets are left out, bytes are escaped, long texts are cut.

use super::{Attribute, Condition, Facts, Request};
use crate::trace;

/// Longest text told of one fact, in bytes before escaping.
const BYTES_MAX: usize = 128;

/// Headers whose value lets somebody act as the caller.
const SECRET: &[&str] = &["authorization", "proxy-authorization", "cookie", "x-api-key"];

/// A condition as it came out.
pub(super) fn condition(
    of: &Condition,
    negated: bool,
    holds: bool,
    facts: &Facts<'_>,
) -> trace::Condition<Attribute> {
    let (wanted, unwanted) = of.values();
    let attribute = of.attribute();
    let found = found(&attribute, facts);
    trace::Condition { attribute, negated, values: if negated { unwanted } else { wanted }, found, holds }
}

fn found(attribute: &Attribute, facts: &Facts<'_>) -> Option<String> {
    use Attribute as A;
    let (peer, connection) = (facts.peer(), facts.connection());
    match attribute {
        A::Principal => peer.map(ambit_types::Identity::principal),
        A::Namespace => peer.map(|p| p.namespace().to_string()),
        A::ServiceAccount => peer.map(|p| format!("{}/{}", p.namespace(), p.service_account())),
        A::TrustDomain => peer.map(|p| p.trust_domain().to_string()),
        A::SourceIp => Some(connection.source().to_string()),
        A::RemoteIp => facts.remote().map(|ip| ip.to_string()),
        A::DestinationIp => Some(connection.destination().to_string()),
        A::DestinationPort => Some(connection.port().to_string()),
        A::ServerName => facts.server_name().map(|name| shown(name.as_bytes())),
        A::Host
        | A::Method
        | A::Path
        | A::Header(_)
        | A::RequestPrincipal
        | A::Audience
        | A::Presenter
        | A::Claim(_) => of_request(attribute, facts.request()?),
    }
}

fn of_request(attribute: &Attribute, request: &Request<'_>) -> Option<String> {
    use Attribute as A;
    let claims = request.token.map(|token| token.claims());
    match attribute {
        A::Host => Some(request.target.authority().to_string()),
        A::Method => Some(request.target.method().to_owned()),
        A::Path => Some(shown(request.target.path())),
        A::Header(name) => header(name.as_str(), request),
        A::RequestPrincipal => {
            let (issuer, subject) = request.token?.principal()?;
            Some(shown(format!("{issuer}/{subject}").as_bytes()))
        }
        A::Audience => claims?.get("aud").map(claim),
        A::Presenter => claims?.get("azp").map(claim),
        A::Claim(path) => claims?.at(path).map(claim),
        A::Principal
        | A::Namespace
        | A::ServiceAccount
        | A::TrustDomain
        | A::SourceIp
        | A::RemoteIp
        | A::DestinationIp
        | A::DestinationPort
        | A::ServerName => None,
    }
}

fn header(name: &str, request: &Request<'_>) -> Option<String> {
    let mut lines = Vec::new();
    super::each_line(request, name, &mut |line| {
        lines.push(if SECRET.contains(&name) { "(secret)".to_owned() } else { shown(line) });
    });
    (!lines.is_empty()).then(|| lines.join(" | "))
}

fn claim(claim: &crate::jwt::Claim) -> String {
    let texts: Vec<&str> = claim.texts().collect();
    if texts.is_empty() {
        claim.scalar().unwrap_or_else(|| "(no text)".to_owned())
    } else {
        shown(texts.join(" ").as_bytes())
    }
}

fn shown(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(BYTES_MAX)];
    let dots = if cut.len() < bytes.len() { "…" } else { "" };
    format!("{}{dots}", cut.escape_ascii())
}
