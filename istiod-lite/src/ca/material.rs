//! What an authority is kept as: PEM members by name, read and checked here wherever they lie.
//!
//! The names are Istio's (`istio-ca-secret`, and `cacerts` as it is plugged in), or cert-manager's. What a rotation needs
//! besides has names of its own that others do not read. Pure: nothing is opened here.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use ambit_types::TrustDomain;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use zeroize::Zeroizing;

use super::rotation::{Phase, Ring, State};
use super::sign::{Authority, Link, serial};

#[cfg(test)]
mod tests;

/// Life of the root and of the intermediate: ten years.
const AUTHORITY_LIFE: Duration = Duration::from_secs(3650 * 24 * 3600);
/// How far an authority's notBefore lies in the past, for machines whose clocks are behind.
const BACKDATE: Duration = Duration::from_secs(300);
/// Bytes of one member.
const MEMBER_BYTES_MAX: usize = 128 * 1024;
/// Certificates of one member.
const CERTIFICATES_MAX: usize = 32;

/// The certificate that signs.
pub const CERT: &str = "ca-cert.pem";
/// Its key.
pub const KEY: &str = "ca-key.pem";
/// Certificates between it and the root.
pub const CHAIN: &str = "cert-chain.pem";
/// The trust bundle.
pub const ROOTS: &str = "root-cert.pem";
/// A key that Istio's layout has and leaves empty.
const UNUSED_KEY: &str = "key.pem";
/// The same three, as cert-manager writes them; the chain follows the certificate.
const MANAGER: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];
/// Roots that the signing certificate brings, where the bundle has others too.
const SIGNING_ROOTS: &str = "signing-roots.pem";
/// The other issuer of a rotation.
const OTHER: [&str; 4] = ["other-cert.pem", "other-key.pem", "other-chain.pem", "other-roots.pem"];
/// Members that are there during a rotation only.
pub const TEMPORARY: [&str; 5] = [OTHER[0], OTHER[1], OTHER[2], OTHER[3], SIGNING_ROOTS];
/// How far a rotation is, and which generation this is.
const ROTATION: &str = "rotation.json";

/// Contents by name; wiped when dropped.
pub type Members = BTreeMap<String, Zeroizing<Vec<u8>>>;

/// What is wrong with a member.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{member}: {what}")]
pub struct MaterialError {
    /// Its name.
    pub member: &'static str,
    /// What is wrong with it.
    pub what: String,
}

fn wrong<T>(member: &'static str, what: impl Into<String>) -> Result<T, MaterialError> {
    Err(MaterialError { member, what: what.into() })
}

/// One issuer, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Issuing {
    /// The certificate that signs leaves.
    pub certificate: String,
    /// Its key.
    pub key: Zeroizing<String>,
    /// Certificates between it and the roots; itself may be among them.
    pub chain: String,
    /// The roots it brings, one or more.
    pub roots: String,
}

impl std::fmt::Debug for Issuing {
    /// Never shows the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issuing").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// Whose keys these are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Ours: made for the trust domain, and named by it.
    Us,
    /// Somebody else's, plugged in: they need not name a trust domain, and if they do it is ours.
    Plugged,
}

/// A certificate in both forms.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    pub(crate) pem: String,
    pub(crate) der: CertificateDer<'static>,
}

/// A fresh issuer: a root that signed one intermediate, and the root's key in PEM. Who throws that key away makes the
/// next intermediate with another root.
///
/// # Errors
/// The library's answer.
pub fn make(
    trust_domain: &TrustDomain,
    now: SystemTime,
) -> Result<(Issuing, Zeroizing<String>), rcgen::Error> {
    let root_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let root_params = authority("Ambit root", trust_domain, now, 1)?;
    let root = root_params.self_signed(&root_key)?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let params = authority("Ambit intermediate", trust_domain, now, 0)?;
    let intermediate = params.signed_by(&key, &Issuer::from_params(&root_params, &root_key))?.pem();
    let issuing = Issuing {
        certificate: intermediate.clone(),
        key: Zeroizing::new(key.serialize_pem()),
        chain: intermediate,
        roots: root.pem(),
    };
    Ok((issuing, Zeroizing::new(root_key.serialize_pem())))
}

