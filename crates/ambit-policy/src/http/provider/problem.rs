//! What is wrong with a provider as written, by field.

/// One field that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {problem}")]
pub struct Invalid {
    /// Where, as in `envoyExtAuthzHttp.headersToUpstreamOnAllow[0]`.
    pub at: String,
    /// Why.
    pub problem: Problem,
}

/// Why a field cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Something that has to be there.
    #[error("is missing")]
    Missing,
    /// A name that policies cannot write.
    #[error("a provider's name is a DNS label of at most 63 characters")]
    Name,
    /// Both ways of asking, or neither.
    #[error("needs one of envoyExtAuthzHttp and envoyExtAuthzGrpc")]
    OneWay,
    /// Not a service.
    #[error("a service is HOST or NAMESPACE/HOST, without wildcards")]
    Service,
    /// Not a port.
    #[error("is no port; ports are 1 to 65535")]
    Port,
    /// Not a time that may be waited.
    #[error("is no duration from 1ms to 10s, such as 500ms")]
    Timeout,
    /// Not a path that others can be appended to.
    #[error("is no path: it begins with a slash and has no query, fragment, blank or control byte")]
    Path,
    /// Not a status of a refusal.
    #[error("is no status of a refusal, \"400\" to \"599\"")]
    Status,
    /// The body is asked for.
    #[error("is not supported: bodies are not sent to authorizers")]
    Body,
    /// Not a header's name.
    #[error("is no header name, nor one with a * at an end; a * alone is refused")]
    HeaderName,
    /// A header that frames or routes the check, or that only the mesh sets.
    #[error("is a header that this cannot set: it frames or routes a message, or only the mesh sets it")]
    Reserved,
    /// A header's value that cannot be sent.
    #[error("is no header value")]
    HeaderValue,
    /// More elements than the bound.
    #[error("has {count} elements, more than {max}")]
    TooMany {
        /// How many.
        count: usize,
        /// The bound.
        max: usize,
    },
}
