//! The authority's keys on disk: made once, used for ever, never made again silently.
//!
//! They lie in a directory of their own (0700, files 0600) that is put in place in one step, so that a crash
//! leaves either a whole authority or none. An authority that cannot be read, or that others could have read, ends
//! the program: a new one would cut off every workload.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
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

use super::sign::{Authority, serial};

/// Life of the root and of the intermediate: ten years.
const AUTHORITY_LIFE: Duration = Duration::from_secs(3650 * 24 * 3600);
/// How far an authority's notBefore lies in the past, for machines whose clocks are behind.
const BACKDATE: Duration = Duration::from_secs(300);
/// What only we may read.
const PRIVATE_FILE: u32 = 0o600;
/// What only we may enter.
const PRIVATE_FOLDER: u32 = 0o700;

const ROOT: &str = "root-cert.pem";
const ROOT_KEY: &str = "root-key.pem";
const INTERMEDIATE: &str = "intermediate-cert.pem";
const INTERMEDIATE_KEY: &str = "intermediate-key.pem";

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file system refused.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Its answer.
        #[source]
        cause: io::Error,
    },
    /// Others may read the keys.
    #[error("{} has mode {mode:o}; keys must be readable by nobody else: chmod go= it and consider them known", path.display())]
    Exposed {
        /// The file or folder.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A file is not what it should be.
    #[error("{}: {what}; restore it from a backup, or move the folder away to start a new authority", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Making certificates failed.
    #[error("making the certificate authority")]
    Make(#[source] rcgen::Error),
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |cause| StoreError::Io { doing, path, cause }
}

/// Opens the authority in `folder`, making it if there is none.
///
/// # Errors
/// [`StoreError`]; nothing is replaced then.
pub fn open(folder: &Path, trust_domain: &TrustDomain, now: SystemTime) -> Result<Authority, StoreError> {
    match fs::metadata(folder) {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => make(folder, trust_domain, now)?,
        Err(e) => return Err(io_error("look at", folder)(e)),
    }
    check_private(folder)?;
    load(folder, trust_domain)
}

/// Puts a file in place in one step.
///
/// # Errors
/// [`StoreError::Io`].
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    write(&temporary, bytes, 0o644)?;
    fs::rename(&temporary, path).map_err(io_error("put in place", path))
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
    let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path);
    let mut file = opened.map_err(io_error("open", path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io_error("write", path))
}

fn make(folder: &Path, trust_domain: &TrustDomain, now: SystemTime) -> Result<(), StoreError> {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = folder.with_file_name(name);
    match fs::remove_dir_all(&fresh) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io_error("remove", &fresh)(e)),
        Ok(()) | Err(_) => {}
    }
    let made = DirBuilder::new().recursive(true).mode(PRIVATE_FOLDER).create(&fresh);
    made.map_err(io_error("make the folder", &fresh))?;

    let root_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(StoreError::Make)?;
    let root_params = authority("Ambit root", trust_domain, now, 1).map_err(StoreError::Make)?;
    let root = root_params.self_signed(&root_key).map_err(StoreError::Make)?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(StoreError::Make)?;
    let params = authority("Ambit intermediate", trust_domain, now, 0).map_err(StoreError::Make)?;
    let issuer = Issuer::from_params(&root_params, &root_key);
    let intermediate = params.signed_by(&key, &issuer).map_err(StoreError::Make)?;

    write(&fresh.join(ROOT), root.pem().as_bytes(), PRIVATE_FILE)?;
    write(&fresh.join(ROOT_KEY), Zeroizing::new(root_key.serialize_pem()).as_bytes(), PRIVATE_FILE)?;
    write(&fresh.join(INTERMEDIATE), intermediate.pem().as_bytes(), PRIVATE_FILE)?;
    write(&fresh.join(INTERMEDIATE_KEY), Zeroizing::new(key.serialize_pem()).as_bytes(), PRIVATE_FILE)?;
    fs::rename(&fresh, folder).map_err(io_error("put in place", folder))
}

