//! One row for each thing that can be wrong: its field and its words. The rule answers 500, or what the row says.

use std::time::Duration;

use super::*;

type Change = fn(&mut Rule<HttpMatch>);

#[track_caller]
fn check(change: Change, field: &str, words: &str) {
    let mut broken = rule(vec![at(PathMatch::Prefix("/a".into()))], "a");
    change(&mut broken);
    let (table, errors) = compiled(vec![broken, rule(Vec::new(), "all")]);
    let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let dot = if field.is_empty() || field.starts_with('[') { "" } else { "." };
    assert_eq!(told, [format!("shop/web rules[0]{dot}{field}: {words}")]);
    assert_eq!(errors[0].effect, Effect::RuleRefuses);
    assert_eq!(outcome(&table, "/a", &[]), "broken", "{words}");
    assert_eq!(outcome(&table, "/b", &[]), "all", "{words}");
}

fn with_filter(rule: &mut Rule<HttpMatch>, filter: Filter) {
    rule.filters = vec![filter];
}

fn answering(rule: &mut Rule<HttpMatch>, filter: Filter) {
    rule.backends.clear();
    with_filter(rule, filter);
}

#[test]
fn matches() {
    check(|r| r.matches = vec![r.matches[0].clone(); 65], "matches", "65 entries, more than 64");
    check(|r| r.matches[0].method = Some("G ET".into()), "matches[0].method", "\"G ET\" is no method");
    check(
        |r| {
            let header = |n| NameMatch { name: format!("x-{n}").into(), value: ValueMatch::Absent };
            r.matches[0].headers = (0..17).map(header).collect();
        },
        "matches[0].headers",
        "17 entries, more than 16",
    );
}

#[test]
fn headers() {
    check(
        |r| {
            let set = vec![("X A".into(), "1".into())];
            with_filter(r, Filter::RequestHeaders(HeaderChange { set, ..HeaderChange::default() }));
        },
        "filters[0]",
        "\"X A\" is no header name",
    );
    check(
        |r| {
            let set = vec![("X".into(), "a\nb".into())];
            with_filter(r, Filter::ResponseHeaders(HeaderChange { set, ..HeaderChange::default() }));
        },
        "filters[0]",
        "the value of x holds control characters",
    );
}

#[test]
fn redirects_and_rewrites() {
    let unclear = "ReplacePrefixMatch needs exactly one match in the rule, of type PathPrefix";
    check(
        |r| answering(r, Filter::Redirect(Redirect { status: Some(304), ..Redirect::default() })),
        "filters[0].statusCode",
        "304 is not one of 301, 302, 303, 307 and 308",
    );
    check(
        |r| {
            answering(r, Filter::Redirect(Redirect { hostname: Some("*.org".into()), ..Redirect::default() }))
        },
        "filters[0].hostname",
        "\"*.org\" is no host name",
    );
    check(
        |r| answering(r, Filter::Redirect(Redirect { port: Some(0), ..Redirect::default() })),
        "filters[0].port",
        "0 is not between 1 and 65535",
    );
    check(
        |r| with_filter(r, Filter::Redirect(Redirect::default())),
        "backendRefs",
        "RequestRedirect answers by itself: take the backendRefs away",
    );
    check(
        |r| {
            r.matches.push(at(PathMatch::Prefix("/c".into())));
            let path = Some(PathChange::Prefix("/x".into()));
            with_filter(r, Filter::Rewrite(Rewrite { hostname: None, path }));
        },
        "filters[0].path",
        unclear,
    );
    check(
        |r| {
            r.matches = vec![at(PathMatch::Exact("/a".into()))];
            let path = Some(PathChange::Prefix("/x".into()));
            with_filter(r, Filter::Rewrite(Rewrite { hostname: None, path }));
        },
        "filters[0].path",
        unclear,
    );
    check(
        |r| {
            let path = Some(PathChange::Full("/x?y".into()));
            with_filter(r, Filter::Rewrite(Rewrite { hostname: None, path }));
        },
        "filters[0].path",
        "path \"/x?y\" has characters that belong percent-encoded, or a query or fragment",
    );
}

