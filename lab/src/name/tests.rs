//! Which names a lab may have, and which namespaces are its own.

use super::*;

#[test]
fn names_are_checked_once() {
    for good in ["lab", "la-1", "a", "x-pods", "fabrics"] {
        assert!(good.parse::<LabName>().is_ok(), "row {good}");
    }
    for bad in
        ["", "-a", "a-", "a--b", "A", "a_b", "a/b", "..", "a.b", "x-pod", "node-1", "fabric", &"a".repeat(33)]
    {
        assert!(bad.parse::<LabName>().is_err(), "row {bad}");
    }
}

#[test]
fn a_lab_owns_only_its_own_namespaces() {
    let lab: LabName = "la".parse().expect("a good name");
    let other: LabName = "la-x".parse().expect("a good name");
    for mine in [lab.fabric(), lab.node("n1"), lab.pod("default", "web")] {
        assert!(lab.owns(&mine), "row {mine}");
        assert!(!other.owns(&mine), "row {mine}");
    }
    for theirs in
        [other.fabric(), other.node("n1"), other.pod("a", "b"), "la".to_owned(), "lab-fabric".to_owned()]
    {
        assert!(!lab.owns(&theirs), "row {theirs}");
    }
}
