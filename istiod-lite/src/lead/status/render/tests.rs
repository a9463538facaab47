//! What is written, given what stands there.

use ambit_control::status::ParentReport;
use ambit_types::written::ParentRef;

use super::*;

const NOW: &str = "2026-01-02T03:04:05Z";
const BEFORE: &str = "2025-01-01T00:00:00Z";

fn bound(holds: bool, reason: &'static str) -> Report {
    let condition = Condition { kind: WAYPOINT_BOUND, holds, reason, message: reason.to_owned() };
    Report { generation: 0, conditions: vec![condition], parents: Vec::new() }
}

fn held(kind: &str, status: &str, reason: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": reason, "lastTransitionTime": BEFORE})
}

fn live(conditions: &[Value]) -> Value {
    json!({"status": {"conditions": conditions}})
}

#[test]
fn what_is_said_already_is_not_written_again() {
    let there = [held("Foreign", "True", "Theirs"), held(WAYPOINT_BOUND, "True", "WaypointAccepted")];
    for kind in [Kind::Service, Kind::ServiceEntry] {
        assert_eq!(writing(kind, &live(&there), Some(&bound(true, "WaypointAccepted")), NOW), None);
        assert_eq!(writing(kind, &live(&there[..1]), None, NOW), None, "nothing is ours");
        assert_eq!(writing(kind, &json!({}), None, NOW), None, "no status at all");
    }
}

#[test]
fn a_condition_keeps_its_time_while_its_status_stays() {
    let there = [held(WAYPOINT_BOUND, "False", "WaypointIsNotReady")];
    let rows = [
        (bound(false, "AttachmentDenied"), BEFORE, 1),
        (bound(true, "WaypointAccepted"), NOW, 0),
        (bound(false, "WaypointIsNotReady"), "nothing written", 0),
    ];
    for (report, time, turned_bad) in rows {
        let written = writing(Kind::Service, &live(&there), Some(&report), NOW);
        let got = written.as_ref().map_or("nothing written", |written| {
            written.status["conditions"][0]["lastTransitionTime"].as_str().unwrap_or_default()
        });
        assert_eq!(got, time, "{report:?}");
        assert_eq!(written.map_or(0, |written| written.turned_bad.len()), turned_bad, "{report:?}");
    }
}

#[test]
fn what_others_say_is_carried_along_only_where_a_list_has_one_owner() {
    let there = [held("Foreign", "True", "Theirs"), held(WAYPOINT_BOUND, "True", "WaypointAccepted")];
    let types = |writing: &Writing| -> Vec<String> {
        let all = writing.status["conditions"].as_array().cloned().unwrap_or_default();
        all.iter().map(|one| text(one, "type").to_owned()).collect()
    };
    let service = writing(Kind::Service, &live(&there), Some(&bound(false, "No")), NOW).expect("differs");
    assert_eq!((types(&service), service.is_bound_to_version), (vec![WAYPOINT_BOUND.to_owned()], false));
    let entry = writing(Kind::ServiceEntry, &live(&there), Some(&bound(false, "No")), NOW).expect("differs");
    let both = vec!["Foreign".to_owned(), WAYPOINT_BOUND.to_owned()];
    assert_eq!((types(&entry), entry.is_bound_to_version), (both, true));
    let taken_back = writing(Kind::ServiceEntry, &live(&there), None, NOW).expect("differs");
    assert_eq!(types(&taken_back), ["Foreign"]);
    let taken_back = writing(Kind::Service, &live(&there), None, NOW).expect("differs");
    assert_eq!(types(&taken_back), Vec::<String>::new());
}

fn route_report(name: &str, holds: bool) -> Report {
    let parent = ParentRef {
        group: Some(String::new()),
        kind: Some("Service".to_owned()),
        name: name.to_owned(),
        ..ParentRef::default()
    };
    let condition = Condition { kind: ACCEPTED, holds, reason: "Accepted", message: "in force".to_owned() };
    Report {
        generation: 7,
        conditions: Vec::new(),
        parents: vec![ParentReport { parent, conditions: vec![condition] }],
    }
}

