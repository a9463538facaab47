//! What explanations say, conditions that no version knows, and secrets that are not told.

use std::sync::Arc;

use ambit_types::{Identity, PolicyKey};

use crate::http::model::{Action, Clause, Condition, HeaderName, Policy, Rule, StringMatch, Values};
use crate::http::{
    Answer, CustomOrder, Decision, Facts, Options, PolicySet, Request, compile, decide, explain, written,
};
use crate::normalize::{self, Received};

pub(super) fn dry_run(decision: &Decision) -> Vec<String> {
    let told = |one: &crate::DryRun| {
        let verdict = if one.verdict == crate::Verdict::Allow { "allow" } else { "deny" };
        one.policy.as_ref().map_or_else(|| verdict.to_owned(), |policy| format!("{verdict} by {policy}"))
    };
    decision.dry_run.iter().map(told).collect()
}

fn written(name: &str, yaml: &str) -> Arc<Policy> {
    let spec: written::Policy = serde_saphyr::from_str(yaml).unwrap();
    let compiled = compile(&PolicyKey::new("shop", name), &spec, false, &Options::default());
    Arc::new(compiled.unwrap())
}

/// Calls with facts of `METHOD PATH` by shop/cart, with headers.
fn with_facts<T>(request: &str, headers: &[(&str, &[u8])], act: impl FnOnce(&Facts<'_>) -> T) -> T {
    let (method, path) = request.split_once(' ').unwrap();
    let received = Received {
        method: method.as_bytes(),
        hosts: &[b"web.shop"],
        path: Some(path.as_bytes()),
        ..Received::default()
    };
    let target = normalize::normalize(&received, &normalize::Options::default()).unwrap();
    let peer = Identity::parse("spiffe://cluster.local/ns/shop/sa/cart").unwrap();
    let connection = crate::Facts::new(Some(&peer), [10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 80);
    let headers: Vec<(&str, &[u8])> = headers.to_vec();
    let request =
        Request { target: &target, headers: &headers, remote: Some([10, 0, 0, 1].into()), token: None };
    act(&Facts::of_request(connection, request))
}

#[track_caller]
fn check_nearest(policies: &[(&str, &str)], request: &str, answers: &[(&str, Answer)], want: &str) {
    let held = policies.iter().map(|(name, yaml)| written(name, yaml));
    let set = PolicySet::new(held, None, CustomOrder::default());
    let nearest = with_facts(request, &[("x-v", b"1")], |facts| explain(&set, facts, answers).nearest);
    assert_eq!(nearest.map_or_else(|| "-".to_owned(), |n| n.to_string()), want);
}

#[test]
fn the_nearest_rule_is_told_in_words() {
    let reads = (
        "reads",
        r#"{rules: [
            {from: [{source: {namespaces: [shop]}}], to: [{operation: {methods: [GET, HEAD], paths: ["/a/{*}"]}}]},
            {from: [{source: {namespaces: [jobs]}}], to: [{operation: {hosts: ["*.example"]}}]}]}"#,
    );
    check_nearest(
        &[reads],
        "POST /a/b",
        &[],
        "shop/reads rule 0 would match if the method were one of GET, HEAD (2 of 3 conditions met)",
    );
    check_nearest(
        &[reads],
        "POST /c",
        &[],
        "shop/reads rule 0 would match if the method were one of GET, HEAD and the path were /a/{*} (1 of 3 conditions met)",
    );
    let lock = (
        "lock",
        r#"{action: DENY, rules: [{to: [{operation: {paths: ["/admin*"]}}],
            when: [{key: "request.headers[x-v]", notValues: ["2"]}]}]}"#,
    );
    check_nearest(
        &[lock],
        "GET /admin",
        &[],
        "shop/lock rule 0 would not match if the path were not /admin* or the header x-v were 2 (2 of 2 conditions met)",
    );
    check_nearest(
        &[lock],
        "GET /x",
        &[],
        "shop/lock rule 0 would match if the path were /admin* (1 of 2 conditions met)",
    );
    let ext = (
        "ext",
        r#"{action: CUSTOM, provider: {name: opa}, rules: [{when: [{key: "request.headers[x-v]", values: ["*"]}]}]}"#,
    );
    let told = "shop/ext rule 0 would not match if there were no header x-v (1 of 1 conditions met)";
    check_nearest(&[ext], "GET /x", &[], told);
    check_nearest(&[ext], "GET /x", &[("opa", Answer::Denied)], told);
    check_nearest(&[], "GET /x", &[], "-");
}

#[test]
fn conditions_of_a_later_version_refuse_and_never_permit() {
    // A6: an unknown condition must not count as always agreeing, where that lets through.
    let policy = |name: &str, action| {
        let rule = Rule { clauses: Vec::new(), unevaluable: vec!["source.moon".into()] };
        Arc::new(Policy { key: PolicyKey::new("shop", name), action, rules: vec![rule], dry_run: false })
    };
    for (action, want) in [
        (Action::Allow, "AMB2202 http-policy-denied"),
        (Action::Deny, "AMB2106 policy-unevaluable by shop/x rule 0"),
        (Action::Audit, "allow"),
        (Action::Custom("opa".into()), "ask opa by shop/x rule 0"),
    ] {
        let set = PolicySet::new([policy("x", action)], None, CustomOrder::default());
        let (decision, nearest) = with_facts("GET /", &[], |facts| {
            (decide(&set, facts, &[]), explain(&set, facts, &[]).nearest.map(|n| n.to_string()))
        });
        assert_eq!(decision.to_string(), want);
        if want.starts_with("AMB2202") {
            let told = "shop/x rule 0 would match if source.moon were known to this version of the waypoint (0 of 0 conditions met)";
            assert_eq!(nearest.as_deref(), Some(told));
        }
    }
}

