//! What changes in a request whose token was looked at: tokens taken out, headers that tell of claims set.
//!
//! Such headers are taken off every request first, so that a client cannot say of itself what only a token may.

use ambit_types::Str;

use super::claims::Claims;
use super::locate::{decoded, pair};
use super::rule::{Location, Rule, RuleSet};
use crate::http::model::HeaderName;

/// Changes to a request, to be made in this order: take out, then set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Edits {
    /// Headers to take off, all their lines.
    pub remove_headers: Vec<HeaderName>,
    /// Parameters to take out of the query, see [`without_params`].
    pub remove_params: Vec<Str>,
    /// Cookies to take out, see [`without_cookies`].
    pub remove_cookies: Vec<Str>,
    /// Headers to set.
    pub set_headers: Vec<(HeaderName, String)>,
}

impl Edits {
    /// Takes off every header that some rule sets.
    pub(super) fn without_outputs(rules: &RuleSet) -> Self {
        let mut remove_headers: Vec<HeaderName> =
            rules.rules().iter().flat_map(Rule::outputs).cloned().collect();
        remove_headers.sort_unstable();
        remove_headers.dedup();
        Self { remove_headers, ..Self::default() }
    }

    /// Adds what the rule that accepted a token wants.
    pub(super) fn accept(&mut self, rule: &Rule, found_at: &[&Location], claims: &Claims, payload: &str) {
        if !rule.forward_original_token {
            found_at.iter().for_each(|location| self.take_out(location));
        }
        let payload = rule.output_payload.iter().map(|name| (name.clone(), payload.to_owned()));
        let told = rule.output_claims.iter().filter_map(|(name, claim)| {
            let value = claims.dotted(claim)?.scalar()?;
            // A value that cannot stand in a header is not told, rather than cut.
            (!value.bytes().any(|b| b.is_ascii_control())).then(|| (name.clone(), value))
        });
        self.set_headers.extend(payload.chain(told));
    }

    fn take_out(&mut self, location: &Location) {
        match location {
            Location::Header { name, .. } => self.remove_headers.push(name.clone()),
            Location::Param(name) => self.remove_params.push(name.clone()),
            Location::Cookie(name) => self.remove_cookies.push(name.clone()),
        }
    }
}

/// A query without parameters of these names, however they are escaped; none if nothing is left.
pub fn without_params(query: &[u8], names: &[Str]) -> Option<Vec<u8>> {
    let is_kept = |part: &&[u8]| {
        let key = decoded(pair(part).0);
        names.iter().all(|name| *name.as_bytes() != key)
    };
    let kept: Vec<&[u8]> = query.split(|b| *b == b'&').filter(is_kept).collect();
    (!kept.is_empty()).then(|| kept.join(&b'&'))
}

/// One line of the header Cookie without cookies of these names; none if nothing is left.
pub fn without_cookies(line: &[u8], names: &[Str]) -> Option<Vec<u8>> {
    let is_kept = |part: &&[u8]| {
        let key = pair(part).0.trim_ascii();
        names.iter().all(|name| *name.as_bytes() != *key)
    };
    let kept: Vec<&[u8]> = line.split(|b| *b == b';').filter(is_kept).map(<[u8]>::trim_ascii).collect();
    (!kept.is_empty()).then(|| kept.join(&b"; "[..]))
}
