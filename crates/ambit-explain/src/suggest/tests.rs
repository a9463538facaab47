//! Which rules come out of which connections, and what is said beside them.

use std::net::IpAddr;

use ambit_types::{Reason, TrustDomain, Workload};

use super::*;
use crate::{Flow, FlowEnd};

const NAMESPACE: &str = "shop";

fn member(name: &str, labels: &[(&str, &str)]) -> Member {
    let labels = labels.iter().map(|(k, v)| (Str::from(*k), Str::from(*v))).collect();
    let address = IpAddr::from([10, 0, 0, u8::try_from(name.len()).expect("a short name")]);
    let (uid, name, controller) = (Uid::from(name), Str::from(name), Str::from(format!("{name}-set")));
    Member { uid, name, controller, labels, address }
}

fn identity(account: &str) -> Caller {
    Caller::Identity(Identity::new(TrustDomain::default(), NAMESPACE, account))
}

fn seen(caller: &str, destination: &str, port: u16) -> Seen {
    let caller = caller.parse::<IpAddr>().map_or_else(|_| identity(caller), Caller::Address);
    Seen { destination: Uid::from(destination), caller, port, connections: 3 }
}

/// Policies as `NAME SELECTOR: CALLERS PORTS | …`.
fn said(suggestion: &Suggestion) -> Vec<String> {
    let policy = |allow: &Allow| {
        let labels: Vec<String> = allow.selector.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let rules: Vec<String> = allow.rules.iter().map(rule).collect();
        format!("{} [{}]: {}", allow.name, labels.join(","), rules.join(" | ")).trim_end().to_owned()
    };
    suggestion.policies.iter().skip(1).map(policy).collect()
}

fn rule(rule: &AllowRule) -> String {
    let callers: Vec<String> = rule
        .callers
        .iter()
        .map(|c| c.to_string().rsplit('/').next().unwrap_or_default().to_owned())
        .collect();
    let ports: Vec<String> = rule.ports.iter().map(ToString::to_string).collect();
    format!("{} -> {}", callers.join("+"), ports.join(","))
}

#[track_caller]
fn check(members: &[Member], all: &[Seen], want: &[&str]) -> Suggestion {
    let suggestion = suggest(NAMESPACE, members, all, &[]);
    assert_eq!(said(&suggestion), want);
    let Coverage { pairs, pairs_covered, connections, connections_covered } = suggestion.coverage;
    assert_eq!((pairs, connections), (pairs_covered, connections_covered), "what was seen is let in");
    suggestion
}

#[test]
fn callers_and_ports_are_named_and_nothing_else() {
    let members = [member("cart", &[("app", "cart")]), member("web", &[("app", "web")])];
    check(&members, &[seen("web", "cart", 8080)], &["seen-cart [app=cart]: web -> 8080"]);
    check(&members, &[], &[]);
    let both = [seen("web", "cart", 8080), seen("batch", "cart", 8080), seen("batch", "cart", 9090)];
    check(&members, &both, &["seen-cart [app=cart]: batch -> 8080,9090 | web -> 8080"]);
}

#[test]
fn rules_are_grouped_the_shorter_way() {
    let members = [member("cart", &[("app", "cart")]), member("web", &[("app", "web")])];
    // Three callers with three different sets of ports, but only two ports.
    let all = [seen("a", "cart", 80), seen("b", "cart", 81), seen("c", "cart", 80), seen("c", "cart", 81)];
    check(&members, &all, &["seen-cart [app=cart]: a+c -> 80 | b+c -> 81"]);
}

#[test]
fn replicas_share_a_policy_and_so_do_things_that_are_used_alike() {
    let members = [
        member("catalog-1", &[("app", "catalog"), ("version", "v1"), ("pod-template-hash", "x")]),
        member("catalog-22", &[("app", "catalog"), ("version", "v2"), ("pod-template-hash", "y")]),
        member("web", &[("app", "web")]),
    ];
    let all = [seen("web", "catalog-1", 80), seen("web", "catalog-22", 80)];
    check(&members, &all, &["seen-catalog [app=catalog]: web -> 80"]);
    let other = [seen("web", "catalog-1", 80), seen("web", "catalog-22", 81)];
    check(
        &members,
        &other,
        &["seen-catalog-1 [version=v1]: web -> 80", "seen-catalog-22 [version=v2]: web -> 81"],
    );
}

#[test]
fn what_labels_cannot_tell_apart_is_said() {
    let members = [
        member("plain", &[("app", "x")]),
        member("canary", &[("app", "x"), ("track", "canary")]),
        member("web", &[("app", "web")]),
    ];
    let suggestion = check(&members, &[seen("web", "plain", 80)], &["seen-x [app=x]: web -> 80"]);
    assert_eq!(suggestion.notes.len(), 1);
    assert!(suggestion.notes[0].contains("no labels tell plain from canary"), "{:?}", suggestion.notes);
}

