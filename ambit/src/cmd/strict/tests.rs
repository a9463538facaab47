//! Whose plaintext counts: who was let in, however it ended.

use super::*;

fn report() -> Report {
    Report { namespace: None, window: Duration::from_secs(60), fail: false, output: Form::Table }
}

/// A plaintext connection of a pod to shop/db.
fn flow(from: &str, verdict: &str, code: Option<&str>, opened: bool) -> Flow {
    let end = |name: &str| FlowEnd {
        workload: Some(name.to_owned()),
        namespace: Some("shop".to_owned()),
        ..FlowEnd::default()
    };
    Flow {
        time: "2026-01-01T00:00:00.000Z".to_owned(),
        direction: Some("inbound".to_owned()),
        verdict: verdict.to_owned(),
        opened: Some(opened),
        code: code.map(str::to_owned),
        path: "plaintext".to_owned(),
        conn_id: format!("id-{from}"),
        src: end(from),
        dst: end("db"),
        connections: 1,
        ..Flow::default()
    }
}

#[test]
fn a_connection_that_was_cut_later_has_a_caller() {
    let flows = [
        flow("old", "allowed", Some("AMB2302"), true),
        flow("long", "denied", Some("AMB7006"), true),
        flow("cut", "denied", Some("AMB2107"), true),
        flow("refused", "denied", Some("AMB2301"), false),
    ];
    let found: Vec<String> = callers(&report(), &flows).into_keys().map(|(_, from)| from).collect();
    assert_eq!(found, ["shop/long", "shop/old"]);
    let ids: Vec<Option<&str>> = callers(&report(), &flows).into_values().map(|one| one.example).collect();
    assert_eq!(ids, [Some("id-long"), Some("id-old")]);
    assert_eq!(cut(&report(), &flows), 1, "what a change of policy cut is told apart");
    let elsewhere = Report { namespace: Some("else".to_owned()), ..report() };
    assert!(callers(&elsewhere, &flows).is_empty());
    assert_eq!(cut(&elsewhere, &flows), 0);
}
