//! A fresh key and the request to certify it.

use ambit_types::Identity;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use zeroize::Zeroizing;

/// The request could not be made.
#[derive(Debug, thiserror::Error)]
#[error("making a certificate request for {identity}")]
pub struct CsrError {
    /// For whom.
    pub identity: Identity,
    /// The library's answer.
    #[source]
    pub cause: rcgen::Error,
}

/// A request and the key that belongs to it.
pub struct Csr {
    /// PKCS#10 in PEM: empty subject, one URI name.
    pub pem: String,
    /// The ECDSA P-256 key in PKCS#8 DER; wiped when dropped.
    pub key_der: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Csr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Csr")
    }
}

/// Makes a fresh ECDSA P-256 key and a request for `identity`.
///
/// # Errors
/// [`CsrError`].
pub fn new(identity: &Identity) -> Result<Csr, CsrError> {
    let fail = |cause| CsrError { identity: identity.clone(), cause };
    // The library keeps the key in PKCS#8 as well and does not wipe it by itself.
    let key = Zeroizing::new(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(fail)?);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let uri = identity.to_string().try_into().map_err(fail)?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    let pem = params.serialize_request(&*key).and_then(|request| request.pem()).map_err(fail)?;
    Ok(Csr { pem, key_der: Zeroizing::new(key.serialize_der()) })
}
