//! What a delta holds, and how an event is written.

use std::collections::BTreeMap;

use serde_json::json;

use super::{delta, event};

#[test]
fn a_delta_holds_what_changed_and_what_is_gone() {
    let mut known = BTreeMap::new();
    let (a, b) = (json!({"id": "a", "denied": 0}), json!({"id": "b", "denied": 0}));
    let first = delta(&mut known, vec![a.clone(), b.clone()]).expect("everything is new");
    assert_eq!(first, json!({"items": [a, b], "removed": []}));
    assert_eq!(delta(&mut known, vec![a.clone(), b]), None, "nothing changed");
    let refused = json!({"id": "b", "denied": 1});
    let changed = delta(&mut known, vec![a, refused.clone()]);
    assert_eq!(changed, Some(json!({"items": [refused], "removed": []})));
    let gone = delta(&mut known, vec![refused]);
    assert_eq!(gone, Some(json!({"items": [], "removed": ["a"]})));
}

#[test]
fn an_event_is_one_line_of_data_whatever_names_hold() {
    let text = event("refusal", &json!({"error": "line\nbreak\r\n\nevent: forged"}));
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    assert_eq!(lines.len(), 4, "{text:?}");
    assert_eq!(lines[0], b"event: refusal");
    assert!(lines[1].starts_with(b"data: {") && lines[2..].iter().all(|line| line.is_empty()), "{text:?}");
}
