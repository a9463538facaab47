//! What a host name resolves to: a small resolver that asks nameservers from within a pod's namespace.
//!
//! It asks for addresses of one family and follows aliases inside one answer; everything else is the nameserver's work.
//! Names are absolute: no search list, no hosts file. One question for a name is under way at a time, however many
//! connections wait for it. Answers are kept for as long as they say, within bounds; nothing is used after that.
//! Every pod has a resolver of its own: who can forge packets in one pod's namespace deceives that pod alone.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ambit_runtime::clock;
use ambit_types::service::IpFamily;
use ambit_types::{Reason, Str};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::socket::{SocketError, SocketFactory};
use cache::{Cache, Told};
use message::{Answer, Asked, Read};

mod cache;
mod message;
mod servers;
#[cfg(test)]
mod tests;

pub use servers::Servers;

/// Longest time for one name and family, all nameservers and repetitions together.
pub const LIMIT: Duration = Duration::from_secs(5);
/// How often each nameserver is asked.
const ROUNDS: usize = 2;
/// Datagrams that are no answer to the question and are passed over before a nameserver is given up.
const STRAYS_MAX: usize = 16;
/// Longest datagram; nobody is told that we would take more than 512 bytes, some send it.
const DATAGRAM_BYTES_MAX: usize = 4096;

/// Shortest and longest time for which addresses are kept, whatever the answer says.
const TTL_MIN: Duration = Duration::from_secs(1);
const TTL_MAX: Duration = Duration::from_secs(300);
/// How long it is kept that a name does not exist or has no address of the family.
const TTL_NONE: Duration = Duration::from_secs(2);
/// How long connections fail at once after no nameserver gave an answer.
const TTL_FAILED: Duration = Duration::from_secs(1);

/// Why a name was not resolved.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum DnsError {
    /// Nothing that DNS could be asked for, such as a wildcard.
    #[error("{host:?} is no host name that can be resolved")]
    Name {
        /// What was to be resolved.
        host: Str,
    },
    /// The nameservers are not known.
    #[error("reading the nameservers from {path}")]
    Servers {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        cause: Arc<io::Error>,
    },
    /// There is nobody to ask.
    #[error("no nameserver is named that could be asked for {host}")]
    NoServer {
        /// What was to be resolved.
        host: Str,
    },
    /// A nameserver says that the name does not exist.
    #[error("nameserver {server} says that {host} does not exist (NXDOMAIN)")]
    NoName {
        /// What was to be resolved.
        host: Str,
        /// Who says so.
        server: SocketAddr,
    },
    /// The name has no address that could be used.
    #[error("{host} has no address in the families that may be used")]
    NoAddress {
        /// What was to be resolved.
        host: Str,
    },
    /// A nameserver says that it cannot or will not answer.
    #[error("nameserver {server} answers {code:?} for {host}")]
    Refused {
        /// What was to be resolved.
        host: Str,
        /// Who says so.
        server: SocketAddr,
        /// Its answer, in DNS' own words.
        code: &'static str,
    },
    /// What came back is no answer to the question.
    #[error("what came from nameserver {server} for {host} is no DNS answer to the question")]
    Garbage {
        /// What was to be resolved.
        host: Str,
        /// Who was asked.
        server: SocketAddr,
    },
    /// Nothing came back.
    #[error("no answer from nameserver {server} for {host} within {waited:?}")]
    Silent {
        /// What was to be resolved.
        host: Str,
        /// Who was asked.
        server: SocketAddr,
        /// How long we waited.
        waited: Duration,
    },
    /// The caller had to go on to something else.
    #[error("{host} was not resolved within {waited:?}")]
    Late {
        /// What was to be resolved.
        host: Str,
        /// How long we waited.
        waited: Duration,
    },
    /// No socket to the nameserver.
    #[error("asking nameserver {server} for {host}")]
    Socket {
        /// What was to be resolved.
        host: Str,
        /// Who was to be asked.
        server: SocketAddr,
        /// What went wrong.
        #[source]
        cause: Arc<SocketError>,
    },
    /// The nameserver's machine refused, or the stream to it broke.
    #[error("exchanging messages with nameserver {server} for {host}")]
    Exchange {
        /// What was to be resolved.
        host: Str,
        /// Who was asked.
        server: SocketAddr,
        /// The system's answer.
        #[source]
        cause: Arc<io::Error>,
    },
}

impl DnsError {
    /// The code that the record of a connection has.
    pub fn reason(&self) -> Reason {
        Reason::DnsUpstreamFailed
    }

    /// Whether it is an answer, which another nameserver would give as well.
    fn is_answer(&self) -> bool {
        match self {
            Self::NoName { .. } | Self::NoAddress { .. } => true,
            Self::Name { .. }
            | Self::Servers { .. }
            | Self::NoServer { .. }
            | Self::Refused { .. }
            | Self::Garbage { .. }
            | Self::Silent { .. }
            | Self::Late { .. }
            | Self::Socket { .. }
            | Self::Exchange { .. } => false,
        }
    }
}

/// Resolves names for one pod.
#[derive(Debug)]
pub struct Resolver {
    servers: Arc<Servers>,
    sockets: SocketFactory,
    /// Sockets of the process's own namespace, where a nameserver at loopback is.
    own: SocketFactory,
    draw: fn() -> u64,
    limit: Duration,
    cache: Cache,
}

