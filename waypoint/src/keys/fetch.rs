//! One fetch of a set of keys: where to, over which connection, and what may come back.
//!
//! A service of the mesh that the rule may name ([`mesh`]) is called through the tunnel with the waypoint's own identity.
//! Anything else is resolved by DNS, judged by [`Guard`] and called at an address that was judged, which is never one of
//! the mesh, its nodes or its control plane. Redirects are not followed: they would lead past both.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ambit_net::grpc::channel::system_roots;
use ambit_net::tls::provider;
use ambit_policy::jwt::{Claim, Claims};
use ambit_types::{ServiceKey, Str};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_ENCODING, HOST, HeaderValue, USER_AGENT};
use http::{Request, StatusCode};
use hyper::body::Body as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::guard::{Guard, Url, UrlError};
use super::jwk::{SET_BYTES_MAX, Set, SetError};
use super::mesh;
use crate::calls::{self, CallError, ROOT_NAMESPACE, Through};
use crate::request::body::Upload;
use crate::upstream::Endpoint;
use crate::{State, Waypoint};

/// Addresses that are tried of one host.
const ADDRESSES_MAX: usize = 4;

/// Bytes of the head of an answer.
const HEAD_BYTES_MAX: usize = 32 << 10;

/// Why a fetch brought no keys. No text of the peer's stands in it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// Not a URL that is fetched.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// DNS does not know the host.
    #[error("the host cannot be resolved")]
    Resolve(#[source] std::io::Error),
    /// All its addresses are refused.
    #[error("{address} is {why}; keys are not fetched from there")]
    Blocked {
        /// One of them.
        address: IpAddr,
        /// Why.
        why: &'static str,
    },
    /// A service of the mesh that is not the rule's to call.
    #[error(
        "{service} is a service of neither the rule's namespace {namespace:?} nor {ROOT_NAMESPACE}; keys are not fetched from there"
    )]
    Other {
        /// The service.
        service: ServiceKey,
        /// The rule's namespace.
        namespace: Str,
    },
    /// An endpoint that somebody else's workload is.
    #[error(
        "endpoint {address} of {service} is a workload of another namespace; keys are not fetched from there"
    )]
    Elsewhere {
        /// The endpoint.
        address: IpAddr,
        /// The service.
        service: ServiceKey,
    },
    /// Its policies are not known here.
    #[error("{0} is behind another waypoint; keys are not fetched past it")]
    OtherWaypoint(ServiceKey),
    /// Its policies say no.
    #[error("the policies of {0} do not let this waypoint fetch the keys")]
    Denied(ServiceKey),
    /// The issuer has https and sends to keys without.
    #[error("the openid-configuration of an https issuer names keys without https")]
    Downgrade,
    /// No connection.
    #[error("connecting to {address}")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// The system's answer.
        #[source]
        cause: std::io::Error,
    },
    /// The service of the mesh cannot be called, or what it answers cannot be read.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The roots by which https is judged cannot be read.
    #[error("reading the roots from {path}")]
    Roots {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        cause: std::io::Error,
    },
    /// TLS failed.
    #[error("TLS with the host")]
    Tls(#[source] std::io::Error),
    /// The peer does not speak HTTP/1.1.
    #[error("HTTP with the host")]
    Http(#[source] hyper::Error),
    /// An answer other than 200.
    #[error("the answer is status {0}; redirects are not followed")]
    Status(u16),
    /// An answer with a content coding nobody asked for.
    #[error("the answer is compressed")]
    Coding,
    /// Not in time.
    #[error("no whole answer in {0:?}")]
    Timeout(Duration),
    /// The issuer's description does not say where its keys are, or is another issuer's.
    #[error("the issuer's openid-configuration names no keys of this issuer")]
    Discovery,
    /// What came is no set of keys.
    #[error(transparent)]
    Set(#[from] SetError),
}

/// Where keys are, and for whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Source {
    /// Namespace of the rule: what it may reach, and whose share of the bounds a fetch takes.
    pub(crate) namespace: Str,
    /// Where.
    pub(crate) at: At,
}

impl fmt::Display for Source {
    /// Without what may be secret: a query, a user name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (At::Uri(text) | At::Issuer(text)) = &self.at;
        match Url::parse(text) {
            Ok(url) => {
                let path = url.target.split_once('?').map_or(&*url.target, |(path, _)| path);
                let scheme = if url.is_https { "https" } else { "http" };
                write!(f, "{scheme}://{}{path}", url.authority)
            }
            Err(_) => f.write_str("no URL of keys"),
        }
    }
}

