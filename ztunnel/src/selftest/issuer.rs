//! The self-test's own authority: made at start, kept in memory, trusted by nothing but the self-test's server.
//!
//! Its certificates are good for a long time, so that a clock that jumps fails nothing here; the one that has run out
//! was never good while this program existed.

use ambit_net::tls::Credential;
use ambit_net::tls::credential::PemChain;
use ambit_net::tls::csr;
use ambit_net::tls::store::{Ca, Signing};
use ambit_types::Identity;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, date_time_ymd,
};

use crate::admit::describe;

/// Until when a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// For longer than the process runs.
    Good,
    /// It ran out in 2001.
    RunOut,
}

/// The authority.
pub(super) struct Issuer {
    issuer: rcgen::Issuer<'static, KeyPair>,
    roots: String,
}

impl std::fmt::Debug for Issuer {
    /// Never shows the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Issuer")
    }
}

impl Issuer {
    /// A fresh authority.
    ///
    /// # Errors
    /// The library's answer.
    pub(super) fn new() -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "Ambit self-test");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let roots = params.self_signed(&key)?.pem();
        Ok(Self { issuer: rcgen::Issuer::new(params, key), roots })
    }

    /// A fresh certificate and key for `identity`.
    ///
    /// # Errors
    /// What went wrong, for people.
    pub(super) fn credential(&self, identity: &Identity, life: Life) -> Result<Credential, String> {
        let csr = csr::new(identity).map_err(|error| describe(&error))?;
        let chain = self.certify(identity, &csr.pem, life).map_err(|error| describe(&error))?;
        Credential::new(identity, &chain, &csr.key_der).map_err(|error| describe(&error))
    }

    fn certify(&self, identity: &Identity, csr_pem: &str, life: Life) -> Result<PemChain, rcgen::Error> {
        let request = CertificateSigningRequestParams::from_pem(csr_pem)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into()?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_after = match life {
            Life::Good => date_time_ymd(2200, 1, 1),
            Life::RunOut => date_time_ymd(2001, 1, 1),
        };
        let leaf = params.signed_by(&request.public_key, &self.issuer)?.pem();
        Ok(PemChain { leaf, intermediates: Vec::new(), roots: self.roots.clone() })
    }
}

impl Ca for Issuer {
    fn sign<'a>(&'a self, identity: &'a Identity, csr_pem: &'a str) -> Signing<'a> {
        let signed = self.certify(identity, csr_pem, Life::Good).map_err(|error| describe(&error));
        Box::pin(std::future::ready(signed))
    }
}
