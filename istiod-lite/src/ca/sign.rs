//! Making certificates: everything in them but the key is ours.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ambit_types::Identity;
use aws_lc_rs::rand;
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;

use super::rotation::State;

/// How far notBefore lies in the past at most, for peers whose clocks are behind; peers allow no more.
const BACKDATE_MAX: Duration = Duration::from_secs(60);
/// A short-lived certificate is backdated by this part of its life only, or half of it would be over at once.
const BACKDATE_PART: u32 = 10;

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// The authority itself has run out.
    #[error("the certificate authority ran out at {not_after} s since 1970; start a new one")]
    AuthorityExpired {
        /// When.
        not_after: u64,
    },
    /// The library refused.
    #[error("making the certificate")]
    Make(#[from] rcgen::Error),
}

/// A certificate between leaves and a root, in both forms.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) pem: String,
    pub(super) der: CertificateDer<'static>,
}

/// The authority that signs: its key, the chain above leaves, and the trust bundle.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The certificate that signs first; none if it is a root.
    chain: Vec<Link>,
    roots_pem: String,
    not_after: Duration,
    state: State,
}

impl std::fmt::Debug for Authority {
    /// Never shows the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("not_after", &self.not_after)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// A certificate for a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// Leaf, intermediates if there are any, and the root bundle last, each in PEM.
    pub chain: Vec<String>,
    /// Serial number in lower-case hex.
    pub serial: String,
    /// When it runs out, in seconds since 1970.
    pub not_after: u64,
}

/// A certificate of our own, with its key.
#[derive(Debug)]
pub struct OwnCertificate {
    /// Leaf and intermediates.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivatePkcs8KeyDer<'static>,
    /// When it runs out, in seconds since 1970.
    pub not_after: u64,
}

/// Names of our own server certificate.
#[derive(Debug, Clone)]
pub struct ServerNames {
    /// Host names.
    pub hosts: Vec<String>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// Our identity in the mesh.
    pub identity: Identity,
}

impl Authority {
    pub(super) fn new(
        issuer: Issuer<'static, KeyPair>,
        chain: Vec<Link>,
        roots_pem: String,
        not_after: Duration,
        state: State,
    ) -> Self {
        Self { issuer, chain, roots_pem, not_after, state }
    }

    /// How far the rotation is that this authority is part of.
    pub fn state(&self) -> State {
        self.state
    }

    /// The trust bundle in PEM.
    pub fn roots_pem(&self) -> &str {
        &self.roots_pem
    }

    /// When the authority runs out, since 1970.
    pub fn not_after(&self) -> Duration {
        self.not_after
    }

    /// Certifies a workload's key (a DER SubjectPublicKeyInfo).
    ///
    /// The subject is empty, the identity its only name; digitalSignature, serverAuth and clientAuth; no CA. Life
    /// ends no later than the authority's own.
    ///
    /// # Errors
    /// [`SignError`].
    pub fn issue(
        &self,
        identity: &Identity,
        key_der: &[u8],
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Issued, SignError> {
        let key = SubjectPublicKeyInfo::from_der(key_der)?;
        let (mut params, not_after) = self.leaf(ttl, now)?;
        params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into()?)];
        let serial = params.serial_number.as_ref().map(SerialNumber::to_bytes).unwrap_or_default();
        let serial = serial.iter().map(|b| format!("{b:02x}")).collect();
        let leaf = params.signed_by(&key, &self.issuer)?;
        let above = self.chain.iter().map(|link| link.pem.clone());
        let chain = std::iter::once(leaf.pem()).chain(above).chain([self.roots_pem.clone()]).collect();
        Ok(Issued { chain, serial, not_after })
    }

    /// Makes a certificate and key for our own server.
    ///
    /// # Errors
    /// [`SignError`].
    pub fn certify_server(
        &self,
        names: &ServerNames,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<OwnCertificate, SignError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let (mut params, not_after) = self.leaf(ttl, now)?;
        for host in &names.hosts {
            params.subject_alt_names.push(SanType::DnsName(host.as_str().try_into()?));
        }
        params.subject_alt_names.extend(names.addresses.iter().map(|ip| SanType::IpAddress(*ip)));
        params.subject_alt_names.push(SanType::URI(names.identity.to_string().try_into()?));
        let leaf = params.signed_by(&key, &self.issuer)?;
        let above = self.chain.iter().map(|link| link.der.clone());
        let chain = std::iter::once(leaf.der().clone()).chain(above).collect();
        Ok(OwnCertificate { chain, key: PrivatePkcs8KeyDer::from(key.serialize_der()), not_after })
    }

    /// What every certificate of ours has in common, and when it runs out.
    fn leaf(&self, ttl: Duration, now: SystemTime) -> Result<(CertificateParams, u64), SignError> {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let not_after = (since + ttl).min(self.not_after);
        if not_after <= since {
            return Err(SignError::AuthorityExpired { not_after: self.not_after.as_secs() });
        }
        let backdate = BACKDATE_MAX.min(ttl / BACKDATE_PART);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = OffsetDateTime::from(UNIX_EPOCH + since.saturating_sub(backdate));
        params.not_after = OffsetDateTime::from(UNIX_EPOCH + not_after);
        params.serial_number = Some(serial());
        params.use_authority_key_identifier_extension = true;
        Ok((params, not_after.as_secs()))
    }
}

/// Whether certificates can be made for a key (a DER SubjectPublicKeyInfo).
pub(super) fn can_certify(key_der: &[u8]) -> bool {
    SubjectPublicKeyInfo::from_der(key_der).is_ok_and(|key| !key.der_bytes().is_empty())
}

/// A random serial number: positive, 16 bytes (RFC 5280 section 4.1.2.2).
pub(super) fn serial() -> SerialNumber {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).expect("the system's random number generator works");
    // The top bit is the sign; the next one keeps the length.
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    SerialNumber::from_slice(&bytes)
}