/// A certificate that signs others: CA, `keyCertSign`, the trust domain without a path (SPIFFE X509-SVID section 3).
fn authority(
    name: &str,
    trust_domain: &TrustDomain,
    now: SystemTime,
    path_length: u8,
) -> Result<CertificateParams, rcgen::Error> {
    let serial = serial();
    // Two roots of one mesh must not have one name: some verifiers find the issuer by it.
    let number: String = serial.to_bytes().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, trust_domain.as_str());
    params.distinguished_name.push(DnType::CommonName, format!("{name} {number}"));
    params.subject_alt_names = vec![SanType::URI(format!("spiffe://{trust_domain}").try_into()?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = OffsetDateTime::from(now - BACKDATE);
    params.not_after = OffsetDateTime::from(now + AUTHORITY_LIFE);
    params.serial_number = Some(serial);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// Reads the members of an authority; nothing of them is checked yet but that they are text and there.
///
/// # Errors
/// [`MaterialError`] names the member.
pub fn read(members: &Members) -> Result<Ring<Issuing>, MaterialError> {
    let manager = !members.contains_key(CERT) && members.contains_key(MANAGER[0]);
    if manager {
        let [cert, key, roots] = MANAGER;
        let certificate = text(members, cert)?;
        let chain = certificate.clone();
        let key = Zeroizing::new(text(members, key)?);
        return Ok(Ring::new(Issuing { certificate, key, chain, roots: text(members, roots)? }));
    }
    let roots = optional(members, SIGNING_ROOTS)?.map_or_else(|| text(members, ROOTS), Ok)?;
    let signing = Issuing {
        certificate: text(members, CERT)?,
        key: Zeroizing::new(text(members, KEY)?),
        chain: optional(members, CHAIN)?.unwrap_or_default(),
        roots,
    };
    let state = match optional(members, ROTATION)? {
        Some(json) => serde_json::from_str(&json)
            .map_err(|e| MaterialError { member: ROTATION, what: format!("it cannot be read: {e}") })?,
        None => State::default(),
    };
    let [cert, key, chain, roots] = OTHER;
    let other = match state.phase {
        Phase::Idle => None,
        Phase::Waiting | Phase::Reissuing => Some(Issuing {
            certificate: text(members, cert)?,
            key: Zeroizing::new(text(members, key)?),
            chain: optional(members, chain)?.unwrap_or_default(),
            roots: text(members, roots)?,
        }),
    };
    Ok(Ring { signing, other, state })
}

/// The members that an authority is kept as.
///
/// # Errors
/// [`MaterialError`] if its roots are no certificates.
pub fn write(ring: &Ring<Issuing>) -> Result<Members, MaterialError> {
    let state = serde_json::to_vec(&ring.state)
        .map_err(|e| MaterialError { member: ROTATION, what: e.to_string() })?;
    let bytes = |text: &str| Zeroizing::new(text.as_bytes().to_vec());
    let mut members = Members::from([
        (CERT.to_owned(), bytes(&ring.signing.certificate)),
        (KEY.to_owned(), bytes(&ring.signing.key)),
        (CHAIN.to_owned(), bytes(&ring.signing.chain)),
        (UNUSED_KEY.to_owned(), bytes("")),
        (ROOTS.to_owned(), bytes(&bundle(ring)?)),
        (ROTATION.to_owned(), Zeroizing::new(state)),
    ]);
    if let Some(other) = &ring.other {
        let values = [&other.certificate, &*other.key, &other.chain, &other.roots];
        members.extend(OTHER.iter().zip(values).map(|(name, value)| ((*name).to_owned(), bytes(value))));
        members.insert(SIGNING_ROOTS.to_owned(), bytes(&ring.signing.roots));
    }
    Ok(members)
}

/// The trust bundle in PEM: the roots of the issuer that signs come first, none comes twice.
///
/// # Errors
/// [`MaterialError`] if one is no certificate.
pub fn bundle(ring: &Ring<Issuing>) -> Result<String, MaterialError> {
    let mut roots = blocks(ROOTS, &ring.signing.roots)?;
    if let Some(other) = &ring.other {
        for root in blocks(OTHER[3], &other.roots)? {
            if roots.iter().all(|known| known.der != root.der) {
                roots.push(root);
            }
        }
    }
    Ok(roots.into_iter().map(|root| root.pem).collect())
}

/// Checks the issuers and makes the authority that signs.
///
/// # Errors
/// [`MaterialError`] names the member and what is wrong with it.
pub fn assemble(
    ring: &Ring<Issuing>,
    trust_domain: &TrustDomain,
    owner: Owner,
) -> Result<Authority, MaterialError> {
    if let Some(other) = &ring.other {
        // What is to sign later, or again, must be able to when its time comes.
        open(other, trust_domain, owner)
            .map_err(|e| MaterialError { member: OTHER[0], what: format!("{e}, of the other issuer") })?;
    }
    let Opened { issuer, above, not_after } = open(&ring.signing, trust_domain, owner)?;
    Ok(Authority::new(issuer, above, bundle(ring)?, not_after, ring.state))
}

struct Opened {
    issuer: Issuer<'static, KeyPair>,
    above: Vec<Link>,
    not_after: Duration,
}

fn open(of: &Issuing, trust_domain: &TrustDomain, owner: Owner) -> Result<Opened, MaterialError> {
    let key = KeyPair::from_pem(&of.key)
        .map_err(|e| MaterialError { member: KEY, what: format!("no private key: {e}") })?;
    let Some(signing) = blocks(CERT, &of.certificate)?.into_iter().next() else {
        return wrong(CERT, "no certificate in it");
    };
    let roots = blocks(ROOTS, &of.roots)?;
    let certificate = parsed(CERT, &signing)?;
    if certificate.public_key().subject_public_key.data != key.public_key_raw() {
        return wrong(CERT, format!("its key is not the one in {KEY}"));
    }
    check_power(&certificate)?;
    check_domain(&certificate, trust_domain, owner)?;
    let (path, root) = path(&signing, &blocks(CHAIN, &of.chain)?, &roots)?;
    let mut ends = vec![parsed(ROOTS, root)?.validity().not_after.timestamp()];
    for block in &path {
        ends.push(parsed(CHAIN, block)?.validity().not_after.timestamp());
    }
    let not_after = ends.into_iter().min().and_then(|t| u64::try_from(t).ok()).unwrap_or_default();
    let issuer = Issuer::from_ca_cert_der(&signing.der, key)
        .map_err(|e| MaterialError { member: CERT, what: format!("no authority: {e}") })?;
    let above = path.into_iter().map(|block| Link { pem: block.pem, der: block.der }).collect();
    Ok(Opened { issuer, above, not_after: Duration::from_secs(not_after) })
}

/// The root that an issuer's certificates end in.
///
/// # Errors
/// If there is none among its roots.
pub(crate) fn root(of: &Issuing) -> Result<Block, MaterialError> {
    let Some(signing) = blocks(CERT, &of.certificate)?.into_iter().next() else {
        return wrong(CERT, "no certificate in it");
    };
    let roots = blocks(ROOTS, &of.roots)?;
    path(&signing, &blocks(CHAIN, &of.chain)?, &roots).map(|(_, root)| root.clone())
}

/// The certificates from the one that signs up to, not including, a root, each signed by the next; and the root.
fn path<'r>(
    signing: &Block,
    chain: &[Block],
    roots: &'r [Block],
) -> Result<(Vec<Block>, &'r Block), MaterialError> {
    if let Some(root) = roots.iter().find(|root| root.der == signing.der) {
        return Ok((Vec::new(), root));
    }
    let mut path = vec![signing.clone()];
    // Each turn takes one certificate of the chain.
    for _ in 0..=chain.len() {
        let last = &path[path.len() - 1];
        for root in roots {
            if is_signed_by(last, root)? {
                return Ok((path, root));
            }
        }
        let mut next = None;
        for candidate in chain.iter().filter(|block| path.iter().all(|known| known.der != block.der)) {
            if is_signed_by(last, candidate)? {
                next = Some(candidate.clone());
            }
        }
        let Some(next) = next else { break };
        path.push(next);
    }
    wrong(CERT, format!("it is not signed by the root in {ROOTS}, nor by a chain of certificates up to it"))
}

fn is_signed_by(block: &Block, signer: &Block) -> Result<bool, MaterialError> {
    let (certificate, signer) = (parsed(CHAIN, block)?, parsed(ROOTS, signer)?);
    Ok(certificate.issuer() == signer.subject()
        && certificate.verify_signature(Some(signer.public_key())).is_ok())
}

fn check_power(certificate: &X509Certificate<'_>) -> Result<(), MaterialError> {
    let can_sign = certificate.key_usage().ok().flatten().is_none_or(|usage| usage.value.key_cert_sign());
    if !certificate.is_ca() || !can_sign {
        return wrong(CERT, "it may not sign certificates; it needs CA:TRUE and keyCertSign");
    }
    Ok(())
}

fn check_domain(
    certificate: &X509Certificate<'_>,
    trust_domain: &TrustDomain,
    owner: Owner,
) -> Result<(), MaterialError> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let wanted = format!("spiffe://{trust_domain}");
    let mut uris = names.iter().flat_map(|n| &n.value.general_names).filter_map(|name| match name {
        GeneralName::URI(uri) if uri.starts_with("spiffe:") || owner == Owner::Us => Some(*uri),
        _ => None,
    });
    match (uris.next(), owner) {
        (Some(found), _) if found == wanted => Ok(()),
        (None, Owner::Plugged) => Ok(()),
        (found, _) => wrong(
            CERT,
            format!("it is for {}, the trust domain is {trust_domain}", found.unwrap_or("no trust domain")),
        ),
    }
}

