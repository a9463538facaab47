//! What one identity proves itself with: its chain, its key, and the bundle it trusts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::{fmt, io};

use ambit_types::Identity;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::sync::Notify;
use tracing::warn;
use zeroize::Zeroizing;

use super::verifier::PeerVerifier;
use super::{TlsError, client, server, spiffe};

/// Lists of expected peers whose settings one credential keeps; some kilobytes each.
const CLIENT_SETTINGS_MAX: usize = 512;

/// Why a certificate response cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// A part is no PEM or no certificate.
    #[error("the {part} of the certificate response is not usable: {what}")]
    Malformed {
        /// Which part.
        part: &'static str,
        /// What is wrong.
        what: String,
    },
    /// The certificate is somebody else's.
    #[error("the certificate is for {found}, we asked for {asked}")]
    Identity {
        /// What we asked for.
        asked: Identity,
        /// What came.
        found: Identity,
    },
    /// The TLS library refuses the material.
    #[error("building TLS settings of the certificate")]
    Tls(#[from] rustls::Error),
}

/// What a CA answers, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PemChain {
    /// The certificate itself.
    pub leaf: String,
    /// Its issuers up to, not including, a root.
    pub intermediates: Vec<String>,
    /// The trust bundle: one or more certificates.
    pub roots: String,
}

/// An identity's certificate, ready for both roles. Settings are built once, for every list of expected peers (P2).
pub struct Credential {
    identity: Identity,
    key: Arc<CertifiedKey>,
    /// PKCS#8, kept so that the credential can be taken along; wiped when dropped.
    key_der: Zeroizing<Vec<u8>>,
    roots: Vec<CertificateDer<'static>>,
    verifier: Arc<PeerVerifier>,
    server: Arc<ServerConfig>,
    /// By expected peers.
    client: Mutex<BTreeMap<Vec<Identity>, Arc<ClientConfig>>>,
    not_before: u64,
    not_after: u64,
    /// Told when a peer shows a root that the bundle lacks; a newer bundle may have it.
    doubts: Arc<Notify>,
}

impl fmt::Debug for Credential {
    /// Never shows the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("identity", &self.identity)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl Credential {
    /// Makes a credential of the CA's answer to a request for `asked` with the key in `key_der` (PKCS#8).
    ///
    /// # Errors
    /// [`CredentialError`] if the answer is malformed or for somebody else.
    pub fn new(asked: &Identity, chain: &PemChain, key_der: &[u8]) -> Result<Self, CredentialError> {
        let issuers = chain.intermediates.iter().map(String::as_str);
        let certificates = std::iter::once(chain.leaf.as_str())
            .chain(issuers)
            .map(|pem| one_certificate("chain", pem))
            .collect::<Result<Vec<_>, _>>()?;
        let roots = certificates_of("roots", &chain.roots)?;
        Self::from_der(asked, certificates, roots, key_der)
    }

    /// Makes a credential of its parts in DER.
    ///
    /// # Errors
    /// As [`Credential::new`].
    pub fn from_der(
        asked: &Identity,
        chain: Vec<CertificateDer<'static>>,
        roots: Vec<CertificateDer<'static>>,
        key_der: &[u8],
    ) -> Result<Self, CredentialError> {
        let malformed = |part, what: String| CredentialError::Malformed { part, what };
        let leaf = chain.first().ok_or_else(|| malformed("chain", "it is empty".to_owned()))?;
        let found = spiffe::leaf_identity(leaf).map_err(|e| malformed("leaf", e.to_string()))?;
        if found != *asked {
            return Err(CredentialError::Identity { asked: asked.clone(), found });
        }
        let (not_before, not_after) = spiffe::validity(leaf).map_err(|e| malformed("leaf", e.to_string()))?;
        let parsed = PrivateKeyDer::try_from(key_der).map_err(|e| malformed("key", e.to_owned()))?;
        let key = Arc::new(CertifiedKey::new(chain, any_supported_type(&parsed)?));
        let key_der = Zeroizing::new(key_der.to_vec());
        let (roots, store) = usable(roots)?;
        let verifier = Arc::new(PeerVerifier::new(Arc::new(store), found.trust_domain().clone())?);
        let server = Arc::new(server::settings(&key, verifier.clone())?);
        Ok(Self {
            identity: found,
            key,
            key_der,
            roots,
            verifier,
            server,
            client: Mutex::default(),
            not_before,
            not_after,
            doubts: Arc::default(),
        })
    }