/// Where keys are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum At {
    /// At a URL.
    Uri(Str),
    /// Where the description of an issuer says (OpenID Connect Discovery section 4).
    Issuer(Str),
}

/// What fetches go by.
#[derive(Debug)]
pub(crate) struct Fetcher {
    pub(crate) guard: Guard,
    /// A file of PEM roots for https; the system's if none is named. Read for every fetch, so that a new one is found.
    pub(crate) roots: Option<PathBuf>,
    pub(crate) through: Through,
}

impl Fetcher {
    /// Fetches a set, within a time.
    ///
    /// # Errors
    /// [`FetchError`].
    pub(crate) async fn fetch(&self, source: &Source, within: Duration) -> Result<Set, FetchError> {
        let work = async {
            let namespace = &source.namespace;
            let uri = match &source.at {
                At::Uri(uri) => uri.clone(),
                At::Issuer(issuer) => self.discover(issuer, namespace).await?,
            };
            Ok(Set::parse(&self.get(&uri, namespace).await?)?)
        };
        tokio::time::timeout(within, work).await.unwrap_or(Err(FetchError::Timeout(within)))
    }

    /// Where an issuer's keys are.
    async fn discover(&self, issuer: &Str, namespace: &str) -> Result<Str, FetchError> {
        let at = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let claims = Claims::parse(&self.get(&at, namespace).await?).map_err(|_| FetchError::Discovery)?;
        let text = |name: &str| claims.get(name).and_then(Claim::as_text);
        match (text("issuer"), text("jwks_uri")) {
            (Some(named), Some(uri)) if named == &**issuer => {
                // Who can change what goes without https would have the issuer's word for other keys.
                let is_downgrade = Url::parse(issuer)?.is_https && !Url::parse(uri)?.is_https;
                if is_downgrade { Err(FetchError::Downgrade) } else { Ok(uri.into()) }
            }
            (Some(_) | None, Some(_) | None) => Err(FetchError::Discovery),
        }
    }

    async fn get(&self, uri: &str, namespace: &str) -> Result<Bytes, FetchError> {
        let url = Url::parse(uri)?;
        let waypoint = self.through.get();
        let service = match &waypoint {
            Some(waypoint) => mesh::service(waypoint, &url, namespace)?,
            None => None,
        };
        match (waypoint, service) {
            (Some(waypoint), Some(service)) => {
                let judge = |state: &State, endpoint: &Endpoint| {
                    mesh::judge(state, &service, endpoint, &url, &self.guard)
                };
                let opened = calls::open(&waypoint, &service, url.port, judge).await?;
                self.secure(opened.io, &url).await
            }
            (waypoint, _) => self.secure(self.connect(&url, waypoint.as_deref()).await?, &url).await,
        }
    }

    /// The addresses of the control plane. While they are not known nothing is known not to be one.
    async fn control(&self) -> Result<Vec<IpAddr>, FetchError> {
        let mut all = Vec::new();
        for host in &self.guard.control {
            let looked_up = tokio::net::lookup_host((&**host, 0)).await.map_err(FetchError::Resolve)?;
            all.extend(looked_up.map(|address| address.ip().to_canonical()));
        }
        Ok(all)
    }

