//! A rule as written, compiled: every mistake named with its field, nothing dropped.

use std::time::Duration;

use ambit_types::Str;
use serde_json::Value;

use super::rule::{Keys, Location, Rule};
use super::written;
use crate::http::model::HeaderName;

/// Longest `jwksUri`, in bytes (Istio's bound).
const URI_BYTES_MAX: usize = 2048;

/// Most `spaceDelimitedClaims` (Istio's bound).
const WORD_CLAIMS_MAX: usize = 64;

/// Time for fetching keys unless a rule says otherwise (Istio's default).
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Members of a JWK that are secret (RFC 7518 section 6).
const SECRET_MEMBERS: &[&str] = &["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// Headers that frame or route a message; telling a claim in one would change where it goes or ends.
const STRUCTURAL: &[&str] =
    &["host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer"];

/// One field that cannot be compiled, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {problem}")]
pub struct Invalid {
    /// Where inside the rule, as in `fromHeaders[0].name`.
    pub at: String,
    /// Why.
    pub problem: Problem,
}

/// Why a field cannot be compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// An empty text.
    #[error("must not be empty")]
    EmptyText,
    /// An issuer is needed, unless keys are named by URL.
    #[error("is needed unless jwksUri is given")]
    IssuerMissing,
    /// Both kinds of keys.
    #[error("not together with jwksUri")]
    TwoKeySources,
    /// Not a URL to fetch from.
    #[error("is no http or https URL of at most {URI_BYTES_MAX} bytes")]
    Uri,
    /// Not a JWKS.
    #[error("is no JSON object with a list of keys")]
    Jwks,
    /// A private or shared key.
    #[error("holds a private or shared key; publish public keys only, and replace this one")]
    SecretKey,
    /// Not a header's name.
    #[error("is no header name")]
    HeaderName,
    /// A header that frames or routes messages.
    #[error("this header frames or routes messages and cannot tell a claim")]
    StructuralHeader,
    /// Not a duration.
    #[error("is no duration such as 5s or 500ms")]
    Duration,
    /// More elements than the API allows.
    #[error("has more than {WORD_CLAIMS_MAX} elements")]
    TooMany,
}

/// Compiles one rule.
///
/// # Errors
/// Every [`Invalid`] field. Source: Istio's `RequestAuthentication` and its validation.
pub fn compile(written: &written::Rule) -> Result<Rule, Vec<Invalid>> {
    let mut checks = Checks { invalid: Vec::new() };
    if written.issuer.is_empty() && written.jwks_uri.is_none() {
        checks.bad("issuer", Problem::IssuerMissing);
    }
    if written.space_delimited_claims.len() > WORD_CLAIMS_MAX {
        checks.bad("spaceDelimitedClaims", Problem::TooMany);
    }
    let audiences = checks.texts("audiences", &written.audiences);
    let space_delimited = checks.texts("spaceDelimitedClaims", &written.space_delimited_claims);
    let keys = checks.keys(written);
    let locations = checks.locations(written);
    let fetch_timeout = match &written.timeout {
        None => FETCH_TIMEOUT,
        Some(text) => duration(text).unwrap_or_else(|| {
            checks.bad("timeout", Problem::Duration);
            FETCH_TIMEOUT
        }),
    };
    let (output_payload, output_claims) = checks.outputs(written);
    if !checks.invalid.is_empty() {
        return Err(checks.invalid);
    }
    Ok(Rule {
        namespace: Default::default(),
        issuer: written.issuer.as_str().into(),
        audiences,
        keys,
        fetch_timeout,
        locations,
        forward_original_token: written.forward_original_token,
        output_payload,
        output_claims,
        space_delimited,
    })
}

/// Mistakes as they are found.
struct Checks {
    invalid: Vec<Invalid>,
}

impl Checks {
    fn bad(&mut self, at: &str, problem: Problem) {
        self.invalid.push(Invalid { at: at.to_owned(), problem });
    }

