//! Lists of rules with an index against the same lists walked rule by rule, and what the index is for.

use std::ops::ControlFlow;
use std::sync::Arc;

use ambit_types::PolicyKey;
use proptest::prelude::*;

use super::super::index::Index;
use super::super::model::{Action, Clause, Condition, Policy, Rule, ServiceAccount};
use super::super::{
    Answer, CustomOrder, Decision, Facts, PolicySet, Request, asks_before_token, compile, decide, explain,
    written,
};
use super::properties::{answers, asked, condition, order, texts, values};
use crate::normalize::{self, Received, normalize};

/// Conditions on every attribute.
fn any_condition() -> impl Strategy<Value = Condition> {
    let range = prop::sample::select(
        &["10.0.0.1/32", "10.0.0.0/8", "10.0.0.0/28", "0.0.0.0/0", "::/0", "11.0.0.0/8"][..],
    )
    .prop_map(|range| range.parse().unwrap());
    let account = (prop::sample::select(&["a", "b"][..]), prop::sample::select(&["x", "xy"][..]))
        .prop_map(|(namespace, name)| ServiceAccount { namespace: namespace.into(), name: name.into() });
    let header = prop::sample::select(&["x", "y", "upgrade", "x-ambit-z"][..])
        .prop_map(|name| super::super::model::HeaderName::parse(name).unwrap());
    prop_oneof![
        8 => condition(),
        1 => values(range.clone()).prop_map(Condition::SourceIp),
        1 => values(range).prop_map(Condition::DestinationIp),
        1 => values(account).prop_map(Condition::ServiceAccount),
        1 => values(texts(&["td", "t*", "*td", "other"])).prop_map(Condition::TrustDomain),
        1 => values(texts(&["a", "7", "*"])).prop_map(Condition::Presenter),
        1 => values(texts(&["7", "a", "true"])).prop_map(|values| {
            Condition::Claim(crate::jwt::ClaimPath::new(["c"]).unwrap(), values)
        }),
        2 => (header, values(texts(&["a", "ab", "a,b", "a*", "*,b", "*b", "ab*", "7"])))
            .prop_map(|(name, values)| Condition::Header(name, values)),
    ]
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let alternative = prop::collection::vec(any_condition(), 0..4);
    let clause = prop::collection::vec(alternative, 0..3).prop_map(|alternatives| Clause { alternatives });
    let rule =
        (prop::collection::vec(clause, 1..4), prop::bool::weighted(0.05)).prop_map(|(clauses, unknown)| {
            Rule { clauses, unevaluable: if unknown { vec!["moon".into()] } else { Vec::new() } }
        });
    prop::collection::vec(rule, 0..12)
}

fn policies() -> impl Strategy<Value = Vec<Policy>> {
    let action = prop::sample::select(vec![
        Action::Allow,
        Action::Allow,
        Action::Deny,
        Action::Audit,
        Action::Custom("p".into()),
        Action::Custom("q".into()),
    ]);
    let policy = (action, prop::bool::weighted(0.2), rules());
    prop::collection::vec(policy, 1..6).prop_map(|all| {
        let named = |(index, (action, dry_run, rules)): (usize, (Action, bool, Vec<Rule>))| {
            let dry_run = dry_run && matches!(action, Action::Allow | Action::Deny);
            Policy { key: PolicyKey::new("ns", format!("p{index}")), action, rules, dry_run }
        };
        all.into_iter().enumerate().map(named).collect()
    })
}

fn set(policies: &[Policy], order: CustomOrder, walk_max: usize) -> PolicySet {
    PolicySet::with_walk_max(policies.iter().cloned().map(Arc::new), None, order, walk_max)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    /// H39: every word of a decision is that of the slow evaluation, which is also the one that explains.
    #[test]
    fn an_index_changes_nothing(
        policies in policies(),
        asked in prop::collection::vec(asked(), 1..6),
        answers in answers(),
        order in order(),
    ) {
        let (indexed, walked) = (set(&policies, order, 0), set(&policies, order, usize::MAX));
        for asked in asked {
            let decided = |set: &PolicySet| asked.with(|facts| {
                (decide(set, facts, &answers), asks_before_token(set, facts))
            });
            let found = decided(&indexed);
            prop_assert_eq!(&found, &decided(&walked), "walked");
            let explained = asked.with(|facts| explain(&indexed, facts, &answers).decision);
            prop_assert_eq!(found.0, explained, "explained");
        }
    }
}

/// The candidates among the rules of an ALLOW policy with `count` rules.
fn candidates(count: usize, rule: impl Fn(usize) -> written::Rule, facts: &Facts<'_>) -> (usize, Decision) {
    let rules = Some((0..count).map(rule).collect());
    let written = written::Policy { action: written::Action::Allow, provider: None, rules };
    let key = PolicyKey::new("shop", "web");
    let policy = Arc::new(compile(&key, &written, false, &super::super::Options::default()).unwrap());
    let mut shown = 0;
    Index::new(std::slice::from_ref(&policy)).unwrap().candidates(facts, |_| {
        shown += 1;
        ControlFlow::Continue(())
    });
    (shown, decide(&PolicySet::new([policy], None, CustomOrder::default()), facts, &[]))
}

