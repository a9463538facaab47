//! What is patched, and which answers mean that nobody is left to be told.

use ambit_types::reason::Reason;

use super::*;
use crate::pod::Condition;

fn pod(condition: Option<Condition>) -> Pod {
    Pod { uid: "u1".to_owned(), name: "cart".to_owned(), condition, ..Pod::default() }
}

#[test]
fn the_patch_names_the_pod_and_touches_only_what_is_ours() {
    let captured = Announcement { redirection: Some("enabled"), condition: Some(Condition::captured()) };
    let first = patch(&pod(None), &captured, "t1");
    assert_eq!(first["metadata"], json!({"uid": "u1", "annotations": {REDIRECTION: "enabled"}}));
    let want = json!([{"type": CAPTURED, "status": "True", "reason": "Captured", "message": "", "lastTransitionTime": "t1"}]);
    assert_eq!(first["status"]["conditions"], want);
    let again = patch(&pod(Some(Condition::captured())), &captured, "t2");
    assert_eq!(again["status"]["conditions"][0].get("lastTransitionTime"), None, "since t1");
    let left = Condition::not_captured(Reason::NotEnrolled, "why");
    let left = Announcement { redirection: None, condition: Some(left) };
    let left = patch(&pod(Some(Condition::captured())), &left, "t3");
    assert_eq!(left["metadata"]["annotations"], json!({REDIRECTION: null}), "null removes it");
    assert_eq!(left["status"]["conditions"][0]["lastTransitionTime"], "t3");
    let gone = Announcement { redirection: None, condition: Some(Condition::withdrawn()) };
    let gone = patch(&pod(Some(Condition::captured())), &gone, "t4");
    assert_eq!(gone["status"]["conditions"], json!([{"$patch": "delete", "type": CAPTURED}]));
    let silent = Announcement { redirection: None, condition: None };
    assert_eq!(patch(&pod(None), &silent, "t5").get("status"), None);
}

#[test]
fn only_the_answers_about_another_pod_end_the_tries() {
    assert!(is_another(404, "pods \"cart\" not found"));
    assert!(is_another(409, "Precondition failed: UID in precondition: u1, UID in object meta: u2"));
    assert!(is_another(
        422,
        "Pod \"cart\" is invalid: metadata.uid: Invalid value: \"u1\": field is immutable"
    ));
    for (code, message) in
        [(409, "the object has been modified"), (403, "uid"), (500, "x"), (422, "status.conditions")]
    {
        assert!(!is_another(code, message), "{code} {message}");
    }
}
