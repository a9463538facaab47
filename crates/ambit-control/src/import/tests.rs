//! What is imported, in which words, and what is refused by name. What becomes of requests is in
//! `tests/tables/routing/imports.yaml`.

use ambit_types::written;

use super::attempts::{millis, written as duration};
use super::*;
use crate::input::VirtualRule;

fn read(text: &str) -> (Virtual, Vec<String>) {
    let spec: VirtualService = serde_saphyr::from_str(text).expect("a body");
    let (made, wrong) = virtual_service("shop", &spec);
    (made, wrong.into_iter().map(|one| format!("{}: {}", one.path, one.words)).collect())
}

/// The rules made of one.
fn rules(rule: &str) -> Vec<VirtualRule> {
    let (made, wrong) =
        read(&format!("hosts: [web]\nhttp: [{{route: [{{destination: {{host: a}}}}], {rule}}}]"));
    assert_eq!(wrong, Vec::<String>::new(), "{rule}");
    made.rules
}

/// What is wrong with a rule.
fn wrong(rule: &str) -> Vec<String> {
    read(&format!("hosts: [web]\nhttp: [{{{rule}}}]")).1
}

#[test]
fn hosts_of_others_and_shared_gateways_take_all_of_it_out_of_force() {
    let refused = [
        ("hosts: [web.bank.svc.cluster.local]", "web.bank.svc.cluster.local"),
        ("hosts: [web, api.example.com]", "api.example.com"),
        ("hosts: ['*']", "*"),
        ("hosts: ['*.shop.svc.cluster.local']", "*.shop.svc.cluster.local"),
        ("hosts: [web.shop]", "web.shop"),
        ("hosts: []", "no host"),
        ("hosts: [web]\nexportTo: [bank]", "exportTo"),
    ];
    for (text, names) in refused {
        let (made, wrong) = read(&format!("{text}\nhttp: [{{match: [{{port: 1}}]}}]"));
        let Claim::Refused(words) = &made.claim else { panic!("{text}: {made:?}") };
        assert!(words.starts_with(names) && words.contains("AMB3006"), "{text}: {words}");
        assert!(made.parents.is_empty() && made.rules.is_empty() && wrong.is_empty(), "{text}: {made:?}");
    }
    let (made, wrong) =
        read("hosts: [web, '*']\ngateways: [istio-system/ingress]\nhttp: [{match: [{port: 1}]}]");
    assert_eq!((made.claim, wrong), (Claim::Elsewhere, Vec::new()));
    let text = "hosts: [web, web.shop.svc.cluster.local, b]\ngateways: [mesh]\nexportTo: ['.']\n\
                http: [{route: [{destination: {host: c.bank.svc.other.example}}]}]";
    let (made, wrong) = read(text);
    let names: Vec<&str> = made.parents.iter().map(|parent| parent.name.as_str()).collect();
    assert_eq!((made.claim, names, wrong), (Claim::Own, vec!["b", "web"], Vec::new()));
    let domains: Vec<&str> = made.domains.iter().map(|domain| &**domain).collect();
    assert_eq!(domains, ["cluster.local", "other.example"]);
    assert_eq!(made.rules[0].rule.backend_refs[0].namespace.as_deref(), Some("bank"));
}

/// A destination.
const TO: &str = "route: [{destination: {host: a}}]";