    /// Connects to an address of a host that may be connected to.
    async fn connect(&self, url: &Url, waypoint: Option<&Waypoint>) -> Result<TcpStream, FetchError> {
        let resolved: Vec<SocketAddr> = match url.host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, url.port)],
            Err(_) => {
                let looked_up = tokio::net::lookup_host((&*url.host, url.port)).await;
                looked_up.map_err(FetchError::Resolve)?.collect()
            }
        };
        let (control, state) = (self.control().await?, waypoint.map(Waypoint::state));
        let refusal = |address: IpAddr| {
            let is_control = control.contains(&address.to_canonical());
            let of_control = is_control.then_some("an address of the control plane");
            let is_of_mesh = state.as_ref().is_some_and(|state| calls::is_of_mesh(state, address));
            let of_mesh = is_of_mesh.then_some("of the mesh or its nodes: name a service by its host");
            self.guard.refusal(address).or(of_control).or(of_mesh)
        };
        let (refused, admitted): (Vec<_>, Vec<_>) =
            resolved.into_iter().partition(|address| refusal(address.ip()).is_some());
        let mut told = match refused.first().map(SocketAddr::ip) {
            Some(address) => FetchError::Blocked { address, why: refusal(address).unwrap_or_default() },
            None => FetchError::Resolve(std::io::ErrorKind::NotFound.into()),
        };
        for address in admitted.into_iter().take(ADDRESSES_MAX) {
            match TcpStream::connect(address).await {
                Ok(tcp) => return Ok(tcp),
                Err(cause) => told = FetchError::Connect { address, cause },
            }
        }
        Err(told)
    }

    /// Asks over a connection, with TLS if the URL says so.
    async fn secure<I>(&self, io: I, url: &Url) -> Result<Bytes, FetchError>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if !url.is_https {
            return ask(io, url).await;
        }
        let config = self.tls().await?;
        let name = ServerName::try_from(url.host.to_string()).map_err(|_| UrlError::Shape)?;
        let stream = TlsConnector::from(config).connect(name, io).await.map_err(FetchError::Tls)?;
        ask(stream, url).await
    }

    /// Roots are read anew each time: every few minutes, and a new bundle is found.
    async fn tls(&self) -> Result<Arc<ClientConfig>, FetchError> {
        let path = self.roots.clone().unwrap_or_else(|| system_roots().into());
        let at = path.clone();
        // Some hundred certificates: not between the requests of others.
        let read = tokio::task::spawn_blocking(move || -> std::io::Result<RootCertStore> {
            let pem = std::fs::read(&at)?;
            let mut roots = RootCertStore::empty();
            // Bundles of systems hold certificates that no library reads; those are not trusted, the others are.
            roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
            Ok(roots)
        });
        let read = read.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let roots = read.map_err(|cause| FetchError::Roots { path, cause })?;
        let versions = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let versions = versions.map_err(|error| FetchError::Tls(std::io::Error::other(error)))?;
        Ok(Arc::new(versions.with_root_certificates(roots).with_no_client_auth()))
    }
}

/// Asks for the target over a connection that is ready.
async fn ask<I>(io: I, url: &Url) -> Result<Bytes, FetchError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut request = Request::new(Upload::Empty);
    *request.uri_mut() = url.target.parse().map_err(|_| UrlError::Shape)?;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_str(&url.authority).map_err(|_| UrlError::Shape)?);
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static("ambit"));
    let mut builder = http1::Builder::new();
    builder.max_header_size(HEAD_BYTES_MAX);
    let (mut sender, connection) = builder.handshake(TokioIo::new(io)).await.map_err(FetchError::Http)?;
    let mut exchange = pin!(async {
        let answer = sender.send_request(request).await.map_err(FetchError::Http)?;
        if answer.status() != StatusCode::OK {
            return Err(FetchError::Status(answer.status().as_u16()));
        }
        if answer.headers().contains_key(CONTENT_ENCODING) {
            return Err(FetchError::Coding);
        }
        let body = answer.into_body();
        if body.size_hint().lower() > SET_BYTES_MAX as u64 {
            return Err(CallError::TooLong(SET_BYTES_MAX).into());
        }
        Ok(calls::collect(body, SET_BYTES_MAX).await?.0)
    });
    tokio::select! {
        done = &mut exchange => done,
        // What has arrived before the end is still to be read.
        _ = connection => exchange.await,
    }
}
