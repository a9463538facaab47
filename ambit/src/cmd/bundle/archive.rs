//! One file that holds them all: written beside its place, put there whole, and read again.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write as _};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use tempfile::NamedTempFile;

/// Most bytes that are read out of an archive: more than one of ours holds, so that no other one grows without end.
const UNPACKED_BYTES_MAX: u64 = 1 << 30;

/// Why an archive could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ArchiveError {
    /// Something has its name.
    #[error("{0} is there already; name another file with --to")]
    Exists(PathBuf),
    /// The file cannot be written.
    #[error("writing {path}; is the folder there, may you write in it, is there room?")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        cause: io::Error,
    },
    /// The file cannot be opened.
    #[error("opening the archive")]
    Open(#[source] io::Error),
    /// What is in the file cannot be read.
    #[error("it is no tar.gz, or was cut short")]
    Read(#[source] io::Error),
}

/// Says at once that a name is taken, before anything is gathered.
///
/// # Errors
/// [`ArchiveError::Exists`].
pub(super) fn check_free(to: &Path) -> Result<(), ArchiveError> {
    match to.symlink_metadata() {
        Ok(_) => Err(ArchiveError::Exists(to.to_owned())),
        Err(_) => Ok(()),
    }
}

/// Packs files, with their paths below `folder`, into an unnamed neighbour of `to` that only its owner can read.
///
/// # Errors
/// [`ArchiveError::Write`].
pub(super) fn pack<'f>(
    to: &Path,
    folder: &str,
    seconds: u64,
    files: impl Iterator<Item = (&'f str, &'f [u8])>,
) -> Result<NamedTempFile, ArchiveError> {
    let failed = |cause| ArchiveError::Write { path: to.to_owned(), cause };
    let beside =
        to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    // Mode 0600 from the first moment, and gone if anything goes wrong.
    let fresh = tempfile::Builder::new().prefix(".ambit-bundle-").tempfile_in(beside).map_err(failed)?;
    write(fresh.as_file(), folder, seconds, files).map_err(failed)?;
    Ok(fresh)
}

fn write<'f>(
    file: &File,
    folder: &str,
    seconds: u64,
    files: impl Iterator<Item = (&'f str, &'f [u8])>,
) -> io::Result<()> {
    let packed = GzEncoder::new(BufWriter::new(file), Compression::default());
    let mut tar = tar::Builder::new(packed);
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(seconds);
        tar.append_data(&mut header, format!("{folder}/{path}"), content)?;
    }
    let mut buffered = tar.into_inner()?.finish()?;
    buffered.flush()?;
    file.sync_all()
}

/// Gives a packed archive its name, if nothing has it by now.
///
/// # Errors
/// [`ArchiveError::Exists`] or [`ArchiveError::Write`].
pub(super) fn keep(packed: NamedTempFile, to: &Path) -> Result<(), ArchiveError> {
    match packed.persist_noclobber(to) {
        Ok(_) => Ok(()),
        Err(refused) if refused.error.kind() == io::ErrorKind::AlreadyExists => {
            Err(ArchiveError::Exists(to.to_owned()))
        }
        Err(refused) => Err(ArchiveError::Write { path: to.to_owned(), cause: refused.error }),
    }
}

/// Hands every file of an archive to `each`, with its path below the archive's folder, until that says false.
///
/// # Errors
/// [`ArchiveError::Read`] if it is no archive, or larger than any of ours.
pub(super) fn each(
    archive: &File,
    mut each: impl FnMut(String, &mut dyn Read) -> io::Result<bool>,
) -> Result<(), ArchiveError> {
    let unpacked = GzDecoder::new(BufReader::new(archive)).take(UNPACKED_BYTES_MAX);
    let mut tar = tar::Archive::new(unpacked);
    for entry in tar.entries().map_err(ArchiveError::Read)? {
        let mut entry = entry.map_err(ArchiveError::Read)?;
        let path = entry.path().map_err(ArchiveError::Read)?.to_string_lossy().into_owned();
        let below = path.split_once('/').map_or(path.as_str(), |(_, below)| below).to_owned();
        if !each(below, &mut entry).map_err(ArchiveError::Read)? {
            return Ok(());
        }
    }
    Ok(())
}

/// One file of an archive; none if it has none of that path.
///
/// # Errors
/// [`ArchiveError::Open`], or [`ArchiveError::Read`] if it is no archive.
pub(crate) fn one(archive: &Path, wanted: &str) -> Result<Option<Vec<u8>>, ArchiveError> {
    let file = File::open(archive).map_err(ArchiveError::Open)?;
    let mut found = None;
    each(&file, |path, entry| {
        if path == wanted {
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            found = Some(content);
        }
        Ok(found.is_none())
    })?;
    Ok(found)
}
