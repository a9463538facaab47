//! The rules of an X509-SVID that the chain's signature does not cover (SPIFFE X509-SVID sections 2 to 5).
//!
//! Checked after the chain, so that nothing of a stranger's certificate is interpreted before it is signed by
//! somebody we trust.

use ambit_types::Identity;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519,
};
use x509_parser::prelude::FromDer as _;

use super::PeerRefused;

/// Longest serial number, in bytes (RFC 5280 section 4.1.2.2).
const SERIAL_BYTES_MAX: usize = 20;
/// Shortest RSA modulus, in bits.
const RSA_BITS_MIN: usize = 2048;

/// Reads the identity of a leaf certificate, refusing it at the first broken rule.
///
/// # Errors
/// [`PeerRefused`] with the rule's number.
pub fn leaf_identity(der: &[u8]) -> Result<Identity, PeerRefused> {
    let certificate = parse(der)?;
    let identity = san_identity(&certificate)?;
    check_constraints(&certificate)?;
    check_usage(&certificate)?;
    check_key(&certificate)?;
    Ok(identity)
}

/// Checks a certificate that signs others.
///
/// # Errors
/// [`PeerRefused`] for rule 8.
pub fn check_signer(der: &[u8], leaf: &Identity) -> Result<(), PeerRefused> {
    let certificate = parse(der)?;
    let refuse = |what: &str| PeerRefused::bad_svid(8, what);
    let constraints = certificate.basic_constraints().map_err(|_| refuse("basicConstraints twice"))?;
    if !constraints.is_some_and(|c| c.value.ca) {
        return Err(refuse("a certificate of the chain is no CA"));
    }
    let usage = certificate.key_usage().map_err(|_| refuse("keyUsage twice"))?;
    if usage.is_some_and(|u| !u.value.key_cert_sign()) {
        return Err(refuse("a certificate of the chain may not sign certificates"));
    }
    for uri in uris(&certificate)? {
        if let Some(rest) = uri.strip_prefix("spiffe://") {
            let (domain, path) = rest.split_once('/').unwrap_or((rest, ""));
            // A signer that names a trust domain may only sign for that one, and is no workload itself.
            if domain != leaf.trust_domain().as_str() || !path.is_empty() {
                return Err(refuse("a signer of another trust domain, or one that is a workload"));
            }
        }
    }
    Ok(())
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, PeerRefused> {
    let (rest, certificate) =
        X509Certificate::from_der(der).map_err(|_| PeerRefused::bad_svid(0, "the certificate is not DER"))?;
    if !rest.is_empty() {
        return Err(PeerRefused::bad_svid(0, "bytes behind the certificate"));
    }
    let serial = certificate.raw_serial();
    let negative = serial.first().is_some_and(|b| b & 0x80 != 0);
    if negative || serial.len() > SERIAL_BYTES_MAX + 1 || serial.iter().all(|b| *b == 0) {
        return Err(PeerRefused::bad_svid(0, "the serial number is not positive and at most 20 bytes"));
    }
    Ok(certificate)
}

fn uris<'a>(certificate: &'a X509Certificate<'_>) -> Result<Vec<&'a str>, PeerRefused> {
    let san = certificate
        .subject_alternative_name()
        .map_err(|_| PeerRefused::bad_svid(1, "subjectAltName twice or malformed"))?;
    let names = san.map(|extension| &extension.value.general_names);
    let uri = |name: &'a GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    };
    Ok(names.into_iter().flatten().filter_map(uri).collect())
}

/// Rules 1, 2, 3 and 7.
fn san_identity(certificate: &X509Certificate<'_>) -> Result<Identity, PeerRefused> {
    let uris = uris(certificate)?;
    let [uri] = uris.as_slice() else {
        return Err(PeerRefused::bad_svid(1, format!("{} URI names, exactly one is needed", uris.len())));
    };
    let identity = Identity::parse(uri).map_err(|e| {
        let rule = match e {
            ambit_types::IdentityError::Path { .. } => 3,
            _ => 2,
        };
        PeerRefused::bad_svid(rule, e.to_string())
    })?;
    let critical = certificate.subject_alternative_name().ok().flatten().is_some_and(|san| san.critical);
    if certificate.subject().iter().next().is_none() && !critical {
        return Err(PeerRefused::bad_svid(7, "empty subject, but subjectAltName is not critical"));
    }
    Ok(identity)
}

/// Rule 4.
fn check_constraints(certificate: &X509Certificate<'_>) -> Result<(), PeerRefused> {
    let constraints = certificate
        .basic_constraints()
        .map_err(|_| PeerRefused::bad_svid(4, "basicConstraints twice or malformed"))?;
    match constraints {
        Some(c) if c.value.ca => Err(PeerRefused::bad_svid(4, "a CA certificate authenticates nobody")),
        Some(_) | None => Ok(()),
    }
}

/// Rules 5 and 6.
fn check_usage(certificate: &X509Certificate<'_>) -> Result<(), PeerRefused> {
    let refuse = |what: &str| PeerRefused::bad_svid(5, what);
    let usage = certificate
        .key_usage()
        .map_err(|_| refuse("keyUsage twice or malformed"))?
        .ok_or_else(|| refuse("no keyUsage"))?;
    if !usage.critical {
        return Err(refuse("keyUsage is not critical"));
    }
    if !usage.value.digital_signature() || usage.value.key_cert_sign() || usage.value.crl_sign() {
        return Err(refuse("keyUsage must have digitalSignature and neither keyCertSign nor cRLSign"));
    }
    let extended = certificate
        .extended_key_usage()
        .map_err(|_| PeerRefused::bad_svid(6, "extendedKeyUsage twice or malformed"))?;
    match extended {
        Some(e) if !(e.value.server_auth && e.value.client_auth) => {
            Err(PeerRefused::bad_svid(6, "extendedKeyUsage without serverAuth and clientAuth"))
        }
        Some(_) | None => Ok(()),
    }
}

/// Rule 10.
fn check_key(certificate: &X509Certificate<'_>) -> Result<(), PeerRefused> {
    let refuse = |what: &str| PeerRefused::bad_svid(10, what);
    let key = certificate.public_key();
    let algorithm = &key.algorithm.algorithm;
    if *algorithm == OID_SIG_ED25519 {
        return Ok(());
    }
    if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = key.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
        return match curve {
            Some(oid) if oid == OID_EC_P256 || oid == OID_NIST_EC_P384 => Ok(()),
            Some(_) | None => Err(refuse("an elliptic curve other than P-256 and P-384")),
        };
    }
    if *algorithm == OID_PKCS1_RSAENCRYPTION {
        let bits = key.parsed().map(|parsed| parsed.key_size()).unwrap_or_default();
        return if bits >= RSA_BITS_MIN { Ok(()) } else { Err(refuse("an RSA key shorter than 2048 bits")) };
    }
    Err(refuse("a key that is neither P-256, P-384, Ed25519 nor RSA"))
}

/// notBefore and notAfter of a certificate, in seconds since 1970.
///
/// # Errors
/// [`PeerRefused`] if it is no certificate.
pub fn validity(der: &[u8]) -> Result<(u64, u64), PeerRefused> {
    let certificate = parse(der)?;
    let seconds = |t: i64| u64::try_from(t).unwrap_or_default();
    let validity = certificate.validity();
    Ok((seconds(validity.not_before.timestamp()), seconds(validity.not_after.timestamp())))
}

/// Serial number in lower-case hex.
///
/// # Errors
/// [`PeerRefused`] if it is no certificate.
pub fn serial(der: &[u8]) -> Result<String, PeerRefused> {
    let certificate = parse(der)?;
    let digits = certificate.raw_serial().iter().skip_while(|b| **b == 0);
    Ok(digits.map(|b| format!("{b:02x}")).collect())
}
