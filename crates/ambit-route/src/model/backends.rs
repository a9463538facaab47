//! Where a rule sends requests, for how long, and how often.

use std::fmt;
use std::time::Duration;

use ambit_types::{ServiceKey, Str};

use super::Filter;

/// One destination of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Where to.
    pub target: Target,
    /// Its share, 0 to 1 000 000; the Gateway API's default is 1. 0 receives nothing.
    pub weight: u32,
    /// Applied after the rule's, to what goes to this backend.
    pub filters: Vec<Filter>,
}

/// What a reference to a backend leads to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// The endpoints of a service; never its routes, which are consulted once only (GEP-1294).
    Service {
        /// The service.
        service: ServiceKey,
        /// Its port.
        port: u16,
    },
    /// Nothing that could be sent to.
    Invalid {
        /// Why.
        fault: BackendFault,
        /// The reference as written.
        what: Str,
    },
}

impl fmt::Display for Target {
    /// `NAMESPACE/HOSTNAME:PORT`, or what is wrong with the reference.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service { service, port } => write!(f, "{service}:{port}"),
            Self::Invalid { fault, what } => write!(f, "{what}: {fault}"),
        }
    }
}

/// What is wrong with a reference; the names are those of the route's condition `ResolvedRefs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BackendFault {
    /// There is no such object.
    BackendNotFound,
    /// Its kind cannot be a backend.
    InvalidKind,
    /// It is in a namespace that does not grant it.
    RefNotPermitted,
    /// The service has no such port, or the port cannot carry what is sent.
    UnsupportedProtocol,
}

impl fmt::Display for BackendFault {
    /// The reason as the condition spells it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BackendNotFound => "BackendNotFound",
            Self::InvalidKind => "InvalidKind",
            Self::RefNotPermitted => "RefNotPermitted",
            Self::UnsupportedProtocol => "UnsupportedProtocol",
        })
    }
}

/// How long things may take. None and zero both stand for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timeouts {
    /// From the first byte received to the end of the response, retries included.
    pub request: Option<Duration>,
    /// One attempt. Not longer than `request`.
    pub backend_request: Option<Duration>,
    /// Without a byte in either direction.
    pub idle: Option<Duration>,
}

/// When a request is sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Attempts after the first, 1 to 20.
    pub attempts: u32,
    /// Classes of failures.
    pub conditions: Conditions,
    /// Status codes, 400 to 599.
    pub codes: Vec<u16>,
    /// gRPC status codes, 1 to 16. Listing one is consent to repeat calls that answered so.
    pub grpc_codes: Vec<u32>,
    /// How long to wait between attempts.
    pub backoff: Backoff,
    /// Which methods may be repeated after the backend may have seen the request.
    pub consent: Consent,
}

/// Classes of failures that are tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Conditions {
    /// The backend was never reached, or the connection ended before a byte was sent on it.
    pub connect_failure: bool,
    /// The backend said that it has not looked at the request (REFUSED_STREAM, or beyond GOAWAY's last stream).
    pub refused_stream: bool,
    /// The connection ended, or the stream was reset, before a response.
    pub reset: bool,
    /// The attempt took longer than its own limit and no response had begun.
    pub try_timeout: bool,
    /// Status 502, 503 or 504, and all of the above.
    pub gateway_error: bool,
    /// Any status from 500, and all of the above.
    pub server_error: bool,
}

/// How long to wait between attempts: twice as long each time, and up to half as much again by chance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Shortest wait before the first repetition. Default 25 ms.
    pub base: Duration,
    /// Where doubling ends. Default 250 ms; never less than `base`.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Duration::from_millis(25), max: Duration::from_millis(250) }
    }
}

/// What may be repeated once a backend may have acted on it (RFC 9110 section 9.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consent {
    /// Methods that are idempotent by definition: GET, HEAD, OPTIONS, TRACE, PUT, DELETE.
    #[default]
    Idempotent,
    /// Any method: the author says that the application bears it.
    AnyMethod,
}

impl Retry {
    /// What is done where a rule says nothing: two more attempts, and only of what no backend has seen.
    pub fn of_the_mesh() -> Self {
        let conditions = Conditions { connect_failure: true, refused_stream: true, ..Conditions::default() };
        Self {
            attempts: 2,
            conditions,
            codes: Vec::new(),
            grpc_codes: Vec::new(),
            backoff: Backoff::default(),
            consent: Consent::Idempotent,
        }
    }

    /// What a rule's `retry` stanza means (GEP-1731): the listed codes, and every failure of the connection.
    pub fn of_codes(attempts: u32, codes: Vec<u16>) -> Self {
        let conditions = Conditions {
            connect_failure: true,
            refused_stream: true,
            reset: true,
            try_timeout: true,
            ..Conditions::default()
        };
        Self { attempts, conditions, codes, ..Self::of_the_mesh() }
    }
}

/// How a client stays with the endpoint it first had (GEP-1619).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Persistence {
    /// Name of the cookie or header.
    pub name: Str,
    /// Which of the two carries it.
    pub carrier: PersistenceCarrier,
    /// Longest life of a session, whatever its use.
    pub absolute_timeout: Option<Duration>,
}

impl Persistence {
    /// With the name of a header as headers are looked for; a cookie's name has a case of its own.
    pub(crate) fn in_lower_case(mut self) -> Self {
        match self.carrier {
            PersistenceCarrier::Header => self.name = self.name.to_ascii_lowercase().into(),
            PersistenceCarrier::Cookie { .. } => {}
        }
        self
    }
}

/// What carries the mark of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PersistenceCarrier {
    /// A cookie.
    Cookie {
        /// Its `Path`; the Gateway API's default is `/`.
        path: Str,
        /// How long a browser keeps it.
        life: CookieLife,
    },
    /// A header that the client repeats.
    Header,
}

/// How long a browser keeps a cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CookieLife {
    /// Until it is closed.
    #[default]
    Session,
    /// For the session's absolute timeout, which must be given.
    Permanent,
}
