//! `ambit.waypoint.v1.RequestAuthentication` and [`RequestAuthentication`]: how tokens are found and checked.
//!
//! Every rule goes through the check that manifests go through, so what is refused there is refused here too.

use std::time::Duration;

use ambit_policy::http::model::HeaderName;
use ambit_policy::jwt::{self, Keys, Location, Rule, written};
use ambit_types::{PolicyKey, Str};

use super::bounds::{each, each_of, encode_object, encode_texts, nanos, needs, object, texts, time, unpack};
use super::target::{self, PolicyTarget};
use super::{Malformed, Problem};
use crate::any::Any;
use crate::proto::ambit::waypoint::v1 as wire;

/// Most rules (Istio's bound for `jwtRules`).
pub const RULES_MAX: usize = 4096;

/// Longest and shortest time for fetching keys (as manifests may say it).
const FETCH_TIMEOUT: (Duration, Duration) = (Duration::from_nanos(1), Duration::from_secs(3600));

/// How tokens are found and checked, at a waypoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestAuthentication {
    /// Its name.
    pub key: PolicyKey,
    /// What it is attached to, at least one.
    pub targets: Vec<PolicyTarget>,
    /// Any of these accepts a token.
    pub rules: Vec<Rule>,
}

impl RequestAuthentication {
    /// Name of its resource: `NAMESPACE/NAME`.
    pub fn name(&self) -> String {
        self.key.to_string()
    }
}

/// Reads what a response carries.
///
/// # Errors
/// [`Malformed`] names the field that makes all of it unusable.
pub fn decode_any(any: &Any) -> Result<RequestAuthentication, Malformed> {
    decode(&unpack(any, "request_authentication")?)
}

/// What one covers that [`decode_any`] refused; nothing if its bytes do not say, and then it may be anything.
pub fn targets_hint(any: &Any) -> Option<Vec<PolicyTarget>> {
    let message: wire::RequestAuthentication = unpack(any, "request_authentication").ok()?;
    target::decode(&message.targets).ok()
}

/// Reads rules for tokens.
///
/// # Errors
/// [`Malformed`] names the field that makes all of it unusable. A place for keys or tokens of an unknown kind is such
/// a field: without it a token would pass unseen.
pub fn decode(message: &wire::RequestAuthentication) -> Result<RequestAuthentication, Malformed> {
    needs(&message.needs)?;
    Ok(RequestAuthentication {
        key: object("key", message.key.as_ref())?,
        targets: target::decode(&message.targets)?,
        rules: each_of("rules", &message.rules, RULES_MAX, rule)?,
    })
}

fn rule(message: &wire::TokenRule) -> Result<Rule, Malformed> {
    if message.locations.is_empty() {
        return Err(Malformed::at("locations", Problem::Missing));
    }
    let keys = keys(message)?;
    let invalid = |invalid: Vec<jwt::Invalid>| {
        let first = invalid.into_iter().next();
        first.map_or_else(
            || Malformed::at("", Problem::Missing),
            |one| Malformed::at(one.at, Problem::Token(one.problem)),
        )
    };
    jwt::compile(&as_written(message)).map_err(invalid)?;
    Ok(Rule {
        namespace: Default::default(),
        issuer: (&*message.issuer).into(),
        audiences: texts(&message.audiences),
        keys,
        fetch_timeout: time("fetch_timeout_nanos", message.fetch_timeout_nanos, FETCH_TIMEOUT)?,
        locations: each("locations", &message.locations, location)?,
        forward_original_token: message.forward_original_token,
        output_payload: message
            .output_payload
            .as_ref()
            .map(|name| header("output_payload", name))
            .transpose()?,
        output_claims: each("output_claims", &message.output_claims, |one| {
            Ok((header("header", &one.header)?, Str::from(&*one.claim)))
        })?,
        space_delimited: texts(&message.space_delimited),
    })
}

fn keys(message: &wire::TokenRule) -> Result<Keys, Malformed> {
    use wire::token_rule::Keys as Wire;
    match &message.keys {
        Some(Wire::Inline(jwks)) => Ok(Keys::Inline((&**jwks).into())),
        Some(Wire::Uri(uri)) => Ok(Keys::Uri((&**uri).into())),
        Some(Wire::Discovery(())) => Ok(Keys::Discovery),
        None => Err(Malformed::at("keys", Problem::Missing)),
    }
}