/// A certificate that signs others: CA, `keyCertSign`, the trust domain without a path (SPIFFE X509-SVID section 3).
fn authority(
    name: &str,
    trust_domain: &TrustDomain,
    now: SystemTime,
    path_length: u8,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, trust_domain.as_str());
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = vec![SanType::URI(format!("spiffe://{trust_domain}").try_into()?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = OffsetDateTime::from(now - BACKDATE);
    params.not_after = OffsetDateTime::from(now + AUTHORITY_LIFE);
    params.serial_number = Some(serial());
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn load(folder: &Path, trust_domain: &TrustDomain) -> Result<Authority, StoreError> {
    let root = read(&folder.join(ROOT))?;
    let intermediate = read(&folder.join(INTERMEDIATE))?;
    let key_path = folder.join(INTERMEDIATE_KEY);
    // Whoever reads the root's key can make authorities of their own.
    check_private(&folder.join(ROOT_KEY))?;
    let key_pem = Zeroizing::new(read(&key_path)?);
    let unusable = |path: &Path, what: String| StoreError::Unusable { path: path.to_owned(), what };

    let key = KeyPair::from_pem(&key_pem).map_err(|e| unusable(&key_path, e.to_string()))?;
    let path = folder.join(INTERMEDIATE);
    let der = CertificateDer::from_pem_slice(intermediate.as_bytes())
        .map_err(|e| unusable(&path, format!("no certificate: {e}")))?
        .into_owned();
    let (_, certificate) =
        X509Certificate::from_der(&der).map_err(|e| unusable(&path, format!("no certificate: {e}")))?;
    if certificate.public_key().subject_public_key.data != key.public_key_raw() {
        return Err(unusable(&path, format!("its key is not the one in {}", key_path.display())));
    }
    check_domain(&path, &certificate, trust_domain)?;
    let root_path = folder.join(ROOT);
    let root_der = CertificateDer::from_pem_slice(root.as_bytes())
        .map_err(|e| unusable(&root_path, format!("no certificate: {e}")))?;
    let (_, root_certificate) = X509Certificate::from_der(&root_der)
        .map_err(|e| unusable(&root_path, format!("no certificate: {e}")))?;
    if certificate.verify_signature(Some(root_certificate.public_key())).is_err() {
        return Err(unusable(&path, "it is not signed by the root".to_owned()));
    }
    let ends = [&certificate, &root_certificate].map(|c| c.validity().not_after.timestamp());
    let not_after = ends.into_iter().min().and_then(|t| u64::try_from(t).ok()).unwrap_or_default();
    let issuer =
        Issuer::from_ca_cert_der(&der, key).map_err(|e| unusable(&path, format!("no authority: {e}")))?;
    Ok(Authority::new(issuer, intermediate, der.clone(), root, Duration::from_secs(not_after)))
}

fn check_domain(
    path: &Path,
    certificate: &X509Certificate<'_>,
    trust_domain: &TrustDomain,
) -> Result<(), StoreError> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let wanted = format!("spiffe://{trust_domain}");
    let mut uris = names.iter().flat_map(|n| &n.value.general_names).filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match uris.next() {
        Some(found) if found == wanted => Ok(()),
        found => Err(StoreError::Unusable {
            path: path.to_owned(),
            what: format!(
                "it is for {}, the trust domain is {trust_domain}",
                found.unwrap_or("no trust domain")
            ),
        }),
    }
}

fn read(path: &Path) -> Result<String, StoreError> {
    check_private(path)?;
    fs::read_to_string(path).map_err(io_error("read", path))
}

fn check_private(path: &Path) -> Result<(), StoreError> {
    let mode = fs::metadata(path).map_err(io_error("look at", path))?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(StoreError::Exposed { path: path.to_owned(), mode });
    }
    Ok(())
}
