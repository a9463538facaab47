//! Rules of `RequestAuthentication`, compiled, and where each looks for tokens.

use std::time::Duration;

use ambit_types::Str;

use crate::http::model::HeaderName;

/// Claims that always hold words separated by blanks.
const WORD_CLAIMS: [&str; 2] = ["scope", "permission"];

/// Where keys come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Keys {
    /// A JWKS as text, without private keys.
    Inline(Str),
    /// Fetched from an `http` or `https` URL.
    Uri(Str),
    /// Fetched from where the issuer's `/.well-known/openid-configuration` says.
    Discovery,
}

/// Where a token is looked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Location {
    /// A header, after a prefix that has to be there. Its case does not count.
    Header {
        /// Name of the header.
        name: HeaderName,
        /// Text before the token; may be empty.
        prefix: Str,
    },
    /// A parameter of the query.
    Param(Str),
    /// A cookie.
    Cookie(Str),
}

impl Location {
    /// The default ones: `Authorization: Bearer TOKEN`, then the parameter `access_token`.
    pub fn defaults() -> Vec<Self> {
        let name =
            HeaderName::parse("authorization").map(|name| Self::Header { name, prefix: "Bearer ".into() });
        name.into_iter().chain([Self::Param("access_token".into())]).collect()
    }
}

/// How tokens of one issuer are found and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Namespace of its `RequestAuthentication`, whose services its keys may be fetched from; empty if nobody said.
    pub namespace: Str,
    /// What `iss` must be; empty accepts any.
    pub issuer: Str,
    /// `aud` must have one of these; empty does not look.
    pub audiences: Vec<Str>,
    /// Where keys come from.
    pub keys: Keys,
    /// Longest time for fetching keys; default 5 s.
    pub fetch_timeout: Duration,
    /// Where tokens are looked for; never empty.
    pub locations: Vec<Location>,
    /// Whether the token goes on to the application; default no.
    pub forward_original_token: bool,
    /// Header that tells the payload, in base64url.
    pub output_payload: Option<HeaderName>,
    /// Headers that tell claims, by dotted path.
    pub output_claims: Vec<(HeaderName, Str)>,
    /// Further claims that hold words separated by blanks.
    pub space_delimited: Vec<Str>,
}

impl Rule {
    pub(super) fn accepts_issuer(&self, issuer: Option<&str>) -> bool {
        self.issuer.is_empty() || issuer == Some(&*self.issuer)
    }

    pub(super) fn word_claims(&self) -> impl Iterator<Item = &str> {
        WORD_CLAIMS.into_iter().chain(self.space_delimited.iter().map(|name| &**name))
    }

    /// Every header that it sets.
    pub(super) fn outputs(&self) -> impl Iterator<Item = &HeaderName> {
        self.output_payload.iter().chain(self.output_claims.iter().map(|(name, _)| name))
    }
}

/// The rules that apply to one service, with every place to look at once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuleSet {
    rules: Vec<Rule>,
    places: Vec<(Location, Vec<usize>)>,
}

impl RuleSet {
    /// Gathers the rules of every `RequestAuthentication` that applies.
    pub fn new(rules: impl IntoIterator<Item = Rule>) -> Self {
        let rules: Vec<Rule> = rules.into_iter().collect();
        let mut places = std::collections::BTreeMap::<Location, Vec<usize>>::new();
        for (index, rule) in rules.iter().enumerate() {
            for location in &rule.locations {
                places.entry(location.clone()).or_default().push(index);
            }
        }
        Self { rules, places: places.into_iter().collect() }
    }

    /// The rules, in the order given.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Every place where a token may be, with the rules that look there.
    pub(super) fn places(&self) -> &[(Location, Vec<usize>)] {
        &self.places
    }
}
