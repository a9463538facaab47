//! What people are shown at each step.

use std::time::{Duration, SystemTime};

use ambit_types::TrustDomain;

use super::super::keeper::Known;
use super::super::material::{self, Issuing};
use super::super::rotation::{Ring, Times};
use super::of;

fn issuing() -> Issuing {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    material::make(&TrustDomain::default(), now).unwrap().0
}

fn states(value: &serde_json::Value) -> Vec<&str> {
    value["steps"].as_array().unwrap().iter().map(|row| row["state"].as_str().unwrap()).collect()
}

#[test]
fn each_step_is_shown_with_its_evidence_and_no_key_ever() {
    let idle = Ring::new(issuing());
    let waiting = idle.begin(issuing(), 1_000, 3_600).unwrap();
    let reissuing = waiting.abort(0).unwrap();
    let mut known = Known::of(idle, material::Owner::Us, String::new());
    let shown = of(&known, Times::REPLICAS, "cluster.local", 1_000);
    assert!(states(&shown).is_empty());
    assert_eq!(shown["roots"].as_array().unwrap().len(), 1);
    assert_eq!(shown["ends_latest"], serde_json::Value::Null);
    assert_eq!(reissuing.state.generation, 2);

    known.ring = waiting;
    (known.behind_count, known.required_count) = (2, 5);
    known.behind = vec!["n4".into(), "n5".into()];
    let shown = of(&known, Times::REPLICAS, "cluster.local", 1_010);
    assert_eq!(states(&shown), ["done", "now", "later", "later", "later"]);
    assert!(shown["steps"][1]["evidence"].as_str().unwrap().contains("every replica"), "{shown}");
    let shown = of(&known, Times::REPLICAS, "cluster.local", 1_030);
    assert_eq!(
        shown["steps"][1]["evidence"],
        "3 of 5 proxies have the bundle; over at 1970-01-01T01:18:10Z at the latest"
    );
    assert_eq!(
        of(&known, Times::REPLICAS, "cluster.local", 1_031)["steps"],
        shown["steps"],
        "no clock ticks in it"
    );
    assert_eq!(shown["behind_first"], serde_json::json!(["n4", "n5"]));
    let roles: Vec<_> = shown["roots"].as_array().unwrap().iter().map(|root| root["role"].clone()).collect();
    assert_eq!(roles, ["signs", "comes"]);
    assert!(!shown.to_string().contains("PRIVATE"));
}
