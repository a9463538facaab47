//! Broken rules: what is reported, what becomes of their requests and of the rules beside them.

use ambit_types::ServiceKey;

use super::checks::{is_hostname, path, readable_prefix};
use super::{Effect, PathFault, RuleError, RuleFault};
use crate::model::limits::{PATH_PATTERNS_MAX, PATTERN_BYTES_MAX};
use crate::model::*;
use crate::request::split_target;
use crate::{Answer, Failure, Plan, Request, Table};

mod faults;

fn web() -> ServiceKey {
    ServiceKey::new("shop", "web")
}

fn to(name: &str) -> Backend {
    let target = Target::Service { service: ServiceKey::new("shop", name), port: 80 };
    Backend { target, weight: 1, filters: Vec::new() }
}

fn rule(matches: Vec<HttpMatch>, backend: &str) -> Rule<HttpMatch> {
    Rule { matches, backends: vec![to(backend)], ..Rule::default() }
}

fn at(path: PathMatch) -> HttpMatch {
    HttpMatch { path: Some(path), ..HttpMatch::default() }
}

fn compiled(rules: Vec<Rule<HttpMatch>>) -> (Table, Vec<RuleError>) {
    let route = Route { key: RouteKey::new("shop", "web"), created: 0, rules };
    group(Group::Http(vec![route]))
}

fn listed(rules: Vec<Rule<HttpMatch>>) -> (Table, Vec<RuleError>) {
    let route = Route { key: RouteKey::new("shop", "web"), created: 0, rules };
    group(Group::Listed(vec![route]))
}

fn group(group: Group) -> (Table, Vec<RuleError>) {
    let producer = Some(group);
    let frontend = Frontend { service: web(), port: 80, producer, consumers: Default::default() };
    Table::compile(&RouteConfig { frontends: vec![frontend], destinations: Vec::new() })
}

/// The backend's name, or the status of a failure.
fn outcome(table: &Table, target: &str, headers: &[(&str, &str)]) -> String {
    let (path, query) = split_target(target);
    let (scheme, authority) = (Scheme::Http, "web");
    let request = Request { method: "GET", scheme, authority, port: 80, path, query, headers };
    match table.select(&web(), None, &request).plan(&request, 0) {
        Plan::Forward(forward) => match forward.target() {
            Some(Target::Service { service, .. }) => service.hostname.to_string(),
            Some(Target::Invalid { .. }) | None => "the service".to_owned(),
        },
        Plan::Answer(Answer::Failure(Failure::RuleInvalid)) => "broken".to_owned(),
        Plan::Answer(answer) => answer.status(false).to_string(),
    }
}

#[test]
fn a_path_that_cannot_be_read_holds_its_segments_and_leaves_the_others_alone() {
    let (table, errors) = compiled(vec![
        rule(vec![at(PathMatch::Regex("/api/v[0-9".into()))], "a"),
        rule(vec![at(PathMatch::Exact("/api/v1".into()))], "b"),
        rule(vec![at(PathMatch::Prefix("/api/v2".into()))], "c"),
        rule(vec![at(PathMatch::Prefix("/".into()))], "d"),
    ]);
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].field, "rules[0].matches[0].path.value");
    for (target, want) in [
        ("/api/v1", "b"),
        ("/api/v2/x", "c"),
        ("/api/v3", "broken"),
        ("/api", "broken"),
        ("/apis", "d"),
        ("/", "d"),
    ] {
        assert_eq!(outcome(&table, target, &[]), want, "{target}");
    }
}

#[test]
fn a_pattern_of_which_nothing_can_be_read_takes_only_what_nobody_else_wants() {
    for pattern in ["(", "[a-", "/x|/(", ".*("] {
        let broken = || rule(vec![at(PathMatch::Regex(pattern.into()))], "a");
        let (alone, _) = compiled(vec![broken(), rule(vec![at(PathMatch::Prefix("/b".into()))], "b")]);
        assert_eq!(outcome(&alone, "/b/c", &[]), "b", "{pattern}");
        assert_eq!(outcome(&alone, "/c", &[]), "broken", "{pattern}");
        let (beside, _) = compiled(vec![broken(), rule(Vec::new(), "all")]);
        assert_eq!(outcome(&beside, "/c", &[]), "all", "{pattern}");
    }
}

