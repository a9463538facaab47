//! Who a token says is asking: where tokens are looked for, what is checked, and what a failure means.
//!
//! The pure part of `RequestAuthentication`. Signatures are checked by whoever holds keys, through [`Verifier`]; keys
//! are fetched elsewhere; time is an argument. A request without a token passes without principal: demanding one is
//! the business of policies.

use ambit_types::{Reason, Str};

mod check;
mod claims;
mod compile;
mod forward;
mod locate;
mod rule;
mod token;
pub mod written;

#[cfg(test)]
mod tests;

pub use check::check_claims;
pub use claims::{Claim, ClaimPath, Claims, ClaimsError, DEPTH_MAX};
pub use compile::{Invalid, Problem, compile};
pub use forward::{Edits, without_cookies, without_params};
pub use rule::{Keys, Location, Rule, RuleSet};
pub use token::{Algorithm, SignedToken, TOKEN_BYTES_MAX};

use crate::http::Headers;
use crate::normalize::{Authority, Target};
use locate::locate;

/// How tokens are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Allowance for clocks that differ, on `exp` and `nbf`. In seconds, default 60.
    pub leeway_seconds: u64,
    /// Whether a token without `exp` is refused. Default false, as Istio accepts tokens that never expire.
    pub demand_expiry: bool,
    /// Whether a CORS preflight passes without being looked at, as browsers send no token with it. Default true.
    pub skip_preflight: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { leeway_seconds: 60, demand_expiry: false, skip_preflight: true }
    }
}

/// A request, as far as tokens are concerned.
#[derive(Clone, Copy)]
pub struct Carrier<'a> {
    /// Its target.
    pub target: &'a Target<'a>,
    /// Its headers.
    pub headers: &'a dyn Headers,
}

/// Checks signatures.
pub trait Verifier {
    /// Checks a token's signature with the keys of a rule.
    ///
    /// The key decides the algorithm: one whose own algorithm is not the token's does not verify it. Without
    /// [`SignedToken::key_id`] a bounded number of keys may be tried.
    ///
    /// # Errors
    /// [`SignatureError`]; no keys is never a reason to accept.
    fn verify(&self, rule: &Rule, token: &SignedToken<'_>) -> Result<(), SignatureError>;
}

/// Why a signature was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SignatureError {
    /// No keys could be obtained.
    #[error("the issuer's keys are not available")]
    KeysUnavailable,
    /// None of the keys is the token's, or none of its algorithm.
    #[error("the issuer has no such key")]
    NoSuchKey,
    /// It is not the signature of this content.
    #[error("the signature does not fit")]
    Mismatch,
}

/// Why a token is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Different tokens in one request.
    #[error("the request carries different tokens; send one")]
    TwoTokens,
    /// A header with a token on several lines.
    #[error("a header with a token came more than once; send it once")]
    HeaderRepeated,
    /// Longer than [`TOKEN_BYTES_MAX`].
    #[error("token of {bytes} bytes is longer than {TOKEN_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not three parts in base64url.
    #[error("the token is not three parts in base64url without padding")]
    Shape,
    /// A header that is no JSON object, or a malformed `kid`.
    #[error("the token's header is malformed")]
    Header,
    /// `none`, an HMAC, or unknown.
    #[error("the token's algorithm is not one of RS, PS, ES 256 to 512 and EdDSA")]
    Algorithm,
    /// A `crit` header: it demands what nobody here understands.
    #[error("the token demands extensions that are not understood")]
    Critical,
    /// A payload that is no set of claims.
    #[error("the token's payload cannot be read")]
    Claims(#[source] ClaimsError),
    /// `iss` is that of no rule that looks where the token was.
    #[error("no rule accepts the token's issuer")]
    Issuer,
    /// `aud` has none of the rule's audiences.
    #[error("the token is for another audience")]
    Audience,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `exp` is demanded and missing.
    #[error("the token never expires")]
    NoExpiry,
    /// `nbf` has not come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `exp` or `nbf` is no number.
    #[error("a time in the token is no number")]
    Time,
    /// See its source.
    #[error("the token's signature was not accepted")]
    Signature(#[source] SignatureError),
}

impl TokenError {
    /// A short name in kebab case, for records and tests.
    pub fn name(&self) -> &'static str {
        match self {
            Self::TwoTokens => "two-tokens",
            Self::HeaderRepeated => "header-repeated",
            Self::TooLong { .. } => "too-long",
            Self::Shape => "shape",
            Self::Header => "header",
            Self::Algorithm => "algorithm",
            Self::Critical => "critical",
            Self::Claims(_) => "claims",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Expired => "expired",
            Self::NoExpiry => "no-expiry",
            Self::NotYetValid => "not-yet-valid",
            Self::Time => "time",
            Self::Signature(SignatureError::KeysUnavailable) => "keys-unavailable",
            Self::Signature(SignatureError::NoSuchKey) => "no-such-key",
            Self::Signature(SignatureError::Mismatch) => "signature",
        }
    }

    /// The reason code.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Signature(SignatureError::KeysUnavailable) => Reason::KeysUnavailable,
            _ => Reason::TokenRejected,
        }
    }

    /// Status of the answer: 401, before any policy is asked. gRPC clients see UNAUTHENTICATED (16).
    pub fn status(&self) -> u16 {
        401
    }
}

