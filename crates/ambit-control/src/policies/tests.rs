//! What a written policy becomes, judged by what it decides.

use std::net::IpAddr;
use std::sync::Arc;

use ambit_policy::model::{Policy, Scope};
use ambit_policy::{Facts, PolicySet, decide};
use ambit_types::{Identity, Str, TrustDomain};

use super::authorization;
use crate::index::Settings;
use crate::input::{
    AuthorizationPolicy, Condition, Labels, Name, Operation, PolicyAction, PolicyRule, Source, Terms,
};

/// Rules in one line: rules `||`, parts `;`, parts are `from`, `to` or a `when` key; alternatives `|`, attributes by
/// blanks, `!` for the negated list.
fn policy(action: PolicyAction, text: &str) -> AuthorizationPolicy {
    let rules = if text == "none" { Vec::new() } else { text.split("||").map(rule).collect() };
    AuthorizationPolicy {
        name: Name::new("shop", "p"),
        generation: 0,
        selector: Labels::new(),
        targets: 0,
        action,
        rules,
        dry_run: false,
        until: None,
    }
}

fn rule(text: &str) -> PolicyRule {
    let mut rule = PolicyRule::default();
    for part in text.split(';').map(str::trim).filter(|p| !p.is_empty()) {
        let (head, rest) = part.split_once(' ').unwrap_or((part, ""));
        match head {
            "from" => rule.from = rest.split('|').map(source).collect(),
            "to" => rule.to = rest.split('|').map(operation).collect(),
            "when" => {
                let (key, values) = rest.split_once(' ').unwrap_or((rest, ""));
                let mut condition = Condition { key: Str::from(key), ..Condition::default() };
                for (negated, _, values) in attributes(values) {
                    add(&mut condition.values, negated, values);
                }
                rule.when.push(condition);
            }
            other => panic!("part {other:?}"),
        }
    }
    rule
}

fn attributes(text: &str) -> impl Iterator<Item = (bool, &str, &str)> {
    text.split_whitespace().map(|attribute| {
        let (name, values) = attribute.split_once('=').unwrap_or_else(|| panic!("no = in {attribute:?}"));
        (name.starts_with('!'), name.trim_start_matches('!'), values)
    })
}

fn add(terms: &mut Terms, negated: bool, values: &str) {
    let list = if negated { &mut terms.none } else { &mut terms.any };
    list.extend(values.split(',').map(Str::from));
}

fn source(text: &str) -> Source {
    let mut source = Source::default();
    for (negated, name, values) in attributes(text) {
        let terms = match name {
            "principals" => &mut source.principals,
            "requestPrincipals" => &mut source.request_principals,
            "namespaces" => &mut source.namespaces,
            "ipBlocks" => &mut source.ip_blocks,
            "remoteIpBlocks" => &mut source.remote_ip_blocks,
            "serviceAccounts" => &mut source.service_accounts,
            "trustDomains" => &mut source.trust_domains,
            other => panic!("attribute {other:?}"),
        };
        add(terms, negated, values);
    }
    source
}

fn operation(text: &str) -> Operation {
    let mut operation = Operation::default();
    for (negated, name, values) in attributes(text) {
        let terms = match name {
            "hosts" => &mut operation.hosts,
            "ports" => &mut operation.ports,
            "methods" => &mut operation.methods,
            "paths" => &mut operation.paths,
            other => panic!("attribute {other:?}"),
        };
        add(terms, negated, values);
    }
    operation
}

/// `PEER[@SOURCE] -> PORT`, PEER is `ns/sa`, `domain:ns/sa` or `plain`.
fn verdict(policy: &Policy, call: &str) -> String {
    let (who, port) = call.split_once(" -> ").unwrap();
    let (who, source) = who.split_once('@').unwrap_or((who, "10.0.0.9"));
    let peer = (who != "plain").then(|| {
        let (domain, rest) = who.split_once(':').unwrap_or(("cluster.local", who));
        let (namespace, account) = rest.split_once('/').unwrap();
        Identity::new(TrustDomain::parse(domain).unwrap(), namespace, account)
    });
    let source: IpAddr = source.parse().unwrap();
    let destination = IpAddr::from([10, 0, 0, 1]);
    let set = PolicySet::new([Arc::new(policy.clone())], []);
    let facts = Facts::new(peer.as_ref(), source, destination, port.parse().unwrap());
    let decision = decide(&set, &facts);
    match decision.is_allow() {
        true => "allow".to_owned(),
        false => decision.reason.unwrap().code().to_owned(),
    }
}

