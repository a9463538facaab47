//! Rows of limits: buckets, keys, counts.

use super::*;
use crate::model::{LimitKey, Scheme};
use crate::request::Request;

#[expect(clippy::disallowed_methods, reason = "a place to count from; no test waits")]
fn start() -> Instant {
    Instant::now()
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn limiter(rate: Rate, keys_max: usize, now: Instant) -> Limiter {
    Limiter::new(rate, keys_max, now)
}

fn admitted(limiter: &mut Limiter, key: &str, times: usize, now: Instant) -> usize {
    let admit = |_: &usize| matches!(limiter.admit(key.as_bytes(), now), Admission::Admitted { .. });
    (0..times).filter(admit).count()
}

#[test]
fn a_bucket_admits_its_burst_and_then_its_rate() {
    let begun = start();
    let second = ms(1000);
    for (rate, at_once, in_a_minute) in [
        (Rate::new(10, second, 0), 10, 600),
        (Rate::new(10, second, 3), 3, 600),
        (Rate::new(1, second, 5), 5, 60),
        (Rate::new(60, ms(60_000), 1), 1, 60),
    ] {
        let mut limiter = limiter(rate, 10, begun);
        assert_eq!(admitted(&mut limiter, "", 1000, begun), at_once, "{rate:?}");
        let ticks = (1..=60_000).map(|at| begun + ms(at));
        let later: usize = ticks.map(|now| admitted(&mut limiter, "", 1, now)).sum();
        assert_eq!(later, in_a_minute, "{rate:?}");
    }
}

#[test]
fn what_is_full_again_is_forgotten() {
    let begun = start();
    let mut limiter = limiter(Rate::new(1, ms(1000), 2), 2, begun);
    assert!(!limiter.sweep(begun), "nothing was asked");
    assert_eq!(admitted(&mut limiter, "a", 2, begun), 2);
    assert_eq!(admitted(&mut limiter, "b", 1, begun + ms(500)), 1);
    assert_eq!(admitted(&mut limiter, "beyond the bound", 2, begun + ms(500)), 2);
    // When, whether anything is remembered, and how many keys are.
    for (at, is_used, keys) in
        [(1499, true, 2), (1500, true, 1), (2000, true, 0), (2499, true, 0), (2500, false, 0)]
    {
        assert_eq!((limiter.sweep(begun + ms(at)), limiter.keys()), (is_used, keys), "at {at} ms");
    }
}

#[test]
fn a_refusal_says_when_to_come_back_and_costs_nothing() {
    let begun = start();
    let rate = Rate::new(2, ms(1000), 2);
    let mut bucket = Bucket::full();
    let take = |bucket: &mut Bucket, at| bucket.take(&rate, begun + ms(at));
    for (at, want) in [
        (0, Admission::Admitted { remaining: 1 }),
        (0, Admission::Admitted { remaining: 0 }),
        (0, Admission::Limited { retry_after: ms(500) }),
        (0, Admission::Limited { retry_after: ms(500) }),
        (499, Admission::Limited { retry_after: ms(1) }),
        (500, Admission::Admitted { remaining: 0 }),
        (5000, Admission::Admitted { remaining: 1 }),
    ] {
        assert_eq!(take(&mut bucket, at), want, "at {at}");
    }
    assert!(!bucket.is_full(begun + ms(5499)));
    assert!(bucket.is_full(begun + ms(5500)));
}

#[test]
fn keys_have_a_bucket_each_up_to_the_bound_and_share_one_beyond() {
    let begun = start();
    let mut limiter = limiter(Rate::new(2, ms(1000), 2), 3, begun);
    for key in ["a", "b", "c"] {
        assert_eq!(admitted(&mut limiter, key, 5, begun), 2, "{key}");
    }
    // A thousand invented keys together get what one gets.
    let invented: usize = (0..1000).map(|n| admitted(&mut limiter, &format!("x{n}"), 1, begun)).sum();
    assert_eq!((invented, limiter.keys()), (2, 3));
    // When the known ones are full again their places are free.
    let later = begun + ms(1000);
    assert_eq!(admitted(&mut limiter, "y", 5, later), 2);
    assert_eq!(limiter.keys(), 1);
}

fn key_of(keys: &[LimitKey], headers: &[(&str, &str)], caller: &Caller<'_>) -> Vec<u8> {
    let mut out = vec![1, 2, 3];
    key(keys, &request(headers), caller, &mut out);
    out
}

fn request<'a>(headers: &'a [(&'a str, &'a str)]) -> Request<'a, [(&'a str, &'a str)]> {
    Request { method: "GET", scheme: Scheme::Http, authority: "", port: 80, path: "/a", query: None, headers }
}

