//! Relative links in markdown lead to a file that is there.
//!
//! Web links and anchors inside a page are not followed.

use std::collections::BTreeSet;

use super::{Finding, SourceFile};

/// Checks every markdown file.
pub(crate) fn check(files: &[SourceFile]) -> Vec<Finding> {
    let known: BTreeSet<&str> = files.iter().map(|f| f.path.as_str()).collect();
    let mut findings = Vec::new();
    for file in files.iter().filter(|f| f.path.ends_with(".md")) {
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (index, line) in file.text.lines().enumerate() {
            for target in targets(line) {
                let resolved = resolve(folder, target);
                let is_folder = known.iter().any(|path| path.starts_with(&format!("{resolved}/")));
                if !known.contains(resolved.as_str()) && !is_folder {
                    findings.push(Finding::error(
                        &file.path,
                        index + 1,
                        format!("the link {target} leads nowhere ({resolved})"),
                        "correct the path, or add the file to the repository",
                    ));
                }
            }
        }
    }
    findings
}

/// The relative targets of `[text](target)` in a line.
fn targets(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = line;
    while let Some(start) = rest.find("](") {
        rest = &rest[start + 2..];
        let Some(end) = rest.find(')') else { break };
        let target = rest[..end].split('#').next().unwrap_or_default();
        if !target.is_empty() && !target.contains(':') && !target.starts_with('/') {
            found.push(target);
        }
        rest = &rest[end..];
    }
    found
}

/// The path inside the repository that a link in `folder` means.
fn resolve(folder: &str, target: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|p| !p.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}