    fn texts(&mut self, at: &str, texts: &[String]) -> Vec<Str> {
        for (index, _) in texts.iter().enumerate().filter(|(_, text)| text.is_empty()) {
            self.bad(&format!("{at}[{index}]"), Problem::EmptyText);
        }
        texts.iter().map(|text| text.as_str().into()).collect()
    }

    fn keys(&mut self, written: &written::Rule) -> Keys {
        match (&written.jwks_uri, &written.jwks) {
            (Some(_), Some(_)) => {
                self.bad("jwks", Problem::TwoKeySources);
                Keys::Discovery
            }
            (Some(uri), None) => {
                let web = uri.starts_with("https://") || uri.starts_with("http://");
                if !web || uri.len() > URI_BYTES_MAX {
                    self.bad("jwksUri", Problem::Uri);
                }
                Keys::Uri(uri.as_str().into())
            }
            (None, Some(jwks)) => {
                if let Some(problem) = jwks_problem(jwks) {
                    self.bad("jwks", problem);
                }
                Keys::Inline(jwks.as_str().into())
            }
            (None, None) => Keys::Discovery,
        }
    }

    fn locations(&mut self, written: &written::Rule) -> Vec<Location> {
        let mut locations = Vec::new();
        for (index, header) in written.from_headers.iter().enumerate() {
            match HeaderName::parse(&header.name) {
                Some(name) => {
                    locations.push(Location::Header { name, prefix: header.prefix.as_str().into() })
                }
                None => self.bad(&format!("fromHeaders[{index}].name"), Problem::HeaderName),
            }
        }
        locations.extend(self.texts("fromParams", &written.from_params).into_iter().map(Location::Param));
        locations.extend(self.texts("fromCookies", &written.from_cookies).into_iter().map(Location::Cookie));
        if locations.is_empty() { Location::defaults() } else { locations }
    }

    fn outputs(&mut self, written: &written::Rule) -> (Option<HeaderName>, Vec<(HeaderName, Str)>) {
        let payload = written.output_payload_to_header.as_deref();
        let payload = payload.and_then(|name| self.output("outputPayloadToHeader", name));
        let mut claims = Vec::new();
        for (index, told) in written.output_claim_to_headers.iter().enumerate() {
            let at = format!("outputClaimToHeaders[{index}]");
            if told.claim.is_empty() {
                self.bad(&format!("{at}.claim"), Problem::EmptyText);
            }
            let name = self.output(&format!("{at}.header"), &told.header);
            claims.extend(name.map(|name| (name, Str::from(told.claim.as_str()))));
        }
        (payload, claims)
    }

    /// A header that can tell something: letters, digits, dashes and underscores (Istio's rule).
    fn output(&mut self, at: &str, name: &str) -> Option<HeaderName> {
        let well = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        let parsed = HeaderName::parse(name).filter(|_| well);
        match &parsed {
            None => self.bad(at, Problem::HeaderName),
            Some(name) if STRUCTURAL.contains(&name.as_str()) => self.bad(at, Problem::StructuralHeader),
            Some(_) => {}
        }
        parsed
    }
}

fn jwks_problem(jwks: &str) -> Option<Problem> {
    let parsed: Result<Value, _> = serde_json::from_str(jwks);
    let Some(Value::Array(keys)) = parsed.ok().and_then(|mut set| set.get_mut("keys").map(Value::take))
    else {
        return Some(Problem::Jwks);
    };
    let is_secret = |key: &Value| SECRET_MEMBERS.iter().any(|member| key.get(member).is_some());
    if !keys.iter().all(Value::is_object) {
        Some(Problem::Jwks)
    } else if keys.iter().any(is_secret) {
        Some(Problem::SecretKey)
    } else {
        None
    }
}

/// Go's form: numbers with units, such as `1m30s` or `0.5s`. Above zero and at most an hour.
fn duration(text: &str) -> Option<Duration> {
    const LONGEST: f64 = 3600.0;
    let mut seconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit = &rest[digits..];
        let length = unit.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(unit.len());
        seconds += number
            * match &unit[..length] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 0.001,
                _ => return None,
            };
        rest = &unit[length..];
    }
    (seconds > 0.0 && seconds <= LONGEST).then(|| Duration::from_secs_f64(seconds))
}
