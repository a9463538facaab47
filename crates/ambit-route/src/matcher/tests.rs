//! Rows of comparing: values, header lines, patterns.

use super::*;
use crate::model::Scheme;
use crate::request::{Request, split_target};

#[track_caller]
fn check(condition: &Condition, target: &str, headers: &[(&str, &[u8])], want: bool) {
    let (path, query) = split_target(target);
    let request =
        Request { method: "GET", scheme: Scheme::Http, authority: "echo", port: 80, path, query, headers };
    let (mut slots, mut conditions) = (Slots::default(), [condition.clone()]);
    slots.assign(&mut conditions);
    assert_eq!(
        conditions[0].agrees(&Asked::new(&request, &slots)),
        want,
        "{condition:?} {target} {headers:?}"
    );
}

fn pattern(text: &str) -> Test {
    Test::Pattern(Pattern::compile(text).expect(text))
}

#[test]
fn header_lines_are_compared_as_one_value() {
    let exact = |value: &str| Condition::Header("x".into(), Test::Exact(value.into()));
    check(&exact("a"), "/", &[("X", b"a")], true);
    check(&exact("a"), "/", &[("X", b"A")], false);
    check(&exact("a"), "/", &[], false);
    check(&exact(""), "/", &[("x", b"")], true);
    check(&exact(""), "/", &[], false);
    // CVE-2026-26308: neither one of two lines alone, nor a text across the join.
    check(&exact("a"), "/", &[("x", b"a"), ("x", b"b")], false);
    check(&exact("b"), "/", &[("x", b"a"), ("x", b"b")], false);
    check(&exact("ab"), "/", &[("x", b"a"), ("x", b"b")], false);
    check(&exact("a,b"), "/", &[("x", b"a"), ("x", b"b")], true);
    check(&exact("a,b"), "/", &[("x", b"a,b")], true);
    check(&exact("a,b,"), "/", &[("x", b"a"), ("x", b"b"), ("x", b"")], true);
    check(&exact("a,b"), "/", &[("x", b"a"), ("y", b"b")], false);
    let form = Condition::Header("x".into(), pattern("a,b"));
    check(&form, "/", &[("x", b"a"), ("x", b"b")], true);
    check(&Condition::Header("x".into(), pattern("a|b")), "/", &[("x", b"a"), ("x", b"b")], false);
}

#[test]
fn the_header_host_is_the_authority() {
    // The lines of a request have no Host by then; one that has come through all the same is not read.
    let host = |test: Test| Condition::Header("host".into(), test);
    check(&host(Test::Exact("echo".into())), "/", &[], true);
    check(&host(Test::Exact("other".into())), "/", &[("host", b"other")], false);
    check(&host(pattern("e.*")), "/", &[], true);
    check(&host(Test::Absent), "/", &[], false);
}

#[test]
fn presence_and_absence() {
    let present = Condition::Header("x".into(), Test::Present);
    let absent = Condition::Header("x".into(), Test::Absent);
    for (headers, there) in [
        (&[][..], false),
        (&[("x", &b""[..])][..], true),
        (&[("x", &b"1"[..]), ("X", &b"2"[..])][..], true),
        (&[("y", &b"1"[..])][..], false),
    ] {
        check(&present, "/", headers, there);
        check(&absent, "/", headers, !there);
    }
    check(&Condition::Query("q".into(), 0, Test::Present), "/?q", &[], true);
    check(&Condition::Query("q".into(), 0, Test::Absent), "/?q=", &[], false);
    check(&Condition::Query("q".into(), 0, Test::Absent), "/", &[], true);
}

#[test]
fn bytes_beyond_text_are_compared_too() {
    // CVE-2026-73552: matchers must not fail open on what is no UTF-8.
    let any = Condition::Header("x".into(), pattern(".*"));
    check(&any, "/", &[("x", b"\xff\xc0\x80")], true);
    check(&Condition::Header("x".into(), pattern("[a-z]*")), "/", &[("x", b"a\xff")], false);
    check(&Condition::Header("x".into(), Test::Exact("é".into())), "/", &[("x", "é".as_bytes())], true);
}

#[test]
fn patterns_are_anchored_at_both_ends() {
    for (text, path, want) in [
        ("/a", "/a", true),
        ("/a", "/ab", false),
        ("/a", "x/a", false),
        ("/a|/ab", "/ab", true),
        ("/v[0-9]+/.*", "/v12/x", true),
        ("/v[0-9]+/.*", "/v/x", false),
        ("^/a$", "/a", true),
        (r"/\d{2}", "/42", true),
        ("/[[:alpha:]]+", "/ab", true),
        ("(?i)/ABC", "/abc", true),
        ("(?m)/a$", "/a\nb", false),
        ("", "", true),
        ("", "/", false),
    ] {
        check(&Condition::Path(Pattern::compile(text).expect(text)), path, &[], want);
    }
}

#[test]
fn patterns_that_are_no_expressions_or_too_large_are_refused() {
    let refused = |text: &str| Pattern::compile(text).map(|_| ()).expect_err(text);
    for text in ["(", "[", "a)|(b", "*", r"\p{Greek}", "(?<name>", r"(a)\1", "(?=a)"] {
        let why = refused(text);
        assert!(matches!(&why, PatternError::Syntax { why } if !why.is_empty()), "{text}: {why:?}");
    }
    assert_eq!(refused(&"a".repeat(1025)), PatternError::TooLong { bytes: 1025 });
    assert_eq!(refused("((a{1000}){1000}){1000}"), PatternError::TooLarge);
    assert!(matches!(refused(&"(".repeat(200)), PatternError::Syntax { .. }));
}

#[test]
fn time_is_linear_in_the_text() {
    // CVE-2024-23323 and its kin: 64 KiB of what makes a backtracking engine hang. The bound is that this ends.
    let text = format!("/{}!", "a".repeat(64 << 10));
    check(&Condition::Path(Pattern::compile("/(a+)+").expect("valid")), &text, &[], false);
    check(&Condition::Path(Pattern::compile("/(a|aa)+$").expect("valid")), &text, &[], false);
}

#[test]
fn grpc_conditions_read_the_path() {
    let service = Condition::GrpcService(Test::Exact("shop.Cart".into()));
    let method = Condition::GrpcMethod(pattern("Add.*"));
    check(&service, "/shop.Cart/Add", &[], true);
    check(&service, "/shop.cart/Add", &[], false);
    check(&method, "/shop.Cart/AddItem", &[], true);
    check(&method, "/shop.Cart/Get", &[], false);
    check(&method, "/shop.Cart/AddItem/more", &[], false);
}
