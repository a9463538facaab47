//! The evaluation against a naive one written from the rules of matching, and properties that hold for any policy.

use std::net::IpAddr;
use std::sync::Arc;

use ambit_types::{Identity, PolicyKey, Reason, TrustDomain};
use proptest::prelude::*;

use crate::model::{Action, Clause, Match, Policy, Rule, Scope, ServiceAccount, StringMatch, Values};
use crate::{Facts, PolicySet, decide, explain};

/// Naive: strings are built, everything is evaluated, nothing is ordered or stopped early.
mod naive {
    use super::*;

    pub(super) fn allows(policies: &[Policy], unresolved: bool, facts: &Facts<'_>) -> bool {
        let enforced = |action| {
            let of = move |p: &&Policy| p.action == action && !p.dry_run;
            policies.iter().filter(of).collect::<Vec<_>>()
        };
        let (deny, allow) = (enforced(Action::Deny), enforced(Action::Allow));
        let any = |list: &[&Policy]| list.iter().any(|p| policy(p, facts));
        !any(&deny) && !unresolved && (allow.is_empty() || any(&allow))
    }

    fn policy(policy: &Policy, facts: &Facts<'_>) -> bool {
        policy.rules.iter().any(|rule| {
            let blind = policy.action == Action::Allow && !rule.unevaluable.is_empty();
            !blind && rule.clauses.iter().all(|c| clause(c, facts))
        })
    }

    fn clause(clause: &Clause, facts: &Facts<'_>) -> bool {
        clause.matches.is_empty() || clause.matches.iter().any(|m| one(m, facts))
    }

    fn one(m: &Match, facts: &Facts<'_>) -> bool {
        if *m == Match::default() {
            return false;
        }
        let namespace = facts.peer().map(|p| p.namespace().to_string()).unwrap_or_default();
        let principal = facts.peer().map(|p| p.to_string().replacen("spiffe://", "", 1));
        let account = facts.peer().map(|p| (p.namespace().to_string(), p.service_account().to_string()));
        both(&m.namespaces, |s| text(s, &namespace))
            && both(&m.principals, |s| principal.as_ref().is_some_and(|p| text(s, p)))
            && both(&m.service_accounts, |s| account == Some((s.namespace.to_string(), s.name.to_string())))
            && both(&m.source_ips, |r| r.contains(&facts.source()))
            && both(&m.destination_ips, |r| r.contains(&facts.destination()))
            && both(&m.destination_ports, |p| *p == facts.port())
    }

    fn both<T>(values: &Values<T>, agrees: impl Fn(&T) -> bool) -> bool {
        (values.any.is_empty() || values.any.iter().any(&agrees))
            && (values.none.is_empty() || !values.none.iter().any(&agrees))
    }

    fn text(wanted: &StringMatch, found: &str) -> bool {
        match wanted {
            StringMatch::Exact(s) => found == &**s,
            StringMatch::Prefix(s) => found.starts_with(&**s),
            StringMatch::Suffix(s) => found.ends_with(&**s),
            StringMatch::Presence => !found.is_empty(),
        }
    }
}

fn identity() -> impl Strategy<Value = Identity> {
    let part = || prop::sample::select(vec!["a", "b", "ab", "a.b"]);
    (prop::sample::select(vec!["cluster.local", "td"]), prop::sample::select(vec!["a", "b", "ab"]), part())
        .prop_map(|(domain, ns, sa)| Identity::new(TrustDomain::parse(domain).unwrap(), ns, sa))
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop::sample::select(vec!["10.0.0.1", "10.0.1.1", "::ffff:10.0.0.1", "fd00::1", "fd01::1"])
        .prop_map(|a| a.parse().unwrap())
}

/// A match of a text that is cut somewhere, or not of it at all.
fn string_match(texts: impl Strategy<Value = String>) -> impl Strategy<Value = StringMatch> {
    (texts, 0usize..40, 0u8..5).prop_map(|(text, at, kind)| {
        let at = at.min(text.len());
        match kind {
            0 => StringMatch::Exact(text.as_str().into()),
            1 => StringMatch::Prefix(text[..at].into()),
            2 => StringMatch::Suffix(text[at..].into()),
            3 => StringMatch::Exact(text[..at].into()),
            _ => StringMatch::Presence,
        }
    })
}

fn values<T: std::fmt::Debug + Clone>(
    one: impl Strategy<Value = T> + Clone + 'static,
) -> impl Strategy<Value = Values<T>> {
    let list = |s| prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(s, 1..3)];
    (list(one.clone().boxed()), list(one.boxed())).prop_map(|(any, none)| Values { any, none })
}

