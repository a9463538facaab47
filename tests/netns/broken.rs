//! Broken manifests: the error names the file, the line and the field, and nothing changes in the mesh.

use ambit_tests::lab::{Lab, all_completed};
use serde::Deserialize;

use crate::cast::{PORT, namespace, pod, server};

const TABLE: &str = include_str!("../tables/broken_manifests.yaml");
/// What a command says about input it cannot use.
const BAD_INPUT: i32 = 65;

/// One manifest with its one problem.
#[derive(Debug, Deserialize)]
struct Row {
    name: String,
    manifest: String,
    line: u32,
    field: String,
    says: String,
}

#[test]
fn a_broken_manifest_is_refused_with_its_place_and_changes_nothing() {
    let rows: Vec<Row> = serde_saphyr::from_str(TABLE).expect("the table has the form its head describes");
    assert!(rows.len() >= 20, "only {} rows", rows.len());
    let cast = [namespace("shop", true), pod("shop/caller", "node1", &[]), server("shop/echo", "node2")];
    let Some(lab) = Lab::up("broken", &cast, &[]) else { return };
    let revision =
        || std::fs::read_to_string(lab.run_dir().join("objects/.revision")).expect("the store's revision");
    let (before, mut wrong) = (revision(), Vec::new());
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
    assert_eq!(all_completed(&lab.call("shop/caller", &lab.target("shop/echo", 4, PORT), &[])), 1);
}
