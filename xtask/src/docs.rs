//! Pages and tables that are printed from code, so that they cannot drift from it.
//!
//! A page is wholly generated, or has a generated part between two markers. What is generated elsewhere (a program's own
//! settings, say) gets its row in [`generated`] as soon as the code it is printed from exists.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use ambit_types::reason::{Kind, Reason};
use anyhow::Context;

use crate::layers;
use crate::tidy::Finding;

mod copies;
mod dashboards;
mod settings;
mod surface;
#[cfg(test)]
mod tests;

/// A generated text and its place.
#[derive(Debug, Clone)]
struct Page {
    path: &'static str,
    place: Place,
    text: String,
}

/// How much of the file is generated.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// All of it.
    Whole,
    /// What stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->`.
    Between(&'static str),
}

/// Everything that is generated.
///
/// # Errors
/// When a source file that a page is printed from cannot be read.
fn generated(root: &Path) -> anyhow::Result<Vec<Page>> {
    let whole = |path, text| Page { path, place: Place::Whole, text };
    let mut pages = vec![
        Page { path: "ARCHITECTURE.md", place: Place::Between("layers"), text: layers::markdown() },
        whole("docs/reference/reasons.md", reasons()),
        whole("docs/reference/config.md", settings::page(root)?),
        whole("docs/reference/metrics.md", surface::metrics(root)?),
        whole("docs/reference/access-log.md", surface::access_log(root)?),
        whole("docs/reference/admin.md", surface::admin(root)?),
    ];
    pages.extend(dashboards::pages(root)?);
    pages.extend(copies::pages(root)?);
    Ok(pages)
}

/// Writes every generated text to its place.
///
/// # Errors
/// When a file cannot be written, or its markers are missing.
pub(crate) fn write(root: &Path) -> anyhow::Result<bool> {
    for page in generated(root)? {
        let path = root.join(page.path);
        let before = fs::read_to_string(&path).unwrap_or_default();
        let after = page.applied(&before).with_context(|| format!("generating {}", page.path))?;
        if after == before {
            println!("{} is fresh", page.path);
            continue;
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("making the folder of {}", page.path))?;
        }
        fs::write(&path, after).with_context(|| format!("writing {}", page.path))?;
        println!("{} written", page.path);
    }
    Ok(true)
}

/// Compares every generated text with its file; one that cannot be read is out of date.
pub(crate) fn check(root: &Path) -> Vec<Finding> {
    let mut findings = undocumented();
    findings.extend(surface::check(root));
    findings.extend(dashboards::check(root));
    let pages = match generated(root) {
        Ok(pages) => pages,
        Err(error) => {
            let what = format!("no page can be generated: {error:#}");
            findings.push(Finding::error("xtask/src/docs.rs", 1, what, "name the file where it is now"));
            return findings;
        }
    };
    for page in pages {
        let before = fs::read_to_string(root.join(page.path)).unwrap_or_default();
        findings.extend(page.stale(&before));
    }
    findings
}

impl Page {
    /// The file's text with the generated part put in.
    fn applied(&self, before: &str) -> anyhow::Result<String> {
        let Place::Between(name) = self.place else { return Ok(self.text.clone()) };
        let (begin, end) = (format!("<!-- {name}:begin -->\n"), format!("<!-- {name}:end -->"));
        let head = before.find(&begin).with_context(|| format!("the marker {} is missing", begin.trim()))?
            + begin.len();
        let tail = before[head..].find(&end).with_context(|| format!("the marker {end} is missing"))? + head;
        Ok(format!("{}{}{}", &before[..head], self.text, &before[tail..]))
    }

    /// A finding when the file differs from what would be generated, at the first line that differs.
    fn stale(&self, before: &str) -> Option<Finding> {
        let mend = "run `cargo xtask docs`";
        let after = match self.applied(before) {
            Ok(after) => after,
            Err(error) => return Some(Finding::error(self.path, 1, error.to_string(), "restore the marker")),
        };
        if after == before {
            return None;
        }
        let same = before.lines().zip(after.lines()).take_while(|(a, b)| a == b).count();
        Some(Finding::error(self.path, same + 1, "the generated text is out of date", mend))
    }
}

/// Reason codes that say nothing to the person who meets them.
fn undocumented() -> Vec<Finding> {
    let silent = Reason::ALL
        .iter()
        .map(|reason| reason.entry())
        .filter(|e| e.when.is_empty() || e.try_next.is_empty());
    silent
        .map(|entry| {
            Finding::error(
                "crates/ambit-types/src/reason/list.rs",
                1,
                format!("{} does not say when it is given or what to try", entry.reason),
                "fill both texts of its row",
            )
        })
        .collect()
}

/// The reference page of reason codes.
fn reasons() -> String {
    let mut out = String::from(
        "# Reason codes\n\n\
         Every refused or odd connection carries one of these codes.\n\
         The same code stands in the access log, the metric, the flow record and here; `ambit why CODE` prints it offline.\n\
         Each has a page that says where to look and how to mend it.\n\
         Codes are never reused.\n\
         The column *flag* is the `response_flags` label that existing dashboards know.\n\n\
         Generated from `crates/ambit-types/src/reason/list.rs` by `cargo xtask docs`.\n",
    );
    let mut family = "";
    for entry in Reason::ALL.iter().map(|reason| reason.entry()) {
        let subject = family_of(entry.number);
        if subject != family {
            family = subject;
            write!(out, "\n## {subject}\n\n| code | name | kind | flag | when | what to try |\n| --- | --- | --- | --- | --- | --- |\n")
                .expect("writing to a String cannot fail");
        }
        let kind = match entry.kind {
            Kind::Refusal => "refusal",
            Kind::Info => "info",
        };
        let code = entry.reason.code();
        writeln!(
            out,
            "| <a id=\"{}\"></a>[{code}](../runbooks/{code}.md) | {} | {kind} | {} | {} | {} |",
            code.to_lowercase(),
            entry.name,
            entry.flag,
            cell(entry.when),
            cell(entry.try_next)
        )
        .expect("writing to a String cannot fail");
    }
    out
}

/// A text as it may stand in a table's cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// What the codes with these first two digits are about.
fn family_of(number: u16) -> &'static str {
    match number / 100 {
        10 => "10xx Enrolment",
        11 => "11xx Capture",
        20 => "20xx Identity and TLS",
        21 => "21xx Authorization at L4",
        22 => "22xx Authorization at L7",
        23 => "23xx Strictness",
        30 => "30xx Routing and discovery",
        31 => "31xx Waypoint binding",
        40..=49 => "40xx Network and peer",
        50..=59 => "50xx DNS",
        60..=69 => "60xx Control plane",
        70..=79 => "70xx Local resources",
        _ => "Others",
    }
}
