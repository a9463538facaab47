//! What is sealed: the responses that lead to what is known, and the certificates of the node's own workloads.
//!
//! The responses are discovery's own messages, so that a start reads them with the decoder that read them first.

use std::fmt;

use ambit_net::tls::store::Exported;
use ambit_types::{Identity, IdentityError};
use ambit_xds::proto::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use bytes::Bytes;
use prost::Message;
use zeroize::{Zeroize as _, Zeroizing};

use super::refused::Refused;

#[cfg(test)]
mod tests;

/// A node's state.
#[derive(Clone, PartialEq, Message)]
pub struct Content {
    /// When the control plane was last heard, seconds since 1970.
    #[prost(uint64, tag = "1")]
    pub heard_at: u64,
    /// Applied in this order to nothing, they yield what was in force, refusals included.
    #[prost(message, repeated, tag = "2")]
    pub responses: Vec<DeltaDiscoveryResponse>,
    /// Certificates with their keys; empty if the setting says so.
    #[prost(message, repeated, tag = "3")]
    pub credentials: Vec<KeptCredential>,
}

/// One identity's certificate with its key, which is wiped when dropped and never shown.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub struct KeptCredential {
    /// SPIFFE ID.
    #[prost(string, tag = "1")]
    identity: String,
    /// Leaf and intermediates, DER.
    #[prost(bytes = "vec", repeated, tag = "2")]
    chain: Vec<Vec<u8>>,
    /// Trust bundle, DER.
    #[prost(bytes = "vec", repeated, tag = "3")]
    roots: Vec<Vec<u8>>,
    /// PKCS#8 DER.
    #[prost(bytes = "vec", tag = "4")]
    key: Vec<u8>,
}

impl Drop for KeptCredential {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl fmt::Debug for KeptCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptCredential").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl From<Exported> for KeptCredential {
    fn from(mut exported: Exported) -> Self {
        Self {
            identity: exported.identity.to_string(),
            chain: std::mem::take(&mut exported.chain),
            roots: std::mem::take(&mut exported.roots),
            key: std::mem::take(&mut *exported.key),
        }
    }
}

impl KeptCredential {
    /// As the certificate store takes it back.
    ///
    /// # Errors
    /// [`IdentityError`] if the identity is none.
    pub fn exported(mut self) -> Result<Exported, IdentityError> {
        Ok(Exported {
            identity: Identity::parse(&self.identity)?,
            chain: std::mem::take(&mut self.chain),
            roots: std::mem::take(&mut self.roots),
            key: Zeroizing::new(std::mem::take(&mut self.key)),
        })
    }
}

impl Content {
    /// Reads what a file held and demands that it is not older than `age_max` seconds at `now`.
    ///
    /// # Errors
    /// [`Refused::Content`], [`Refused::TooOld`].
    pub fn read(plain: Zeroizing<Vec<u8>>, now: u64, age_max: u64) -> Result<Self, Refused> {
        // Owned by the buffer that wipes itself: the decoder takes slices of it and makes no copies of its own.
        let content = Self::decode(Bytes::from_owner(plain))
            .map_err(|error| Refused::Content { what: error.to_string() })?;
        for kind in ambit_xds::Kind::ALL {
            // Policies without workloads are of no use, and workloads without policies are dangerous.
            if !content.responses.iter().any(|response| response.type_url == kind.url()) {
                return Err(Refused::Content { what: format!("nothing is said of {kind}") });
            }
        }
        let age = now.saturating_sub(content.heard_at);
        if age > age_max { Err(Refused::TooOld { age, max: age_max }) } else { Ok(content) }
    }

    /// How many resources it holds.
    pub fn resources(&self) -> usize {
        self.responses.iter().map(|response| response.resources.len()).sum()
    }
}
