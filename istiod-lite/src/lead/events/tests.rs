//! What an Event says, and when it is told again.

use std::time::UNIX_EPOCH;

use super::*;

fn notice(message: &str) -> Notice {
    Notice {
        regarding: json!({"apiVersion": "v1", "kind": "Service", "namespace": "shop", "name": "web", "uid": "u-1"}),
        turned: Turned {
            condition: "istio.io/WaypointBound".to_owned(),
            reason: "WaypointIsNotReady".to_owned(),
            message: message.to_owned(),
        },
    }
}

#[test]
fn an_event_names_its_object_and_fits() {
    let now = UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_001);
    let event = notice("there is no waypoint shop/wp").event("istiod-lite-0", now);
    assert_eq!(event["metadata"]["namespace"], "shop");
    assert_eq!(event["eventTime"], "2023-11-14T22:13:20.000001Z");
    assert_eq!(event["note"], "istio.io/WaypointBound: there is no waypoint shop/wp");
    assert_eq!(event["reason"], "WaypointIsNotReady");
    assert_eq!(event["regarding"]["uid"], "u-1");
    let long = notice(&"ä".repeat(4_000)).event("istiod-lite-0", now);
    assert!(long["note"].as_str().is_some_and(|note| note.len() <= NOTE_BYTES_MAX), "{}", long["note"]);
    let mut global = notice("x");
    global.regarding = json!({"apiVersion": "v1", "kind": "GatewayClass", "name": "istio-waypoint"});
    assert_eq!(global.event("i", now)["metadata"]["namespace"], "default");
}

#[test]
fn the_same_thing_has_the_same_name_and_another_has_another() {
    assert_eq!(notice("a").name(), notice("a").name());
    assert_ne!(notice("a").name(), notice("b").name());
    assert!(notice("a").name().starts_with("web."));
}

#[test]
fn the_same_thing_is_told_once_in_a_while() {
    let (now, mut memory) = (clock::monotonic(), Memory::default());
    assert_eq!(memory.tell("a".to_owned(), now), Some(1));
    assert_eq!(memory.tell("a".to_owned(), now + QUIET / 2), None);
    assert_eq!(memory.tell("b".to_owned(), now + QUIET / 2), Some(1));
    assert_eq!(memory.tell("a".to_owned(), now + QUIET), Some(2));
    for number in 0..REMEMBERED_MAX * 2 {
        memory.tell(format!("n{number}"), now + QUIET);
    }
    assert!(memory.told.len() <= REMEMBERED_MAX);
}