fn one_match() -> impl Strategy<Value = Match> {
    let range =
        prop::sample::select(vec!["10.0.0.0/24", "10.0.0.1/8", "fd00::/16", "0.0.0.0/0", "10.0.1.1/32"])
            .prop_map(|r| r.parse().unwrap());
    let account = identity()
        .prop_map(|i| ServiceAccount { namespace: i.namespace().clone(), name: i.service_account().clone() });
    let principal = string_match(identity().prop_map(|i| i.principal())).boxed();
    let namespace = string_match(identity().prop_map(|i| i.namespace().to_string())).boxed();
    (
        values(namespace),
        values(principal),
        values(account.boxed()),
        values(range.clone().boxed()),
        values(range.boxed()),
        values(1u16..4),
    )
        .prop_map(|(namespaces, principals, service_accounts, source_ips, destination_ips, ports)| {
            Match {
                namespaces,
                principals,
                service_accounts,
                source_ips,
                destination_ips,
                destination_ports: ports,
            }
        })
}

fn rule() -> impl Strategy<Value = Rule> {
    let clause = prop::collection::vec(one_match(), 0..3).prop_map(|matches| Clause { matches });
    (prop::collection::vec(clause, 0..3), prop::bool::weighted(0.1)).prop_map(|(clauses, blind)| Rule {
        clauses,
        unevaluable: if blind { vec!["methods".into()] } else { Vec::new() },
    })
}

fn policies() -> impl Strategy<Value = Vec<Policy>> {
    let policy = (prop::bool::ANY, prop::bool::weighted(0.2), prop::collection::vec(rule(), 0..3));
    prop::collection::vec(policy, 0..4).prop_map(|all| {
        let named = |(index, (allow, dry_run, rules)): (usize, (bool, bool, Vec<Rule>))| Policy {
            key: PolicyKey::new("ns", format!("p{index}")),
            scope: Scope::Namespace,
            action: if allow { Action::Allow } else { Action::Deny },
            rules,
            dry_run,
            until: None,
        };
        all.into_iter().enumerate().map(named).collect()
    })
}

fn set(policies: &[Policy], unresolved: bool) -> PolicySet {
    let missing = unresolved.then(|| PolicyKey::new("ns", "missing"));
    PolicySet::new(policies.iter().cloned().map(Arc::new), missing)
}

/// PERMISSIVE with these STRICT ports, as discovery carries it: one rule for each port.
fn strict_ports(ports: &[u16]) -> Policy {
    let rule = |port: &u16| {
        let mut one = Match::default();
        one.principals.none.push(StringMatch::Presence);
        one.destination_ports.any.push(*port);
        Rule { clauses: vec![Clause { matches: vec![one] }], unevaluable: Vec::new() }
    };
    Policy {
        key: PolicyKey::new("ns", "converted_peer_authentication_ports"),
        scope: Scope::WorkloadSelector,
        action: Action::Deny,
        rules: ports.iter().map(rule).collect(),
        dry_run: false,
        until: None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn decides_as_the_naive_evaluation(
        policies in policies(),
        unresolved in prop::bool::weighted(0.1),
        peer in prop::option::of(identity()),
        source in address(),
        destination in address(),
        port in 1u16..4,
    ) {
        let facts = Facts::new(peer.as_ref(), source, destination, port);
        let set = set(&policies, unresolved);
        let decision = decide(&set, &facts);
        prop_assert_eq!(decision.is_allow(), naive::allows(&policies, unresolved, &facts));
        prop_assert_eq!(&explain(&set, &facts).decision, &decision);
        prop_assert_eq!(decision.is_allow(), !decision.reason.is_some_and(Reason::is_refusal));
        let reversed: Vec<Policy> = policies.into_iter().rev().collect();
        prop_assert_eq!(&decide(&self::set(&reversed, unresolved), &facts), &decision);
    }

    /// T-22: adding a STRICT port never makes any port more permissive, and makes its own port refuse plaintext.
    #[test]
    fn a_further_strict_port_only_takes_away(
        ports in prop::collection::vec(1u16..8, 0..4),
        further in 1u16..8,
        peer in prop::option::of(identity()),
        others in policies(),
        port in 1u16..8,
    ) {
        let with = |ports: &[u16]| {
            let mut all = others.clone();
            all.push(strict_ports(ports));
            let facts = Facts::new(peer.as_ref(), [10, 0, 0, 1].into(), [10, 0, 0, 2].into(), port);
            decide(&set(&all, false), &facts).is_allow()
        };
        let more: Vec<u16> = ports.iter().copied().chain([further]).collect();
        prop_assert!(!with(&more) || with(&ports));
        if peer.is_none() && port == further {
            prop_assert!(!with(&more));
        }
    }
}
