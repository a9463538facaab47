//! What is gathered for an archive, and what could not be had: every part is in one of the two lists.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::redact;

#[cfg(test)]
mod tests;

/// Most bytes that an archive holds, before they are packed.
pub(super) const TOTAL_BYTES_MAX: usize = 256 << 20;
/// Most bytes of one log, its newest.
pub(super) const LOG_BYTES_MAX: usize = 8 << 20;
/// Name of the list of everything.
pub(super) const INDEX: &str = "index.json";
/// Name of the objects in force.
pub(super) const OBJECTS: &str = "objects.json";

/// What is in a file, as far as secrets are to be found in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// One JSON document.
    Json,
    /// Lines, each of which may be JSON.
    Lines,
}

/// Files and gaps.
#[derive(Debug)]
pub(super) struct Gathered {
    files: BTreeMap<String, Vec<u8>>,
    told: Vec<Value>,
    missing: Vec<Value>,
    bytes: usize,
    bytes_max: usize,
    redacts: bool,
    redactions: usize,
}

impl Gathered {
    /// Nothing yet, with room for so many bytes; `redacts` says whether secrets are taken out.
    pub(super) fn new(bytes_max: usize, redacts: bool) -> Self {
        Self {
            files: BTreeMap::new(),
            told: Vec::new(),
            missing: Vec::new(),
            bytes: 0,
            bytes_max,
            redacts,
            redactions: 0,
        }
    }

    /// Adds a file, or says why there is none.
    pub(super) fn add<B: AsRef<[u8]>>(
        &mut self,
        path: &str,
        about: &str,
        shape: Shape,
        content: Result<B, impl Display>,
    ) {
        match content {
            Ok(content) => self.put(path, about, shape, content.as_ref(), 0),
            Err(error) => self.miss(path, &format!("{error:#}")),
        }
    }

    /// Adds a document, or says why there is none.
    pub(super) fn add_json(&mut self, path: &str, about: &str, document: Result<Value, impl Display>) {
        self.add(path, about, Shape::Json, document.map(|document| document.to_string()));
    }

    /// Adds the end of a log, or says why there is none. Of the room that is left, this is one of `logs` that share it.
    pub(super) fn add_log(&mut self, path: &str, about: &str, logs: usize, tail: io::Result<Tail>) {
        match tail {
            Ok(mut tail) => {
                tail.shorten(self.share(logs));
                self.put(path, about, Shape::Lines, &tail.bytes, tail.cut);
            }
            Err(error) => self.miss(path, &error.to_string()),
        }
    }

    /// The most bytes that each of so many logs may have.
    pub(super) fn share(&self, logs: usize) -> usize {
        LOG_BYTES_MAX.min(self.bytes_max.saturating_sub(self.bytes) / logs.max(1))
    }

    /// Says what is not there, and why.
    pub(super) fn miss(&mut self, what: &str, why: &str) {
        let why = if self.redacts { redact::string(why).0 } else { why.to_owned() };
        self.missing.push(json!({ "what": what, "why": why }));
    }

    fn put(&mut self, path: &str, about: &str, shape: Shape, content: &[u8], cut: u64) {
        let (content, redactions) = match self.redacted(shape, content) {
            Ok(redacted) => redacted,
            Err(error) => return self.miss(path, &format!("it could not be searched for secrets: {error}")),
        };
        if content.len() > self.bytes_max.saturating_sub(self.bytes) {
            let why = format!("{} bytes are more than is left of {}", content.len(), self.bytes_max);
            return self.miss(path, &why);
        }
        let mut told =
            json!({"path": path, "about": about, "bytes": content.len(), "redactions": redactions});
        if cut > 0 {
            told["cut_bytes"] = Value::from(cut);
        }
        self.told.push(told);
        self.bytes += content.len();
        self.redactions += redactions;
        self.files.insert(path.to_owned(), content);
    }

    fn redacted(&self, shape: Shape, content: &[u8]) -> serde_json::Result<(Vec<u8>, usize)> {
        match (self.redacts, shape) {
            (false, Shape::Json | Shape::Lines) => Ok((content.to_vec(), 0)),
            (true, Shape::Lines) => Ok(redact::lines(content)),
            (true, Shape::Json) => {
                let mut document: Value = serde_json::from_slice(content)?;
                let count = redact::json(&mut document);
                Ok((document.to_string().into_bytes(), count))
            }
        }
    }

    /// How many files there are.
    pub(super) fn count(&self) -> usize {
        self.files.len()
    }

    /// What could not be had.
    pub(super) fn missing(&self) -> &[Value] {
        &self.missing
    }

    /// How many places were redacted.
    pub(super) fn redactions(&self) -> usize {
        self.redactions
    }

    /// Adds the list of everything, which is always there.
    pub(super) fn close(&mut self, of: &str, made: SystemTime) {
        let mut index = json!({
            "apiVersion": "cli.ambit.internal/v1",
            "kind": "SupportBundle",
            "version": env!("CARGO_PKG_VERSION"),
            "made": humantime::format_rfc3339_seconds(made).to_string(),
            "of": of,
            "secrets": if self.redacts { "redacted" } else { "all" },
            "redactions": self.redactions,
            "bytes": self.bytes,
            "bytes_max": self.bytes_max,
            "files": self.told,
            "missing": self.missing,
            "read_with": READ_WITH,
        });
        if self.redacts {
            // Names of nodes and pods are somebody's words too.
            let _ = redact::json(&mut index);
        }
        self.files.insert(INDEX.to_owned(), format!("{index:#}\n").into_bytes());
    }

    /// The files, by path.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(path, content)| (path.as_str(), content.as_slice()))
    }
}

/// How what is inside is asked without a mesh.
const READ_WITH: [&str; 3] = [
    "ambit explain --bundle BUNDLE.tar.gz SOURCE DESTINATION",
    "ambit get workloads --file nodes/NODE/ztunnel/config_dump.json",
    "ambit flows --input-file nodes/NODE/ztunnel/flows.jsonl",
];

/// The end of a log.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tail {
    /// Whole lines.
    pub(super) bytes: Vec<u8>,
    /// How many bytes come before.
    pub(super) cut: u64,
}

impl Tail {
    /// The end of a file that may go on growing.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn of_file(path: &Path, bytes_max: usize) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let cut = length.saturating_sub(bytes_max as u64);
        file.seek(SeekFrom::Start(cut))?;
        let mut bytes = Vec::new();
        file.take(bytes_max as u64).read_to_end(&mut bytes)?;
        let mut tail = Self { bytes, cut };
        if cut > 0 {
            tail.begin_with_line();
        }
        Ok(tail)
    }

    /// All of a text.
    pub(super) fn of_text(text: String) -> Self {
        Self { bytes: text.into_bytes(), cut: 0 }
    }

    /// Leaves the newest lines that fit.
    fn shorten(&mut self, bytes_max: usize) {
        let more = self.bytes.len().saturating_sub(bytes_max);
        if more > 0 {
            self.drop_first(more);
            self.begin_with_line();
        }
    }

    fn begin_with_line(&mut self) {
        let end = self.bytes.iter().position(|byte| *byte == b'\n');
        self.drop_first(end.map_or(self.bytes.len(), |end| end + 1));
    }

    fn drop_first(&mut self, count: usize) {
        self.bytes.drain(..count);
        self.cut += count as u64;
    }
}
