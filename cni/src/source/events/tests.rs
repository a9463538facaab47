//! Which changes are told, and how often.

use ambit_runtime::clock;
use ambit_types::reason::Reason;

use super::*;
use crate::pod::{Condition, REDIRECTION};

fn said(redirection: Option<&'static str>, condition: Condition) -> Announcement {
    Announcement { redirection, condition: Some(condition) }
}

fn pod(condition: Option<Condition>) -> Pod {
    let addresses = ["10.0.0.1".parse().unwrap()].into();
    Pod {
        uid: "u1".to_owned(),
        name: "cart".to_owned(),
        namespace: "shop".to_owned(),
        addresses,
        condition,
        ..Pod::default()
    }
}

#[test]
fn capture_release_and_failure_are_told_once() {
    let failed = |message: &str| Condition::not_captured(Reason::RulesFailed, message);
    let reason =
        |pod: &Pod, said: &Announcement| Event::of(pod, said).map(|event| (event.warning, event.reason));
    let captured = said(Some("enabled"), Condition::captured());
    assert_eq!(reason(&pod(None), &captured), Some((false, "Captured".to_owned())));
    assert_eq!(reason(&pod(Some(Condition::captured())), &captured), None, "it was already");
    let failure = said(None, failed("no nft"));
    assert_eq!(reason(&pod(None), &failure), Some((true, "AMB1103".to_owned())));
    assert_eq!(reason(&pod(Some(failed("another text"))), &failure), None);
    let left = said(None, Condition::not_captured(Reason::NotEnrolled, "unlabelled"));
    assert_eq!(reason(&pod(Some(Condition::captured())), &left), Some((false, "Released".to_owned())));
    let mut lying = pod(None);
    assert_eq!(reason(&lying, &left), None, "it never was in");
    lying.annotations.insert(REDIRECTION.to_owned(), "enabled".to_owned());
    assert_eq!(reason(&lying, &left), Some((false, "Released".to_owned())));
    let pending = said(Some("pending"), Condition::not_captured(Reason::NotCaptured, "no ztunnel"));
    assert_eq!(reason(&pod(None), &pending), None, "it is just coming up");
    assert_eq!(reason(&pod(Some(Condition::captured())), &pending), Some((true, "AMB1101".to_owned())));
}

#[test]
fn the_object_is_one_that_an_api_server_takes() {
    let event = Event { warning: true, reason: "AMB1103".to_owned(), note: "ü".repeat(900) };
    let object = event.object(&pod(None), "node1", UNIX_EPOCH + Duration::from_millis(1500));
    assert_eq!(object["eventTime"], "1970-01-01T00:00:01.500000Z");
    assert_eq!(object["metadata"]["name"], "cart.59682f00");
    assert_eq!(object["regarding"]["uid"], "u1");
    assert_eq!(object["note"].as_str().unwrap().len(), 1000);
}

#[test]
fn many_events_are_held_back_and_the_same_is_not_repeated() {
    let event = Event { warning: true, reason: "AMB1103".to_owned(), note: String::new() };
    let start = clock::monotonic();
    let mut limiter = Limiter::new(start);
    assert!(limiter.admits("u1", &event, start));
    assert!(!limiter.admits("u1", &event, start), "the same");
    let admitted = (0..100).filter(|n| limiter.admits(&format!("p{n}"), &event, start)).count();
    assert_eq!(admitted, 29);
    let later = start + Duration::from_secs(61);
    assert!(limiter.admits("u1", &event, later));
}