/// Converts and compares the standing and every decision.
#[track_caller]
fn check(action: PolicyAction, text: &str, standing: &str, rows: &[(&str, &str)]) {
    let (converted, became) = authorization(&policy(action, text), &Settings::default());
    assert_eq!(became.to_string(), standing, "standing of {text:?}");
    let converted = converted.expect("a policy is sent");
    for (call, want) in rows {
        assert_eq!(verdict(&converted, call), *want, "{action:?} {text:?}: {call}");
    }
}

use PolicyAction::{Allow, Deny};

#[test]
fn every_field_this_layer_knows_is_compared() {
    check(
        Allow,
        "from principals=cluster.local/ns/shop/sa/cart",
        "accepted",
        &[("shop/cart -> 80", "allow"), ("shop/cart2 -> 80", "AMB2104"), ("plain -> 80", "AMB2104")],
    );
    check(
        Allow,
        "from namespaces=shop,jobs-*",
        "accepted",
        &[("shop/a -> 80", "allow"), ("jobs-1/a -> 80", "allow"), ("jobs/a -> 80", "AMB2104")],
    );
    check(
        Allow,
        "from principals=*/sa/cart",
        "accepted",
        &[("shop/cart -> 80", "allow"), ("shop/xcart -> 80", "AMB2104")],
    );
    check(
        Allow,
        "from serviceAccounts=cart,jobs/cron",
        "accepted",
        &[("shop/cart -> 80", "allow"), ("jobs/cron -> 80", "allow"), ("jobs/cart -> 80", "AMB2104")],
    );
    check(
        Allow,
        "from ipBlocks=10.1.0.0/16,192.0.2.7 !ipBlocks=10.1.9.0/24",
        "accepted",
        &[
            ("plain@10.1.0.1 -> 80", "allow"),
            ("plain@192.0.2.7 -> 80", "allow"),
            ("plain@10.1.9.1 -> 80", "AMB2104"),
            ("plain@192.0.2.8 -> 80", "AMB2104"),
        ],
    );
    check(
        Deny,
        "from ipBlocks=::ffff:10.1.0.0/112",
        "accepted",
        &[("plain@10.1.7.7 -> 80", "AMB2103"), ("plain@10.2.0.1 -> 80", "allow")],
    );
    check(Deny, "to ports=80,443", "accepted", &[("a/b -> 443", "AMB2103"), ("a/b -> 8080", "allow")]);
    check(Deny, "to !ports=80", "accepted", &[("a/b -> 80", "allow"), ("a/b -> 81", "AMB2103")]);
}

#[test]
fn conditions_of_when_all_have_to_hold() {
    let text = "when source.namespace =shop; when destination.port =80; when source.ip !=10.9.0.0/16";
    check(
        Allow,
        text,
        "accepted",
        &[
            ("shop/a@10.0.0.1 -> 80", "allow"),
            ("shop/a@10.9.0.1 -> 80", "AMB2104"),
            ("shop/a@10.0.0.1 -> 81", "AMB2104"),
            ("jobs/a@10.0.0.1 -> 80", "AMB2104"),
        ],
    );
    check(Allow, "when source.serviceAccount =shop/cart", "accepted", &[("shop/cart -> 1", "allow")]);
    check(Allow, "when source.trustDomain =cluster.local", "accepted", &[("a/b -> 1", "allow")]);
    check(Allow, "when destination.ip =10.0.0.1", "accepted", &[("a/b -> 1", "allow")]);
    check(Allow, "when source.principal =*", "accepted", &[("a/b -> 1", "allow"), ("plain -> 1", "AMB2104")]);
}

#[test]
fn rules_without_conditions_match_everything_and_no_rules_nothing() {
    check(Allow, "", "accepted", &[("plain -> 80", "allow")]);
    check(Deny, "", "accepted", &[("a/b -> 80", "AMB2103")]);
    check(Allow, "none", "accepted", &[("a/b -> 80", "AMB2104")]);
    check(Deny, "none", "accepted", &[("a/b -> 80", "allow")]);
}

