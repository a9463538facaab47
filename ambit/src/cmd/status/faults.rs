//! Objects that are not in force as they are written, and manifests that were refused, as the control plane tells. Pure.

use serde_json::Value;

use crate::cmd::nodes::{cell, text};
use crate::out;

#[cfg(test)]
mod tests;

const HEADING: &[&str] = &["OBJECT", "CONDITION", "REASON", "MESSAGE"];
/// What was in force before a refused manifest stays so.
const REFUSED: &[&str] = &["REFUSED"];

/// What is wrong with objects.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults {
    /// Objects with conditions that tell of a fault, with all of their conditions.
    pub(super) reports: Vec<Value>,
    /// Problems of manifests, with their places.
    pub(super) problems: Vec<Value>,
}

impl Faults {
    /// Reads the control plane's answer to `/sync`; without one nothing is known to be wrong.
    pub(super) fn of(sync: &Value) -> Self {
        let list = |key: &str| sync[key].as_array().cloned().unwrap_or_default();
        Self { reports: list("reports"), problems: list("problems") }
    }

    /// One table for each kind of fault there is.
    pub(super) fn tables(&self) -> Vec<String> {
        let faulty: Vec<Vec<String>> = self.reports.iter().flat_map(rows).collect();
        let refused: Vec<Vec<String>> = self.problems.iter().map(|one| vec![text(one, "text")]).collect();
        let all = [(HEADING, faulty), (REFUSED, refused)];
        all.into_iter()
            .filter(|(_, rows)| !rows.is_empty())
            .map(|(heading, rows)| out::table(heading, &rows))
            .collect()
    }
}

/// A row for each condition that tells of a fault.
fn rows(report: &Value) -> Vec<Vec<String>> {
    let object = format!("{} {}", text(report, "kind"), text(report, "name"));
    let conditions = report["conditions"].as_array().into_iter().flatten().filter(|one| is_fault(one));
    let row = |one: &Value| {
        let holds = format!("{}={}", text(one, "type"), text(one, "status"));
        vec![object.clone(), holds, cell(one, "reason"), cell(one, "message")]
    };
    conditions.map(row).collect()
}

/// Conditions say what is well; one says what is not.
pub(super) fn is_fault(condition: &Value) -> bool {
    condition["status"] != "True" || condition["type"] == "PartiallyInvalid"
}
