//! One batch to the collector, by gRPC or by HTTP.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ambit_runtime::tasks;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, USER_AGENT};
use http::uri::PathAndQuery;
use http::{Method, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::metadata::MetadataMap;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, client::Grpc};

use super::ExportError;
use crate::observe::otel::{Protocol, Target};
use crate::observe::otlp::{ExportRequest, ExportResponse};

/// First pause before a batch is sent again; each next one is twice as long, until its time is over.
const PAUSE_FIRST: Duration = Duration::from_millis(250);

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;

static PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Who sends.
pub(super) enum Client {
    /// Over one channel that connects by itself.
    Grpc(Grpc<Channel>, HeaderMap),
    /// Over a connection for each batch.
    Http(Http),
}

/// Where batches go by HTTP.
pub(super) struct Http {
    host: String,
    port: u16,
    authority: HeaderValue,
    path: PathAndQuery,
    headers: HeaderMap,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// Why a batch was not taken.
struct Failure {
    /// Whether it may be taken later.
    is_temporary: bool,
    text: String,
}

impl Failure {
    fn temporary(text: impl ToString) -> Self {
        Self { is_temporary: true, text: text.to_string() }
    }

    fn lasting(text: impl ToString) -> Self {
        Self { is_temporary: false, text: text.to_string() }
    }
}

impl Client {
    /// A client of a collector; connects only when there is something to send.
    pub(super) fn new(target: &Target) -> Result<Self, ExportError> {
        let is_tls = target.url.scheme_str() == Some("https");
        let roots = target.roots.as_ref().filter(|_| is_tls);
        let pem = roots.map(|path| {
            std::fs::read(path).map_err(|cause| ExportError::Roots { path: path.clone(), cause })
        });
        let pem = pem.transpose()?;
        let roots = pem.as_ref().map(|pem| trusted(target, pem)).transpose()?;
        match target.protocol {
            Protocol::Grpc => {
                let endpoint = Endpoint::from(target.url.clone()).connect_timeout(CONNECT_TIMEOUT);
                let endpoint = match pem {
                    Some(pem) => endpoint
                        .tls_config(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)))?,
                    None => endpoint,
                };
                Ok(Self::Grpc(Grpc::new(endpoint.connect_lazy()), target.headers.clone()))
            }
            Protocol::Http => Ok(Self::Http(Http::new(target, roots)?)),
        }
    }

    /// Sends a batch, again and again while that may help; whoever calls bounds the time. Answers with how many
    /// spans were rejected.
    pub(super) async fn deliver(&mut self, request: &ExportRequest) -> Result<usize, String> {
        let mut pause = PAUSE_FIRST;
        loop {
            let sent = match self {
                Self::Grpc(client, headers) => grpc(client, headers, request).await,
                Self::Http(client) => client.send(request).await,
            };
            match sent {
                Ok(answer) => {
                    let rejected = answer.partial_success.map_or(0, |partial| partial.rejected_spans);
                    return Ok(usize::try_from(rejected).unwrap_or(0));
                }
                Err(failure) if failure.is_temporary => {
                    tracing::debug!(error = failure.text, "a batch of spans is sent again");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Err(failure) => return Err(failure.text),
            }
        }
    }
}

async fn grpc(
    client: &mut Grpc<Channel>,
    headers: &HeaderMap,
    request: &ExportRequest,
) -> Result<ExportResponse, Failure> {
    client.ready().await.map_err(Failure::temporary)?;
    let mut request = tonic::Request::new(request.clone());
    *request.metadata_mut() = MetadataMap::from_headers(headers.clone());
    let codec = tonic_prost::ProstCodec::<ExportRequest, ExportResponse>::default();
    match client.unary(request, PathAndQuery::from_static(PATH), codec).await {
        Ok(answer) => Ok(answer.into_inner()),
        Err(status) => {
            let text = format!("gRPC status {:?}: {}", status.code(), status.message());
            // As the specification of OTLP lists them.
            let is_temporary = matches!(
                status.code(),
                Code::Cancelled
                    | Code::DeadlineExceeded
                    | Code::Aborted
                    | Code::OutOfRange
                    | Code::Unavailable
                    | Code::DataLoss
            );
            Err(Failure { is_temporary, text })
        }
    }
}

/// A connection, with TLS or without.
trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

impl Http {
    fn new(target: &Target, roots: Option<RootCertStore>) -> Result<Self, ExportError> {
        let url = &target.url;
        let host = url.host().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = roots.map(|roots| tls(roots, &bare)).transpose()?;
        let default = if tls.is_some() { 443 } else { 80 };
        let port = url.port_u16().unwrap_or(default);
        Ok(Self {
            authority: authority(url),
            path: url.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")),
            host: bare,
            port,
            headers: target.headers.clone(),
            tls,
        })
    }

    async fn send(&self, request: &ExportRequest) -> Result<ExportResponse, Failure> {
        let io = tokio::time::timeout(CONNECT_TIMEOUT, self.connect()).await;
        let io = io.map_err(|_| Failure::temporary("no connection in time"))?.map_err(Failure::temporary)?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(io)).await.map_err(Failure::temporary)?;
        // It ends with the sender; what it failed of shows there.
        tasks::spawn("trace-export-http", async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to the collector ended");
            }
        });
        let answer =
            sender.send_request(self.request(request.encode_to_vec())).await.map_err(Failure::temporary)?;
        let status = answer.status();
        if !status.is_success() {
            let failure = if matches!(status.as_u16(), 429 | 502 | 503 | 504) {
                Failure::temporary
            } else {
                Failure::lasting
            };
            return Err(failure(format!("HTTP status {}", status.as_u16())));
        }
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        // The spans were taken, whatever is said about it.
        Ok(body.ok().and_then(|body| ExportResponse::decode(body.to_bytes()).ok()).unwrap_or_default())
    }

    fn request(&self, body: Vec<u8>) -> Request<Full<Bytes>> {
        let length = HeaderValue::from(body.len());
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from(self.path.clone());
        let headers = request.headers_mut();
        headers.extend(self.headers.clone());
        headers.insert(HOST, self.authority.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        headers.insert(CONTENT_LENGTH, length);
        headers.insert(USER_AGENT, HeaderValue::from_static("ambit-waypoint"));
        request
    }

    async fn connect(&self) -> io::Result<Box<dyn Io>> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
        match &self.tls {
            None => Ok(Box::new(tcp)),
            Some((connector, name)) => Ok(Box::new(connector.connect(name.clone(), tcp).await?)),
        }
    }
}

fn authority(url: &Uri) -> HeaderValue {
    let text = url.authority().map_or("", |authority| authority.as_str());
    // What a URL has for authority a header can have too.
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// The certificates of a file.
fn trusted(target: &Target, pem: &[u8]) -> Result<RootCertStore, ExportError> {
    let path = target.roots.clone().unwrap_or_default();
    let mut roots = RootCertStore::empty();
    for der in CertificateDer::pem_slice_iter(pem) {
        roots.add(der.map_err(|_| ExportError::NoRoots { path: path.clone() })?)?;
    }
    if roots.is_empty() { Err(ExportError::NoRoots { path }) } else { Ok(roots) }
}

fn tls(roots: RootCertStore, host: &str) -> Result<(TlsConnector, ServerName<'static>), ExportError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(|_| {
        rustls::Error::General("the collector's host is no name that a certificate has".into())
    })?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}