#[test]
fn requests_are_told_apart_by_every_part_of_the_key() {
    let header = |name: &str| LimitKey::Header(name.into());
    let keys = [header("x-a"), header("x-b")];
    let nobody = Caller::default();
    let base = key_of(&keys, &[("x-a", "1"), ("x-b", "2")], &nobody);
    assert_eq!(base, key_of(&keys, &[("X-B", "2"), ("x-a", "1")], &nobody));
    for other in
        [&[("x-a", "12"), ("x-b", "")][..], &[("x-a", "1")], &[("x-a", "1"), ("x-a", ""), ("x-b", "2")], &[]]
    {
        assert_ne!(base, key_of(&keys, other, &nobody), "{other:?}");
    }
    let absent = key_of(&keys, &[], &nobody);
    assert_eq!(absent, key_of(&keys, &[("x-a", ""), ("x-b", "")], &nobody), "absent counts as empty");
}

#[test]
fn a_path_has_one_bucket_however_its_plus_sign_is_written() {
    let headers = &[][..];
    let key_of = |path| {
        let mut out = Vec::new();
        key(&[LimitKey::Path], &Request { path, ..request(headers) }, &Caller::default(), &mut out);
        out
    };
    assert_eq!(key_of("/a%2Bb"), key_of("/a+b"));
    assert_ne!(key_of("/a%2Cb"), key_of("/a+b"));
}

#[test]
fn long_parts_are_told_apart_without_being_kept() {
    let key = |value: &str| key_of(&[LimitKey::Header("x".into())], &[("x", value)], &Caller::default());
    let (one, other) = ("a".repeat(60_000), "a".repeat(59_999) + "b");
    assert_ne!(key(&one), key(&other));
    assert_eq!(key(&one).len(), 128 + 8 + 8);
    assert_eq!(key(&"a".repeat(128)).len(), 128 + 8);
}

#[test]
fn descriptors_name_their_parts_and_are_left_out_without_them() {
    let identity =
        ambit_types::Identity::parse("spiffe://cluster.local/ns/shop/sa/cart").expect("an identity");
    let address = "::ffff:10.0.0.1".parse().ok();
    let caller = Caller { identity: Some(&identity), address };
    let keys = [
        LimitKey::Fixed { key: "generic_key".into(), value: "shop".into() },
        LimitKey::Caller,
        LimitKey::CallerNamespace,
        LimitKey::CallerAddress,
        LimitKey::Method,
        LimitKey::Path,
        LimitKey::Header("x-a".into()),
    ];
    let headers = [("x-a", "1"), ("x-a", "2")];
    let told = descriptor(&keys, &request(&headers), &caller).expect("every part is there");
    let told: Vec<String> = told.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let want = "generic_key=shop source_principal=spiffe://cluster.local/ns/shop/sa/cart \
        source_namespace=shop remote_address=10.0.0.1 method=GET path=/a x-a=1,2";
    assert_eq!(told.join(" "), want);
    assert_eq!(descriptor(&keys, &request(&[]), &caller), None);
    assert_eq!(descriptor(&keys, &request(&headers), &Caller::default()), None);
}

#[test]
fn counts_are_held_against_limits() {
    let limits =
        Connections { connections_max: 2, pending_max: 3, requests_max: 10, requests_per_connection_max: 0 };
    let none = Connections::default();
    let at = |connections, pending, requests| UnderWay { connections, pending, requests };
    for (limits, under_way, needs_connection, want) in [
        (limits, at(0, 0, 0), true, Ok(Way::Connect)),
        (limits, at(2, 0, 5), false, Ok(Way::Send)),
        (limits, at(2, 0, 5), true, Ok(Way::Wait)),
        (limits, at(2, 2, 5), true, Ok(Way::Wait)),
        (limits, at(2, 3, 5), true, Err(Overflow::Pending)),
        (limits, at(2, 3, 5), false, Ok(Way::Send)),
        (limits, at(1, 3, 5), true, Ok(Way::Connect)),
        (limits, at(1, 0, 10), false, Err(Overflow::Requests)),
        (none, at(9999, 9999, 9999), true, Ok(Way::Connect)),
        (none, at(9999, 9999, 9999), false, Ok(Way::Send)),
    ] {
        assert_eq!(admit(&limits, &under_way, needs_connection), want, "{under_way:?} {needs_connection}");
    }
}
