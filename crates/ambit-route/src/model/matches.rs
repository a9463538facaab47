//! What a request must be like for a rule to want it. Fields of one match must all agree.

use ambit_types::Str;

/// One match of an HTTPRoute.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HttpMatch {
    /// The path without its query; none stands for the prefix `/`.
    pub path: Option<PathMatch>,
    /// The method, case-sensitive.
    pub method: Option<Str>,
    /// Headers; names are case-insensitive, and of two entries with one name the first counts.
    pub headers: Vec<NameMatch>,
    /// Query parameters; names are case-sensitive, and of two entries with one name the first counts.
    pub query: Vec<NameMatch>,
}

/// How a path is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// Equal, case-sensitive.
    Exact(Str),
    /// Begins with these segments; a slash at the end is ignored: `/abc` and `/abc/` want `/abc`, `/abc/` and
    /// `/abc/def`, not `/abcd`.
    Prefix(Str),
    /// The whole path is of this form.
    Regex(Str),
    /// Begins with these letters, wherever a segment ends: `/abc` wants `/abcd` too.
    Start(Str),
}

/// One match of a GRPCRoute.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GrpcMatch {
    /// Full name of the service, such as `shop.Cart`.
    pub service: Option<ValueMatch>,
    /// Name of the method.
    pub method: Option<ValueMatch>,
    /// Headers.
    pub headers: Vec<NameMatch>,
}

/// A condition on something that has a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameMatch {
    /// The name of the header or query parameter.
    pub name: Str,
    /// How its value is compared.
    pub value: ValueMatch,
}

/// How a text is compared.
///
/// A header on several lines is compared as one text, joined by commas (RFC 9110 section 5.3); of a repeated query
/// parameter the first value is compared, percent-encoding and `+` undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueMatch {
    /// Equal, case-sensitive.
    Exact(Str),
    /// The whole text is of this form. Syntax of the `regex` crate on bytes, without Unicode classes: of the
    /// interoperable subset of GEP-4359 everything.
    Regex(Str),
    /// There, whatever its value.
    Present,
    /// Not there.
    Absent,
}