#[track_caller]
fn check_few_candidates(what: &str, rule: impl Fn(usize, &mut written::Source, &mut written::Operation)) {
    let peer = ambit_types::Identity::parse("spiffe://cluster.local/ns/ns7/sa/sa7").unwrap();
    let connection = crate::Facts::new(Some(&peer), [10, 0, 7, 1].into(), [10, 9, 9, 9].into(), 80);
    let received = Received {
        method: b"GET",
        authority: Some(b"web7.shop"),
        path: Some(b"/r/7/x"),
        ..Received::default()
    };
    let target = normalize(&received, &normalize::Options::default()).unwrap();
    let headers = [("x-tenant", "t7")];
    let headers = &headers.to_vec();
    let request = Request { target: &target, headers, remote: Some([8, 0, 7, 1].into()), token: None };
    let facts = Facts::of_request(connection, request);
    let whole = |number: usize| {
        let mut source = written::Source::default();
        let mut operation =
            written::Operation { methods: vec!["GET".to_owned()], ..written::Operation::default() };
        rule(number, &mut source, &mut operation);
        let from =
            (source != written::Source::default()).then(|| vec![written::From { source: Some(source) }]);
        let tenant = if what == "header" { format!("t{number}") } else { "t*".to_owned() };
        let when = written::Condition {
            key: "request.headers[x-tenant]".to_owned(),
            values: vec![tenant],
            ..written::Condition::default()
        };
        written::Rule {
            from,
            to: Some(vec![written::To { operation: Some(operation) }]),
            when: Some(vec![when]),
        }
    };
    let (shown, decision) = candidates(500, whole, &facts);
    assert_eq!((shown, decision.rule), (1, Some(7)), "{what}: {decision}");
}

/// What a request costs does not grow with the rules.
#[test]
fn of_many_rules_only_those_are_compared_that_may_agree() {
    let anywhere = || vec!["/r/*".to_owned()];
    check_few_candidates("path", |n, _, to| to.paths = vec![format!("/r/{n}/x")]);
    check_few_candidates("prefix", |n, _, to| to.paths = vec![format!("/r/{n}/*")]);
    check_few_candidates("template", |n, _, to| to.paths = vec![format!("/r/{n}/{{*}}")]);
    check_few_candidates("host", |n, _, to| to.hosts = vec![format!("Web{n}.shop")]);
    check_few_candidates("host suffix", |n, _, to| to.hosts = vec![format!("*b{n}.shop")]);
    check_few_candidates("principal", |n, from, to| {
        from.principals = vec![format!("cluster.local/ns/ns{n}/sa/sa{n}")];
        to.paths = anywhere();
    });
    check_few_candidates("namespace", |n, from, to| {
        from.namespaces = vec![format!("ns{n}")];
        to.paths = anywhere();
    });
    check_few_candidates("account", |n, from, _| from.service_accounts = vec![format!("ns{n}/sa{n}")]);
    check_few_candidates("range", |n, from, _| {
        from.ip_blocks = vec![format!("10.{}.{}.0/24", n / 256, n % 256)]
    });
    check_few_candidates("client range", |n, from, _| {
        from.remote_ip_blocks = vec![format!("8.{}.{}.0/24", n / 256, n % 256)];
    });
    check_few_candidates("header", |_, _, to| to.paths = anywhere());
}

/// What is found under nothing, because it could not be read, still reaches every rule.
#[test]
fn an_unreadable_client_address_is_refused_by_every_range() {
    let rule = |n: usize| {
        let range: ipnet::IpNet = format!("9.{}.{}.0/24", n / 256, n % 256).parse().unwrap();
        let values = crate::model::Values { any: vec![range], none: Vec::new() };
        Rule {
            clauses: vec![Clause { alternatives: vec![vec![Condition::RemoteIp(values)]] }],
            ..Rule::default()
        }
    };
    let policy = Policy {
        key: PolicyKey::new("ns", "lock"),
        action: Action::Deny,
        rules: (0..100).map(rule).collect(),
        dry_run: false,
    };
    let set = PolicySet::new([Arc::new(policy)], None, CustomOrder::default());
    let target = Received { method: b"GET", authority: Some(b"a"), path: Some(b"/"), ..Received::default() };
    let target = normalize(&target, &normalize::Options::default()).unwrap();
    let connection = crate::Facts::new(None, [10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 80);
    let headers: Vec<(&str, &str)> = Vec::new();
    let verdict = |remote: Option<std::net::IpAddr>| {
        let request = Request { target: &target, headers: &headers, remote, token: None };
        let answers: [(&str, Answer); 0] = [];
        decide(&set, &Facts::of_request(connection, request), &answers)
    };
    assert_eq!(verdict(None).rule, Some(0));
    assert_eq!(verdict(Some([9, 0, 50, 1].into())).rule, Some(50));
    assert!(verdict(Some([8, 8, 8, 8].into())).is_allow());
}
