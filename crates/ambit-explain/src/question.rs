//! What is asked: who calls whom, and with which request.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ambit_types::{Identity, Str, Uid};
use serde::Deserialize;

/// Longest text of each kind that a question may hold, in bytes.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// Most headers of a question.
const HEADERS_MAX: usize = 128;

/// What is asked.
///
/// In JSON: `{"source": "shop/web", "destination": "shop/cart:80", "http": {"method": "GET", "path": "/", "host": null,
/// "headers": [["x-user", "anna"]]}, "draw": 0}`; only the first two are required.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Who calls.
    pub source: Source,
    /// Whom.
    pub destination: Destination,
    /// With which request; none asks about the connection alone, and what depends on requests is told to.
    #[serde(default)]
    pub http: Option<HttpQuestion>,
    /// Chooses among endpoints and weighted backends, as the random number of a connection does.
    #[serde(default)]
    pub draw: u64,
    /// On whose behalf a waypoint calls, as a SPIFFE ID in JSON; it counts where a waypoint's word does.
    #[serde(default, deserialize_with = "identity")]
    pub client: Option<Identity>,
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A workload by its key in discovery.
    Uid(Uid),
    /// A workload by name: a pod, or one pod of a controller or app of that name.
    Named {
        /// Its namespace.
        namespace: Str,
        /// Its name.
        name: Str,
    },
    /// Whoever has this address; nobody of the mesh if no workload has it.
    Address(IpAddr),
}

/// Whom.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Destination {
    /// An address and port, of a pod, a service or anything else.
    Address(SocketAddr),
    /// `NS/NAME:PORT`: the service of that name if there is one, else a workload as in [`Source::Named`].
    Named {
        /// Its namespace.
        namespace: Str,
        /// Its name.
        name: Str,
        /// The port that is dialled.
        port: u16,
    },
    /// A host name, as the caller's namespace sees it.
    Host {
        /// The name, whole.
        host: Str,
        /// The port that is dialled.
        port: u16,
    },
}

/// A request, as its client sends it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpQuestion {
    /// Method; `GET` by default.
    #[serde(default = "get")]
    pub method: String,
    /// Path with its query; `/` by default.
    #[serde(default = "root")]
    pub path: String,
    /// Host; that of the destination by default.
    #[serde(default)]
    pub host: Option<String>,
    /// Header lines: names in any case, and values.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
}

impl Default for HttpQuestion {
    fn default() -> Self {
        Self { method: get(), path: root(), host: None, headers: Vec::new() }
    }
}

fn get() -> String {
    "GET".to_owned()
}

fn root() -> String {
    "/".to_owned()
}

/// Why something cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuestionError {
    /// A source that is neither `NS/NAME` nor an address nor a key.
    Source(String),
    /// A destination that is neither `NS/NAME:PORT` nor `HOST:PORT` nor `IP:PORT`.
    Destination(String),
    /// A record that does not say enough of one of its ends.
    Incomplete(&'static str),
    /// A text or list longer than any request's.
    TooLong(&'static str),
}

impl fmt::Display for QuestionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(text) => {
                write!(f, "{text:?} is no source: NAMESPACE/NAME, an address, or a workload's key")
            }
            Self::Destination(text) => {
                write!(f, "{text:?} is no destination: NAMESPACE/NAME:PORT, HOST:PORT or ADDRESS:PORT")
            }
            Self::Incomplete(what) => write!(f, "the record does not say {what}"),
            Self::TooLong(what) => write!(f, "too long: {what}"),
        }
    }
}

impl std::error::Error for QuestionError {}

impl Question {
    /// Asks about a connection.
    pub fn new(source: Source, destination: Destination) -> Self {
        Self { source, destination, http: None, draw: 0, client: None }
    }

    /// Asks about a request on it.
    #[must_use]
    pub fn with_http(self, http: HttpQuestion) -> Self {
        Self { http: Some(http), ..self }
    }

