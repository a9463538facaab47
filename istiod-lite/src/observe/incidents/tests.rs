//! Which refusals are one incident, and which changes are its suspects.

use super::*;

fn cause(source: &str) -> Cause {
    Cause {
        code: "AMB2104".to_owned(),
        policy: "shop/lock".to_owned(),
        source: source.to_owned(),
        destination: "shop/db".to_owned(),
        port: 5432,
    }
}

const NOW: u64 = 1_000_000_000;

fn refusals(incidents: &Incidents) -> Vec<Value> {
    incidents.items().into_iter().filter(|item| item["kind"] == "refusal").collect()
}

#[test]
fn refusals_that_go_on_are_one_incident_and_a_change_before_is_its_suspect() {
    let mut incidents = Incidents::default();
    incidents.changed(6, "an older one".to_owned(), NOW - 50);
    incidents.changed(7, "AuthorizationPolicy shop/lock".to_owned(), NOW);
    incidents.refused(cause("shop/web"), 1, NOW + 5);
    incidents.refused(cause("shop/web"), 4, NOW + 600);
    let items = refusals(&incidents);
    assert_eq!(items.len(), 1, "{items:?}");
    assert_eq!(
        (&items[0]["count"], &items[0]["suspect"]),
        (&json!(5), &json!("AuthorizationPolicy shop/lock"))
    );
    assert_eq!(incidents.items()[1]["revision"], 7, "newest first");
}

#[test]
fn after_silence_begins_another_one_and_old_changes_are_no_suspects() {
    let mut incidents = Incidents::default();
    incidents.changed(7, "old".to_owned(), NOW);
    incidents.refused(cause("shop/web"), 1, NOW + 5);
    incidents.refused(cause("shop/web"), 1, NOW + 5 + QUIET + 1);
    let items = refusals(&incidents);
    assert_eq!(items.iter().map(|item| &item["suspect"]).collect::<Vec<_>>(), [&Value::Null, &json!("old")]);
}

#[test]
fn memory_is_bounded() {
    let mut incidents = Incidents::default();
    for number in 0..3 * KEPT as u64 {
        incidents.refused(cause(&format!("shop/web-{number}")), 1, NOW + number);
        incidents.changed(number, String::new(), NOW + number);
    }
    let held = (incidents.going_on.len(), incidents.over.len(), incidents.changes.len());
    assert_eq!(held, (KEPT, KEPT, KEPT));
    assert_eq!(incidents.items().len(), SHOWN);
}
