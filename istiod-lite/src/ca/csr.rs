//! Reading a certificate request: only facts come out, none of them believed yet.

use ambit_control::csr::{Csr, Facts, PublicKey, REQUEST_BYTES_MAX};
use ambit_types::Str;
use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519,
};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;

/// A request as it was read, and the key it is about.
#[derive(Debug)]
pub(crate) struct ReadCsr {
    /// What the decision needs.
    pub(crate) csr: Csr,
    /// The key as a DER SubjectPublicKeyInfo; empty if there is none.
    pub(crate) key_der: Vec<u8>,
}

/// Reads a request in PEM.
pub(crate) fn read(pem: &str) -> ReadCsr {
    if pem.len() > REQUEST_BYTES_MAX {
        return ReadCsr { csr: Csr::Oversized { bytes: pem.len() }, key_der: Vec::new() };
    }
    match parse(pem) {
        Ok((facts, key_der)) => ReadCsr { csr: Csr::Read(facts), key_der },
        Err(why) => ReadCsr { csr: Csr::Unreadable { why }, key_der: Vec::new() },
    }
}

fn parse(pem: &str) -> Result<(Facts, Vec<u8>), String> {
    let mut blocks = CertificateSigningRequestDer::pem_slice_iter(pem.as_bytes());
    let der = blocks
        .next()
        .ok_or("it holds no PEM block \"CERTIFICATE REQUEST\"")?
        .map_err(|e| format!("the PEM cannot be read: {e}"))?;
    if blocks.next().is_some() {
        return Err("it holds more than one PEM block".to_owned());
    }
    let (rest, request) =
        X509CertificationRequest::from_der(&der).map_err(|e| format!("it is no PKCS#10 request: {e}"))?;
    if !rest.is_empty() {
        return Err("bytes follow the request".to_owned());
    }
    let info = &request.certification_request_info;
    let key_der = info.subject_pki.raw.to_vec();
    let mut facts = Facts {
        key: public_key(&info.subject_pki),
        fingerprint: fingerprint(&key_der),
        proven: request.verify_signature().is_ok(),
        uris: Vec::new(),
        other_names: Vec::new(),
        authority: false,
    };
    for attribute in info.iter_attributes() {
        if let ParsedCriAttribute::ExtensionRequest(asked) = attribute.parsed_attribute() {
            for extension in &asked.extensions {
                note(extension.parsed_extension(), &mut facts)?;
            }
        }
    }
    Ok((facts, key_der))
}

fn fingerprint(key_der: &[u8]) -> [u8; 32] {
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(digest(&SHA256, key_der).as_ref());
    fingerprint
}

/// What an extension asks for, as far as it would give the bearer a name or a power.
fn note(extension: &ParsedExtension<'_>, facts: &mut Facts) -> Result<(), String> {
    match extension {
        ParsedExtension::SubjectAlternativeName(names) => {
            for name in &names.general_names {
                match name {
                    GeneralName::URI(uri) => facts.uris.push(Str::from(*uri)),
                    other => facts.other_names.push(Str::from(other.to_string())),
                }
            }
        }
        ParsedExtension::BasicConstraints(constraints) => facts.authority |= constraints.ca,
        ParsedExtension::KeyUsage(usage) => facts.authority |= usage.key_cert_sign() || usage.crl_sign(),
        ParsedExtension::ParseError { error } => {
            return Err(format!("an extension it asks for cannot be read: {error}"));
        }
        _ => {}
    }
    Ok(())
}

fn public_key(key: &SubjectPublicKeyInfo<'_>) -> PublicKey {
    let algorithm = &key.algorithm.algorithm;
    let other = |name: String| PublicKey::Other { algorithm: Str::from(name) };
    if *algorithm == OID_SIG_ED25519 {
        PublicKey::Ed25519
    } else if *algorithm == OID_PKCS1_RSAENCRYPTION {
        let bits = key.parsed().map(|parsed| parsed.key_size()).unwrap_or_default();
        PublicKey::Rsa { bits }
    } else if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        match key.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok()) {
            Some(curve) if curve == OID_EC_P256 => PublicKey::P256,
            Some(curve) if curve == OID_NIST_EC_P384 => PublicKey::P384,
            Some(curve) => other(format!("ECDSA on curve {curve}")),
            None => other("ECDSA without a named curve".to_owned()),
        }
    } else {
        other(algorithm.to_string())
    }
}