#[test]
fn what_compares_nothing_agrees_only_where_that_refuses() {
    let nothing = Condition::Method(Values { any: Vec::<StringMatch>::new(), none: Vec::new() });
    let shapes = [
        Clause { alternatives: Vec::new() },
        Clause { alternatives: vec![Vec::new()] },
        Clause { alternatives: vec![vec![nothing]] },
    ];
    for clause in shapes {
        for (action, want) in [(Action::Allow, false), (Action::Deny, false)] {
            let rule = Rule { clauses: vec![clause.clone()], unevaluable: Vec::new() };
            let key = PolicyKey::new("shop", "x");
            let policy = Arc::new(Policy { key, action: action.clone(), rules: vec![rule], dry_run: false });
            let set = PolicySet::new([policy], None, CustomOrder::default());
            let allowed = with_facts("GET /", &[], |facts| decide(&set, facts, &[]).is_allow());
            assert_eq!(allowed, want, "{action} {clause:?}");
        }
    }
}

/// A15 (CVE-2024-23323): the longest path against a policy full of templates is a matter of one pass each.
#[test]
fn the_longest_path_costs_one_pass() {
    let paths: Vec<String> = (0..512).map(|i| format!("/{{*}}/a{i}/{{*}}/{{**}}/b{i}")).collect();
    let spec = serde_json::json!({"action": "DENY", "rules": [{"to": [{"operation": {"paths": paths}}]}]});
    let set = PolicySet::new([written("x", &spec.to_string())], None, CustomOrder::default());
    let path = format!("GET {}", "/a0".repeat(normalize::TARGET_BYTES_MAX / 3));
    let told = with_facts(&path, &[], |facts| decide(&set, facts, &[]).to_string());
    assert_eq!(told, "allow");
    let hit = format!("{}/b0", &path[..path.len() - 3]);
    assert!(!with_facts(&hit, &[], |facts| decide(&set, facts, &[]).is_allow()));
}

/// A17: even a policy that nobody compiled here compares no header that clients cannot be kept from forging.
#[test]
fn internal_headers_are_never_compared() {
    for (action, want) in [(Action::Allow, "AMB2202 http-policy-denied"), (Action::Deny, "allow")] {
        let values = Values { any: vec![StringMatch::Presence], none: Vec::new() };
        let header = Condition::Header(HeaderName::parse("X-Envoy-Original-Path").unwrap(), values);
        let rule =
            Rule { clauses: vec![Clause { alternatives: vec![vec![header]] }], unevaluable: Vec::new() };
        let key = PolicyKey::new("shop", "x");
        let set = PolicySet::new(
            [Arc::new(Policy { key, action, rules: vec![rule], dry_run: false })],
            None,
            CustomOrder::default(),
        );
        let headers: [(&str, &[u8]); 1] = [("x-envoy-original-path", b"/a")];
        assert_eq!(with_facts("GET /", &headers, |facts| decide(&set, facts, &[]).to_string()), want);
    }
}

#[test]
fn explanations_tell_no_secrets_and_escape_the_rest() {
    let policy = written(
        "x",
        r#"{rules: [{when: [
            {key: "request.headers[authorization]", values: [a]},
            {key: "request.headers[x-long]", values: [a]},
            {key: "request.headers[x-odd]", values: [a]}]}]}"#,
    );
    let set = PolicySet::new([policy], None, CustomOrder::default());
    let long = [b'a'; 500];
    let headers: [(&str, &[u8]); 4] =
        [("authorization", b"Bearer x"), ("x-long", &long), ("x-odd", b"\x1b[31m\xff"), ("x-odd", b"b")];
    let explanation = with_facts("GET /", &headers, |facts| explain(&set, facts, &[]));
    let clauses = &explanation.policies[0].rules[0].clauses;
    let found = |index: usize| clauses[index].alternatives[0][0].found.clone().unwrap();
    assert_eq!(found(0), "(secret)");
    assert_eq!(found(1), format!("{}…", "a".repeat(128)));
    assert_eq!(found(2), r"\x1b[31m\xff | b");
}

#[test]
fn a_dry_run_that_cannot_be_is_unresolved() {
    let policy = |action| {
        let key = PolicyKey::new("shop", "x");
        Arc::new(Policy { key, action, rules: vec![Rule::default()], dry_run: true })
    };
    for action in [Action::Audit, Action::Custom("opa".into())] {
        let set = PolicySet::new([policy(action)], None, CustomOrder::default());
        let told = with_facts("GET /", &[], |facts| decide(&set, facts, &[]).to_string());
        assert_eq!(told, "AMB2105 policy-unresolved by shop/x");
    }
}

#[test]
fn a_set_knows_what_it_compares() {
    let set = |yaml: &str| PolicySet::new([written("x", yaml)], None, CustomOrder::default());
    let paths = set(r#"{rules: [{to: [{operation: {notPaths: [/a]}}]}]}"#);
    let tokens = set(r#"{rules: [{when: [{key: "request.auth.claims[a]", notValues: [b]}]}]}"#);
    assert_eq!((paths.compares_paths(), paths.compares_tokens()), (true, false));
    assert_eq!((tokens.compares_paths(), tokens.compares_tokens()), (false, true));
    assert!(PolicySet::default().is_empty() && !paths.is_empty());
    let one = written("x", r#"{rules: [{}]}"#);
    let twice = PolicySet::new([one.clone(), one], None, CustomOrder::default());
    assert_eq!(twice.policies().count(), 1);
    let unresolved = PolicySet::new([], Some(PolicyKey::new("a", "b")), CustomOrder::default());
    assert!(!unresolved.is_empty());
}