    /// The same certificate and key with another trust bundle.
    ///
    /// # Errors
    /// [`CredentialError`] if no root of it can be used.
    pub fn trusting(&self, roots: Vec<CertificateDer<'static>>) -> Result<Self, CredentialError> {
        let (roots, store) = usable(roots)?;
        let verifier = Arc::new(PeerVerifier::new(Arc::new(store), self.identity.trust_domain().clone())?);
        let server = Arc::new(server::settings(&self.key, verifier.clone())?);
        Ok(Self {
            identity: self.identity.clone(),
            key: self.key.clone(),
            key_der: self.key_der.clone(),
            roots,
            verifier,
            server,
            // Settings that were kept check peers against the other bundle.
            client: Mutex::default(),
            not_before: self.not_before,
            not_after: self.not_after,
            doubts: self.doubts.clone(),
        })
    }

    /// A handshake with this credential that failed; tells the keeper if another bundle might have helped.
    pub(super) fn failed(&self, peer: SocketAddr, cause: io::Error) -> TlsError {
        let error = TlsError::handshake(peer, cause);
        if error.is_unknown_root() {
            self.doubts.notify_one();
        }
        error
    }

    /// The doubts go to `keeper` from now on.
    pub(super) fn kept_by(mut self, keeper: &Arc<Notify>) -> Self {
        self.doubts = keeper.clone();
        self
    }

    /// Who it stands for.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// First second of validity since 1970.
    pub fn not_before(&self) -> u64 {
        self.not_before
    }

    /// Last second of validity since 1970.
    pub fn not_after(&self) -> u64 {
        self.not_after
    }

    /// Leaf and intermediates.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.key.cert
    }

    /// The trust bundle that came with it.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// The private key, PKCS#8 DER.
    pub(super) fn key_der(&self) -> &[u8] {
        &self.key_der
    }

    /// TLS settings to accept peers with.
    pub fn server_settings(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    /// TLS settings to reach a peer that must be one of `expected`.
    ///
    /// # Errors
    /// The library's answer; none is known for a credential that was built.
    pub fn client_settings(&self, expected: &[Identity]) -> Result<Arc<ClientConfig>, rustls::Error> {
        let mut known = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(settings) = known.get(expected) {
            return Ok(settings.clone());
        }
        let verifier = self.verifier.expecting(expected.to_vec());
        let settings = Arc::new(client::settings(&self.key, verifier)?);
        // Who reaches more kinds of peers than fit begins anew; that costs what each connection cost without this.
        if known.len() >= CLIENT_SETTINGS_MAX {
            known.clear();
        }
        known.insert(expected.to_vec(), settings.clone());
        Ok(settings)
    }
}

/// The roots that peers can be checked against; one that cannot be read is left out, and the others count.
fn usable(
    roots: Vec<CertificateDer<'static>>,
) -> Result<(Vec<CertificateDer<'static>>, RootCertStore), CredentialError> {
    let mut store = RootCertStore::empty();
    let mut good = Vec::with_capacity(roots.len());
    for (place, root) in roots.into_iter().enumerate() {
        match store.add(root.clone()) {
            Ok(()) => good.push(root),
            Err(error) => {
                warn!(place, %error, "a root of the trust bundle is no certificate and is left out")
            }
        }
    }
    if good.is_empty() {
        let what = "no certificate in it can be used".to_owned();
        return Err(CredentialError::Malformed { part: "roots", what });
    }
    Ok((good, store))
}

fn one_certificate(part: &'static str, pem: &str) -> Result<CertificateDer<'static>, CredentialError> {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|e| CredentialError::Malformed { part, what: e.to_string() })
}

fn certificates_of(part: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, CredentialError> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| CredentialError::Malformed { part, what: e.to_string() })?;
    if all.is_empty() {
        return Err(CredentialError::Malformed { part, what: "no certificate in it".to_owned() });
    }
    Ok(all)
}
