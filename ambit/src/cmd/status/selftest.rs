//! What a node's tests of itself came to, as `/selftest` of its ztunnel tells. Pure.

use serde_json::Value;

use crate::cmd::nodes::text;

/// Whether an attempt did not go as it must; a node that has not tested itself yet is not amiss.
pub(super) fn is_amiss(report: &Value) -> bool {
    !report.is_null() && report["passed"] != report["total"]
}

/// `5/5`; beside it what did not go as it must, breaches first and loudest; a dash where nothing was tested.
pub(super) fn cell(report: &Value) -> String {
    if report.is_null() {
        return "-".to_owned();
    }
    let named = |result: &str| {
        let tests = report["tests"].as_array().into_iter().flatten().filter(|one| one["result"] == result);
        let names: Vec<String> = tests.map(|one| text(one, "test")).collect();
        names.join(",")
    };
    let passed = format!("{}/{}", text(report, "passed"), text(report, "total"));
    let parts = [("BREACHED", named("breached")), ("failed", named("failed"))];
    let amiss = parts.iter().filter(|(_, names)| !names.is_empty());
    amiss.fold(passed, |cell, (what, names)| format!("{cell} {what}:{names}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{cell, is_amiss};

    #[test]
    fn what_was_let_in_is_named_before_what_failed() {
        let report = |results: [&str; 3]| {
            let names = ["allowed", "denied", "plaintext"];
            let tests: Vec<Value> = std::iter::zip(names, results)
                .map(|(test, result)| json!({"test": test, "result": result}))
                .collect();
            let passed = results.iter().filter(|result| **result == "passed").count();
            json!({"passed": passed, "total": 3, "tests": tests})
        };
        let rows = [
            (Value::Null, "-", false),
            (report(["passed"; 3]), "3/3", false),
            (report(["failed", "passed", "passed"]), "2/3 failed:allowed", true),
            (
                report(["failed", "breached", "breached"]),
                "0/3 BREACHED:denied,plaintext failed:allowed",
                true,
            ),
        ];
        for (report, want, amiss) in rows {
            assert_eq!(cell(&report), want);
            assert_eq!(is_amiss(&report), amiss, "{report}");
        }
    }
}
