//! Claims of a token whose signature holds, against one rule and a time (RFC 7519 section 4.1).

use super::claims::{Claim, Claims};
use super::rule::Rule;
use super::{Options, TokenError};

/// Checks `iss`, `aud`, `exp` and `nbf`. `now_seconds` is the time since 1970.
///
/// A token is good up to and including `exp` plus the leeway, and from `nbf` minus the leeway on.
///
/// # Errors
/// [`TokenError`] names the first claim that fails. A missing `aud` fails if the rule has audiences.
pub fn check_claims(
    rule: &Rule,
    claims: &Claims,
    now_seconds: u64,
    options: &Options,
) -> Result<(), TokenError> {
    if !rule.accepts_issuer(claims.get("iss").and_then(Claim::as_text)) {
        return Err(TokenError::Issuer);
    }
    let is_for_us = |audience: &str| rule.audiences.iter().any(|ours| **ours == *audience);
    let audience = claims.get("aud");
    if !rule.audiences.is_empty() && !audience.is_some_and(|aud| aud.texts().any(is_for_us)) {
        return Err(TokenError::Audience);
    }
    let time = |name| claims.get(name).map(|claim| claim.as_seconds().ok_or(TokenError::Time)).transpose();
    // Times beyond 2^53 seconds lose precision, billions of years from now.
    let (now, leeway) = (now_seconds as f64, options.leeway_seconds as f64);
    match time("exp")? {
        Some(end) if now > end + leeway => return Err(TokenError::Expired),
        None if options.demand_expiry => return Err(TokenError::NoExpiry),
        Some(_) | None => {}
    }
    match time("nbf")? {
        Some(start) if now + leeway < start => Err(TokenError::NotYetValid),
        Some(_) | None => Ok(()),
    }
}
