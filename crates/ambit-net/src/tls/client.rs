//! Reaching a peer's TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ambit_types::Identity;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::ahead::ReadAhead;
use super::verifier::{PeerVerifier, verified_identity};
use super::{ALPN_H2, Credential, SEALED_BYTES_MAX, TlsError, Wall, provider, spiffe};

/// Settings for the opening side of a tunnel: our certificate, no server name, no resumption.
///
/// # Errors
/// The library's answer to an impossible combination.
pub fn settings(key: &Arc<CertifiedKey>, verifier: PeerVerifier) -> Result<ClientConfig, rustls::Error> {
    let mut settings = ClientConfig::builder_with_details(provider(), Arc::new(Wall))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key.clone())));
    settings.alpn_protocols = vec![ALPN_H2.to_vec()];
    settings.resumption = Resumption::disabled();
    settings.enable_sni = false;
    Ok(settings)
}

/// A peer that proved to be one of the expected.
#[derive(Debug)]
pub struct Connected<S = TlsStream<ReadAhead>> {
    /// The encrypted stream.
    pub stream: S,
    /// Who the peer is.
    pub peer: Identity,
    /// Last second of the peer's certificate since 1970.
    pub peer_not_after: u64,
}

impl<S> Connected<S> {
    /// The same peer behind what `wrap` makes of its stream.
    pub fn map<T>(self, wrap: impl FnOnce(S) -> T) -> Connected<T> {
        Connected { stream: wrap(self.stream), peer: self.peer, peer_not_after: self.peer_not_after }
    }
}

/// Performs the handshake within `timeout`.
///
/// # Errors
/// [`TlsError`].
pub async fn connect(
    credential: &Credential,
    expected: &[Identity],
    tcp: TcpStream,
    peer: SocketAddr,
    timeout: Duration,
) -> Result<Connected, TlsError> {
    let settings = credential.client_settings(expected).map_err(TlsError::Local)?;
    // The name is never sent nor compared; the library only asks for one.
    let handshake = TlsConnector::from(settings).connect(ServerName::from(peer.ip()), ReadAhead::new(tcp));
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
    Ok(Connected { stream, peer: identity, peer_not_after })
}
