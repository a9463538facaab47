//! What is wrong with a policy as written, by field.

use std::fmt;

use super::template::TemplateError;

/// One field that cannot be compiled, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {problem}")]
pub struct Invalid {
    /// Where, as in `rules[0].from[1].source.principals[0]`.
    pub at: String,
    /// Why.
    pub problem: Problem,
}

/// Why a field cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A list that is there but empty, where leaving it out would mean everything.
    #[error("must not be empty; leave it out to match everything")]
    EmptyList,
    /// A source or operation without any list.
    #[error("names nothing; give it at least one list of values")]
    NamesNothing,
    /// A condition with neither values nor notValues.
    #[error("values or notValues is needed")]
    NoValues,
    /// An empty text.
    #[error("must not be empty")]
    EmptyText,
    /// Something that has to be there.
    #[error("is missing")]
    Missing,
    /// DENY or CUSTOM without rules.
    #[error("{action} needs rules; [{{}}] matches every request")]
    NoRules {
        /// The action.
        action: &'static str,
    },
    /// More elements than the API allows.
    #[error("has {count} elements, more than {max}")]
    TooMany {
        /// How many.
        count: usize,
        /// The bound.
        max: usize,
    },
    /// A longer text than the API allows.
    #[error("has {bytes} bytes, more than {max}")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// Two fields that exclude each other.
    #[error("not together with {other}")]
    NotTogether {
        /// The other field.
        other: &'static str,
    },
    /// dry-run with CUSTOM or AUDIT.
    #[error("only ALLOW and DENY can be dry-run")]
    DryRun,
    /// A provider without CUSTOM.
    #[error("only CUSTOM has a provider")]
    ProviderUnused,
    /// A provider's name that is no DNS label.
    #[error("a provider's name is a DNS label of at most 63 characters")]
    ProviderName,
    /// A principal with its scheme.
    #[error("a principal is written without spiffe://")]
    PrincipalScheme,
    /// A namespace with a slash.
    #[error("a namespace has no slash")]
    NamespaceSlash,
    /// Not a service account.
    #[error("a service account is NAME or NAMESPACE/NAME, without wildcards")]
    ServiceAccount,
    /// Not a trust domain.
    #[error("a trust domain has no slash and at most one *, at an end")]
    TrustDomain,
    /// Not an address or range.
    #[error("is no IP address and no CIDR range")]
    Range,
    /// Not a port.
    #[error("is no port; ports are 0 to 65535")]
    Port,
    /// Not a token principal.
    #[error("a request principal is ISSUER/SUBJECT; a * may stand at one end")]
    RequestPrincipal,
    /// Not a template.
    #[error("is no path template")]
    Template(#[source] TemplateError),
    /// A path that no normalised request has.
    #[error("no request has such a path once it is normalised: {}", .0)]
    PathNeverComes(PathFault),
    /// A key that no version knows.
    #[error("is no attribute; known are {}", known_keys())]
    UnknownKey,
    /// A key that is no longer served.
    #[error("is not supported")]
    UnsupportedKey,
    /// A header's name that is none.
    #[error("is no header name; pseudo-headers are methods, paths and hosts")]
    HeaderName,
    /// A header that only the mesh sets, that belongs to one connection, or whose name has an underscore.
    #[error("no request has this header here: the mesh takes it off")]
    InternalHeader,
    /// A claim without a name.
    #[error("needs the claim that is meant, such as request.auth.claims[groups]")]
    ClaimPath,
    /// A token asked for before it is looked at.
    #[error("CUSTOM is evaluated before the token here, so it cannot ask for it")]
    TokenBeforeCustom,
}

/// What keeps a path from ever coming.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PathFault {
    /// A query or fragment.
    Query,
    /// A doubled slash.
    DoubledSlash,
    /// A dot segment.
    DotSegment,
    /// A backslash.
    Backslash,
    /// An escape that normalisation decodes, or one in lower case.
    Escape,
    /// A blank or control byte.
    Byte,
}

impl fmt::Display for PathFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Query => "query and fragment are not part of it",
            Self::DoubledSlash => "doubled slashes are merged",
            Self::DotSegment => "dot segments are resolved",
            Self::Backslash => "backslashes become slashes",
            Self::Escape => {
                "what a segment may have as it is is decoded, and other escapes are in upper case"
            }
            Self::Byte => "blanks and control bytes are refused",
        })
    }
}

fn known_keys() -> String {
    super::compile::KEYS.join(", ")
}