#[test]
fn listed_rules_are_tried_in_order_and_broken_ones_keep_their_turn() {
    let header = |name: &str| NameMatch { name: name.into(), value: ValueMatch::Present };
    let headed = HttpMatch { headers: vec![header("x")], ..HttpMatch::default() };
    let (table, errors) = listed(vec![
        rule(vec![at(PathMatch::Start("/api".into()))], "letters"),
        rule(vec![at(PathMatch::Prefix("/seg/".into()))], "segments"),
        rule(vec![headed], "headed"),
        rule(vec![at(PathMatch::Regex("/b/[0-9".into()))], "b"),
        rule(vec![at(PathMatch::Regex("/[a-z]+".into()))], "pattern"),
        rule(vec![at(PathMatch::Exact("/apiary".into())), at(PathMatch::Exact("/Exact".into()))], "exact"),
    ]);
    assert_eq!(errors.len(), 1, "{errors:?}");
    for (target, headers, want) in [
        ("/z", &[("x", "1")][..], "headed"),
        ("/apiary", &[], "letters"),
        ("/api", &[], "letters"),
        ("/seg", &[], "segments"),
        ("/seg/x", &[("x", "1")], "segments"),
        ("/segx", &[], "pattern"),
        ("/b/7", &[], "broken"),
        ("/b", &[], "broken"),
        ("/Exact", &[], "exact"),
        ("/Exact/x", &[], "404"),
        ("*", &[], "404"),
    ] {
        assert_eq!(outcome(&table, target, headers), want, "{target} {headers:?}");
    }
    // Sorted, the more specific ones would have come first.
    let (table, _) =
        listed(vec![rule(Vec::new(), "all"), rule(vec![at(PathMatch::Exact("/exact".into()))], "exact")]);
    assert_eq!(outcome(&table, "/exact", &[]), "all");
}

#[test]
fn a_header_pattern_that_cannot_be_read_agrees_with_any_value() {
    let value = ValueMatch::Regex("(".into());
    let header = NameMatch { name: "X-Team".into(), value };
    let one = HttpMatch { headers: vec![header], ..HttpMatch::default() };
    let (table, errors) = compiled(vec![rule(vec![one], "a"), rule(Vec::new(), "all")]);
    assert_eq!(errors[0].field, "rules[0].matches[0].headers[0].value");
    assert_eq!(outcome(&table, "/", &[("x-team", "blue")]), "broken");
    assert_eq!(outcome(&table, "/", &[]), "all");
}

#[test]
fn a_condition_without_a_name_does_not_narrow_but_yields() {
    let nameless = NameMatch { name: "".into(), value: ValueMatch::Exact("1".into()) };
    let one = HttpMatch { headers: vec![nameless], ..at(PathMatch::Prefix("/a".into())) };
    let (table, _) =
        compiled(vec![rule(vec![one], "a"), rule(vec![at(PathMatch::Prefix("/a/b".into()))], "b")]);
    assert_eq!(outcome(&table, "/a", &[]), "broken");
    assert_eq!(outcome(&table, "/a/b", &[]), "b");
    assert_eq!(outcome(&table, "/c", &[]), "404");
}

#[test]
fn one_bad_match_of_several_breaks_the_rule_and_nothing_else() {
    let bad = at(PathMatch::Exact("relative".into()));
    let good = at(PathMatch::Exact("/good".into()));
    let (table, errors) = compiled(vec![rule(vec![good, bad], "a"), rule(Vec::new(), "all")]);
    assert_eq!(errors.len(), 1);
    for (target, want) in
        [("/good", "broken"), ("/relative", "broken"), ("/relative/x", "broken"), ("/x", "all")]
    {
        assert_eq!(outcome(&table, target, &[]), want, "{target}");
    }
}

