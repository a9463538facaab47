//! Certificates with their keys out of the store and back into it, so that they can outlive the process.
//!
//! Where they are kept, and how they are protected there, is the caller's business.

use std::fmt;
use std::sync::Arc;

use ambit_runtime::clock;
use ambit_types::Identity;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::{CertificateStore, valid};
use crate::tls::Credential;
use crate::tls::credential::CredentialError;

/// One identity's certificate, in DER. Never shows its key.
pub struct Exported {
    /// Whose.
    pub identity: Identity,
    /// Leaf and intermediates.
    pub chain: Vec<Vec<u8>>,
    /// The trust bundle.
    pub roots: Vec<Vec<u8>>,
    /// The key, PKCS#8; wiped when dropped.
    pub key: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Exported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exported").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// Why a certificate is not taken back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// It ran out meanwhile.
    #[error("it ran out {seconds_ago} s ago")]
    Expired {
        /// How long ago.
        seconds_ago: u64,
    },
    /// It is none, or somebody else's.
    #[error("it cannot be used")]
    Unusable(#[from] CredentialError),
}

impl CertificateStore {
    /// Every certificate that is valid now, with its key.
    pub fn export(&self) -> Vec<Exported> {
        let now = clock::unix_seconds();
        let known = self.list().into_iter().filter_map(|known| known.credential);
        known
            .filter(|credential| credential.not_after() > now)
            .map(|credential| exported(&credential))
            .collect()
    }

    /// Puts a certificate to use until the CA gives a newer one, which is asked for at once.
    ///
    /// One that is there already and valid stays, and so does a trust bundle that the CA has sent meanwhile.
    ///
    /// # Errors
    /// [`ImportError`]; an expired certificate is never put to use.
    pub fn import(&self, exported: Exported) -> Result<(), ImportError> {
        let der = |list: Vec<Vec<u8>>| list.into_iter().map(CertificateDer::from).collect::<Vec<_>>();
        let Exported { identity, chain, roots, key } = exported;
        let credential = Credential::from_der(&identity, der(chain), der(roots), &key)?;
        let now = clock::unix_seconds();
        if credential.not_after() <= now {
            return Err(ImportError::Expired { seconds_ago: now - credential.not_after() });
        }
        // Locked to the end, so that no bundle that comes meanwhile is missed.
        let bundles = self.bundles();
        let credential = match bundles.in_force(identity.trust_domain()) {
            Some(roots) if credential.roots() != roots => credential.trusting(roots.to_vec())?,
            _ => credential,
        };
        let entry = self.entry(&identity, false);
        let credential = credential.kept_by(&entry.doubts);
        entry.state.send_modify(|state| {
            if valid(state).is_none() {
                state.credential = Some(Arc::new(credential));
            }
        });
        Ok(())
    }

    /// Told whenever a certificate was received from the CA.
    pub fn received(&self) -> watch::Receiver<u64> {
        self.received.subscribe()
    }
}

fn exported(credential: &Credential) -> Exported {
    let der = |list: &[CertificateDer<'_>]| list.iter().map(|one| one.to_vec()).collect();
    Exported {
        identity: credential.identity().clone(),
        chain: der(credential.chain()),
        roots: der(credential.roots()),
        key: Zeroizing::new(credential.key_der().to_vec()),
    }
}
