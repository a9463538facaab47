//! The table of broken manifests in the folder of a running control plane: each row is reported with its place, and what
//! was in force before it stays so.

use std::collections::{BTreeMap, BTreeSet};

use ambit_xds::Kind;
use serde_json::{Value, json};

use super::{Client, STRICT, node};
use crate::plane::{OBJECTS, Plane, revision};

const TABLE: &str = include_str!("../../../tests/tables/broken_manifests.yaml");

/// One manifest with its one problem.
struct Row {
    name: String,
    manifest: String,
    line: u64,
    column: u64,
    field: String,
    says: String,
}

/// Each takes the place of the one file that holds everything.
#[tokio::test]
async fn a_broken_file_in_place_of_a_good_one_changes_nothing() {
    let rows: Vec<Row> = rows().into_iter().filter(is_broken_alone).collect();
    assert!(rows.len() >= 20, "only {} rows", rows.len());
    let plane = Plane::start().await;
    let mut client = Client::open(&plane, "node1", BTreeMap::new()).await;
    client.accept().await;
    client.accept().await;
    let before = in_force(&plane).await;
    assert_ne!(before["workloads"], json!([]));
    for row in &rows {
        let problem = reported(&plane, row).await;
        let text = problem["text"].as_str().unwrap();
        // Where two places take part, the words after the first one differ from a command's.
        assert!(text.contains(row.says.split(" (see ").next().unwrap()), "{}: {text}", row.name);
        assert_eq!(in_force(&plane).await, before, "{}", row.name);
        // The client is up to date without having been told anything.
        let written = revision(&plane.folder);
        plane.until_sync(|sync| node(sync, "node1")["acked_revision"] == written).await;
        mend(&plane).await;
    }
    // Nothing was on its way to the client: the first that it hears is this.
    plane.write("strict.yaml", STRICT);
    let (kind, names, removed) = client.accept().await;
    assert_eq!((kind, removed.len()), (Kind::Authorization, 0));
    assert_eq!(names, ["istio-system/istio_converted_static_strict"]);
}

/// Each object is right in itself and comes into force: what it refers to may come later, from another file.
#[tokio::test]
async fn what_refers_to_nothing_is_reported_with_its_place() {
    let rows: Vec<Row> = rows().into_iter().filter(|row| !is_broken_alone(row)).collect();
    assert!(rows.len() >= 5, "only {} rows", rows.len());
    let plane = Plane::start().await;
    for row in &rows {
        reported(&plane, row).await;
        mend(&plane).await;
    }
}

/// Puts a row into the folder and waits until its problem is told at its place, under its field.
async fn reported(plane: &Plane, row: &Row) -> Value {
    plane.write("all.yaml", &row.manifest);
    let written = revision(&plane.folder);
    let is_told = |sync: &Value| sync["revision"] == written && problem(sync, row).is_some();
    let sync = plane.until_sync(is_told).await;
    problem(&sync, row).cloned().unwrap()
}

/// The problem of a row; of two places that take part either may come first.
fn problem<'a>(sync: &'a Value, row: &Row) -> Option<&'a Value> {
    let is_there = |place: &Value| {
        let file = place["file"].as_str().unwrap_or_default();
        file.ends_with("/all.yaml") && place["line"] == row.line && place["column"] == row.column
    };
    let mut problems = sync["problems"].as_array().unwrap().iter();
    problems.find(|p| p["field"] == *row.field && (is_there(&p["location"]) || is_there(&p["other"])))
}

/// Puts back what was there, and waits until nothing is wrong.
async fn mend(plane: &Plane) {
    plane.write("all.yaml", OBJECTS);
    let written = revision(&plane.folder);
    plane.until_sync(|sync| sync["revision"] == written && sync["problems"] == json!([])).await;
}

/// Everything the control plane serves, without what it says about its source.
async fn in_force(plane: &Plane) -> Value {
    let mut dump = plane.admin("/config_dump").await;
    for about in ["revision", "problems"] {
        dump.as_object_mut().unwrap().remove(about).unwrap();
    }
    dump
}

/// Whether the file as it stands is refused, and not only what its objects refer to is missing.
fn is_broken_alone(row: &Row) -> bool {
    let parsed = ambit_manifest::parse("row.yaml", &row.manifest);
    let keys: BTreeSet<_> = parsed.objects.iter().map(|object| &object.key).collect();
    !parsed.problems.is_empty() || keys.len() < parsed.objects.len()
}

/// The table, read by its lines: this package reads no YAML but manifests, and the form of a row is always the same.
fn rows() -> Vec<Row> {
    TABLE.split("\n- name: ").skip(1).map(row).collect()
}

fn row(text: &'static str) -> Row {
    let (name, rest) = text.split_once("\n  manifest: |\n").expect("a manifest");
    let (manifest, keys) = rest.split_at(rest.find("\n  line: ").expect("where its problem is"));
    let lines = manifest.lines().map(|line| line.strip_prefix("    ").unwrap_or(line));
    let value = |key: &str| {
        let of_key = |line: &'static str| line.strip_prefix("  ")?.strip_prefix(key)?.strip_prefix(": ");
        let written = keys.lines().find_map(of_key).expect("every row has every key");
        let quoted = written.strip_prefix('\'').and_then(|text| text.strip_suffix('\''));
        quoted.unwrap_or(written).replace("''", "'")
    };
    Row {
        name: name.to_owned(),
        manifest: lines.flat_map(|line| [line, "\n"]).collect(),
        line: value("line").parse().expect("a number"),
        column: value("column").parse().expect("a number"),
        field: value("field"),
        says: value("says"),
    }
}