#[test]
fn paths_are_brought_into_the_form_of_requests() {
    for (text, want) in [
        ("/", Some("/")),
        ("/a/", Some("/a/")),
        ("/caf%c3%a9", Some("/caf%C3%A9")),
        ("/%61dmin", Some("/admin")),
        ("/a%7eb", Some("/a~b")),
        ("/a;v=1,2:@!$&'()*+=", Some("/a;v=1,2:@!$&'()*+=")),
        ("/%21%24%26%27%28%29%2a%2b%2c%3a%3d%40", Some("/!$&'()*+,:=@")),
        ("/a%3bb%3f%23%25%20", Some("/a%3Bb%3F%23%25%20")),
        ("", None),
        ("a", None),
        ("//", None),
        ("/a//b", None),
        ("/a//", None),
        ("/a/./b", None),
        ("/a/..", None),
        ("/a/.", None),
        ("/a/%2e%2e/b", None),
        ("/a%2Fb", None),
        ("/a%2fb", None),
        ("/a%", None),
        ("/a%z1", None),
        ("/a%+1", None),
        ("/a?b", None),
        ("/a#b", None),
        ("/a b", None),
        ("/é", None),
        ("/a\\b", None),
    ] {
        assert_eq!(path(text).ok().as_deref(), want, "{text}");
    }
    assert!(path(&format!("/{}", "a".repeat(1023))).is_ok());
    assert_eq!(path(&format!("/{}", "a".repeat(1024))), Err(PathFault::TooLong));
}

#[test]
fn what_can_be_read_of_a_path_is_its_first_plain_segments() {
    for (text, is_pattern, want) in [
        ("/a/b//c", false, "/a/b"),
        ("/a/%2f", false, "/a"),
        ("a/b", false, "/a/b"),
        ("/a/../b", false, "/a"),
        ("", false, ""),
        ("/api/v[0-9", true, "/api"),
        ("^/api/x/(", true, "/api/x"),
        ("/api/v1.0/(", true, "/api"),
        ("/api", true, ""),
        ("/a|(", true, ""),
        ("(", true, ""),
    ] {
        assert_eq!(&*readable_prefix(text, is_pattern), want, "{text}");
    }
}

#[test]
fn host_names_have_neither_ports_nor_stars() {
    for (text, want) in [
        ("example.org", true),
        ("a", true),
        ("a-b.c1", true),
        ("", false),
        ("*.org", false),
        ("a:80", false),
        ("-a.org", false),
        ("a..b", false),
        ("a_b", false),
        ("[::1]", false),
    ] {
        assert_eq!(is_hostname(text), want, "{text}");
    }
}

#[test]
fn path_patterns_of_a_port_are_counted_and_the_rest_stays_in_force() {
    let pattern = |n: usize| rule(vec![at(PathMatch::Regex(format!("/p{n}/[0-9]+").into()))], "p");
    let rules = (0..=PATH_PATTERNS_MAX).map(pattern).chain([rule(Vec::new(), "all")]);
    let (table, errors) = compiled(rules.collect());
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].fault, RuleFault::TooManyPatterns);
    assert_eq!(outcome(&table, "/p0/1", &[]), "p");
    assert_eq!(outcome(&table, &format!("/p{PATH_PATTERNS_MAX}/1"), &[]), "broken");
    assert_eq!(outcome(&table, "/q/1", &[]), "all");
}

#[test]
fn one_frontend_is_replaced_without_touching_the_others() {
    let frontend = |port, backend: &str| {
        let route =
            Route { key: RouteKey::new("shop", "web"), created: 0, rules: vec![rule(Vec::new(), backend)] };
        let producer = Some(Group::Http(vec![route]));
        Frontend { service: web(), port, producer, consumers: Default::default() }
    };
    let frontends = vec![frontend(80, "a"), frontend(81, "b")];
    let (first, _) = Table::compile(&RouteConfig { frontends, destinations: Vec::new() });
    let mut second = first.clone();
    assert_eq!(second.put(&frontend(80, "c")), []);
    assert_eq!(outcome(&first, "/", &[]), "a", "a snapshot does not change");
    assert_eq!(outcome(&second, "/", &[]), "c");
    let shared = |table: &Table| table.frontend(&web(), 81).cloned().expect("port 81");
    assert!(std::sync::Arc::ptr_eq(&shared(&first), &shared(&second)));
    second.remove(&web(), 80);
    assert_eq!(outcome(&second, "/", &[]), "the service");
    second.remove(&web(), 81);
    assert!(second.frontend(&web(), 81).is_none());
}

#[test]
fn a_pattern_as_long_as_may_be_compiles() {
    let text = format!("/{}", "a".repeat(PATTERN_BYTES_MAX - 1));
    let (table, errors) = compiled(vec![rule(vec![at(PathMatch::Regex(text.clone().into()))], "a")]);
    assert_eq!(errors, []);
    assert_eq!(outcome(&table, &text, &[]), "a");
}
