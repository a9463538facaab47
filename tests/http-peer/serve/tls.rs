//! TLS of a server that nobody trusts: a certificate of its own making, for tests that pass TLS through.

use std::sync::Arc;

use anyhow::Context as _;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

/// Accepts TLS for a name, HTTP/2 or HTTP/1.1.
///
/// # Errors
/// If the name cannot stand in a certificate.
pub(crate) fn acceptor(name: &str) -> anyhow::Result<TlsAcceptor> {
    let made = rcgen::generate_simple_self_signed([name.to_owned()])
        .with_context(|| format!("making a certificate for {name}"))?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .context("protocol versions")?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .context("our own certificate")?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