/// Rules with what has no counterpart, each with the beginning of what is said.
fn refused() -> Vec<(String, &'static str)> {
    let with = |more: &str| format!("{TO}, {more}");
    vec![
        ("match: []".to_owned(), "spec.http[0]: exactly one of route and redirect"),
        (with("redirect: {uri: /x}"), "spec.http[0]: exactly one of route and redirect"),
        (
            "route: [{destination: {host: a, subset: v1}}]".to_owned(),
            "spec.http[0].route[0].destination.subset: subsets",
        ),
        (
            "route: [{destination: {host: api.example.com}}]".to_owned(),
            "spec.http[0].route[0].destination.host: not",
        ),
        (
            "route: [{destination: {host: a}}, {destination: {host: b}}]".to_owned(),
            "spec.http[0].route: no destination",
        ),
        (with("match: [{uri: {}}]"), "spec.http[0].match[0].uri: one of"),
        (with("match: [{uri: {exact: /a, prefix: /b}}]"), "spec.http[0].match[0].uri: one of"),
        (with("match: [{port: 80}]"), "spec.http[0].match[0].port: not imported: port; use HTTPRoute"),
        (with("match: [{ignoreUriCase: true}]"), "spec.http[0].match[0].ignoreUriCase: not imported"),
        (with("match: [{withoutHeaders: {x: {}}}]"), "spec.http[0].match[0].withoutHeaders: not imported"),
        (with("match: [{sourceLabels: {app: a}}]"), "spec.http[0].match[0].sourceLabels: not imported"),
        (with("match: [{method: {regex: 'G.*'}}]"), "spec.http[0].match[0].method: not imported"),
        (
            with("match: [{queryParams: {a: {prefix: b}}}]"),
            "spec.http[0].match[0].queryParams[a]: not imported",
        ),
        (with("match: [{headers: {uri: {exact: /}}}]"), "spec.http[0].match[0].headers[uri]: not imported"),
        (with("delegate: {name: x}"), "spec.http[0].delegate: not imported"),
        (with("mirrors: [{}]"), "spec.http[0].mirrors: not imported"),
        (with("timeout: soon"), "spec.http[0].timeout: \"soon\" is no duration"),
        (with("retries: {attempts: 21}"), "spec.http[0].retries.attempts: not between"),
        (
            with("retries: {attempts: 1, retryOn: envoy-ratelimited}"),
            "spec.http[0].retries.retryOn: not imported",
        ),
        (
            with("headers: {request: {set: {x: '%START_TIME%'}}}"),
            "spec.http[0].headers.request.set[x]: not imported",
        ),
        (
            with("mirror: {host: b}, mirrorPercentage: {value: 101}"),
            "spec.http[0].mirrorPercentage.value: not between",
        ),
        (
            with("fault: {abort: {httpStatus: 500, percentage: {value: 0.5}}}"),
            "spec.http[0].fault.abort.percentage: not imported",
        ),
        (
            with("fault: {delay: {fixedDelay: 1s}}"),
            "spec.http[0].fault.delay.percentage: the field is missing",
        ),
        (
            with("corsPolicy: {allowOrigins: [{regex: '.*'}]}"),
            "spec.http[0].corsPolicy.allowOrigins[0]: not imported",
        ),
        (
            with("rewrite: {uri: /}, match: [{uri: {prefix: /a}}]"),
            "spec.http[0].rewrite.uri: not imported: \"/\" in place",
        ),
        (with("rewrite: {uri: /b}, match: [{uri: {regex: /a.*}}]"), "spec.http[0].rewrite.uri: not imported"),
    ]
}

#[test]
fn what_has_no_counterpart_is_refused_by_name() {
    for (rule, begin) in refused() {
        let found = wrong(&rule);
        assert!(found.len() == 1 && found[0].starts_with(begin), "{rule}: {found:?}, not {begin}");
    }
    assert_eq!(read("hosts: [web]").1, ["spec.http: the field is missing"]);
    let both = read(&format!("hosts: [web]\ngateways: [mesh, in]\ntcp: [{{}}]\nhttp: [{{{TO}}}]")).1;
    assert!(
        both.len() == 2 && both[0].starts_with("spec.tcp: not") && both[1].starts_with("spec.gateways: not"),
        "{both:?}"
    );
}

#[test]
fn what_is_too_many_is_not_begun() {
    let many = |count: usize, one: &str| vec![one; count].join(", ");
    let matches = format!("{TO}, rewrite: {{uri: /b}}, match: [{}]", many(65, "{uri: {prefix: /a}}"));
    assert_eq!(wrong(&matches), ["spec.http[0].match: 65 elements, at most 64 are imported"]);
    let routes = format!("route: [{}]", many(17, "{destination: {host: a}, weight: 1}"));
    assert_eq!(wrong(&routes), ["spec.http[0].route: 17 elements, at most 16 are imported"]);
    let most = format!("rewrite: {{uri: /b}}, match: [{}]", many(64, "{uri: {prefix: /a}}"));
    assert_eq!(rules(&most).len(), 64);
}

