//! What is shown of faults.

use serde_json::json;

use super::*;

fn sync() -> Value {
    json!({
        "revision": 9,
        "reports": [
            {"kind": "HTTPRoute", "name": "shop/bad", "conditions": [
                {"type": "Accepted", "status": "True", "reason": "Accepted", "message": "in force for every client"},
                {"type": "ResolvedRefs", "status": "False", "reason": "BackendNotFound",
                    "message": "rules[0].backendRefs[0]: shop/gone is not there"},
                {"type": "PartiallyInvalid", "status": "True", "reason": "UnsupportedValue", "message": "Dropped Rule"},
            ]},
            {"kind": "TrafficPolicy", "name": "shop/calm", "conditions": [
                {"type": "Accepted", "status": "False", "reason": "TargetNotFound", "message": "there is no Service"},
            ]},
        ],
        "problems": [{"text": "routes.yaml:6:3: HTTPRoute shop/web: spec.rulez: unknown field", "field": "spec.rulez"}],
    })
}

#[test]
fn each_condition_that_tells_of_a_fault_is_a_row_and_each_refusal_a_line() {
    assert_eq!(
        Faults::of(&sync()).tables(),
        [
            "OBJECT                    CONDITION               REASON             MESSAGE\n\
             HTTPRoute shop/bad        ResolvedRefs=False      BackendNotFound    rules[0].backendRefs[0]: shop/gone is not there\n\
             HTTPRoute shop/bad        PartiallyInvalid=True   UnsupportedValue   Dropped Rule\n\
             TrafficPolicy shop/calm   Accepted=False          TargetNotFound     there is no Service\n",
            "REFUSED\n\
             routes.yaml:6:3: HTTPRoute shop/web: spec.rulez: unknown field\n",
        ]
    );
}

#[test]
fn where_nothing_is_wrong_nothing_is_shown() {
    let none = json!({"revision": 9, "reports": [], "problems": []});
    for sync in [none, Value::Null] {
        assert_eq!(Faults::of(&sync).tables(), Vec::<String>::new(), "{sync}");
    }
}
