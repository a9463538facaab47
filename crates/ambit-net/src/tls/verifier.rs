//! Who may be on the other side: the chain, then the SPIFFE rules, then the trust domain.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ambit_types::{Identity, Reason, TrustDomain};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, RootCertStore,
    SignatureScheme,
};

use super::error::reason_of;
use super::{PeerRefused, provider, spiffe};

/// Certificates a peer may send: a leaf and its issuers (T-42).
const CHAIN_CERTIFICATES_MAX: usize = 8;
/// Bytes of all certificates a peer may send.
const CHAIN_BYTES_MAX: usize = 64 * 1024;
/// A notBefore this far ahead is a clock that is slightly off, not a forgery (rule 9).
const NOT_BEFORE_ALLOWANCE: Duration = Duration::from_secs(60);

/// Verifies both kinds of peers against one trust bundle.
pub struct PeerVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    roots: Arc<RootCertStore>,
    trust_domain: TrustDomain,
    algorithms: WebPkiSupportedAlgorithms,
    expected: Vec<Identity>,
}

impl fmt::Debug for PeerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerVerifier")
            .field("trust_domain", &self.trust_domain)
            .field("expected", &self.expected)
            .finish_non_exhaustive()
    }
}

impl PeerVerifier {
    /// A verifier for peers of `trust_domain` whose chains end in `roots`.
    ///
    /// # Errors
    /// The library's answer when the bundle is empty.
    pub fn new(roots: Arc<RootCertStore>, trust_domain: TrustDomain) -> Result<Self, Error> {
        let chain = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
            .build()
            .map_err(|e| Error::General(format!("the trust bundle cannot be used: {e}")))?;
        let algorithms = provider().signature_verification_algorithms;
        Ok(Self { chain, roots, trust_domain, algorithms, expected: Vec::new() })
    }

    /// The same verifier for a server that must be one of `expected`.
    pub fn expecting(&self, expected: Vec<Identity>) -> Self {
        Self {
            chain: self.chain.clone(),
            roots: self.roots.clone(),
            trust_domain: self.trust_domain.clone(),
            algorithms: self.algorithms,
            expected,
        }
    }

    /// Bounds that hold before anything is parsed.
    fn check_size(leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>]) -> Result<(), PeerRefused> {
        let bytes = leaf.len() + rest.iter().map(|c| c.len()).sum::<usize>();
        if rest.len() >= CHAIN_CERTIFICATES_MAX || bytes > CHAIN_BYTES_MAX {
            let what = format!("a chain of {} certificates and {bytes} bytes", rest.len() + 1);
            return Err(PeerRefused::bad_svid(0, what));
        }
        Ok(())
    }

    /// The SPIFFE rules and the trust domain, on a chain that is known to be signed by ours.
    fn check_identity(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
    ) -> Result<Identity, PeerRefused> {
        let identity = spiffe::leaf_identity(leaf)?;
        for signer in rest {
            spiffe::check_signer(signer, &identity)?;
        }
        if *identity.trust_domain() != self.trust_domain {
            let what = format!(
                "{identity} belongs to trust domain {}, we trust {}",
                identity.trust_domain(),
                self.trust_domain
            );
            return Err(PeerRefused { reason: Reason::UntrustedPeer, rule: 11, what });
        }
        Ok(identity)
    }

    /// Verification time: a certificate that becomes valid within the allowance counts as valid now.
    fn at(leaf: &CertificateDer<'_>, now: UnixTime) -> UnixTime {
        let (not_before, _) = spiffe::validity(leaf).unwrap_or_default();
        let ahead = not_before.saturating_sub(now.as_secs());
        if ahead > 0 && ahead <= NOT_BEFORE_ALLOWANCE.as_secs() {
            UnixTime::since_unix_epoch(Duration::from_secs(not_before))
        } else {
            now
        }
    }
}

impl ClientCertVerifier for PeerVerifier {
    /// No hints: a stranger learns nothing about whom we trust.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Self::check_size(leaf, rest)?;
        let verified = self
            .chain
            .verify_client_cert(leaf, rest, Self::at(leaf, now))
            .map_err(|error| named(error, leaf, rest))?;
        self.check_identity(leaf, rest)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for PeerVerifier {
    /// Names mean nothing here; the certificate must be one of the expected identities.
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Self::check_size(leaf, rest)?;
        let at = Self::at(leaf, now);
        rustls::server::ParsedCertificate::try_from(leaf)
            .and_then(|parsed| {
                let (roots, algorithms) = (&self.roots, self.algorithms.all);
                rustls::client::verify_server_cert_signed_by_trust_anchor(
                    &parsed, roots, rest, at, algorithms,
                )
            })
            .map_err(|error| named(error, leaf, rest))?;
        let identity = self.check_identity(leaf, rest)?;
        if !self.expected.contains(&identity) {
            let expected: Vec<String> = self.expected.iter().map(ToString::to_string).collect();
            let what = format!("the peer is {identity}, expected {}", expected.join(" or "));
            let refused = PeerRefused { reason: Reason::IdentityMismatch, rule: 11, what };
            return Err(refused.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// A form error of the TLS library under the number of the rule it breaks; 0 where no rule of SPIFFE says it.
///
/// Who signed and until when it is valid keep their own codes. The certificate stays refused either way.
fn named(error: Error, leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>]) -> Error {
    if reason_of(&error) != Reason::BadSvid {
        return error;
    }
    let rules = || {
        let identity = spiffe::leaf_identity(leaf)?;
        rest.iter().try_for_each(|signer| spiffe::check_signer(signer, &identity))
    };
    match rules() {
        Err(refused) => refused.into(),
        Ok(()) => PeerRefused::bad_svid(0, error.to_string()).into(),
    }
}

/// The identity of a peer whose certificates were verified in the handshake.
///
/// # Errors
/// The library's error for a peer without certificate.
pub fn verified_identity(certificates: Option<&[CertificateDer<'_>]>) -> Result<Identity, Error> {
    let leaf = certificates.and_then(|c| c.first()).ok_or(Error::NoCertificatesPresented)?;
    spiffe::leaf_identity(leaf).map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))
}
