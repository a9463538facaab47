//! What an explanation says in words.

use crate::explain::explain;
use crate::shorthand::{facts, policies};

#[track_caller]
fn check(text: &str, row: &str, want: &str) {
    let owned = facts(row);
    let explanation = explain(&policies(text), &owned.facts());
    assert_eq!(explanation.nearest.map_or_else(|| "-".to_owned(), |n| n.to_string()), want, "{text} : {row}");
}

#[test]
fn the_nearest_allow_rule_is_named_with_what_it_misses() {
    check(
        "ALLOW web: sa=shop/frontend & port=80 || ns=admin & port=22 & ip=192.168.0.0/16",
        "shop/cart -> 80",
        "shop/web rule 0 would match if the service account were shop/frontend (1 of 2 conditions met)",
    );
    check(
        "ALLOW web: port=80,81 & principal=*",
        "plain -> 82",
        "shop/web rule 0 would match if the destination port were one of 80, 81 and there were a principal (0 of 2 conditions met)",
    );
    check(
        "ALLOW web: ns=shop !port=80",
        "shop/cart -> 80",
        "shop/web rule 0 would match if the destination port were not 80 (1 of 2 conditions met)",
    );
    check("ALLOW web: none", "shop/cart -> 80", "-");
    check(
        "ALLOW web: ns=shop & ~methods",
        "shop/cart -> 80",
        "shop/web rule 0 would match if methods could be seen at this layer (they need a waypoint) (1 of 1 conditions met)",
    );
}

#[test]
fn of_alternatives_the_nearest_counts() {
    check(
        "ALLOW web: ns=a sa=a/b | ns=shop sa=shop/other | ns=c sa=c/d",
        "shop/cart -> 80",
        "shop/web rule 0 would match if the service account were shop/other (1 of 2 conditions met)",
    );
}

#[test]
fn a_deny_rule_says_what_would_undo_it() {
    check(
        "DENY istio-system/istio_converted_static_strict: !principal=*",
        "plain -> 80",
        "istio-system/istio_converted_static_strict rule 0 would not match if there were a principal (1 of 1 conditions met)",
    );
    check(
        "DENY lock: ns=shop & !port=80,81",
        "shop/cart -> 22",
        "shop/lock rule 0 would not match if the namespace were not shop or the destination port were one of 80, 81 (2 of 2 conditions met)",
    );
}

#[test]
fn an_allowed_connection_names_the_deny_rule_it_came_nearest_to() {
    check(
        "DENY lock: ns=shop & port=22 ; DENY other: ns=jobs & port=23 & ip=1.1.1.1/32",
        "shop/cart -> 80",
        "shop/lock rule 0 would match if the destination port were 22 (1 of 2 conditions met)",
    );
    check("", "shop/cart -> 80", "-");
}

#[test]
fn every_policy_rule_and_condition_is_recorded_even_after_the_verdict_is_clear() {
    let set =
        policies("DENY a: ns=shop || port=1 ; DENY b: port=80 ; DENY? c: port=2 ; ALLOW d: ns=x port=80");
    let owned = facts("shop/cart -> 80");
    let explanation = explain(&set, &owned.facts());
    let told: Vec<String> = explanation
        .policies
        .iter()
        .flat_map(|p| p.rules.iter().enumerate().map(move |(i, r)| (p, i, r)))
        .flat_map(|(p, i, rule)| {
            let all = rule.clauses.iter().flat_map(|c| c.alternatives.iter().flatten());
            all.map(move |c| {
                format!("{}#{i} {c} = {} ({})", p.key.name, c.holds, c.found.as_deref().unwrap_or("-"))
            })
        })
        .collect();
    assert_eq!(
        told,
        [
            "c#0 destination port is 2 = false (80)",
            "a#0 namespace is shop = true (shop)",
            "a#1 destination port is 1 = false (80)",
            "b#0 destination port is 80 = true (80)",
            "d#0 namespace is x = false (shop)",
            "d#0 destination port is 80 = true (80)",
        ]
    );
}
