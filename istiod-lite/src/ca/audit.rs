//! The audit log: one JSON line for every certificate issued or refused, for every caller turned away, and for what was
//! asked of the authority itself.
//!
//! A line is in the file before the answer goes out; what cannot be recorded is not issued. Callers without a valid
//! token could fill the disk, so of those only some are written, with the count of those left out.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

/// A full file is renamed `….1`, the one before it `….2`, and so on up to this.
const OLD_FILES_MAX: u32 = 4;
/// Bytes of one file.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Strangers recorded at once, and a second in the long run.
const STRANGERS_BURST: u32 = 50;
const STRANGERS_PER_SECOND: u32 = 10;

/// What happened.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Record<'a> {
    /// Seconds since 1970, to the millisecond.
    pub time: f64,
    /// `issued`, `refused` or `turned-away`; of the authority itself `carried-out` or `refused`.
    pub outcome: &'static str,
    /// What was asked: `certificate` or `discovery`; of the authority itself `rotate`, `abort`, `resume`, or `authority`
    /// where that could not be read.
    pub asked: &'static str,
    /// Address the call came from.
    pub source: Option<IpAddr>,
    /// The caller as `NAMESPACE/ACCOUNT`, empty if it is not known; of the authority itself by its own word.
    pub caller: &'a str,
    /// The caller's node, empty if it is not known.
    pub node: &'a str,
    /// The identity asked for, as it was written, cut to a sane length.
    pub identity: &'a str,
    /// Serial number of the certificate.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub serial: &'a str,
    /// The life that was asked for, in seconds; never more than the operator's is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked_seconds: Option<i64>,
    /// When the certificate runs out, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<u64>,
    /// The reason code of a refusal.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub code: &'a str,
    /// The check that failed.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub check: &'a str,
    /// With what values.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub detail: &'a str,
    /// Strangers turned away since the last such line that were not written down.
    #[serde(skip_serializing_if = "is_zero")]
    pub unrecorded: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The log file.
#[derive(Debug)]
pub struct Audit {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    path: PathBuf,
    file: File,
    bytes: u64,
    strangers_used: f64,
    strangers_at: Duration,
    unrecorded: u64,
}

impl Audit {
    /// Opens the log for appending.
    ///
    /// # Errors
    /// The system's answer.
    pub fn open(path: &Path) -> io::Result<Self> {
        let (file, bytes) = open(path)?;
        let state = State {
            path: path.to_owned(),
            file,
            bytes,
            strangers_used: 0.0,
            strangers_at: Duration::ZERO,
            unrecorded: 0,
        };
        Ok(Self { state: Mutex::new(state) })
    }

    /// Writes a line about a caller that is known.
    ///
    /// # Errors
    /// The system's answer; what was to be recorded must not happen then.
    pub fn record(&self, record: &Record<'_>) -> io::Result<()> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).write(record)
    }

    /// Writes a line about a caller that could not prove who it is, unless there are too many.
    ///
    /// # Errors
    /// The system's answer.
    pub fn record_stranger(&self, now: Duration, record: Record<'_>) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = now.saturating_sub(state.strangers_at).as_secs_f64();
        let drained = state.strangers_used - elapsed * f64::from(STRANGERS_PER_SECOND);
        state.strangers_used = drained.max(0.0);
        state.strangers_at = state.strangers_at.max(now);
        if state.strangers_used + 1.0 > f64::from(STRANGERS_BURST) {
            state.unrecorded += 1;
            return Ok(());
        }
        state.strangers_used += 1.0;
        let unrecorded = std::mem::take(&mut state.unrecorded);
        state.write(&Record { unrecorded, ..record })
    }
}

impl State {
    fn write(&mut self, record: &Record<'_>) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        if self.bytes + line.len() as u64 > FILE_BYTES_MAX {
            self.rotate()?;
        }
        // One write call, so that lines of a crashed process are whole or absent.
        self.file.write_all(&line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (0..OLD_FILES_MAX).rev() {
            let (from, to) = (numbered(&self.path, number), numbered(&self.path, number + 1));
            match fs::rename(&from, &to) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                Ok(()) | Err(_) => {}
            }
        }
        (self.file, self.bytes) = open(&self.path)?;
        Ok(())
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{number}"));
    path.with_file_name(name)
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}
