//! Why a handshake failed, in the words of the reason codes.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ambit_types::Reason;
use rustls::{CertificateError, OtherError};

/// A peer's certificate was refused by a rule of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct PeerRefused {
    /// The code that stands for it.
    pub reason: Reason,
    /// Number of the rule in the SPIFFE list of the documentation; 0 where none applies.
    pub rule: u8,
    /// What was found.
    pub what: String,
}

impl PeerRefused {
    /// A breach of SPIFFE rule `rule`.
    pub fn bad_svid(rule: u8, what: impl Into<String>) -> Self {
        Self { reason: Reason::BadSvid, rule, what: format!("SPIFFE rule {rule}: {}", what.into()) }
    }
}

impl From<PeerRefused> for rustls::Error {
    fn from(refused: PeerRefused) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(std::sync::Arc::new(refused))))
    }
}

/// A handshake that did not lead to a tunnel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The peer did not finish in time.
    #[error("TLS handshake with {peer} not finished within {waited:?}")]
    Timeout {
        /// The peer.
        peer: SocketAddr,
        /// How long we waited.
        waited: Duration,
    },
    /// The peer's certificate breaks a rule of ours.
    #[error("the certificate of {peer} is refused: {refused}")]
    Refused {
        /// The peer.
        peer: SocketAddr,
        /// The rule, and what was found.
        refused: PeerRefused,
    },
    /// TLS failed; the cause says how.
    #[error("TLS handshake with {peer} failed")]
    Handshake {
        /// The peer.
        peer: SocketAddr,
        /// The cause.
        #[source]
        cause: io::Error,
    },
    /// The peer speaks something else inside TLS.
    #[error("{peer} did not choose ALPN \"h2\"")]
    Alpn {
        /// The peer.
        peer: SocketAddr,
    },
    /// A valid peer, but not the one expected.
    #[error("{peer} is {found}, expected {expected}")]
    Identity {
        /// The peer.
        peer: SocketAddr,
        /// Who it is.
        found: String,
        /// Who it should be.
        expected: String,
    },
    /// Our own certificate or key cannot be used.
    #[error("preparing TLS with our certificate")]
    Local(#[source] rustls::Error),
}

impl TlsError {
    /// A handshake with `peer` that failed.
    pub fn handshake(peer: SocketAddr, cause: io::Error) -> Self {
        match of_tls(&cause).and_then(refusal) {
            Some(refused) => Self::Refused { peer, refused: refused.clone() },
            None => Self::Handshake { peer, cause },
        }
    }

    /// The code of this failure.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Refused { refused, .. } => refused.reason,
            Self::Handshake { cause, .. } => {
                // Where the peer hung up or the link broke there is no alert, so nothing better is known.
                of_tls(cause).map_or(Reason::TlsHandshakeFailed, reason_of)
            }
            Self::Identity { .. } => Reason::IdentityMismatch,
            Self::Timeout { .. } | Self::Alpn { .. } => Reason::TlsHandshakeFailed,
            Self::Local(_) => Reason::NoCertificate,
        }
    }
}

impl TlsError {
    /// Whether the peer's chain may end in a root that our bundle lacks.
    ///
    /// A new root often has the name of the old one; then what it signed looks badly signed.
    pub fn is_unknown_root(&self) -> bool {
        let Self::Handshake { cause, .. } = self else { return false };
        matches!(
            of_tls(cause),
            Some(rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature
            ))
        )
    }
}

impl TlsError {
    /// Number of the SPIFFE rule the peer's certificate breaks, if one of ours refused it.
    pub fn rule(&self) -> Option<u8> {
        match self {
            Self::Refused { refused, .. } => Some(refused.rule),
            _ => None,
        }
    }
}

/// The TLS library's error inside the one of the stream.
fn of_tls(cause: &io::Error) -> Option<&rustls::Error> {
    cause.get_ref()?.downcast_ref()
}

/// The refusal of ours inside the TLS library's error.
fn refusal(error: &rustls::Error) -> Option<&PeerRefused> {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => inner.downcast_ref(),
        _ => None,
    }
}

/// The code of an error of the TLS library.
pub fn reason_of(error: &rustls::Error) -> Reason {
    let rustls::Error::InvalidCertificate(certificate) = error else { return Reason::TlsHandshakeFailed };
    match certificate {
        CertificateError::Other(_) => refusal(error).map_or(Reason::BadSvid, |refused| refused.reason),
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => Reason::CertificateOutsideValidity,
        CertificateError::UnknownIssuer | CertificateError::BadSignature => Reason::UntrustedPeer,
        CertificateError::Revoked => Reason::CertificateRevoked,
        _ => Reason::BadSvid,
    }
}