fn parsed<'b>(member: &'static str, block: &'b Block) -> Result<X509Certificate<'b>, MaterialError> {
    match X509Certificate::from_der(&block.der) {
        Ok((_, certificate)) => Ok(certificate),
        Err(e) => wrong(member, format!("no certificate: {e}")),
    }
}

/// The certificates of a PEM text, whatever stands around them.
pub(crate) fn blocks(member: &'static str, text: &str) -> Result<Vec<Block>, MaterialError> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(begin) = rest.find(BEGIN) {
        let Some(length) = rest[begin..].find(END) else {
            return wrong(member, "no certificate: its PEM has no end");
        };
        let pem = &rest[begin..begin + length + END.len()];
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|e| MaterialError { member, what: format!("no certificate: {e}") })?
            .into_owned();
        let block = Block { pem: format!("{pem}\n"), der };
        parsed(member, &block)?;
        found.push(block);
        if found.len() > CERTIFICATES_MAX {
            return wrong(member, format!("more than {CERTIFICATES_MAX} certificates"));
        }
        rest = &rest[begin + length + END.len()..];
    }
    if found.is_empty() && !text.trim().is_empty() {
        return wrong(member, "no certificate in it");
    }
    Ok(found)
}

fn optional(members: &Members, name: &'static str) -> Result<Option<String>, MaterialError> {
    let Some(bytes) = members.get(name) else { return Ok(None) };
    if bytes.len() > MEMBER_BYTES_MAX {
        return wrong(name, format!("longer than {MEMBER_BYTES_MAX} bytes"));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(Some(text.to_owned())),
        Err(_) => wrong(name, "no text"),
    }
}

fn text(members: &Members, name: &'static str) -> Result<String, MaterialError> {
    match optional(members, name)? {
        Some(text) => Ok(text),
        None => wrong(name, "it is missing"),
    }
}
