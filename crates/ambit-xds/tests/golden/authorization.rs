//! `istio.security`: policies, from the types of the mesh.

use ambit_policy::model::{Action, Clause, Match, Policy, Rule, Scope, ServiceAccount, StringMatch, Values};
use ambit_types::PolicyKey;
use ambit_xds::codec::authorization;

use super::bytes::{any, bytes, check, hex, message, varint};

fn policy(scope: Scope, action: Action, rules: Vec<Rule>) -> Policy {
    Policy { key: PolicyKey::new("n", "p"), scope, action, rules, dry_run: false, until: None }
}

fn account(namespace: &str, name: &str) -> ServiceAccount {
    ServiceAccount { namespace: namespace.into(), name: name.into() }
}

#[test]
fn scopes_actions_and_dry_run() {
    let head = hex("0a 01 70 12 01 6e");
    let rows = [
        (Scope::Global, Action::Allow, ""),
        (Scope::Namespace, Action::Deny, "18 01 20 01"),
        (Scope::WorkloadSelector, Action::Allow, "18 02"),
    ];
    for (scope, action, tail) in rows {
        let want = [head.clone(), hex(tail)].concat();
        check(&format!("{scope:?} {action:?}"), &authorization::encode(&policy(scope, action, vec![])), want);
    }
    let mut dry = policy(Scope::Global, Action::Allow, vec![]);
    dry.dry_run = true;
    check("dry run", &authorization::encode(&dry), [head, hex("30 01")].concat());
}

#[test]
fn empty_rules_and_clauses_keep_their_place() {
    let rules = vec![Rule::default(), Rule { clauses: vec![Clause::default()], unevaluable: vec![] }];
    let message = authorization::encode(&policy(Scope::Global, Action::Allow, rules));
    check("empty rules", &message, hex("0a 01 70 12 01 6e 2a 00 2a 02 0a 00"));
}

#[test]
fn a_match_with_every_attribute() {
    let exact = |text: &str| StringMatch::Exact(text.into());
    let full = Match {
        namespaces: Values { any: vec![exact("a")], none: vec![StringMatch::Prefix("b".into())] },
        principals: Values { any: vec![StringMatch::Suffix("c".into())], none: vec![StringMatch::Presence] },
        service_accounts: Values { any: vec![account("d", "e")], none: vec![account("f", "g")] },
        source_ips: Values {
            any: vec!["10.0.0.0/8".parse().unwrap()],
            none: vec!["fd00::/64".parse().unwrap()],
        },
        destination_ips: Values {
            any: vec!["1.2.3.4/32".parse().unwrap()],
            none: vec!["0.0.0.0/0".parse().unwrap()],
        },
        destination_ports: Values { any: vec![80, 443], none: vec![65535] },
    };
    let rules = vec![Rule { clauses: vec![Clause { matches: vec![full] }], unevaluable: vec![] }];
    let v6 = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let want = message(
        2,
        [
            message(1, [bytes(1, "a")]),
            message(2, [bytes(2, "b")]),
            message(3, [bytes(3, "c")]),
            message(4, [message(4, [])]),
            message(5, [bytes(1, [10, 0, 0, 0]), varint(2, 8)]),
            message(6, [bytes(1, v6), varint(2, 64)]),
            message(7, [bytes(1, [1, 2, 3, 4]), varint(2, 32)]),
            message(8, [bytes(1, [0, 0, 0, 0])]),
            bytes(9, hex("50 bb 03")),
            bytes(10, hex("ff ff 03")),
            message(11, [bytes(1, "d"), bytes(2, "e")]),
            message(12, [bytes(1, "f"), bytes(2, "g")]),
        ],
    );
    let want = [hex("0a 01 70 12 01 6e"), message(5, [message(1, [want])])].concat();
    check("match", &authorization::encode(&policy(Scope::Global, Action::Allow, rules)), want);
}

#[test]
fn conditions_without_facts_travel_as_an_extension() {
    let rules =
        vec![Rule::default(), Rule { clauses: vec![], unevaluable: vec!["methods".into(), "paths".into()] }];
    let listed = message(1, [varint(1, 1), bytes(2, "methods"), bytes(2, "paths")]);
    let extension = message(
        7,
        [
            bytes(1, "ambit.internal/unevaluable"),
            any(2, "type.googleapis.com/ambit.internal.Unevaluable", listed),
        ],
    );
    let want = [hex("0a 01 70 12 01 6e 18 01 20 01 2a 00 2a 00"), extension].concat();
    check("unevaluable", &authorization::encode(&policy(Scope::Namespace, Action::Deny, rules)), want);
}

#[test]
fn the_end_of_a_pass_travels_as_an_extension() {
    let mut pass = policy(Scope::Namespace, Action::Allow, vec![Rule::default()]);
    pass.until = Some(1_767_268_800);
    let end = varint(1, 1_767_268_800);
    let extension = message(
        7,
        [bytes(1, "ambit.internal/breakglass"), any(2, "type.googleapis.com/ambit.internal.Breakglass", end)],
    );
    let want = [hex("0a 01 70 12 01 6e 18 01 2a 00"), extension].concat();
    check("end of a pass", &authorization::encode(&pass), want);
    assert_eq!(authorization::decode(&authorization::encode(&pass)).unwrap(), pass);
}
