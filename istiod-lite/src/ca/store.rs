//! The authority's keys on disk: made once, never made again silently, replaced only by a rotation.
//!
//! They lie in a directory of their own (0700, files 0600) that is put in place in one step, so that a crash
//! leaves either a whole authority or none. An authority that cannot be read, or that others could have read, ends
//! the program: a new one would cut off every workload.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ambit_types::TrustDomain;
use zeroize::Zeroizing;

use super::material::{self, Issuing, MaterialError, Members, Owner};
use super::rotation::{Phase, Ring};
use super::sign::Authority;

/// What only we may read.
const PRIVATE_FILE: u32 = 0o600;
/// What only we may enter.
const PRIVATE_FOLDER: u32 = 0o700;

const ROOT: &str = "root-cert.pem";
const ROOT_KEY: &str = "root-key.pem";
const INTERMEDIATE: &str = "intermediate-cert.pem";
const INTERMEDIATE_KEY: &str = "intermediate-key.pem";
/// Everything in one file from the first rotation on, so that it can be replaced in one step; JSON of texts by name.
const ALL: &str = "authority.json";

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
    let ring = load(folder, trust_domain, now)?;
    material::assemble(&ring, trust_domain, Owner::Us).map_err(|e| unusable(folder, e))
}

/// What is kept in `folder`; an authority is made if there is none.
///
/// # Errors
/// [`StoreError`]; nothing is replaced then.
pub fn load(folder: &Path, trust_domain: &TrustDomain, now: SystemTime) -> Result<Ring<Issuing>, StoreError> {
    match fs::metadata(folder) {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => make(folder, trust_domain, now)?,
        Err(e) => return Err(io_error("look at", folder)(e)),
    }
    check_private(folder)?;
    let members = match fs::metadata(folder.join(ALL)) {
        Ok(_) => rotated(folder)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => first(folder)?,
        Err(e) => return Err(io_error("look at", &folder.join(ALL))(e)),
    };
    material::read(&members).map_err(|e| unusable(folder, e))
}

/// Keeps an authority in `folder` instead of what is there, in one step.
///
/// # Errors
/// [`StoreError`]; what is there stays then.
pub fn save(folder: &Path, ring: &Ring<Issuing>) -> Result<(), StoreError> {
    let members = material::write(ring).map_err(|e| unusable(folder, e))?;
    let texts: BTreeMap<&str, &str> = members
        .iter()
        .map(|(name, bytes)| (name.as_str(), std::str::from_utf8(bytes).unwrap_or_default()))
        .collect();
    let path = folder.join(ALL);
    let json = serde_json::to_vec(&texts).map(Zeroizing::new);
    let json = json.map_err(|e| io_error("write", &path)(e.into()))?;
    put(&path, &json, PRIVATE_FILE)?;
    if ring.state.phase == Phase::Idle {
        // Nobody needs the first keys any more; a key that is not there cannot be stolen.
        for old in [ROOT_KEY, INTERMEDIATE_KEY].map(|name| folder.join(name)) {
            match fs::remove_file(&old) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io_error("remove", &old)(e)),
                Ok(()) | Err(_) => {}
            }
        }
    }
    Ok(())
}

fn unusable(folder: &Path, error: MaterialError) -> StoreError {
    let MaterialError { member, what } = error;
    let all = folder.join(ALL);
    let path = if all.exists() {
        all
    } else {
        match member {
            material::CERT | material::CHAIN => folder.join(INTERMEDIATE),
            material::KEY => folder.join(INTERMEDIATE_KEY),
            other => folder.join(other),
        }
    };
    StoreError::Unusable { path, what }
}

/// The members as they were made.
fn first(folder: &Path) -> Result<Members, StoreError> {
    // Whoever reads the root's key can make authorities of their own.
    check_private(&folder.join(ROOT_KEY))?;
    let files = [
        (material::CERT, INTERMEDIATE),
        (material::CHAIN, INTERMEDIATE),
        (material::KEY, INTERMEDIATE_KEY),
        (material::ROOTS, ROOT),
    ];
    let members = files.iter().map(|(member, file)| {
        let bytes = read(&folder.join(file))?;
        Ok(((*member).to_owned(), bytes))
    });
    members.collect()
}

/// The members as a rotation left them.
fn rotated(folder: &Path) -> Result<Members, StoreError> {
    let path = folder.join(ALL);
    let bytes = read(&path)?;
    let texts: BTreeMap<String, String> = serde_json::from_slice(&bytes)
        .map_err(|e| StoreError::Unusable { path, what: format!("it cannot be read: {e}") })?;
    Ok(texts.into_iter().map(|(name, text)| (name, Zeroizing::new(text.into_bytes()))).collect())
}

/// Puts a file in place in one step.
///
/// # Errors
/// [`StoreError::Io`].
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    put(path, bytes, 0o644)
}

fn put(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    // One that was left behind may have another mode.
    match fs::remove_file(&temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io_error("remove", &temporary)(e)),
        Ok(()) | Err(_) => {}
    }
    write(&temporary, bytes, mode)?;
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

    let (issuing, root_key) = material::make(trust_domain, now).map_err(StoreError::Make)?;
    write(&fresh.join(ROOT), issuing.roots.as_bytes(), PRIVATE_FILE)?;
    write(&fresh.join(ROOT_KEY), root_key.as_bytes(), PRIVATE_FILE)?;
    write(&fresh.join(INTERMEDIATE), issuing.certificate.as_bytes(), PRIVATE_FILE)?;
    write(&fresh.join(INTERMEDIATE_KEY), issuing.key.as_bytes(), PRIVATE_FILE)?;
    fs::rename(&fresh, folder).map_err(io_error("put in place", folder))
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    check_private(path)?;
    fs::read(path).map(Zeroizing::new).map_err(io_error("read", path))
}

fn check_private(path: &Path) -> Result<(), StoreError> {
    let mode = fs::metadata(path).map_err(io_error("look at", path))?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(StoreError::Exposed { path: path.to_owned(), mode });
    }
    Ok(())
}
