//! Rows of durations and deadlines.

use super::*;

#[expect(clippy::disallowed_methods, reason = "a place to count from; no test waits")]
fn start() -> Instant {
    Instant::now()
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn durations_of_the_gateway_api() {
    for (text, want) in [
        ("0s", Some(0)),
        ("1h", Some(3_600_000)),
        ("1m", Some(60_000)),
        ("500ms", Some(500)),
        ("1h30m10s200ms", Some(5_410_200)),
        ("10s10s", Some(20_000)),
        ("99999h", Some(359_996_400_000)),
        ("", None),
        ("1", None),
        ("s", None),
        ("1.5s", None),
        ("1S", None),
        ("1d", None),
        ("1us", None),
        ("-1s", None),
        (" 1s", None),
        ("100000s", None),
        ("1s1s1s1s1s", None),
        ("1s ", None),
    ] {
        assert_eq!(parse_duration(text).ok(), want.map(ms), "{text:?}");
    }
}

#[test]
fn grpc_timeouts_are_read_and_capped() {
    let most = Duration::from_secs(3600);
    for (text, want) in [
        ("1S", Some(Duration::from_secs(1))),
        ("250m", Some(ms(250))),
        ("10u", Some(Duration::from_micros(10))),
        ("99999999n", Some(Duration::from_nanos(99_999_999))),
        ("0n", Some(Duration::ZERO)),
        ("2M", Some(Duration::from_secs(120))),
        // CVE-2021-28682: the largest values must not overflow.
        ("99999999H", Some(most)),
        ("99999999M", Some(most)),
        ("100000000S", None),
        ("S", None),
        ("1", None),
        ("", None),
        ("1s", None),
        ("-1S", None),
        ("+1S", None),
        ("1 S", None),
    ] {
        assert_eq!(parse_grpc_timeout(text.as_bytes(), most).ok(), want, "{text:?}");
    }
    assert!(parse_grpc_timeout(b"\xff\xffS", most).is_err());
}

#[test]
fn grpc_timeouts_are_written_as_finely_as_they_fit() {
    for (left, want) in [
        (Duration::ZERO, "0n"),
        (Duration::from_nanos(99_999_999), "99999999n"),
        (ms(100), "100000u"),
        (Duration::from_secs(99), "99000000u"),
        (Duration::from_secs(100), "100000m"),
        (Duration::from_secs(100_000), "100000S"),
        (Duration::from_secs(100_000_000), "1666666M"),
        (Duration::MAX, "99999999H"),
    ] {
        assert_eq!(format_grpc_timeout(left), want, "{left:?}");
    }
}

#[test]
fn an_attempt_ends_with_whatever_ends_first() {
    let begun = start();
    for (request, per_try, asked, at, want) in [
        (None, None, None, 0, None),
        (Some(0), Some(0), None, 0, None),
        (Some(500), None, None, 0, Some((500, Limit::Request))),
        (Some(500), None, None, 200, Some((300, Limit::Request))),
        (Some(500), None, None, 900, Some((0, Limit::Request))),
        (None, Some(200), None, 900, Some((200, Limit::Try))),
        (Some(500), Some(200), None, 0, Some((200, Limit::Try))),
        (Some(500), Some(200), None, 300, Some((200, Limit::Request))),
        (Some(500), Some(200), None, 400, Some((100, Limit::Request))),
        (Some(500), None, Some(100), 0, Some((100, Limit::Request))),
        (Some(500), None, Some(900), 0, Some((500, Limit::Request))),
        (None, None, Some(100), 40, Some((60, Limit::Request))),
        (Some(0), None, Some(100), 0, Some((100, Limit::Request))),
        (None, None, Some(0), 0, Some((0, Limit::Request))),
    ] {
        let timeouts = Timeouts { request: request.map(ms), backend_request: per_try.map(ms), idle: None };
        let deadline = Deadline::new(&timeouts, asked.map(ms), begun);
        let got = deadline.of_attempt(begun + ms(at));
        let want = want.map(|(left, limit)| (ms(left), limit));
        assert_eq!(got, want, "request {request:?} try {per_try:?} asked {asked:?} at {at}");
    }
}

#[test]
fn whose_limit_it_is() {
    for (request, asked, want) in [
        (None, None, false),
        (Some(500), None, false),
        (Some(500), Some(499), true),
        (Some(500), Some(500), false),
        (Some(500), Some(900), false),
        (Some(0), Some(900), true),
        (None, Some(0), true),
    ] {
        let timeouts = Timeouts { request: request.map(ms), backend_request: None, idle: None };
        let deadline = Deadline::new(&timeouts, asked.map(ms), start());
        assert_eq!(deadline.is_callers(), want, "request {request:?} asked {asked:?}");
    }
}