fn location(message: &wire::TokenLocation) -> Result<Location, Malformed> {
    use wire::token_location::Kind;
    match &message.kind {
        Some(Kind::Header(one)) => {
            Ok(Location::Header { name: header("name", &one.name)?, prefix: (&*one.prefix).into() })
        }
        Some(Kind::Param(name)) => Ok(Location::Param((&**name).into())),
        Some(Kind::Cookie(name)) => Ok(Location::Cookie((&**name).into())),
        None => Err(Malformed::at("kind", Problem::Missing)),
    }
}

fn header(field: &str, name: &str) -> Result<HeaderName, Malformed> {
    let form = || Problem::Form { text: name.to_owned(), what: "name of a header" };
    HeaderName::parse(name).ok_or_else(|| Malformed::at(field, form()))
}

/// The rule as a manifest would say it, but for the time, which is checked as a number.
fn as_written(message: &wire::TokenRule) -> written::Rule {
    use wire::token_location::Kind;
    use wire::token_rule::Keys as Wire;
    let (jwks, jwks_uri) = match &message.keys {
        Some(Wire::Inline(jwks)) => (Some(jwks.clone()), None),
        Some(Wire::Uri(uri)) => (None, Some(uri.clone())),
        Some(Wire::Discovery(())) | None => (None, None),
    };
    let mut rule = written::Rule {
        issuer: message.issuer.clone(),
        audiences: message.audiences.clone(),
        jwks_uri,
        jwks,
        output_payload_to_header: message.output_payload.clone(),
        forward_original_token: message.forward_original_token,
        space_delimited_claims: message.space_delimited.clone(),
        ..written::Rule::default()
    };
    for location in message.locations.iter().filter_map(|location| location.kind.as_ref()) {
        match location {
            Kind::Header(one) => {
                let (name, prefix) = (one.name.clone(), one.prefix.clone());
                rule.from_headers.push(written::Header { name, prefix });
            }
            Kind::Param(name) => rule.from_params.push(name.clone()),
            Kind::Cookie(name) => rule.from_cookies.push(name.clone()),
        }
    }
    let claims = message.output_claims.iter();
    rule.output_claim_to_headers = claims
        .map(|one| written::ClaimToHeader { header: one.header.clone(), claim: one.claim.clone() })
        .collect();
    rule
}

/// Writes rules for tokens as a message of their type.
pub fn encode_any(authentication: &RequestAuthentication) -> Any {
    Any::pack(super::REQUEST_AUTHENTICATION, &encode(authentication))
}

/// Writes rules for tokens.
pub fn encode(authentication: &RequestAuthentication) -> wire::RequestAuthentication {
    let RequestAuthentication { key, targets, rules } = authentication;
    wire::RequestAuthentication {
        key: Some(encode_object(&key.namespace, &key.name)),
        targets: target::encode(targets),
        rules: rules.iter().map(encode_rule).collect(),
        needs: Vec::new(),
    }
}

fn encode_rule(rule: &Rule) -> wire::TokenRule {
    use wire::token_rule::Keys as Wire;
    let keys = match &rule.keys {
        Keys::Inline(jwks) => Wire::Inline(jwks.to_string()),
        Keys::Uri(uri) => Wire::Uri(uri.to_string()),
        Keys::Discovery => Wire::Discovery(()),
    };
    wire::TokenRule {
        issuer: rule.issuer.to_string(),
        audiences: encode_texts(&rule.audiences),
        fetch_timeout_nanos: nanos(rule.fetch_timeout),
        locations: rule.locations.iter().map(encode_location).collect(),
        forward_original_token: rule.forward_original_token,
        output_payload: rule.output_payload.as_ref().map(ToString::to_string),
        output_claims: rule
            .output_claims
            .iter()
            .map(|(name, claim)| wire::ClaimHeader { header: name.to_string(), claim: claim.to_string() })
            .collect(),
        space_delimited: encode_texts(&rule.space_delimited),
        keys: Some(keys),
    }
}

fn encode_location(location: &Location) -> wire::TokenLocation {
    use wire::token_location::Kind;
    let kind = match location {
        Location::Header { name, prefix } => {
            Kind::Header(wire::HeaderLocation { name: name.to_string(), prefix: prefix.to_string() })
        }
        Location::Param(name) => Kind::Param(name.to_string()),
        Location::Cookie(name) => Kind::Cookie(name.to_string()),
    };
    wire::TokenLocation { kind: Some(kind) }
}
