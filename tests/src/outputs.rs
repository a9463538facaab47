//! Which commands print what for programs: one row a command, and the kind that its schema is of.
//!
//! Words in braces are files and names of the test that runs the row. Together the rows have to name every kind.

use serde_json::Value;

use crate::lab::Output;
use crate::schema;

/// One command with `-o json`.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Its words, without `-o json`.
    pub words: &'static str,
    /// Kind of what it prints; of each line, if that is a stream.
    pub kind: &'static str,
    /// Which list of it must not be empty, as a pointer; of a stream there must be a line.
    pub filled: &'static str,
    /// Exit codes that are right.
    pub codes: &'static [i32],
}

const fn row(words: &'static str, kind: &'static str) -> Row {
    Row { words, kind, filled: "/items", codes: &[0] }
}

/// Kinds that are lines of a stream.
pub const LINES: [&str; 2] = ["FlowRecord", "TapEvent"];

/// Commands that need no mesh.
pub const WITHOUT_MESH: &[Row] = &[
    row("why AMB2104", "WhyList"),
    row("why policy-denied", "WhyList"),
    row("install", "List"),
    row("policy test {ROWS} -f {MANIFESTS} --fail-on never", "PolicyTestList"),
    Row { codes: &[79], ..row("lint {FINDINGS}", "FindingList") },
    Row { filled: "/categories", codes: &[0, 79], ..row("check --pre", "CheckResult") },
    row("flows --input-file {RECORDS}", "FlowRecord"),
];

/// Commands that ask a lab.
pub const OF_LAB: &[Row] = &[
    row("status", "NodeList"),
    row("status --budget", "BudgetList"),
    row("get workloads", "WorkloadList"),
    row("get services", "ServiceList"),
    row("get policies", "PolicyList"),
    row("get certificates", "CertificateList"),
    row("get connections", "ConnectionList"),
    row("flows --last 10000", "FlowRecord"),
    row("edges", "EdgeList"),
    row("map", "EdgeList"),
    row("stat", "StatList"),
    row("explain {CALLER} {SERVICE} --method GET --path /ready", "ExplanationList"),
    row("explain {CALLER} {SERVICE} --method GET --path /ready --as-of 1s", "ExplanationList"),
    row("why last", "WhyList"),
    row("why {OPEN}", "WhyList"),
    row("strict report", "StrictReportList"),
    row("policy diff {CHANGE}", "PolicyDiffList"),
    row("policy suggest -n {NAMESPACE}", "PolicySuggestion"),
    row("ca status", "RootList"),
    row("breakglass list", "BreakglassList"),
    row("waypoint list -A", "WaypointList"),
    row("waypoint status -A", "WaypointList"),
    row("support-bundle --to {ARCHIVE}", "SupportBundleList"),
    row("lab get pod -A", "List"),
    Row { filled: "/pods", ..row("lab status", "LabStatus") },
];

/// Counts while something happens.
pub const TOP: Row = row("top --for 6s", "TopList");

/// Tells what happens while it does.
pub const TAP: Row = row("tap --max 8 --from-pod {STRANGER}", "TapEvent");

/// What stands in an archive of `support-bundle`.
pub const INDEX: Row = Row { filled: "/files", ..row("index.json", "SupportBundle") };

impl Row {
    /// The words of the command with `-o json`, each word in braces replaced by what `meant` says.
    ///
    /// # Panics
    /// If it says nothing of one.
    #[track_caller]
    #[must_use]
    pub fn command(&self, meant: &[(&str, &str)]) -> Vec<String> {
        let replaced = |word: &str| match word.strip_prefix('{').and_then(|word| word.strip_suffix('}')) {
            None => word.to_owned(),
            Some(name) => {
                let found = meant.iter().find(|(known, _)| *known == name);
                found.unwrap_or_else(|| panic!("what is {name}?")).1.to_owned()
            }
        };
        self.words.split(' ').map(replaced).chain(["-o", "json"].map(str::to_owned)).collect()
    }

    /// Demands that what the command came to is right: its exit code, the documents, and that they have rows.
    ///
    /// # Panics
    /// If anything is not.
    #[track_caller]
    pub fn check(&self, output: &Output) -> Vec<Value> {
        let right = output.code.is_some_and(|code| self.codes.contains(&code));
        assert!(right, "{}: {:?} {}\n{}", self.words, output.code, output.stdout, output.stderr);
        let is_stream = LINES.contains(&self.kind);
        let texts: Vec<&str> =
            if is_stream { output.stdout.lines().collect() } else { vec![output.stdout.as_str()] };
        assert!(!texts.is_empty(), "{}: nothing was printed: {}", self.words, output.stderr);
        let documents: Vec<Value> = texts.into_iter().map(|text| self.read(text)).collect();
        for document in &documents {
            schema::check(self.kind, document);
            let list = document.pointer(self.filled).and_then(Value::as_array);
            assert!(is_stream || list.is_some_and(|list| !list.is_empty()), "{}: {document}", self.words);
        }
        documents
    }

    #[track_caller]
    fn read(&self, text: &str) -> Value {
        assert!(!text.contains('\u{1b}'), "{}: a terminal code in {text}", self.words);
        serde_json::from_str(text).unwrap_or_else(|e| panic!("{}: {e} in {text}", self.words))
    }
}
