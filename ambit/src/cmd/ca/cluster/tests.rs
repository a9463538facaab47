//! What is read from the Secret's annotations, and what is not taken for an answer.

use serde_json::json;

use super::{TOLD, aged, annotation, answer, name_in, new_id, plugged};

#[test]
fn an_answer_is_that_to_ones_own_request() {
    let told = |id: &str, outcome: &str| json!({"answer": {"id": id, "outcome": outcome, "why": "a rotation is under way"}});
    let rows = [
        (json!({"phase": "idle"}), None),
        (json!({"answer": null}), None),
        (told("other", "done"), None),
        (told("mine", "done"), Some(Ok(()))),
        (told("mine", "refused"), Some(Err("a rotation is under way".to_owned()))),
        (json!({"answer": {"id": "mine"}}), Some(Err("it was refused".to_owned()))),
    ];
    for (told, want) in rows {
        assert_eq!(answer(&told, "mine"), want, "row {told}");
    }
    assert_ne!(new_id(), new_id());
    assert!(new_id().bytes().all(|byte| byte.is_ascii_hexdigit()) && new_id().len() == 32);
}

#[test]
fn who_asks_is_named_without_what_a_log_cannot_show() {
    let review = |name: &str| json!({"status": {"userInfo": {"username": name}}});
    assert_eq!(name_in(&review("jane\u{1b}[0m")).as_deref(), Some("jane[0m"));
    assert_eq!(name_in(&review(&"x".repeat(500))).map(|name| name.len()), Some(128));
    assert_eq!(name_in(&review("")), None);
    assert_eq!(name_in(&json!({})), None);
}

#[test]
fn a_rotation_of_which_nobody_tells_is_remarked() {
    let status = |phase: &str| json!({"phase": phase, "told_at": 1_000});
    assert_eq!(aged(&status("waiting"), 1_120), None);
    assert!(aged(&status("waiting"), 1_121).is_some_and(|words| words.contains("121 s ago")));
    assert_eq!(aged(&status("idle"), 9_000), None, "of what rests nothing is told again");
    let secret = json!({"metadata": {"annotations": {TOLD: "{}"}}});
    assert_eq!((annotation(&secret, TOLD), annotation(&json!({}), TOLD)), (Some("{}"), None));
    let plugged = plugged("mesh");
    assert!(plugged["note"].as_str().is_some_and(|note| note.contains("mesh/cacerts")));
}