impl Resolver {
    /// Asks through `sockets`; `draw` gives a new random number, uniform over all of `u64`, at every call.
    pub fn new(servers: Arc<Servers>, sockets: SocketFactory, draw: fn() -> u64) -> Self {
        let own = sockets.of_process();
        Self { servers, sockets, own, draw, limit: LIMIT, cache: Cache::default() }
    }

    /// The addresses of `host` in one family; none if it exists and has none. Waits at most [`LIMIT`]. May be dropped:
    /// somebody else who waits for the same name then asks anew.
    ///
    /// # Errors
    /// [`DnsError`].
    pub async fn resolve(&self, host: &Str, family: IpFamily) -> Result<Arc<[IpAddr]>, DnsError> {
        let slot = self.cache.slot(host, family, clock::monotonic());
        slot.get_or_init(|| self.tell(host, family)).await.outcome.clone()
    }

    async fn tell(&self, host: &Str, family: IpFamily) -> Told {
        let answer = self.ask(host, family).await;
        let keep = match &answer {
            Ok(answer) if answer.addresses.is_empty() => TTL_NONE,
            Ok(answer) => answer.ttl.clamp(TTL_MIN, TTL_MAX),
            Err(error) if error.is_answer() => TTL_NONE,
            Err(_) => TTL_FAILED,
        };
        let outcome = answer.map(|answer| Arc::from(answer.addresses));
        Told { outcome, until: clock::monotonic() + keep }
    }

    /// Asks one nameserver after the other until one answers.
    async fn ask(&self, host: &Str, family: IpFamily) -> Result<Answer, DnsError> {
        let asked = Asked::new(host, family).ok_or_else(|| DnsError::Name { host: host.clone() })?;
        let servers = self.servers.read()?;
        let attempts = servers.len() * ROUNDS;
        let limit = self.limit / u32::try_from(attempts.max(1)).unwrap_or(u32::MAX);
        let mut last = DnsError::NoServer { host: host.clone() };
        for server in servers.iter().cycle().take(attempts) {
            match self.attempt(host, &asked, *server, limit).await {
                Ok(answer) => return Ok(answer),
                Err(error) if error.is_answer() => return Err(error),
                Err(error) => {
                    tracing::debug!(%server, %error, "a nameserver gave no answer");
                    last = error;
                }
            }
        }
        Err(last)
    }

    async fn attempt(
        &self,
        host: &Str,
        asked: &Asked,
        server: SocketAddr,
        limit: Duration,
    ) -> Result<Answer, DnsError> {
        let host = || host.clone();
        let mut strays = 0;
        let exchange = self.exchange(asked, server, &mut strays);
        let read = match tokio::time::timeout(limit, exchange).await {
            Ok(Ok(read)) => read,
            Ok(Err(Broken::Socket(cause))) => {
                return Err(DnsError::Socket { host: host(), server, cause: Arc::new(cause) });
            }
            Ok(Err(Broken::Io(cause))) => {
                return Err(DnsError::Exchange { host: host(), server, cause: Arc::new(cause) });
            }
            Ok(Err(Broken::Garbage)) => return Err(DnsError::Garbage { host: host(), server }),
            Err(_) if strays > 0 => return Err(DnsError::Garbage { host: host(), server }),
            Err(_) => return Err(DnsError::Silent { host: host(), server, waited: limit }),
        };
        match read {
            Read::Answer(answer) => Ok(answer),
            Read::NoName => Err(DnsError::NoName { host: host(), server }),
            Read::Refused(code) => Err(DnsError::Refused { host: host(), server, code }),
            Read::Truncated => Err(DnsError::Garbage { host: host(), server }),
        }
    }

    /// One question and what is told of it. What is no answer to the question is counted and passed over: it may be a
    /// forgery that was sent in the hope to come first.
    async fn exchange(&self, asked: &Asked, server: SocketAddr, strays: &mut usize) -> Result<Read, Broken> {
        let id = u16::try_from((self.draw)() >> 48).unwrap_or_default();
        let question = asked.question(id).ok_or(Broken::Garbage)?;
        let sockets = if server.ip().is_loopback() { &self.own } else { &self.sockets };
        let socket = sockets.datagrams(server)?;
        socket.send(&question).await?;
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let length = socket.recv(&mut buffer).await?;
            match buffer.get(..length).and_then(|bytes| asked.read(id, bytes)) {
                Some(Read::Truncated) => return by_stream(sockets, asked, id, &question, server).await,
                Some(read) => return Ok(read),
                None => *strays += 1,
            }
            if *strays >= STRAYS_MAX {
                return Err(Broken::Garbage);
            }
        }
    }
}

/// Why an exchange came to nothing.
enum Broken {
    Socket(SocketError),
    Io(io::Error),
    Garbage,
}

impl From<SocketError> for Broken {
    fn from(error: SocketError) -> Self {
        Self::Socket(error)
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Asks again by TCP, where an answer did not fit into a datagram (RFC 7766).
async fn by_stream(
    sockets: &SocketFactory,
    asked: &Asked,
    id: u16,
    question: &[u8],
    server: SocketAddr,
) -> Result<Read, Broken> {
    let length = u16::try_from(question.len()).map_err(|_| Broken::Garbage)?;
    let mut stream = sockets.connect(server, None, LIMIT).await?;
    stream.write_all(&[&length.to_be_bytes()[..], question].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    asked.read(id, &answer).ok_or(Broken::Garbage)
}
