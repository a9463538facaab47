//! A rule of `RequestAuthentication` as people write it. [`super::compile()`] reads it.

use serde::{Deserialize, Serialize};

/// How tokens of one issuer are found and checked.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Rule {
    /// The claim `iss`; may be empty only with `jwks_uri`.
    pub issuer: String,
    /// Accepted `aud`; empty accepts any.
    pub audiences: Vec<String>,
    /// Where keys are fetched.
    pub jwks_uri: Option<String>,
    /// The keys themselves.
    pub jwks: Option<String>,
    /// Headers that hold the token.
    pub from_headers: Vec<Header>,
    /// Parameters that hold it.
    pub from_params: Vec<String>,
    /// Cookies that hold it.
    pub from_cookies: Vec<String>,
    /// Header that tells the payload.
    pub output_payload_to_header: Option<String>,
    /// Headers that tell claims.
    pub output_claim_to_headers: Vec<ClaimToHeader>,
    /// Whether the token goes on to the application.
    pub forward_original_token: bool,
    /// Longest time for fetching keys, as `5s` or `500ms`.
    pub timeout: Option<String>,
    /// Further claims that hold words separated by blanks.
    pub space_delimited_claims: Vec<String>,
}

/// A header that holds a token.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Text before the token.
    pub prefix: String,
}

/// A claim told in a header.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ClaimToHeader {
    /// Name of the header.
    pub header: String,
    /// The claim, nested ones by dots.
    pub claim: String,
}