#[test]
fn trust_domains_count() {
    check(
        Allow,
        "from trustDomains=prod.example",
        "accepted",
        &[
            ("prod.example:a/b -> 80", "allow"),
            ("prod.example2:a/b -> 80", "AMB2104"),
            ("a/b -> 80", "AMB2104"),
            ("plain -> 80", "AMB2104"),
        ],
    );
    check(
        Deny,
        "from !trustDomains=cluster.local",
        "accepted",
        &[("a/b -> 80", "allow"), ("evil:a/b -> 80", "AMB2103"), ("plain -> 80", "AMB2103")],
    );
    check(
        Allow,
        "from principals=*/sa/cart trustDomains=prod.example | namespaces=jobs; to ports=80",
        "accepted",
        &[
            ("prod.example:shop/cart -> 80", "allow"),
            ("cluster.local:shop/cart -> 80", "AMB2104"),
            ("prod.example:shop/other -> 80", "AMB2104"),
            ("jobs/x -> 80", "allow"),
            ("jobs/x -> 81", "AMB2104"),
        ],
    );
    check(
        Allow,
        "from principals=* !trustDomains=evil.example",
        "accepted",
        &[("a/b -> 80", "allow"), ("evil.example:a/b -> 80", "AMB2104"), ("plain -> 80", "AMB2104")],
    );
    check(
        Allow,
        "from trustDomains=*.example",
        "degraded: rule 0 allows nothing: trustDomains \"*.example\" cannot be evaluated here",
        &[("prod.example:a/b -> 80", "AMB2104")],
    );
}

#[test]
fn http_conditions_make_a_deny_refuse_more() {
    let more = |names: &str| {
        format!(
            "degraded: AMB2106: rule 0 denies more than written: {names} cannot be evaluated here and count as \
             matching"
        )
    };
    check(
        Deny,
        "from principals=cluster.local/ns/shop/sa/cart; to methods=DELETE",
        &more("methods"),
        &[("shop/cart -> 80", "AMB2106"), ("shop/web -> 80", "allow")],
    );
    check(Deny, "to paths=/admin*", &more("paths"), &[("a/b -> 80", "AMB2106")]);
    check(
        Deny,
        "to ports=80 !methods=GET",
        &more("notMethods"),
        &[("a/b -> 80", "AMB2106"), ("a/b -> 81", "allow")],
    );
    // One alternative that nobody can evaluate makes the whole part agree.
    check(Deny, "to ports=80 | hosts=x", &more("hosts"), &[("a/b -> 81", "AMB2106")]);
    check(
        Deny,
        "from namespaces=shop; when request.headers[x-a] =1",
        &more("request.headers[x-a]"),
        &[("shop/a -> 80", "AMB2106"), ("jobs/a -> 80", "allow")],
    );
    check(Deny, "from requestPrincipals=*", &more("requestPrincipals"), &[("a/b -> 80", "AMB2106")]);
    check(Deny, "from !remoteIpBlocks=10.0.0.0/8", &more("notRemoteIpBlocks"), &[("a/b -> 80", "AMB2106")]);
}

#[test]
fn http_conditions_make_an_allow_rule_allow_nothing() {
    let nothing = |rule: usize, names: &str| {
        format!("degraded: rule {rule} allows nothing: {names} cannot be evaluated here")
    };
    check(Allow, "to methods=GET", &nothing(0, "methods"), &[("a/b -> 80", "AMB2104")]);
    check(
        Allow,
        "from namespaces=shop || from namespaces=jobs; to paths=/x",
        &nothing(1, "paths"),
        &[("shop/a -> 80", "allow"), ("jobs/a -> 80", "AMB2104")],
    );
    check(
        Allow,
        "when request.auth.claims[x] =1",
        &nothing(0, "request.auth.claims[x]"),
        &[("a/b -> 1", "AMB2104")],
    );
    check(
        Allow,
        "from requestPrincipals=* namespaces=shop",
        &nothing(0, "requestPrincipals"),
        &[("shop/a -> 1", "AMB2104")],
    );
}