#[test]
fn who_has_no_identity_is_named_by_address_with_a_warning() {
    let members = [member("cart", &[("app", "cart")]), member("web", &[("app", "web")])];
    let all = [seen("10.9.9.9", "cart", 80), seen("web", "cart", 80)];
    let suggestion = check(&members, &all, &["seen-cart [app=cart]: web+10.9.9.9 -> 80"]);
    assert_eq!(suggestion.notes.len(), 1, "{:?}", suggestion.notes);
    let manifest = suggestion.policies[1].manifest(NAMESPACE);
    let from = &manifest["spec"]["rules"][0]["from"];
    assert_eq!(from[0]["source"]["principals"][0], "cluster.local/ns/shop/sa/web");
    assert_eq!(from[1]["source"]["ipBlocks"][0], "10.9.9.9/32");
}

#[test]
fn what_was_not_seen_is_denied() {
    let members = [
        member("cart", &[("app", "cart")]),
        member("orders", &[("app", "orders")]),
        member("web", &[("app", "web")]),
    ];
    let all = [seen("web", "cart", 80), seen("cart", "orders", 81), seen("10.9.9.9", "orders", 81)];
    let suggestion = suggest(NAMESPACE, &members, &all, &[]);
    for to in &members {
        let policies = suggestion.policies.iter().filter(|allow| allow.selects(&to.labels));
        let set = PolicySet::new(policies.map(|allow| Arc::new(allow.policy(NAMESPACE))), []);
        for caller in ["web", "cart", "orders", "other", "10.9.9.9", "10.9.9.8"] {
            for port in [80, 81, 82] {
                let one = seen(caller, &to.name, port);
                let was_seen = all.contains(&one);
                assert_eq!(is_let_in(&set, &one, to.address), was_seen, "{one:?}");
            }
        }
    }
}

#[test]
fn what_is_declared_and_was_not_seen_is_told() {
    let members = [member("cart", &[("app", "cart")])];
    let principal = |account: &str| format!("cluster.local/ns/shop/sa/{account}");
    let exact = |account: &str| StringMatch::Exact(Str::from(principal(account)));
    let one = ambit_policy::model::Match {
        principals: ambit_policy::model::Values { any: vec![exact("web"), exact("old")], none: Vec::new() },
        ..Default::default()
    };
    let rule = ambit_policy::model::Rule {
        clauses: vec![ambit_policy::model::Clause { matches: vec![one] }],
        unevaluable: Vec::new(),
    };
    let policy = Policy {
        key: ambit_types::PolicyKey::new(NAMESPACE, "by-hand"),
        scope: Scope::Namespace,
        action: Action::Allow,
        rules: vec![rule],
        dry_run: false,
        until: None,
    };
    let in_force = [InForce { policy: Arc::new(policy), covers: BTreeSet::from([Uid::from("cart")]) }];
    let suggestion = suggest(NAMESPACE, &members, &[seen("web", "cart", 80)], &in_force);
    let want = Unseen { policy: "shop/by-hand".to_owned(), principal: principal("old") };
    assert_eq!(suggestion.unseen, [want]);
    assert_eq!(suggestion.superseded, ["shop/by-hand"]);
}

/// ALLOW of `caller` for the whole mesh or the namespace.
fn allow(name: &str, scope: Scope, caller: &str, from: Option<&str>) -> Arc<Policy> {
    let mut one = ambit_policy::model::Match::default();
    one.principals.any.push(StringMatch::Exact(Str::from(format!("cluster.local/ns/shop/sa/{caller}"))));
    one.source_ips.any.extend(from.map(|block| block.parse::<ipnet::IpNet>().expect("a block")));
    let clauses = vec![ambit_policy::model::Clause { matches: vec![one] }];
    let rules = vec![ambit_policy::model::Rule { clauses, unevaluable: Vec::new() }];
    let key = ambit_types::PolicyKey::new("istio-system", name);
    Arc::new(Policy { key, scope, action: Action::Allow, rules, dry_run: false, until: None })
}

/// What a policy of the whole mesh lets in stays let in, and a suggestion does not repeat it.
#[test]
fn what_the_root_namespace_allows_needs_no_rule_and_is_covered() {
    let members = [member("cart", &[("app", "cart")]), member("web", &[("app", "web")])];
    let covers: BTreeSet<Uid> = members.iter().map(|member| member.uid.clone()).collect();
    let all = [seen("web", "cart", 80), seen("ops", "cart", 80)];
    let suggested = |policy: Arc<Policy>| {
        suggest(NAMESPACE, &members, &all, &[InForce { policy, covers: covers.clone() }])
    };
    let suggestion = suggested(allow("ops", Scope::Global, "ops", None));
    assert_eq!(said(&suggestion), ["seen-cart [app=cart]: web -> 80"]);
    assert_eq!((suggestion.coverage.pairs_covered, suggestion.coverage.connections_covered), (2, 6));
    assert!(suggestion.notes[0].contains("istio-system/ops") && suggestion.notes[0].contains("1 of"));
    // Where a caller called from is not known here, and a break-glass is no rule.
    let both = ["seen-cart [app=cart]: ops+web -> 80"];
    assert_eq!(said(&suggested(allow("ops", Scope::Global, "ops", Some("10.0.0.0/8")))), both);
    assert_eq!(said(&suggested(allow(BREAKGLASS, Scope::Global, "ops", None))), both);
    assert_eq!(said(&suggested(allow("ops", Scope::Namespace, "ops", None))), both);
}