/// Value of `www-authenticate` in the answer to a rejected token (RFC 6750 section 3).
pub fn challenge(authority: &Authority) -> String {
    format!("Bearer realm=\"{authority}\", error=\"invalid_token\"")
}

/// A token whose signature and claims were checked. Only [`authenticate()`] makes one.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    claims: Claims,
    rule: usize,
}

impl Verified {
    /// Its claims, strings of words already split.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The rule that accepted it, counted from 0.
    pub fn rule(&self) -> usize {
        self.rule
    }

    /// Issuer and subject; none if either is missing or empty.
    pub fn principal(&self) -> Option<(&str, &str)> {
        let text = |name| self.claims.get(name).and_then(Claim::as_text).filter(|text| !text.is_empty());
        Some((text("iss")?, text("sub")?))
    }

    #[cfg(test)]
    pub(crate) fn unchecked(mut claims: Claims) -> Self {
        claims.split_words(["scope", "permission"]);
        Self { claims, rule: 0 }
    }
}

/// What came of looking for a token.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// There is none. The request passes, without principal.
    Unauthenticated,
    /// There is one, and it holds.
    Authenticated(Box<Verified>),
    /// There is one, and it does not hold: 401, whatever policies say.
    Rejected(TokenError),
}

impl Outcome {
    /// The token, for [`crate::http::Request::token`].
    pub fn token(&self) -> Option<&Verified> {
        match self {
            Self::Authenticated(verified) => Some(verified),
            Self::Unauthenticated | Self::Rejected(_) => None,
        }
    }
}

/// An outcome, and what changes in the request before it goes on.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "a rejected token that nobody sees passes"]
pub struct Authentication {
    /// What came of it.
    pub outcome: Outcome,
    /// Headers to take off and to set, parameters and cookies to take out. Also to be carried out without a token:
    /// a client could have sent the headers that tell of claims.
    pub edits: Edits,
}

/// Looks for a token, checks it, and says what goes on.
///
/// Several rules are alternatives: one that accepts is enough. A token counts only for rules that look where it was
/// found. Different tokens in one request are rejected, because nobody could say whose request it is.
/// `now_seconds` is the time since 1970.
pub fn authenticate(
    rules: &RuleSet,
    carrier: &Carrier<'_>,
    verifier: &dyn Verifier,
    now_seconds: u64,
    options: &Options,
) -> Authentication {
    let mut edits = Edits::without_outputs(rules);
    if options.skip_preflight && is_preflight(carrier) {
        return Authentication { outcome: Outcome::Unauthenticated, edits };
    }
    let outcome = match locate(rules, carrier) {
        Err(error) => Outcome::Rejected(error),
        Ok(None) => Outcome::Unauthenticated,
        Ok(Some(located)) => match verify(rules, &located, verifier, now_seconds, options) {
            Err(error) => Outcome::Rejected(error),
            Ok(accepted) => {
                let Accepted { index, rule, mut claims, payload } = accepted;
                edits.accept(rule, &located.locations, &claims, &payload);
                claims.split_words(rule.word_claims());
                Outcome::Authenticated(Box::new(Verified { claims, rule: index }))
            }
        },
    };
    Authentication { outcome, edits }
}

/// A token that holds, its claims as they were issued.
struct Accepted<'r> {
    index: usize,
    rule: &'r Rule,
    claims: Claims,
    payload: String,
}

/// Tries the rules that look where the token was; of several failures that of a rule for this issuer is told.
fn verify<'r>(
    rules: &'r RuleSet,
    located: &locate::Located<'_>,
    verifier: &dyn Verifier,
    now_seconds: u64,
    options: &Options,
) -> Result<Accepted<'r>, TokenError> {
    let token = SignedToken::parse(&located.token)?;
    let claims = Claims::parse(token.payload()).map_err(TokenError::Claims)?;
    let issuer = claims.get("iss").and_then(Claim::as_text).map(Str::from);
    let mut told = None;
    for index in &located.rules {
        let Some(rule) = rules.rules().get(*index) else { continue };
        if !rule.accepts_issuer(issuer.as_deref()) {
            continue;
        }
        let signed = verifier.verify(rule, &token).map_err(TokenError::Signature);
        match signed.and_then(|()| check_claims(rule, &claims, now_seconds, options)) {
            Ok(()) => {
                let payload = token.payload_text().to_owned();
                return Ok(Accepted { index: *index, rule, claims, payload });
            }
            Err(error) => told = told.or(Some(error)),
        }
    }
    Err(told.unwrap_or(TokenError::Issuer))
}

/// OPTIONS with Origin and Access-Control-Request-Method (Fetch standard, CORS-preflight fetch).
fn is_preflight(carrier: &Carrier<'_>) -> bool {
    let has = |name| {
        let mut lines = 0;
        carrier.headers.each(name, &mut |_| lines += 1);
        lines > 0
    };
    carrier.target.method() == "OPTIONS" && has("origin") && has("access-control-request-method")
}