#[test]
fn filters_that_do_not_go_together() {
    check(
        |r| {
            let change = || Filter::RequestHeaders(HeaderChange::default());
            r.filters = vec![change(), change()];
        },
        "filters",
        "RequestHeaderModifier stands here more than once",
    );
    check(
        |r| {
            r.backends.clear();
            r.filters = vec![Filter::Redirect(Redirect::default()), Filter::Rewrite(Rewrite::default())];
        },
        "filters",
        "RequestRedirect and URLRewrite exclude each other",
    );
    check(
        |r| with_filter(r, Filter::Unsupported { what: "ExtensionRef shop/x".into() }),
        "filters[0]",
        "ExtensionRef shop/x is not a filter that can be carried out",
    );
    check(
        |r| {
            let allow_origins = vec!["example.org".into()];
            with_filter(r, Filter::Cors(Cors { allow_origins, ..Cors::default() }));
        },
        "filters[0]",
        "origin \"example.org\": write SCHEME://HOST[:PORT] or *",
    );
    check(
        |r| {
            let fraction = Fraction { numerator: 3, denominator: 2 };
            with_filter(r, Filter::Mirror(Mirror { target: to("copy").target, fraction }));
        },
        "filters[0]",
        "3 of 2 is no share: the denominator is at least 1 and not less than the numerator",
    );
    check(
        |r| answering(r, Filter::Respond(Respond { status: 199, body: "".into() })),
        "filters[0].statusCode",
        "199 is not between 200 and 599",
    );
}

#[test]
fn times_and_repetitions() {
    check(
        |r| {
            r.timeouts.request = Some(Duration::from_secs(1));
            r.timeouts.backend_request = Some(Duration::from_secs(2));
        },
        "timeouts.backendRequest",
        "backendRequest 2s is longer than request 1s",
    );
    check(
        |r| r.timeouts.request = Some(Duration::from_micros(10)),
        "timeouts.request",
        "10µs is shorter than 1ms",
    );
    check(|r| r.retry = Some(Retry::of_codes(21, vec![503])), "retry.attempts", "21 is not between 0 and 20");
    check(
        |r| r.retry = Some(Retry::of_codes(1, vec![503, 200])),
        "retry.codes[1]",
        "200 is not between 400 and 599",
    );
    check(
        |r| r.backends[0].weight = 1_000_001,
        "backendRefs[0].weight",
        "1000001 is not between 0 and 1000000",
    );
}

#[test]
fn sessions_limits_and_faults() {
    check(
        |r| {
            let carrier = PersistenceCarrier::Cookie { path: "/".into(), life: CookieLife::Permanent };
            r.persistence = Some(Persistence { name: "stay".into(), carrier, absolute_timeout: None });
        },
        "sessionPersistence.absoluteTimeout",
        "a permanent cookie needs absoluteTimeout",
    );
    check(
        |r| {
            let (requests, interval) = (0, Duration::from_secs(1));
            let scope = LimitScope::Local { requests, interval, burst: 0 };
            r.rate_limits = vec![RateLimit { name: "l".into(), keys: Vec::new(), scope }];
        },
        "rateLimits[0].requests",
        "0 is not between 1 and 4294967295",
    );
    check(
        |r| r.fault = Some(Fault { delay: None, abort: Some((Abort::Grpc(17), Fraction::ALL)) }),
        "fault.abort.grpcStatus",
        "17 is not between 0 and 16",
    );
}

#[test]
fn a_backend_with_wrong_filters_loses_only_its_own_share() {
    let mut two = rule(Vec::new(), "good");
    let mut bad = to("bad");
    bad.filters = vec![Filter::Cors(Cors::default())];
    two.backends.push(bad);
    let (table, errors) = compiled(vec![two]);
    assert_eq!(
        errors[0].to_string(),
        "shop/web rules[0].backendRefs[1].filters[0]: CORS is for rules, not for backends"
    );
    assert_eq!(errors[0].effect, Effect::BackendRefuses);
    assert_eq!(outcome(&table, "/", &[]), "good", "the draw of the rows falls on the first");
}

#[test]
fn a_mirror_that_leads_nowhere_is_dropped_and_told() {
    let mut rule = rule(Vec::new(), "a");
    let target = Target::Invalid { fault: BackendFault::BackendNotFound, what: "shop/copy:80".into() };
    rule.filters = vec![Filter::Mirror(Mirror { target, fraction: Fraction::ALL })];
    let (table, errors) = compiled(vec![rule]);
    assert_eq!(
        errors[0].to_string(),
        "shop/web rules[0].filters[0].backendRef: shop/copy:80: BackendNotFound"
    );
    assert_eq!(errors[0].effect, Effect::MirrorIsDropped);
    assert_eq!(outcome(&table, "/", &[]), "a");
}