    /// Whether everything in it has a size that a request may have. For questions that came over a socket.
    ///
    /// # Errors
    /// [`QuestionError::TooLong`] names what has not.
    pub fn check(&self) -> Result<(), QuestionError> {
        let Some(http) = &self.http else { return Ok(()) };
        let texts = [("method", http.method.len()), ("path", http.path.len())];
        let host = http.host.as_ref().map(|host| ("host", host.len()));
        let too_long = texts.into_iter().chain(host).find(|(_, bytes)| *bytes > TEXT_BYTES_MAX);
        if let Some((what, _)) = too_long {
            return Err(QuestionError::TooLong(what));
        }
        let bytes: usize = http.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        if http.headers.len() > HEADERS_MAX || bytes > TEXT_BYTES_MAX {
            return Err(QuestionError::TooLong("headers"));
        }
        Ok(())
    }
}

impl FromStr for Source {
    type Err = QuestionError;

    /// Reads `NS/NAME`, an address, or a key such as `Kubernetes//Pod/NS/NAME`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::Address(ip.to_canonical()));
        }
        if text.contains("//") {
            return Ok(Self::Uid(text.into()));
        }
        let (namespace, name) = pair(text).ok_or_else(|| QuestionError::Source(text.to_owned()))?;
        Ok(Self::Named { namespace, name })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uid(uid) => write!(f, "{uid}"),
            Self::Named { namespace, name } => write!(f, "{namespace}/{name}"),
            Self::Address(ip) => write!(f, "{ip}"),
        }
    }
}

impl FromStr for Destination {
    type Err = QuestionError;

    /// Reads `NS/NAME:PORT`, `HOST:PORT`, `IP:PORT` or `[IP]:PORT`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || QuestionError::Destination(text.to_owned());
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self::Address(ambit_types::canonical(address)));
        }
        let (name, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let port = port.parse().map_err(|_| bad())?;
        if name.contains('/') {
            let (namespace, name) = pair(name).ok_or_else(bad)?;
            return Ok(Self::Named { namespace, name, port });
        }
        if name.is_empty() || name.contains(':') {
            return Err(bad());
        }
        Ok(Self::Host { host: name.into(), port })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Named { namespace, name, port } => write!(f, "{namespace}/{name}:{port}"),
            Self::Host { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

impl Destination {
    /// The port that is dialled.
    pub fn port(&self) -> u16 {
        match self {
            Self::Address(address) => address.port(),
            Self::Named { port, .. } | Self::Host { port, .. } => *port,
        }
    }
}

/// Two names with one slash between them.
fn pair(text: &str) -> Option<(Str, Str)> {
    let (namespace, name) = text.split_once('/')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains('/'))
        .then(|| (namespace.into(), name.into()))
}

/// An identity, or none.
fn identity<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Identity>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| Identity::parse(&text).map_err(serde::de::Error::custom)).transpose()
}

/// Reads a text of JSON by [`FromStr`].
macro_rules! from_text {
    ($type:ty) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

from_text!(Source);
from_text!(Destination);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_read_and_written_alike() {
        for text in ["shop/web", "10.0.0.1", "fd00::1", "Kubernetes//Pod/shop/web-1"] {
            assert_eq!(text.parse::<Source>().map(|source| source.to_string()).as_deref(), Ok(text));
        }
        for text in ["shop/cart:80", "cart.shop.svc.cluster.local:80", "10.0.0.1:80", "[fd00::1]:80"] {
            assert_eq!(text.parse::<Destination>().map(|to| to.to_string()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn what_is_neither_is_refused() {
        for text in ["web", "/web", "shop/", "a/b/c"] {
            assert_eq!(text.parse::<Source>(), Err(QuestionError::Source(text.to_owned())));
        }
        for text in ["shop/cart", "shop/cart:http", ":80", "fd00::1:80x", "a/b/c:80"] {
            assert_eq!(text.parse::<Destination>(), Err(QuestionError::Destination(text.to_owned())));
        }
    }
}
