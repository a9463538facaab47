//! Broken manifests, given to a command or put into the folder that the programs watch: the error names the file, the
//! line and the field, and nothing changes in the mesh.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ambit_tests::lab::{Lab, all_completed, wait_until};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cast::{PORT, namespace, pod, security, server};

const TABLE: &str = include_str!("../tables/broken_manifests.yaml");
/// What a command says about input it cannot use.
const BAD_INPUT: i32 = 65;
const WAIT: Duration = Duration::from_secs(5);

/// One manifest with its one problem.
#[derive(Debug, Deserialize)]
struct Row {
    name: String,
    manifest: String,
    line: u32,
    column: u32,
    field: String,
    says: String,
}

fn rows() -> Vec<Row> {
    serde_saphyr::from_str(TABLE).expect("the table has the form its head describes")
}

fn cast() -> [Value; 3] {
    [namespace("shop", true), pod("shop/caller", "node1", &[]), server("shop/echo", "node2")]
}

#[test]
fn a_broken_manifest_is_refused_with_its_place_and_changes_nothing() {
    let rows = rows();
    assert!(rows.len() >= 20, "only {} rows", rows.len());
    let Some(lab) = Lab::up("broken", &cast(), &[]) else { return };
    let revision = || fs::read_to_string(lab.run_dir().join("objects/.revision")).expect("its revision");
    let (before, known, mut wrong) = (revision(), known(&lab), Vec::new());
    for row in &rows {
        let file = lab.file("broken.yaml", &row.manifest);
        let output = lab.ambit(&["lab", "apply", "-f", &file]);
        let place = format!("broken.yaml:{}:", row.line);
        let said = output.stderr.contains(&place) && output.stderr.contains(&row.says.replace("FILE", &file));
        if output.code != Some(BAD_INPUT) || !said || revision() != before {
            wrong.push(format!("{} ({}): exit {:?}: {}", row.name, row.field, output.code, output.stderr));
        }
    }
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    unchanged(&lab, &known);
}

/// The file is one of people's own and holds a policy: every row of the table takes its place.
#[test]
fn a_file_of_the_folder_that_is_broken_keeps_its_last_good_state_in_force() {
    let rows: Vec<Row> = rows().into_iter().filter(is_broken_alone).collect();
    assert!(rows.len() >= 20, "only {} rows", rows.len());
    let Some(lab) = Lab::up("broken-file", &cast(), &[]) else { return };
    let file = lab.run_dir().join("objects/dropped.yaml");
    let spec = json!({"action": "DENY", "rules": [{"to": [{"operation": {"ports": ["9999"]}}]}]});
    let good = security("AuthorizationPolicy", "shop/dropped", &spec).to_string();
    put(&file, &good);
    wait_until("both nodes know the policy", WAIT, || {
        known(&lab).iter().all(|node| node["policies"].to_string().contains("dropped"))
    });
    let (known_before, mut wrong) = (known(&lab), Vec::new());
    for row in &rows {
        put(&file, &row.manifest);
        let mut problem = None;
        wait_until(&format!("{} is reported at its place", row.name), WAIT, || {
            problem = problems(&lab).into_iter().find(|problem| is_at(problem, row, &file));
            problem.is_some()
        });
        let text = problem.unwrap_or_default()["text"].as_str().unwrap_or_default().to_owned();
        // Where two places take part, the words after the first one differ from a command's.
        let words = row.says.split(" (see ").next().unwrap_or_default();
        if !text.contains(words) || known(&lab) != known_before {
            wrong.push(format!("{}: {text}", row.name));
        }
        put(&file, &good);
        wait_until(&format!("{} is mended", row.name), WAIT, || problems(&lab).is_empty());
    }
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    unchanged(&lab, &known_before);
}

/// Whether a row's file is refused as it stands. Where only what an object refers to is missing, the object itself comes
/// into force: a folder is read file by file, and the other file may come later.
fn is_broken_alone(row: &Row) -> bool {
    let parsed = ambit_manifest::parse("row.yaml", &row.manifest);
    let keys: BTreeSet<_> = parsed.objects.iter().map(|object| &object.key).collect();
    !parsed.problems.is_empty() || keys.len() < parsed.objects.len()
}

/// Puts a file in place in one step.
fn put(file: &Path, text: &str) {
    let unfinished: PathBuf = file.with_file_name(".unfinished");
    fs::write(&unfinished, text).expect("the folder is root's");
    fs::rename(&unfinished, file).expect("the folder is root's");
}

fn is_at(problem: &Value, row: &Row, file: &Path) -> bool {
    let at = &problem["location"];
    at["line"] == row.line
        && at["column"] == row.column
        && problem["field"] == *row.field
        && at["file"].as_str() == file.to_str()
}

/// What the control plane finds wrong.
fn problems(lab: &Lab) -> Vec<Value> {
    let sync = ask(lab, "istiod/admin.sock", "/sync");
    sync["problems"].as_array().cloned().expect("a list of problems")
}

/// What each node knows of the mesh.
fn known(lab: &Lab) -> [Value; 2] {
    ["node1", "node2"].map(|node| {
        let dump = ask(lab, &format!("nodes/{node}/ztunnel-admin.sock"), "/config_dump");
        let known = ["workloads", "services", "policies"].map(|key| (key.to_owned(), dump[key].clone()));
        assert!(known.iter().all(|(_, list)| list.is_array()), "the dump of {node} lacks a list: {dump:#}");
        known.into_iter().collect()
    })
}

#[track_caller]
fn ask(lab: &Lab, socket: &str, path: &str) -> Value {
    let socket = lab.run_dir().join(socket).display().to_string();
    let url = format!("http://localhost{path}");
    let answer = lab.on_node("node1", &["curl", "-sS", "--unix-socket", &socket, &url]).ok();
    serde_json::from_str(&answer).expect("JSON from an admin socket")
}

/// Demands that both nodes know what they knew, also after a change that came behind whatever was tried, and that
/// connections are made.
#[track_caller]
fn unchanged(lab: &Lab, before: &[Value; 2]) {
    // Returns when every node has answered everything up to it; it means nothing to the nodes itself.
    lab.apply(&[namespace("barrier", false)]);
    assert_eq!(known(lab), *before, "a node knows something else than before");
    assert_eq!(all_completed(&lab.call("shop/caller", &lab.target("shop/echo", 4, PORT), &[])), 1);
}
