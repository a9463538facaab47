//! Why a target is refused. Messages name positions and numbers, never the bytes that came.

use ambit_types::Reason;

/// Why a request has no target with one reading.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Not a token, or longer than [`super::METHOD_BYTES_MAX`].
    #[error("the method is no token of RFC 9110")]
    Method,
    /// CONNECT without `:protocol`: tunnels are not made for users.
    #[error("CONNECT is not served here")]
    Connect,
    /// `:protocol` that is no token, or without CONNECT.
    #[error(":protocol is malformed or stands without CONNECT")]
    Protocol,
    /// Neither `http` nor `https`.
    #[error("the scheme is neither http nor https")]
    Scheme,
    /// Neither `:authority` nor Host.
    #[error("the request names no host; send Host or :authority")]
    AuthorityMissing,
    /// More than one line of Host, equal or not.
    #[error("{count} Host headers; send one")]
    HostRepeated {
        /// How many.
        count: usize,
    },
    /// Host says something else than `:authority` or the target in absolute form.
    #[error("Host and the target's authority differ; send one")]
    HostConflict,
    /// A part before `@`.
    #[error("the authority has a user part; leave it out")]
    UserInfo,
    /// No port behind the colon, or no number from 1 to 65535.
    #[error("the authority's port is not 1 to 65535")]
    Port,
    /// No host name or address that everybody reads alike.
    #[error("the host is no DNS name, IPv4 or IPv6 address in plain form")]
    HostName,
    /// No path at all.
    #[error("the request has no path")]
    PathMissing,
    /// It does not begin with `/`.
    #[error("the path does not begin with a slash")]
    PathForm,
    /// Longer than configured.
    #[error("path and query of {bytes} bytes are longer than {bytes_max}")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// A control byte or blank, which may not stand in a target.
    #[error("byte {byte:#04x} at {at} may not stand in a target")]
    Byte {
        /// The byte.
        byte: u8,
        /// Where, from the start of the path.
        at: usize,
    },
    /// A percent sign without two hexadecimal digits.
    #[error("the percent sign at {at} begins no escape; write %25")]
    Percent {
        /// Where, from the start of the path.
        at: usize,
    },
    /// `%2F` or `%5C`.
    #[error("the path has an escaped slash or backslash, which some servers take for a separator")]
    EscapedSlash,
    /// `%2E` that was not decoded.
    #[error("the path has an escaped dot; write it plainly")]
    EscapedDot,
    /// `%00`.
    #[error("the path has an escaped NUL")]
    EscapedNul,
    /// `%25` before two hexadecimal digits.
    #[error("the path is escaped twice")]
    EscapedTwice,
    /// A backslash that was not changed.
    #[error("the path has a backslash, which some servers take for a slash")]
    Backslash,
    /// `.` or `..` that was not resolved.
    #[error("the path has a dot segment; resolve it")]
    DotSegment,
    /// `/..;x/` and its like.
    #[error("the path has parameters in a dot segment")]
    DotParameter,
    /// A `#`.
    #[error("the target has a fragment, which is never sent")]
    Fragment,
    /// A byte above 0x7F.
    #[error("byte {byte:#04x} at {at} is not ASCII; escape it")]
    NotAscii {
        /// The byte.
        byte: u8,
        /// Where, from the start of the path.
        at: usize,
    },
}

impl Refusal {
    /// A short name in kebab case, for records and tests.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Connect => "connect",
            Self::Protocol => "protocol",
            Self::Scheme => "scheme",
            Self::AuthorityMissing => "authority-missing",
            Self::HostRepeated { .. } => "host-repeated",
            Self::HostConflict => "host-conflict",
            Self::UserInfo => "user-info",
            Self::Port => "port",
            Self::HostName => "host-name",
            Self::PathMissing => "path-missing",
            Self::PathForm => "path-form",
            Self::TooLong { .. } => "too-long",
            Self::Byte { .. } => "byte",
            Self::Percent { .. } => "percent",
            Self::EscapedSlash => "escaped-slash",
            Self::EscapedDot => "escaped-dot",
            Self::EscapedNul => "escaped-nul",
            Self::EscapedTwice => "escaped-twice",
            Self::Backslash => "backslash",
            Self::DotSegment => "dot-segment",
            Self::DotParameter => "dot-parameter",
            Self::Fragment => "fragment",
            Self::NotAscii { .. } => "not-ascii",
        }
    }

    /// The reason code, one for all: the name above says which.
    pub fn reason(&self) -> Reason {
        Reason::RequestAmbiguous
    }

    /// Status of the answer: 414 for a target that is too long, 400 otherwise.
    pub fn status(&self) -> u16 {
        match self {
            Self::TooLong { .. } => 414,
            _ => 400,
        }
    }
}
