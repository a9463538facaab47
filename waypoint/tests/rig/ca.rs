//! An authority that signs what it is asked to.

use std::sync::{Arc, LazyLock};

use ambit_net::tls::Credential;
use ambit_net::tls::credential::PemChain;
use ambit_net::tls::store::{Ca, Signing};
use ambit_types::Identity;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};

/// A root and its key.
pub(crate) struct TestCa {
    issuer: Issuer<'static, KeyPair>,
    root: String,
}

impl TestCa {
    /// The authority of all tests of this program.
    pub(crate) fn shared() -> Arc<Self> {
        static SHARED: LazyLock<Arc<TestCa>> = LazyLock::new(|| Arc::new(TestCa::new()));
        SHARED.clone()
    }

    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = params.self_signed(&key).expect("a root").pem();
        Self { issuer: Issuer::new(params, key), root }
    }

    fn issue(&self, identity: &Identity, key: &impl PublicKeyData) -> PemChain {
        let mut params = CertificateParams::default();
        let uri = identity.to_string().try_into().expect("ASCII");
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let now = time::OffsetDateTime::now_utc();
        params.not_before = now - time::Duration::minutes(1);
        params.not_after = now + time::Duration::hours(1);
        let leaf = params.signed_by(key, &self.issuer).expect("it signs").pem();
        PemChain { leaf, intermediates: Vec::new(), roots: self.root.clone() }
    }

    /// A credential for an identity.
    pub(crate) fn credential(&self, identity: &Identity) -> Credential {
        let key = KeyPair::generate().expect("a key");
        let chain = self.issue(identity, &key);
        Credential::new(identity, &chain, &key.serialize_der()).expect("a good certificate")
    }
}

impl Ca for TestCa {
    fn sign<'a>(&'a self, identity: &'a Identity, csr_pem: &'a str) -> Signing<'a> {
        Box::pin(async move {
            let csr = CertificateSigningRequestParams::from_pem(csr_pem).map_err(|e| e.to_string())?;
            Ok(self.issue(identity, &csr.public_key))
        })
    }
}
