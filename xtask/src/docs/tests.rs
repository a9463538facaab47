//! Generated texts: where they go, when they are stale.

use super::*;

fn page(place: Place) -> Page {
    Page { path: "sample.md", place, text: "new\n".to_owned() }
}

#[test]
fn only_the_part_between_the_markers_changes() {
    let before = "above\n<!-- x:begin -->\nold\n<!-- x:end -->\nbelow\n";
    let after = page(Place::Between("x")).applied(before).unwrap();
    assert_eq!(after, "above\n<!-- x:begin -->\nnew\n<!-- x:end -->\nbelow\n");
}

#[test]
fn a_stale_part_names_its_first_line() {
    let before = "above\n<!-- x:begin -->\nold\n<!-- x:end -->\n";
    let finding = page(Place::Between("x")).stale(before).unwrap();
    assert_eq!((finding.path.as_str(), finding.line), ("sample.md", 3));
    assert!(finding.mend.contains("cargo xtask docs"));
}

#[test]
fn a_missing_marker_is_named() {
    let finding = page(Place::Between("x")).stale("nothing here").unwrap();
    assert!(finding.what.contains("<!-- x:begin -->"), "{finding}");
}

#[test]
fn a_fresh_page_is_no_finding() {
    assert_eq!(page(Place::Whole).stale("new\n"), None);
    assert!(page(Place::Whole).stale("new\n\n").is_some());
}

#[test]
fn every_reason_code_has_a_row_and_a_family() {
    let text = reasons();
    for reason in Reason::ALL {
        assert!(
            text.contains(&format!("</a>[{0}](../runbooks/{0}.md) | {1} |", reason.code(), reason.name())),
            "{reason} has no row"
        );
        assert_ne!(family_of(reason.entry().number), "Others", "{reason} has no family");
    }
    assert_eq!(undocumented(), Vec::new());
}