#[test]
fn a_route_keeps_the_parents_of_other_controllers() {
    let foreign =
        json!({"parentRef": {"name": "ingress"}, "controllerName": "example.com/other", "conditions": []});
    let live = json!({"status": {"parents": [foreign]}});
    let first = writing(Kind::HttpRoute, &live, Some(&route_report("web", true)), NOW).expect("differs");
    let parents = first.status["parents"].as_array().expect("a list");
    assert_eq!((parents.len(), &parents[0]), (2, &foreign));
    assert_eq!(
        parents[1],
        json!({
            "parentRef": {"group": "", "kind": "Service", "name": "web"},
            "controllerName": "istio.io/gateway-controller",
            "conditions": [{
                "type": "Accepted", "status": "True", "reason": "Accepted", "message": "in force",
                "observedGeneration": 7, "lastTransitionTime": NOW,
            }],
        })
    );
    assert!(first.is_bound_to_version, "somebody else may write the same list");
    let written = json!({"status": first.status});
    assert_eq!(writing(Kind::HttpRoute, &written, Some(&route_report("web", true)), BEFORE), None);
    let moved = writing(Kind::HttpRoute, &written, Some(&route_report("api", false)), NOW).expect("differs");
    assert_eq!(moved.status["parents"].as_array().map(Vec::len), Some(2), "the old parent is gone");
    assert_eq!(moved.turned_bad.len(), 1);
    let none = writing(Kind::HttpRoute, &written, None, NOW).expect("ours has to go");
    assert_eq!(none.status["parents"], json!([foreign]));
}

#[test]
fn a_gateway_that_says_all_is_left_alone_whatever_others_say_of_it() {
    let wanted = json!({
        "addresses": [{"type": "IPAddress", "value": "10.2.0.9"}],
        "conditions": [{"type": "Programmed", "status": "True", "reason": "Programmed", "message": ""}],
        "listeners": [{"name": "mesh", "attachedRoutes": 0, "supportedKinds": [], "conditions": [
            {"type": "Accepted", "status": "True", "reason": "Accepted", "message": ""},
        ]}],
    });
    let first = of_gateway(&json!({}), &wanted, BEFORE).expect("nothing is there");
    let mut live = json!({"status": first.status});
    assert_eq!(of_gateway(&live, &wanted, NOW), None);
    if let Some(all) = live["status"]["conditions"].as_array_mut() {
        all.push(held("example.com/Foreign", "True", "Theirs"));
    }
    assert_eq!(of_gateway(&live, &wanted, NOW), None);
    live["status"]["addresses"] = json!([]);
    let again = of_gateway(&live, &wanted, NOW).expect("an address is missing");
    assert_eq!(again.status["conditions"][0]["lastTransitionTime"], BEFORE);
    assert_eq!(again.status["listeners"][0]["conditions"][0]["lastTransitionTime"], BEFORE);
    assert_eq!(again.status["conditions"].as_array().map(Vec::len), Some(1), "others' stay theirs");
}

#[test]
fn what_passes_by_itself_is_no_event() {
    for (reason, count) in [("AddressNotAssigned", 0), ("Pending", 0), ("NoResources", 1)] {
        let wanted = json!({"conditions": [{"type": "Programmed", "status": "False", "reason": reason}]});
        let writing = of_gateway(&json!({}), &wanted, NOW).expect("nothing is there");
        assert_eq!(writing.turned_bad.len(), count, "{reason}");
    }
}

#[test]
fn long_messages_are_cut_between_characters() {
    let long = "ä".repeat(MESSAGE_BYTES_MAX);
    let cut = shortened(&long);
    assert!(cut.len() <= MESSAGE_BYTES_MAX && long.starts_with(cut) && cut.len() > MESSAGE_BYTES_MAX - 2);
    assert_eq!(shortened("short"), "short");
}
