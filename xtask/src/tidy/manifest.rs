//! Member manifests: lints inherited, versions only in the root.
//!
//! Reads the text line by line, because what cargo reports no longer tells where a version came from.

use super::{Finding, SourceFile};

/// Checks one `Cargo.toml`; the root has its own rules and is left alone.
pub(crate) fn check(file: &SourceFile) -> Vec<Finding> {
    if file.path == "Cargo.toml" {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let mut section = String::new();
    let mut inherits_lints = false;
    for (index, raw) in file.text.lines().enumerate() {
        let line = raw.trim();
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
        } else if section == "lints" && line.replace(' ', "") == "workspace=true" {
            inherits_lints = true;
        } else if section.ends_with("dependencies") && own_version(line) {
            findings.push(Finding::error(
                &file.path,
                index + 1,
                format!("a version outside the root: {line}"),
                "name it under [workspace.dependencies] in the root and write `NAME.workspace = true` here",
            ));
        }
    }
    if !inherits_lints {
        findings.push(Finding::error(
            &file.path,
            1,
            "the workspace's lints are not inherited",
            "add a section [lints] with `workspace = true`",
        ));
    }
    findings
}

/// Whether a dependency line takes its version, path or repository from here.
fn own_version(line: &str) -> bool {
    let Some((_, value)) = line.split_once('=') else { return false };
    let value = value.trim();
    let inline = |key: &str| value.contains(&format!("{key} =")) || value.contains(&format!("{key}="));
    value.starts_with('"') || inline("version") || inline("git") || inline("path")
}
