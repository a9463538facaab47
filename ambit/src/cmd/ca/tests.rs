//! What is shown of the roots and their rotation.

use serde_json::json;

use super::{below, steps, table, verb};

#[test]
fn roots_and_steps_are_tables() {
    let roots = [
        json!({ "role": "signs", "subject": "CN=Ambit root", "not_after": 1_800_000_000, "fingerprint": "ab" }),
    ];
    let shown = table(&roots);
    assert!(shown.contains("2027-01-15T08:00:00Z") && shown.contains("CN=Ambit root"), "{shown}");
    let status = json!({
        "phase": "waiting",
        "problem": "the API server is away",
        "behind": 7,
        "behind_first": ["n1", "n2"],
        "steps": [{ "step": "add root", "state": "done", "evidence": "cd" }],
    });
    let shown = steps(&status);
    assert!(shown.contains("add root") && shown.contains("waiting for 7: n1, n2, …"), "{shown}");
    assert!(below(&status).contains("PROBLEM: the API server is away"));
    assert_eq!(below(&json!({ "phase": "idle", "problem": null })), "");
    let plugged = json!({ "phase": "idle", "problem": null, "note": "It is plugged in." });
    assert_eq!(below(&plugged), "\nIt is plugged in.\n");
}

#[test]
fn options_of_rotate_are_one_verb() {
    assert_eq!([verb(false, false), verb(true, false), verb(false, true)], ["rotate", "abort", "resume"]);
}
