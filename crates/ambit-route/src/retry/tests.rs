//! Rows of retries: what is repeated, what is not, how long the pauses are, what a storm costs.

use super::*;
use crate::model::{Conditions, RetryBudget};

#[expect(clippy::disallowed_methods, reason = "a place to count from; no test waits")]
fn start() -> Instant {
    Instant::now()
}

fn budget() -> Budget {
    Budget::new(RetryBudget::default(), start())
}

fn response(status: u16) -> Outcome {
    Outcome::Response { status, grpc_status: None, retry_after: None }
}

fn grpc(code: u32) -> Outcome {
    Outcome::Response { status: 200, grpc_status: Some(code), retry_after: None }
}

fn attempt(outcome: Outcome) -> Attempt<'static> {
    let is_sent = !matches!(outcome, Outcome::ConnectFailure);
    Attempt { method: "GET", made: 1, outcome, is_sent, is_replayable: true, is_answered: false }
}

fn said(policy: &Retry, attempt: &Attempt<'_>) -> &'static str {
    match next(policy, attempt, None, &mut budget(), start(), 0) {
        Next::Again(_) => "again",
        Next::Stop(Stop::NotListed) => "not listed",
        Next::Stop(Stop::AttemptsUsed) => "used",
        Next::Stop(Stop::Answered) => "answered",
        Next::Stop(Stop::Unsafe) => "unsafe",
        Next::Stop(Stop::BodyGone) => "body gone",
        Next::Stop(Stop::NoTime) => "no time",
        Next::Stop(Stop::BudgetSpent) => "budget",
    }
}

/// A policy with one condition.
fn on(set: impl Fn(&mut Conditions)) -> Retry {
    let mut conditions = Conditions::default();
    set(&mut conditions);
    Retry { conditions, ..Retry::of_the_mesh() }
}

#[test]
fn conditions_cover_what_they_name() {
    use Outcome::{ConnectFailure, RefusedStream, Reset, TryTimeout};
    let outcomes =
        [ConnectFailure, RefusedStream, Reset, TryTimeout, response(500), response(503), response(429)];
    let policies = [
        (Retry::of_the_mesh(), [true, true, false, false, false, false, false]),
        (on(|c| c.connect_failure = true), [true, false, false, false, false, false, false]),
        (on(|c| c.refused_stream = true), [false, true, false, false, false, false, false]),
        (on(|c| c.reset = true), [false, false, true, false, false, false, false]),
        (on(|c| c.try_timeout = true), [false, false, false, true, false, false, false]),
        (on(|c| c.gateway_error = true), [true, true, true, true, false, true, false]),
        (on(|c| c.server_error = true), [true, true, true, true, true, true, false]),
        (Retry::of_codes(3, vec![429]), [true, true, true, true, false, false, true]),
        (Retry::of_codes(3, vec![500]), [true, true, true, true, true, false, false]),
    ];
    for (policy, wants) in policies {
        for (outcome, want) in outcomes.iter().zip(wants) {
            let want = if want { "again" } else { "not listed" };
            assert_eq!(said(&policy, &attempt(*outcome)), want, "{policy:?} {outcome:?}");
        }
    }
}

#[test]
fn gateway_errors_are_three_codes() {
    for (status, want) in [
        (500, "not listed"),
        (501, "not listed"),
        (502, "again"),
        (503, "again"),
        (504, "again"),
        (505, "not listed"),
    ] {
        assert_eq!(said(&on(|c| c.gateway_error = true), &attempt(response(status))), want, "{status}");
    }
    for status in [200, 204, 301, 404, 429] {
        assert_eq!(
            said(&on(|c| c.server_error = true), &attempt(response(status))),
            "not listed",
            "{status}"
        );
    }
}

#[test]
fn what_is_not_idempotent_needs_consent_once_it_was_sent() {
    let policy = Retry::of_codes(3, vec![503]);
    let consent = Retry { consent: Consent::AnyMethod, ..policy.clone() };
    for (method, safe) in [
        ("GET", true),
        ("HEAD", true),
        ("PUT", true),
        ("DELETE", true),
        ("OPTIONS", true),
        ("TRACE", true),
        ("POST", false),
        ("PATCH", false),
        ("CONNECT", false),
        ("get", false),
        ("BREW", false),
    ] {
        let want = if safe { "again" } else { "unsafe" };
        for outcome in [response(503), Outcome::Reset, Outcome::TryTimeout] {
            let attempt = Attempt { method, ..attempt(outcome) };
            assert_eq!(said(&policy, &attempt), want, "{method} {outcome:?}");
            assert_eq!(said(&consent, &attempt), "again", "{method} {outcome:?}");
        }
        for outcome in [Outcome::ConnectFailure, Outcome::RefusedStream] {
            assert_eq!(
                said(&policy, &Attempt { method, ..attempt(outcome) }),
                "again",
                "{method} {outcome:?}"
            );
        }
        // An idle connection that the peer had closed: nothing was sent on it.
        let unsent = Attempt { method, is_sent: false, ..attempt(Outcome::Reset) };
        assert_eq!(said(&Retry::of_the_mesh(), &unsent), "again", "{method}");
    }
}

#[test]
fn grpc_codes_are_consent_for_their_calls_and_for_nothing_else() {
    let policy = Retry { grpc_codes: vec![14, 8], ..Retry::of_the_mesh() };
    let call = |outcome| Attempt { method: "POST", ..attempt(outcome) };
    for (outcome, want) in [
        (grpc(14), "again"),
        (grpc(8), "again"),
        (grpc(13), "not listed"),
        (grpc(0), "not listed"),
        (response(200), "not listed"),
        (response(503), "not listed"),
        (Outcome::Reset, "not listed"),
    ] {
        assert_eq!(said(&policy, &call(outcome)), want, "{outcome:?}");
    }
}

#[test]
fn nothing_is_repeated_without_its_body_or_after_an_answer_has_begun() {
    let policy = Retry::of_codes(3, vec![503]);
    let gone = |outcome| Attempt { is_replayable: false, ..attempt(outcome) };
    assert_eq!(said(&policy, &gone(response(503))), "body gone");
    assert_eq!(said(&policy, &gone(Outcome::RefusedStream)), "body gone");
    assert_eq!(said(&policy, &gone(Outcome::ConnectFailure)), "again");
    let begun = Attempt { is_answered: true, ..attempt(Outcome::Reset) };
    assert_eq!(said(&policy, &begun), "answered");
}

#[test]
fn attempts_are_counted_beyond_the_first() {
    let policy = Retry::of_codes(2, vec![503]);
    for (made, want) in [(1, "again"), (2, "again"), (3, "used"), (4, "used")] {
        assert_eq!(said(&policy, &Attempt { made, ..attempt(response(503)) }), want, "{made}");
    }
}

#[test]
fn pauses_double_with_jitter_and_are_never_shorter_than_asked() {
    let (base, max) = (Duration::from_millis(100), Duration::from_millis(500));
    let policy = Retry { backoff: Backoff { base, max }, ..Retry::of_codes(9, vec![503]) };
    let pause = |made, draw, retry_after: Option<u64>| {
        let retry_after = retry_after.map(Duration::from_millis);
        let outcome = Outcome::Response { status: 503, grpc_status: None, retry_after };
        let attempt = Attempt { made, ..attempt(outcome) };
        match next(&policy, &attempt, None, &mut budget(), start(), draw) {
            Next::Again(pause) => pause.as_millis(),
            Next::Stop(stop) => panic!("{stop:?}"),
        }
    };
    for (made, draw, asked, want) in [
        (1, 0, None, 100),
        (2, 0, None, 200),
        (3, 0, None, 400),
        (4, 0, None, 500),
        (9, 0, None, 500),
        (1, u64::MAX / 2, None, 124),
        (1, u64::MAX, None, 149),
        (4, u64::MAX, None, 749),
        (1, 0, Some(500), 500),
        (1, 0, Some(0), 100),
        (4, 0, Some(100), 500),
    ] {
        assert_eq!(pause(made, draw, asked), want, "attempt {made} draw {draw} asked {asked:?}");
    }
}

#[test]
fn a_backend_cannot_have_requests_wait_for_longer_than_the_most() {
    let (base, max) = (Duration::from_millis(100), Duration::from_millis(500));
    for (backoff, asked, again) in [
        (Backoff { base, max }, 500, true),
        (Backoff { base, max }, 501, false),
        (Backoff { base, max }, 86_400_000, false),
        (Backoff { base: max, max: base }, 500, true),
        (Backoff::default(), 1000, false),
    ] {
        let policy = Retry { backoff, ..Retry::of_codes(3, vec![503]) };
        let retry_after = Some(Duration::from_millis(asked));
        let asking = attempt(Outcome::Response { status: 503, grpc_status: None, retry_after });
        let got = next(&policy, &asking, None, &mut budget(), start(), 0);
        assert_eq!(matches!(got, Next::Again(_)), again, "{backoff:?} asked {asked} ms");
        assert_eq!(got == Next::Stop(Stop::NoTime), !again, "{backoff:?} asked {asked} ms");
    }
}

#[test]
fn there_is_no_attempt_without_time_for_it() {
    let policy = Retry::of_codes(3, vec![503]);
    let now = start();
    for (left, again) in [(25, false), (26, true), (0, false)] {
        let left = Some(Duration::from_millis(left));
        let got = next(&policy, &attempt(response(503)), left, &mut budget(), now, 0);
        assert_eq!(matches!(got, Next::Again(_)), again, "{left:?}");
    }
    let asked =
        Outcome::Response { status: 503, grpc_status: None, retry_after: Some(Duration::from_secs(5)) };
    let left = Some(Duration::from_secs(2));
    let got = next(&policy, &attempt(asked), left, &mut budget(), now, 0);
    assert_eq!(got, Next::Stop(Stop::NoTime));
}

#[test]
fn a_storm_costs_a_fifth_more_and_no_further() {
    // 1 000 requests a second for a minute, every one of which fails and would be repeated three times.
    let policy = RetryBudget { min_retries: 0, ..RetryBudget::default() };
    let begun = start();
    let mut budget = Budget::new(policy, begun);
    let mut repeated = 0_u32;
    for millisecond in 0..60_000 {
        let now = begun + Duration::from_millis(millisecond);
        budget.request(now);
        repeated += (0..3).map(|_| u32::from(budget.take(now))).sum::<u32>();
    }
    assert!((11_500..=12_000).contains(&repeated), "{repeated} repetitions of 60 000 requests");
}

#[test]
fn some_repetitions_are_free_in_any_case_and_old_requests_are_forgotten() {
    let begun = start();
    let mut budget = Budget::new(RetryBudget::default(), begun);
    let after = |seconds| begun + Duration::from_secs(seconds);
    let mut taken = |now| (0..100).filter(|_| budget.take(now)).count();
    assert_eq!(taken(begun), 10, "the free ones");
    assert_eq!(taken(begun), 0);
    assert_eq!(taken(after(2)), 10, "free ones come back");
    (0..1000).for_each(|_| budget.request(after(20)));
    let mut taken = |now| (0..1000).filter(|_| budget.take(now)).count();
    assert_eq!(taken(after(20)), 200, "a fifth of the requests of the last ten seconds");
    assert_eq!(taken(after(40)), 10, "those requests are forgotten");
}

#[test]
fn an_attempt_that_is_not_made_costs_nothing() {
    let now = start();
    let mut budget = Budget::new(RetryBudget { min_retries: 1, ..RetryBudget::default() }, now);
    let policy = Retry::of_codes(1, vec![503]);
    let unsafe_one = Attempt { method: "POST", ..attempt(response(503)) };
    for _ in 0..5 {
        let got = next(&policy, &unsafe_one, None, &mut budget, now, 0);
        assert_eq!(got, Next::Stop(Stop::Unsafe));
    }
    let got = next(&policy, &attempt(response(503)), None, &mut budget, now, 0);
    assert!(matches!(got, Next::Again(_)));
    let got = next(&policy, &attempt(response(503)), None, &mut budget, now, 0);
    assert_eq!(got, Next::Stop(Stop::BudgetSpent));
}
