//! What a rule changes in a request or response, or answers by itself.

use ambit_types::Str;

use super::Target;

/// One filter of a rule or a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// Changes request headers. Once at most.
    RequestHeaders(HeaderChange),
    /// Changes headers of upstream responses, not of answers the waypoint makes itself. Once at most.
    ResponseHeaders(HeaderChange),
    /// Answers with another address. Once at most, and neither with a rewrite nor with backends.
    Redirect(Redirect),
    /// Changes host or path of what is forwarded. Once at most.
    Rewrite(Rewrite),
    /// Sends a copy elsewhere.
    Mirror(Mirror),
    /// Answers preflight requests and marks responses for browsers. Once at most, on rules only.
    Cors(Cors),
    /// Answers with a fixed response. Neither with a redirect nor with backends.
    Respond(Respond),
    /// A filter that is not known or whose reference leads nowhere: its rule answers 500.
    Unsupported {
        /// What was asked for.
        what: Str,
    },
}

/// Headers to set, add and remove; a name may stand in one list only.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderChange {
    /// Replaces every line of that name.
    pub set: Vec<(Str, Str)>,
    /// Adds a line.
    pub add: Vec<(Str, Str)>,
    /// Takes every line of that name away.
    pub remove: Vec<Str>,
}

/// The scheme of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// `http`.
    Http,
    /// `https`.
    Https,
}

impl Scheme {
    /// As written in an address.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that need not be written.
    pub fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// An answer with another address. Parts not given are those of the request; the query is always kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Redirect {
    /// Scheme.
    pub scheme: Option<Scheme>,
    /// Host name.
    pub hostname: Option<Str>,
    /// Path.
    pub path: Option<PathChange>,
    /// Port. If not given: the well-known one of `scheme`, if that is given, else the one the client addressed.
    pub port: Option<u16>,
    /// 301, 302, 303, 307 or 308; none stands for 302.
    pub status: Option<u16>,
}

/// How a path is replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathChange {
    /// Wholly.
    Full(Str),
    /// The part that the rule's one prefix match matched.
    Prefix(Str),
}

/// What is forwarded instead.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rewrite {
    /// Host or `:authority`.
    pub hostname: Option<Str>,
    /// Path; the query is kept.
    pub path: Option<PathChange>,
}

/// A share of requests; none of it is 0 of 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fraction {
    /// So many
    pub numerator: u32,
    /// of so many. Not 0, not less than the numerator.
    pub denominator: u32,
}

impl Fraction {
    /// Every request.
    pub const ALL: Self = Self { numerator: 100, denominator: 100 };

    /// So many of a hundred.
    pub fn percent(percent: u32) -> Self {
        Self { numerator: percent, denominator: 100 }
    }
}

/// A copy of requests, whose answers nobody waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Where to.
    pub target: Target,
    /// Of how many requests.
    pub fraction: Fraction,
}

/// Which pages of other origins may call, and what they may see (HTTPCORSFilter).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cors {
    /// Origins: `*`, or `SCHEME://HOST[:PORT]` whose host may be `*` or begin with `*.`.
    pub allow_origins: Vec<Str>,
    /// Methods; `*` for any.
    pub allow_methods: Vec<Str>,
    /// Request headers; `*` for any.
    pub allow_headers: Vec<Str>,
    /// Response headers that scripts may read; `*` for any.
    pub expose_headers: Vec<Str>,
    /// Whether requests may carry cookies and the like.
    pub allow_credentials: bool,
    /// For how many seconds a preflight answer may be kept; none stands for 5.
    pub max_age_seconds: Option<u32>,
}

/// A response that the rule makes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Respond {
    /// Status, 200 to 599.
    pub status: u16,
    /// Body, sent as `text/plain` if there is one.
    pub body: Str,
}