#[test]
fn a_rewrite_divides_a_rule_by_what_it_matches() {
    let made = rules(
        "rewrite: {uri: /new/}, match: [{uri: {prefix: /old/}}, {uri: {exact: /one}}, {method: {exact: GET}}]",
    );
    let paths: Vec<(usize, &str, &str)> = made
        .iter()
        .map(|one| {
            let matched = one.rule.matches[0].path.as_ref().expect("a path");
            let filter = one.rule.filters.last().and_then(|filter| filter.url_rewrite.as_ref());
            let path = filter.and_then(|rewrite| rewrite.path.as_ref()).expect("a path");
            (one.at, matched.r#type.as_deref().unwrap_or_default(), path.r#type.as_str())
        })
        .collect();
    let prefix = (0, START, "ReplacePrefixMatch");
    assert_eq!(paths, [prefix, (0, "Exact", "ReplaceFullPath"), prefix]);
    assert_eq!(made[2].rule.matches[0].method.as_deref(), Some("GET"));
}

#[test]
fn attempts_times_and_faults_keep_their_meaning() {
    let made =
        rules("timeout: 1.5s, retries: {attempts: 3, perTryTimeout: 250ms, retryOn: '5xx, 404,unavailable'}");
    let timeouts = made[0].rule.timeouts.clone().expect("time-outs");
    assert_eq!(
        (timeouts.request.as_deref(), timeouts.backend_request.as_deref()),
        (Some("1s500ms"), Some("250ms"))
    );
    let retry = made[0].retry.clone().expect("a retry");
    let conditions = retry.conditions.expect("conditions");
    assert_eq!((retry.attempts, retry.codes, retry.grpc_codes), (Some(3), vec![404], vec![14]));
    assert!(
        conditions.iter().any(|one| one == "server-error") && conditions.iter().any(|one| one == "reset")
    );
    let none = rules("retries: {perTryTimeout: 1m}, timeout: 1s");
    assert_eq!(
        none[0].retry.as_ref().and_then(|retry| retry.attempts),
        Some(0),
        "a number that is absent is 0"
    );
    let timeouts = none[0].rule.timeouts.as_ref().expect("time-outs");
    assert_eq!(timeouts.backend_request, None, "longer than the whole");
    let fault = "fault: {delay: {fixedDelay: 2s, percentage: {value: 10}}, abort: {httpStatus: 418, percentage: {value: 0}}}";
    let delay = written::Delay { pause: "2s".to_owned(), percent: Some(10) };
    assert_eq!(rules(fault)[0].fault, Some(written::Fault { delay: Some(delay), abort: None }));
    let mirror =
        &rules("mirror: {host: b, port: {number: 80}}, mirrorPercentage: {value: 0.1}")[0].rule.filters[0];
    let fraction = mirror.request_mirror.as_ref().and_then(|to| to.fraction.clone());
    assert_eq!(fraction, Some(written::Fraction { numerator: 1_000, denominator: Some(1_000_000) }));
}

#[test]
fn durations_are_whole_milliseconds() {
    let rows = [
        ("5s", Some(5_000)),
        ("0s", Some(0)),
        ("0.5s", Some(500)),
        ("1h2m3.004s", Some(3_723_004)),
        ("250ms", Some(250)),
        ("1.5ms", None),
        ("5", None),
        ("s", None),
        ("-1s", None),
        ("1us", None),
        ("", None),
    ];
    for (text, want) in rows {
        assert_eq!(millis(text), want, "{text}");
    }
    assert_eq!([0, 7, 2_000, 90_001].map(duration), ["0s", "7ms", "2s", "90s1ms"]);
}
