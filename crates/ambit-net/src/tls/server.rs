//! Accepting a peer's TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ambit_types::Identity;
use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::ahead::ReadAhead;
use super::verifier::{PeerVerifier, verified_identity};
use super::{ALPN_H2, Credential, SEALED_BYTES_MAX, TlsError, Wall, provider, spiffe};

/// Settings for the accepting side of a tunnel: client certificate required, no tickets, no early data.
///
/// # Errors
/// The library's answer to an impossible combination.
pub fn settings(key: &Arc<CertifiedKey>, verifier: Arc<PeerVerifier>) -> Result<ServerConfig, rustls::Error> {
    let mut settings = ServerConfig::builder_with_details(provider(), Arc::new(Wall))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key.clone())));
    settings.alpn_protocols = vec![ALPN_H2.to_vec()];
    settings.send_tls13_tickets = 0;
    settings.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(settings)
}

/// A peer that proved who it is.
#[derive(Debug)]
pub struct Accepted {
    /// The encrypted stream.
    pub stream: TlsStream<ReadAhead>,
    /// Who the peer is.
    pub peer: Identity,
    /// Last second of the peer's certificate since 1970.
    pub peer_not_after: u64,
}

/// Takes a peer's handshake within `timeout`.
///
/// # Errors
/// [`TlsError`]; the peer has been sent an alert where TLS allows one.
pub async fn accept(
    credential: &Credential,
    tcp: TcpStream,
    peer: SocketAddr,
    timeout: Duration,
) -> Result<Accepted, TlsError> {
    let handshake = TlsAcceptor::from(credential.server_settings()).accept(ReadAhead::new(tcp));
    let mut stream = tokio::time::timeout(timeout, handshake)
        .await
        .map_err(|_| TlsError::Timeout { peer, waited: timeout })?
        .map_err(|cause| credential.failed(peer, cause))?;
    let (_, connection) = stream.get_mut();
    connection.set_buffer_limit(Some(SEALED_BYTES_MAX));
    if connection.alpn_protocol() != Some(ALPN_H2) {
        return Err(TlsError::Alpn { peer });
    }
    let certificates = connection.peer_certificates();
    let identity = verified_identity(certificates).map_err(TlsError::Local)?;
    let leaf = certificates
        .and_then(|c| c.first())
        .ok_or(TlsError::Local(rustls::Error::NoCertificatesPresented))?;
    let (_, peer_not_after) = spiffe::validity(leaf).unwrap_or_default();
    Ok(Accepted { stream, peer: identity, peer_not_after })
}
