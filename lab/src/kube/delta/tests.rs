//! Differences of objects, and objects laid over each other.

use serde_json::{Value, json};

use super::{combine, difference, overlay};

#[test]
fn a_difference_laid_over_the_old_makes_the_new() {
    let old = json!({
        "metadata": {"labels": {"a": "1", "b": "2"}},
        "status": {"phase": "Pending", "conditions": [
            {"type": "Ready", "status": "False", "message": "starting", "lastProbeTime": null},
            {"type": "other/one", "status": "True"},
        ]},
    });
    let rows: [(&str, Value, Value); 6] = [
        ("nothing", old.clone(), Value::Null),
        (
            "what is empty is not missed",
            json!({
                "metadata": {"labels": {"a": "1", "b": "2"}, "annotations": {}},
                "status": {"phase": "Pending", "podIP": null, "podIPs": [], "conditions": [
                    {"type": "Ready", "status": "False", "message": "starting"},
                    {"type": "other/one", "status": "True"},
                ]},
            }),
            Value::Null,
        ),
        (
            "a label goes",
            json!({"metadata": {"labels": {"a": "1"}}, "status": old["status"]}),
            json!({"metadata": {"labels": {"b": null}}}),
        ),
        (
            "one condition turns, and loses its message",
            json!({"metadata": old["metadata"], "status": {"phase": "Pending", "conditions": [
                {"type": "Ready", "status": "True"}, {"type": "other/one", "status": "True"},
            ]}}),
            json!({"status": {"conditions": [{"type": "Ready", "status": "True", "message": null}]}}),
        ),
        (
            "somebody's condition is left out and stays",
            json!({"metadata": old["metadata"], "status": {"phase": "Pending", "conditions": [
                {"type": "Ready", "status": "False", "message": "starting"},
            ]}}),
            Value::Null,
        ),
        (
            "other lists count as a whole",
            json!({"metadata": old["metadata"], "status": {
                "phase": "Pending", "conditions": old["status"]["conditions"], "podIPs": [{"ip": "10.0.0.1"}],
            }}),
            json!({"status": {"podIPs": [{"ip": "10.0.0.1"}]}}),
        ),
    ];
    for (row, new, want) in rows {
        let patch = difference(&old, &new);
        assert_eq!(patch.clone().unwrap_or(Value::Null), want, "row {row}");
        let mut laid = old.clone();
        overlay(&mut laid, &patch.unwrap_or_else(|| json!({})));
        assert_eq!(difference(&laid, &new), None, "row {row}");
    }
}

#[test]
fn two_patches_in_one_do_what_both_do() {
    let base =
        json!({"metadata": {"labels": {"a": "1"}}, "status": {"conditions": [{"type": "A", "status": "1"}]}});
    let rows = [
        (json!({"metadata": {"labels": {"a": null}}}), json!({"metadata": {"labels": {"a": "2"}}})),
        (json!({"metadata": {"labels": {"a": "2"}}}), json!({"metadata": {"labels": {"a": null}}})),
        (
            json!({"status": {"conditions": [{"type": "A", "status": "2"}]}}),
            json!({"status": {"conditions": [{"type": "B", "status": "1"}, {"type": "A", "status": "3"}]}}),
        ),
        (json!({"spec": {"nodeName": "one"}}), json!({"status": {"phase": "Running"}})),
    ];
    for (first, second) in rows {
        let (mut one_by_one, mut together) = (base.clone(), base.clone());
        overlay(&mut one_by_one, &first);
        overlay(&mut one_by_one, &second);
        let mut both = first.clone();
        combine(&mut both, &second);
        overlay(&mut together, &both);
        assert_eq!(one_by_one, together, "row {first} {second}");
    }
}
