//! Every row of the table has exactly the problem it says.

use serde::Deserialize;

use crate::de::{self, Quote};
use crate::{Problem, check_set, parse, tree};

const TABLE: &str = include_str!("../../../../tests/tables/broken_manifests.yaml");

#[derive(Debug, Deserialize)]
struct Row {
    name: String,
    manifest: String,
    line: u32,
    column: u32,
    field: String,
    says: String,
}

#[test]
fn every_broken_manifest_is_refused_with_its_place_and_words() {
    let rows = rows();
    assert!(rows.len() >= 60, "only {} rows", rows.len());
    let mut wrong = Vec::new();
    for row in &rows {
        let problems = problems("f.yaml", &row.manifest);
        let want = format!(
            "f.yaml:{}:{}: {} [{}]",
            row.line,
            row.column,
            row.says.replace("FILE", "f.yaml"),
            row.field
        );
        let got: Vec<String> = problems.iter().map(|p| format!("{p} [{}]", p.field)).collect();
        if got != [want.clone()] {
            wrong.push(format!("{}\n  want {want}\n  got  {}", row.name, got.join("\n       ")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A problem that a reader of the table could not tell from another would not help a user either.
#[test]
fn names_of_rows_are_unique() {
    let mut names: Vec<String> = rows().into_iter().map(|r| r.name).collect();
    let all = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn all_problems_of_an_object_are_reported_at_once() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  labels: {x: 1, y: 2}\nspec:\n  hostnetwork: true\n  containers:\n  - name: app\n    ports:\n    - containerPort: x\n";
    let got: Vec<String> = parse("f", text).problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        got,
        [
            "f:5:15: Pod default/a: metadata.labels[x]: expected a string, found the integer 1; put it in quotes",
            "f:5:21: Pod default/a: metadata.labels[y]: expected a string, found the integer 2; put it in quotes",
            "f:7:3: Pod default/a: spec.hostnetwork: unknown field, did you mean \"hostNetwork\"?",
            "f:11:22: Pod default/a: spec.containers[0].ports[0].containerPort: expected an integer, found the string \"x\"",
        ]
    );
}

fn rows() -> Vec<Row> {
    let documents = tree::read(TABLE);
    let (rows, findings) = de::read::<Vec<Row>>(&documents.tree, documents.roots[0], Quote::Values);
    assert!(findings.is_empty() && documents.findings.is_empty(), "{findings:?} {:?}", documents.findings);
    rows.unwrap()
}

fn problems(file: &str, text: &str) -> Vec<Problem> {
    let parsed = parse(file, text);
    let mut problems = parsed.problems;
    problems.extend(check_set(&parsed.objects));
    problems
}

#[test]
fn a_secret_is_not_repeated_in_a_message() {
    for data in
        ["data: {a: \"hunter2!\"}", "data: {a: 4711}", "stringData: {a: 4711}", "stringData: {a: [hunter2]}"]
    {
        let text = format!("apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\n{data}\n");
        let problems = parse("f", &text).problems;
        assert_eq!(problems.len(), 1, "{data}: {problems:?}");
        let said = problems[0].to_string();
        assert!(!said.contains("4711") && !said.contains("hunter2"), "{said}");
    }
}
