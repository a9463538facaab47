//! Looks through a finished archive for key material: what a key looks like, and the very keys of the lab.
//!
//! Redaction comes before; this finds what it has overlooked. A finding names file and kind, never what was found.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use regex::bytes::{Regex, RegexBuilder};

use super::archive::{self, ArchiveError};
use super::find;

#[cfg(test)]
mod tests;

/// Longest file that can be one of keys.
const KEY_FILE_BYTES_MAX: u64 = 64 * 1024;
/// Files of keys that are read; a lab has a few for each node and pod.
const KEY_FILES_MAX: usize = 4096;
/// How deep a lab's directories are.
const DEPTH: usize = 8;
/// How much of a secret is looked for: its end, where one differs from another.
const NEEDLE_BYTES_MAX: usize = 64;
/// Shortest secret that is looked for: a shorter one stands anywhere by chance.
const NEEDLE_BYTES_MIN: usize = 16;
/// Directories of a lab that hold what people wrote and what programs said, and no keys of ours.
const NOT_KEYS: &[&str] = &["objects", "logs"];
/// Largest compiled pattern; that of a lab's keys is far smaller.
const PATTERN_BYTES_MAX: usize = 256 << 20;
/// Findings that are named.
const FINDINGS_MAX: usize = 10;

/// Something that must not be in an archive.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Finding {
    /// The file of the archive.
    pub(super) file: String,
    /// What kind of thing.
    pub(super) kind: String,
}

/// Secrets that are known by their bytes.
#[derive(Debug, Default)]
pub(super) struct Known {
    needles: BTreeSet<Vec<u8>>,
}

impl Known {
    /// The keys and tokens in files below a directory, as far as they can be read.
    pub(super) fn below(root: &Path) -> Self {
        let mut known = Self::default();
        let mut left = KEY_FILES_MAX;
        known.walk(root, DEPTH, &mut left);
        known
    }

    fn walk(&mut self, directory: &Path, depth: usize, left: &mut usize) {
        // What cannot be read by who gathers cannot be gathered either.
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() && depth > 0 && !NOT_KEYS.contains(&name.as_str()) {
                self.walk(&path, depth - 1, left);
            }
            let is_small = || entry.metadata().is_ok_and(|data| data.len() <= KEY_FILE_BYTES_MAX);
            if kind.is_file() && *left > 0 && is_small() {
                *left -= 1;
                // What people mount into pods has names of their own choice.
                let of_pod = path.components().any(|part| part.as_os_str() == "pods");
                let says_so = name.contains("token") || (name.contains("key") && !of_pod);
                self.add(&name, says_so, &fs::read(&path).unwrap_or_default());
            }
        }
    }

    /// Adds what is secret in a file; `says_so` is whether its name tells that all of it is.
    fn add(&mut self, name: &str, says_so: bool, content: &[u8]) {
        let text = String::from_utf8_lossy(content);
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if line.starts_with("-----BEGIN ") && line.trim_end().ends_with("PRIVATE KEY-----") {
                // The first line has the head of the key, so that no certificate has it too.
                self.add_pem_line(lines.next().unwrap_or_default().trim());
            }
        }
        let is_public = name.contains("pub") || name.contains("cert") || name.contains("jwks");
        if says_so && !is_public && !text.contains("-----BEGIN") {
            self.add_bytes(content.trim_ascii());
        }
    }

    fn add_pem_line(&mut self, line: &str) {
        if line.len() >= NEEDLE_BYTES_MIN {
            self.needles.insert(line.as_bytes().to_vec());
            let line = line.trim_end_matches('=').as_bytes();
            let whole = line.len() / 4 * 4;
            self.needles.extend(STANDARD_NO_PAD.decode(&line[..whole]).ok());
        }
    }

    /// The bytes themselves, in base64 and in hexadecimal.
    fn add_bytes(&mut self, bytes: &[u8]) {
        if bytes.len() < NEEDLE_BYTES_MIN {
            return;
        }
        let end = &bytes[bytes.len().saturating_sub(NEEDLE_BYTES_MAX)..];
        let hex = end.iter().fold(String::new(), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        self.needles.extend([end.to_vec(), STANDARD_NO_PAD.encode(end).into_bytes(), hex.into_bytes()]);
    }

    /// One pattern for all of them; none if there are none.
    fn pattern(&self) -> Result<Option<Regex>, regex::Error> {
        if self.needles.is_empty() {
            return Ok(None);
        }
        let escaped = |needle: &Vec<u8>| {
            needle.iter().fold(String::new(), |mut text, byte| {
                // Writing to a String cannot fail.
                let _ = write!(text, r"\x{byte:02x}");
                text
            })
        };
        let all: Vec<String> = self.needles.iter().map(escaped).collect();
        let pattern = format!("(?-u){}", all.join("|"));
        RegexBuilder::new(&pattern).size_limit(PATTERN_BYTES_MAX).build().map(Some)
    }
}

/// Why an archive could not be looked through.
#[derive(Debug, thiserror::Error)]
pub(super) enum ScanError {
    /// It cannot be read back.
    #[error("reading the archive back")]
    Read(#[source] ArchiveError),
    /// The lab has more keys than can be looked for.
    #[error("looking for the lab's own keys")]
    Keys(#[source] regex::Error),
}

/// Looks through every file of an archive; what was found, ten findings at most.
///
/// # Errors
/// When the archive cannot be read back, or the known keys cannot be looked for: then nobody knows that it is clean.
pub(super) fn scan(archive: &mut File, known: &Known) -> Result<Vec<Finding>, ScanError> {
    let pattern = known.pattern().map_err(ScanError::Keys)?;
    archive.seek(SeekFrom::Start(0)).map_err(|cause| ScanError::Read(ArchiveError::Read(cause)))?;
    let mut findings = BTreeSet::new();
    let looked = archive::each(archive, |path, entry| {
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        let finding = |kind: String| Finding { file: path.clone(), kind };
        findings.extend(find::keys(&content).iter().map(|found| finding(found.kind.to_string())));
        if pattern.as_ref().is_some_and(|pattern| pattern.is_match(&content)) {
            findings.insert(finding("key or token of the lab itself".to_owned()));
        }
        Ok(true)
    });
    looked.map_err(ScanError::Read)?;
    Ok(findings.into_iter().take(FINDINGS_MAX).collect())
}