fn flow(from: FlowEnd, to: (&str, &str), code: Option<Reason>) -> Flow {
    let (pod, controller) = (Some(to.0.to_owned()), Some(to.1.to_owned()));
    let dst =
        FlowEnd { workload: pod, controller, namespace: Some(NAMESPACE.to_owned()), ..FlowEnd::default() };
    Flow {
        direction: Some("inbound".to_owned()),
        verdict: "allowed".to_owned(),
        code: code.map(|code| code.code().to_owned()),
        path: "hbone".to_owned(),
        src: from,
        dst,
        hbone_addr: Some("10.0.0.1:80".to_owned()),
        connections: 3,
        ..Flow::default()
    }
}

fn from(pod: &str, account: Option<&str>) -> FlowEnd {
    FlowEnd {
        addr: Some("10.0.0.99:40000".to_owned()),
        workload: Some(pod.to_owned()),
        namespace: Some(NAMESPACE.to_owned()),
        identity: account.map(|account| format!("spiffe://cluster.local/ns/shop/sa/{account}")),
        ..FlowEnd::default()
    }
}

/// One pod of the account `web`.
fn known() -> Known {
    let mut web = Workload::new("web", NAMESPACE, "web");
    web.service_account = "web".into();
    Known::of([&Arc::new(web)])
}

#[track_caller]
fn gathered(flow: Flow, want: &[Seen], note: &str) {
    let members = [member("cart", &[])];
    let found = super::seen(NAMESPACE, &[flow], &members, &known(), Flow::is_let_in_by_rules);
    assert_eq!(found.seen, want, "{:?}", found.notes);
    match note.is_empty() {
        true => assert!(found.notes.is_empty(), "{:?}", found.notes),
        false => assert!(found.notes.len() == 1 && found.notes[0].contains(note), "{:?}", found.notes),
    }
}

#[test]
fn who_is_gone_is_named_by_its_identity_and_not_by_its_address() {
    let cart = ("cart", "cart-set");
    gathered(flow(from("web", Some("web")), cart, None), &[seen("web", "cart", 80)], "");
    // Its pod is gone, and others have its identity.
    gathered(flow(from("web-old", Some("web")), cart, None), &[seen("web", "cart", 80)], "");
    gathered(
        flow(from("old", Some("old")), cart, None),
        &[seen("old", "cart", 80)],
        "sa/old is nobody any more",
    );
    gathered(flow(from("web", None), cart, None), &[seen("10.0.0.99", "cart", 80)], "");
    gathered(flow(from("old", None), cart, None), &[], "shop/old is gone and had no identity");
    let many = FlowEnd::default();
    gathered(flow(many, cart, None), &[], "without their addresses");
}

#[test]
fn who_was_called_and_is_gone_is_stood_for_by_its_controller() {
    let web = || from("web", Some("web"));
    gathered(flow(web(), ("cart-old", "cart-set"), None), &[seen("web", "cart", 80)], "");
    gathered(flow(web(), ("old", "old-set"), None), &[], "nothing of shop/old-set is in the mesh any more");
    let hostile = flow(web(), ("x", "a\nb: c"), None);
    gathered(hostile, &[], "shop/ab:c");
}

#[test]
fn what_only_a_breakglass_let_in_is_no_rule() {
    let by_it = || flow(from("web", Some("web")), ("cart", "cart-set"), Some(Reason::BreakglassAdmitted));
    gathered(by_it(), &[], "3 connections came in only by a break-glass");
    // Somebody names it.
    let found = super::seen(NAMESPACE, &[by_it()], &[member("cart", &[])], &known(), |_| true);
    assert_eq!((found.seen, found.notes), (vec![seen("web", "cart", 80)], Vec::new()));
}

/// A connection that was let in, with what cut it later.
fn cut(end: FlowEnd, code: Reason) -> Flow {
    let (verdict, opened) = ("denied".to_owned(), Some(true));
    Flow { verdict, opened, ..flow(end, ("cart", "cart-set"), Some(code)) }
}

#[test]
fn what_was_let_in_counts_however_it_ended_unless_a_policy_cut_it() {
    let web = || from("web", Some("web"));
    for code in [Reason::Draining, Reason::PathMtu] {
        gathered(cut(web(), code), &[seen("web", "cart", 80)], "");
        gathered(cut(from("web", None), code), &[seen("10.0.0.99", "cart", 80)], "");
    }
    gathered(
        cut(web(), Reason::PolicyChanged),
        &[],
        "3 connections were let in and cut by a change of policy",
    );
    // What was refused before it was opened is no connection.
    let refused = Flow { opened: Some(false), ..cut(web(), Reason::PolicyDenied) };
    gathered(refused, &[], "");
}