#[test]
fn values_nobody_can_read_deny() {
    let rows = [
        "to ports=http",
        "to ports=0",
        "to ports=65536",
        "to ports=80,-1",
        "from ipBlocks=10.0.0.0/33",
        "from ipBlocks=10.0.0.0/8,localhost",
        "from namespaces=",
        "from serviceAccounts=a/b/c",
        "from serviceAccounts=/b",
        "from principals=spiffe://cluster.local/ns/a/sa/b",
        "from trustDomains=a/b",
        "from !ipBlocks=nonsense",
    ];
    for text in rows {
        for (action, want) in [(Allow, "AMB2104"), (Deny, "AMB2106")] {
            let (converted, standing) = authorization(&policy(action, text), &Settings::default());
            assert!(standing.to_string().starts_with("degraded"), "{text}: {standing}");
            let converted = converted.unwrap();
            for call in ["a/b -> 80", "plain -> 80"] {
                assert_eq!(verdict(&converted, call), want, "{action:?} {text}: {call}");
            }
        }
    }
}

#[test]
fn names_are_literal() {
    check(Allow, "from namespaces=a.b", "accepted", &[("a.b/x -> 80", "allow"), ("axb/x -> 80", "AMB2104")]);
    check(Allow, "from namespaces=a*b", "accepted", &[("axb/x -> 80", "AMB2104"), ("a*b/x -> 80", "allow")]);
}

#[test]
fn what_is_not_for_the_node_proxy_is_not_sent_and_says_so() {
    let settings = Settings::default();
    let rows = [
        (PolicyAction::Audit, 0, "not enforced: the node proxy has no AUDIT action"),
        (PolicyAction::Custom, 0, "not enforced: the node proxy has no CUSTOM action"),
        (
            Deny,
            1,
            "not enforced: AMB3103: it has targetRefs, which a waypoint enforces, and no waypoint serves them",
        ),
    ];
    for (action, targets, want) in rows {
        let written = AuthorizationPolicy { targets, ..policy(action, "") };
        let (sent, standing) = authorization(&written, &settings);
        assert!(sent.is_none());
        assert_eq!(standing.to_string(), want);
    }
}

#[test]
fn scope_follows_selector_and_namespace() {
    let settings = Settings::default();
    let selector = Labels::from([(Str::from("app"), Str::from("web"))]);
    let rows = [
        ("shop", Labels::new(), Scope::Namespace),
        ("istio-system", Labels::new(), Scope::Global),
        ("shop", selector.clone(), Scope::WorkloadSelector),
        ("istio-system", selector, Scope::WorkloadSelector),
    ];
    for (namespace, selector, want) in rows {
        let written = AuthorizationPolicy { name: Name::new(namespace, "p"), selector, ..policy(Allow, "") };
        assert_eq!(authorization(&written, &settings).0.unwrap().scope, want);
    }
    let dry = AuthorizationPolicy { dry_run: true, ..policy(Deny, "") };
    let (sent, standing) = authorization(&dry, &settings);
    assert!(sent.unwrap().dry_run);
    assert_eq!(standing.to_string(), "degraded: dry-run: evaluated and recorded, not enforced");
}

#[test]
fn a_pass_carries_its_end_and_is_for_one_namespace() {
    let settings = Settings::default();
    let pass = |namespace: &str, action| AuthorizationPolicy {
        name: Name::new(namespace, "ambit-breakglass"),
        until: Some(1_000_600),
        ..policy(action, "")
    };
    let (sent, standing) = authorization(&pass("shop", Allow), &settings);
    assert_eq!((sent.unwrap().until, standing.to_string().as_str()), (Some(1_000_600), "accepted"));

    let app = Labels::from([(Str::from("app"), Str::from("web"))]);
    for selector in [Labels::new(), app] {
        let written = AuthorizationPolicy { selector, ..pass("istio-system", Allow) };
        let (sent, standing) = authorization(&written, &settings);
        assert!(sent.is_none());
        let want = "not enforced: metadata.namespace: a break-glass is for one namespace; in istio-system, the root \
                    namespace, it would open all of them";
        assert_eq!(standing.to_string(), want);
        assert!(!authorization::is_named(&written, &settings), "nobody waits for it");
    }
    // A denial of that name is a denial like others.
    assert!(authorization(&pass("istio-system", Deny), &settings).0.is_some());
}
