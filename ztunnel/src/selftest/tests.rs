//! The self-test finds what it is there to find: each row breaks one part of enforcement.

use std::time::Duration;

use ambit_policy::model::Policy;
use ambit_types::Reason;
use clap::Parser as _;

use super::attempt::{Tried, attempt};
use super::stage::{self, App, Stage};
use super::{Report, SelfTests, Test, Verdict, judge, run};
use crate::config::Config;
use crate::proxy::Settings;

fn settings() -> Settings {
    let config = Config::try_parse_from(["ztunnel"]).unwrap();
    crate::app::proxy(&config, &std::sync::Arc::default()).settings
}

async fn report(policies: Vec<Policy>) -> Report {
    run(&Stage::new(&settings(), policies)).await
}

#[track_caller]
fn check(report: &Report, want: [Verdict; 5]) {
    let found: Vec<Verdict> = report.outcomes.iter().map(|one| one.verdict).collect();
    assert_eq!(found, want, "{report:#?}");
}

#[tokio::test]
async fn a_node_that_enforces_passes_every_attempt_with_the_code_that_is_due() {
    let report = report(stage::policies()).await;
    check(&report, [Verdict::Passed; 5]);
    let codes: Vec<Option<Reason>> = report.outcomes.iter().map(|one| one.code).collect();
    assert_eq!(codes, Test::ALL.map(Test::want));
}

#[tokio::test]
async fn policies_that_are_not_enforced_are_breaches_and_nothing_else_is() {
    use Verdict::{Breached, Passed};
    let report = report(Vec::new()).await;
    check(&report, [Passed, Breached, Passed, Passed, Breached]);
    assert_eq!(report.to_json()["breached"], serde_json::json!(["denied", "plaintext"]));
}

#[tokio::test]
async fn a_lost_strict_mode_is_still_refused_by_the_rule_and_told_as_another_reason() {
    use Verdict::{Failed, Passed};
    let mut policies = stage::policies();
    policies.pop();
    let report = report(policies).await;
    check(&report, [Passed, Passed, Passed, Passed, Failed]);
    assert_eq!(report.outcomes[4].code, Some(Reason::PolicyDenied));
}

/// Patience of attempts that are to hang: long enough for a busy machine to get to where they do.
const HANGS_AFTER: Duration = Duration::from_secs(1);

/// Nothing is enforced, and the application takes a connection and goes no further.
#[tokio::test]
async fn who_is_let_in_and_then_hangs_is_a_breach() {
    let silent = App { reads: true, answers: false };
    let deaf = App { reads: false, answers: false };
    let rows = [
        (Test::Denied, silent, Verdict::Breached),
        // The tunnel's answer said that it was let in; no byte has to arrive for that.
        (Test::Denied, deaf, Verdict::Breached),
        (Test::Plaintext, silent, Verdict::Breached),
        // Only bytes show that plaintext was let in: a door that hangs is none that is open.
        (Test::Plaintext, deaf, Verdict::Failed),
        (Test::Allowed, silent, Verdict::Failed),
    ];
    for (test, app, want) in rows {
        let stage = Stage { app, patience: HANGS_AFTER, ..Stage::new(&settings(), Vec::new()).unwrap() };
        let tried = attempt(&stage, test).await;
        let told = format!("{test:?} {app:?} {tried:?}");
        assert_eq!(judge(test, tried, Duration::ZERO).verdict, want, "{told}");
    }
}

#[tokio::test]
async fn a_stage_that_cannot_be_made_fails_everything_and_breaches_nothing() {
    let report = run(&Err("no randomness".to_owned())).await;
    check(&report, [Verdict::Failed; 5]);
    assert_eq!(report.to_json()["passed"], 0);
}

#[tokio::test]
async fn nothing_of_the_self_test_is_kept_among_the_records() {
    let stage = Stage::new(&settings(), stage::policies());
    run(&stage).await;
    let ring = stage.as_ref().unwrap().proxy.telemetry.ring().memory();
    assert_eq!((ring.records, ring.lost), (0, 0));
}

#[test]
fn only_what_must_be_refused_can_be_a_breach() {
    let through = |answered| Tried::Through { answered };
    let refused = |code| Tried::Refused { code, detail: String::new() };
    let undone = || Tried::Undone(String::new());
    let due = Some(Reason::PolicyDenied);
    let rows = [
        (Test::Allowed, through(true), Verdict::Passed),
        (Test::Allowed, through(false), Verdict::Failed),
        (Test::Allowed, refused(due), Verdict::Failed),
        (Test::Allowed, undone(), Verdict::Failed),
        (Test::Denied, through(true), Verdict::Breached),
        (Test::Denied, through(false), Verdict::Breached),
        (Test::Denied, refused(due), Verdict::Passed),
        (Test::Denied, refused(Some(Reason::TunnelProtocol)), Verdict::Failed),
        (Test::Denied, refused(None), Verdict::Failed),
        (Test::Denied, undone(), Verdict::Failed),
    ];
    for (test, tried, want) in rows {
        let told = format!("{test:?} {tried:?}");
        assert_eq!(judge(test, tried, Duration::ZERO).verdict, want, "{told}");
    }
}

#[test]
fn the_newest_report_is_what_is_shown_and_followed() {
    let tests = SelfTests::default();
    let mut follow = tests.follow();
    assert!(tests.to_json().is_null());
    let outcome = judge(Test::Denied, Tried::Through { answered: true }, Duration::from_millis(7));
    let report = Report { at: std::time::SystemTime::UNIX_EPOCH, outcomes: vec![outcome] };
    tests.take(report.clone());
    assert!(follow.has_changed().unwrap());
    assert_eq!(follow.borrow_and_update().as_deref(), Some(&report));
    let shown = tests.to_json();
    assert_eq!((&shown["passed"], &shown["total"]), (&0.into(), &1.into()));
    assert_eq!(shown["tests"][0]["result"], "breached");
    assert_eq!(shown["tests"][0]["expected_code"], "AMB2104");
    assert_eq!(shown["tests"][0]["took_ms"], 7);
}
