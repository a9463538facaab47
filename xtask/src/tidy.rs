//! Checks that the compiler does not make, each a function from text to findings.
//!
//! Formatting and lints are rustfmt's and clippy's. A finding says where, what, and how to mend it.

use std::fmt;

use crate::docs;
use crate::tool::Tools;

mod bundle;
mod imports;
mod links;
mod manifest;
mod rust;
mod tree;
mod words;

#[cfg(test)]
mod tests;

use tree::SourceFile;
pub(crate) use tree::read as read_sources;

/// Something to mend, or to think about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Path inside the repository.
    pub path: String,
    /// Line, counted from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub mend: String,
    /// Whether it fails the run.
    pub weight: Weight,
}

/// Whether a finding fails the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    /// The run fails.
    Error,
    /// Printed, nothing more.
    Note,
}

impl Finding {
    /// A finding that fails the run.
    pub(crate) fn error(path: &str, line: usize, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into(), mend: mend.into(), weight: Weight::Error }
    }

    /// A finding to think about.
    pub(crate) fn note(path: &str, line: usize, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { weight: Weight::Note, ..Self::error(path, line, what, mend) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = match self.weight {
            Weight::Error => "",
            Weight::Note => "note: ",
        };
        write!(f, "{}:{}: {prefix}{}\n    mend: {}", self.path, self.line, self.what, self.mend)
    }
}

/// Runs every check over the tree and prints the findings; true when none fails the run.
///
/// # Errors
/// When the tree cannot be read.
pub(crate) fn run(tools: &Tools) -> anyhow::Result<bool> {
    let files = tree::read(&tools.root)?;
    let mut findings = imports::check(&imports::packages(&tools.metadata));
    findings.extend(check_files(&files));
    findings.extend(bundle::check(&files));
    findings.extend(docs::check(&tools.root));
    findings.sort_by(|a, b| (&a.path, a.line, &a.what).cmp(&(&b.path, b.line, &b.what)));
    for finding in &findings {
        println!("{finding}");
    }
    let errors = findings.iter().filter(|f| f.weight == Weight::Error).count();
    println!("tidy: {} files, {errors} to mend, {} notes", files.len(), findings.len() - errors);
    Ok(errors == 0)
}

/// Every check that looks at one file, and the ones that look at all of them.
fn check_files(files: &[SourceFile]) -> Vec<Finding> {
    let mut findings = links::check(files);
    for file in files {
        findings.extend(words::check(file));
        if file.path.ends_with(".rs") {
            findings.extend(rust::check(file));
        }
        if file.path.ends_with("Cargo.toml") {
            findings.extend(manifest::check(file));
        }
    }
    findings
}
