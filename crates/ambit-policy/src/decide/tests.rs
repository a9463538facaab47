//! Rows of behaviour: policies, facts, decision.

use super::is_strict;
use crate::shorthand::{facts, policies, told};
use crate::{decide, explain};

const PLAIN: &str = "allow AMB2302 plaintext-accepted";
const DENIED: &str = "AMB2104 policy-denied";

#[track_caller]
fn check(text: &str, rows: &[(&str, &str)]) {
    let set = policies(text);
    for (row, want) in rows {
        let owned = facts(row);
        let decision = decide(&set, &owned.facts());
        assert_eq!(told(&decision), *want, "{text} : {row}");
        assert_eq!(explain(&set, &owned.facts()).decision, decision, "explain disagrees at {text} : {row}");
    }
}

#[test]
fn nothing_applies() {
    check("", &[("shop/cart -> 80", "allow"), ("plain -> 80", PLAIN)]);
}

#[test]
fn allow_admits_what_matches_and_nothing_else() {
    check(
        "ALLOW web: ns=shop || sa=jobs/cron & port=9000",
        &[
            ("shop/cart -> 80", "allow by shop/web rule 0"),
            ("jobs/cron -> 9000", "allow by shop/web rule 1"),
            ("jobs/cron -> 80", DENIED),
            ("jobs/other -> 9000", DENIED),
            ("plain -> 9000", DENIED),
        ],
    );
}

#[test]
fn a_pass_for_a_while_is_told_where_nothing_else_lets_in() {
    let pass = "allow AMB2305 breakglass-admitted by shop/ambit-breakglass rule 0";
    check(
        "ALLOW web: ns=shop ; ALLOW ambit-breakglass: any ; DENY lock: port=22",
        &[
            ("shop/cart -> 80", "allow by shop/web rule 0"),
            ("jobs/cron -> 80", pass),
            ("plain -> 80", pass),
            ("jobs/cron -> 22", "AMB2103 deny-rule-matched by shop/lock rule 0"),
        ],
    );
    // Without another ALLOW everybody is let in anyway.
    check("ALLOW ambit-breakglass: any", &[("jobs/cron -> 80", "allow by shop/ambit-breakglass rule 0")]);
}

#[test]
fn deny_is_stronger_than_allow() {
    check(
        "ALLOW all: any ; DENY lock: principal=cluster.local/ns/shop/sa/batch || port=22",
        &[
            ("shop/cart -> 80", "allow by shop/all rule 0"),
            ("shop/batch -> 80", "AMB2103 deny-rule-matched by shop/lock rule 0"),
            ("shop/cart -> 22", "AMB2103 deny-rule-matched by shop/lock rule 1"),
            ("plain -> 22", "AMB2103 deny-rule-matched by shop/lock rule 1"),
        ],
    );
}

#[test]
fn a_deny_meets_the_waypoint_and_whom_it_calls_for() {
    let lock = "AMB2103 deny-rule-matched by shop/lock rule 0";
    check(
        "DENY lock: sa=jobs/cron",
        &[
            ("shop/gate for jobs/cron -> 80", lock),
            ("shop/gate for shop/cart -> 80", "allow"),
            ("jobs/cron for shop/cart -> 80", lock),
        ],
    );
    // All but one namespace, account or domain: the waypoint being of it does not make the client so.
    for all_but in ["!ns=shop", "!principal=cluster.local/ns/shop/*", "!sa=shop/cart,shop/other"] {
        check(
            &format!("DENY lock: {all_but}"),
            &[("shop/gate for jobs/cron -> 80", lock), ("jobs/gate for shop/cart -> 80", lock)],
        );
    }
    check("DENY lock: !ns=shop", &[("shop/gate for shop/cart -> 80", "allow")]);
    // Who excepts the waypoint itself, by its name, means who connects.
    for all_but in ["!principal=cluster.local/ns/shop/sa/gate", "!sa=shop/gate"] {
        check(
            &format!("DENY lock: {all_but}"),
            &[
                ("shop/gate for shop/cart -> 80", "allow"),
                ("shop/cart -> 80", lock),
                ("shop/gate -> 80", "allow"),
            ],
        );
    }
    // No condition is met half by the one and half by the other.
    check("DENY lock: sa=jobs/cron & ns=shop", &[("shop/gate for jobs/cron -> 80", "allow")]);
    check("DENY lock: sa=jobs/cron & port=22", &[("shop/gate for jobs/cron -> 80", "allow")]);
    check(
        "DENY? lock: sa=jobs/cron",
        &[("shop/gate for jobs/cron -> 80", "allow, dry-run deny by shop/lock rule 0")],
    );
}

#[test]
fn an_allow_may_name_the_waypoint_or_whom_it_calls_for_and_shuts_out_neither() {
    let allowed = "allow by shop/some rule 0";
    for named in ["sa=shop/gate", "sa=jobs/cron", "ns=shop", "principal=*"] {
        check(&format!("ALLOW some: {named}"), &[("shop/gate for jobs/cron -> 80", allowed)]);
    }
    check("ALLOW some: sa=shop/cart", &[("shop/gate for jobs/cron -> 80", DENIED)]);
    check(
        "ALLOW some: ns=shop !sa=jobs/cron",
        &[("shop/gate for jobs/cron -> 80", DENIED), ("shop/gate for jobs/other -> 80", allowed)],
    );
    check("ALLOW some: ns=jobs !sa=shop/gate", &[("shop/gate for jobs/cron -> 80", DENIED)]);
    check("ALLOW some: sa=jobs/cron & ns=shop", &[("shop/gate for jobs/cron -> 80", DENIED)]);
}

#[test]
fn the_first_matching_policy_by_key_is_named_whatever_the_order_received() {
    for text in ["DENY b: any ; DENY a: any ; DENY c: any", "DENY c: any ; DENY b: any ; DENY a: any"] {
        check(text, &[("shop/cart -> 80", "AMB2103 deny-rule-matched by shop/a rule 0")]);
    }
    check("ALLOW b: any ; ALLOW a: none ; ALLOW c: any", &[("a/b -> 1", "allow by shop/b rule 0")]);
}

#[test]
fn policies_without_rules_never_match() {
    check("ALLOW nothing: none", &[("shop/cart -> 80", DENIED), ("plain -> 80", DENIED)]);
    check("DENY nothing: none", &[("shop/cart -> 80", "allow"), ("plain -> 80", PLAIN)]);
}

#[test]
fn a_rule_without_clauses_matches_everything() {
    check("ALLOW all: any", &[("shop/cart -> 80", "allow by shop/all rule 0")]);
    check("ALLOW all: any", &[("plain -> 80", "allow AMB2302 plaintext-accepted by shop/all rule 0")]);
    check("DENY all: any", &[("plain -> 80", "AMB2103 deny-rule-matched by shop/all rule 0")]);
}

#[test]
fn an_empty_match_never_agrees() {
    check("ALLOW a: _", &[("shop/cart -> 80", DENIED)]);
    check("ALLOW a: _ | port=80", &[("shop/cart -> 80", "allow by shop/a rule 0")]);
    check("DENY a: _ & port=80", &[("shop/cart -> 80", "allow")]);
}

#[test]
fn a_policy_that_has_not_arrived_refuses_unless_a_deny_already_does() {
    // G2, T-25: upstream skips it.
    let unresolved = "AMB2105 policy-unresolved by shop/gone";
    check("missing gone", &[("shop/cart -> 80", unresolved), ("plain -> 80", unresolved)]);
    check("missing gone ; ALLOW all: any", &[("shop/cart -> 80", unresolved)]);
    check(
        "missing gone ; DENY lock: port=22",
        &[
            ("shop/cart -> 80", unresolved),
            ("shop/cart -> 22", "AMB2103 deny-rule-matched by shop/lock rule 0"),
        ],
    );
    check("missing b ; missing a", &[("shop/cart -> 80", "AMB2105 policy-unresolved by shop/a")]);
}

#[test]
fn conditions_without_facts_refuse_in_deny_and_never_permit_in_allow() {
    // T-23: upstream's DENY with HTTP conditions does nothing.
    check(
        "DENY writes: sa=shop/cart & ~methods",
        &[
            ("shop/cart -> 80", "AMB2106 policy-unevaluable by shop/writes rule 0"),
            ("shop/other -> 80", "allow"),
        ],
    );
    check("DENY all: ~methods,paths", &[("plain -> 1", "AMB2106 policy-unevaluable by shop/all rule 0")]);
    check("ALLOW reads: sa=shop/cart & ~methods", &[("shop/cart -> 80", DENIED)]);
    check("ALLOW a: ~methods || port=80", &[("shop/cart -> 80", "allow by shop/a rule 1")]);
}

#[test]
fn strict_refuses_plaintext_by_name() {
    let strict = "DENY istio-system/istio_converted_static_strict: !principal=*";
    check(
        strict,
        &[
            ("plain -> 80", "AMB2301 plaintext-refused by istio-system/istio_converted_static_strict rule 0"),
            ("shop/cart -> 80", "allow"),
        ],
    );
    check(
        "DENY converted_peer_authentication_db: !principal=* port=80 || !principal=* port=81",
        &[
            ("plain -> 80", "AMB2301 plaintext-refused by shop/converted_peer_authentication_db rule 0"),
            ("plain -> 81", "AMB2301 plaintext-refused by shop/converted_peer_authentication_db rule 1"),
            ("plain -> 82", PLAIN),
        ],
    );
    check(
        "DENY converted_peer_authentication_db: !principal=* & !port=8080,9090",
        &[
            ("plain -> 80", "AMB2301 plaintext-refused by shop/converted_peer_authentication_db rule 0"),
            ("plain -> 8080", PLAIN),
            ("plain -> 9090", PLAIN),
            ("a/b -> 80", "allow"),
        ],
    );
    check("DENY plain: !principal=*", &[("plain -> 1", "AMB2103 deny-rule-matched by shop/plain rule 0")]);
}

#[test]
fn a_port_is_strict_by_what_stands_for_a_peer_authentication_alone() {
    let rows = [
        ("DENY istio-system/istio_converted_static_strict: !principal=*", "plain -> 80", true),
        // Whoever calls, and whatever else is said of it.
        ("DENY istio-system/istio_converted_static_strict: !principal=*", "shop/cart -> 80", true),
        ("DENY converted_peer_authentication_db: !principal=* & !port=8080", "plain -> 80", true),
        ("DENY converted_peer_authentication_db: !principal=* & !port=8080", "plain -> 8080", false),
        (
            "ALLOW ambit-breakglass: any ; DENY converted_peer_authentication_db: !principal=*",
            "plain -> 1",
            true,
        ),
        ("DENY plain: !principal=*", "plain -> 1", false),
        ("ALLOW web: ns=shop ; ALLOW ambit-breakglass: any", "plain -> 1", false),
        ("missing gone", "plain -> 1", false),
        ("", "plain -> 1", false),
    ];
    for (text, row, want) in rows {
        assert_eq!(is_strict(&policies(text), &facts(row).facts()), want, "{text} : {row}");
    }
}

#[test]
fn dry_run_tells_and_never_decides() {
    check(
        "DENY? lock: port=22",
        &[("a/b -> 22", "allow, dry-run deny by shop/lock rule 0"), ("a/b -> 80", "allow")],
    );
    check(
        "ALLOW? web: ns=shop",
        &[
            ("shop/cart -> 80", "allow, dry-run allow by shop/web rule 0"),
            ("jobs/cron -> 80", "allow, dry-run deny"),
        ],
    );
    check("ALLOW? web: ns=shop ; ALLOW all: any", &[("jobs/cron -> 80", "allow by shop/all rule 0")]);
    check(
        "DENY? lock: any ; DENY real: port=22",
        &[("a/b -> 22", "AMB2103 deny-rule-matched by shop/real rule 0, dry-run deny by shop/lock rule 0")],
    );
}

#[test]
fn each_attribute_compares_its_own_fact() {
    check(
        "ALLOW a: ip=10.1.0.0/16,2001:db8::/32",
        &[
            ("a/b@10.1.2.3 -> 80", "allow by shop/a rule 0"),
            ("a/b@::ffff:10.1.2.3 -> 80", "allow by shop/a rule 0"),
            ("a/b@2001:db8::7 -> 80", "allow by shop/a rule 0"),
            ("a/b@10.2.0.1 -> 80", DENIED),
            ("a/b@2001:db9::7 -> 80", DENIED),
        ],
    );
    check(
        "ALLOW a: dst=10.9.0.9/32 port=80,81",
        &[
            ("a/b -> 10.9.0.9:81", "allow by shop/a rule 0"),
            ("a/b -> 10.9.0.8:81", DENIED),
            ("a/b -> 10.9.0.9:82", DENIED),
        ],
    );
    check("ALLOW a: !ip=10.1.0.0/16", &[("a/b@10.1.2.3 -> 80", DENIED)]);
    check("ALLOW a: !dst=10.9.0.0/16", &[("a/b -> 10.9.0.9:81", DENIED)]);
    check("DENY a: !port=80", &[("a/b -> 80", "allow")]);
    // Host bits set in a range do not narrow it.
    check("ALLOW a: ip=10.1.2.3/16", &[("a/b@10.1.9.9 -> 80", "allow by shop/a rule 0")]);
}

#[test]
fn service_accounts_ignore_the_trust_domain_and_principals_do_not() {
    check("ALLOW a: sa=shop/cart", &[("prod.example:shop/cart -> 80", "allow by shop/a rule 0")]);
    check(
        "ALLOW a: principal=cluster.local/ns/shop/sa/cart",
        &[
            ("shop/cart -> 80", "allow by shop/a rule 0"),
            ("prod.example:shop/cart -> 80", DENIED),
            ("shop/cart2 -> 80", DENIED),
            ("shop/car -> 80", DENIED),
        ],
    );
    check(
        "DENY a: principal=prod.example/*",
        &[("prod.example:a/b -> 1", "AMB2103 deny-rule-matched by shop/a rule 0"), ("a/b -> 1", "allow")],
    );
}

#[test]
fn principals_compare_across_the_joints_of_their_parts() {
    let allowed = "allow by shop/a rule 0";
    for (principal, want) in [
        ("cluster.local/ns/shop/sa/cart", allowed),
        ("cluster.local/ns/shop/sa/cart*", allowed),
        ("cluster.local/ns/sh*", allowed),
        ("clus*", allowed),
        ("cluster.local/n*", allowed),
        ("*/sa/cart", allowed),
        ("*p/sa/cart", allowed),
        ("*cluster.local/ns/shop/sa/cart", allowed),
        ("*t", allowed),
        ("*", allowed),
        ("cluster.local/ns/shop/sa/cart/", DENIED),
        ("cluster.local/ns/shop/sa/carts*", DENIED),
        ("*xcluster.local/ns/shop/sa/cart", DENIED),
        ("cluster.local/ns/shop", DENIED),
        ("spiffe://cluster.local/ns/shop/sa/cart", DENIED),
        ("Cluster.local/ns/shop/sa/cart", DENIED),
    ] {
        check(&format!("ALLOW a: principal={principal}"), &[("shop/cart -> 80", want)]);
    }
}

#[test]
fn dots_stars_and_brackets_inside_are_literal() {
    // T-19.
    check(
        "DENY a: principal=cluster.local/ns/shop/sa/web.v1",
        &[("shop/web.v1 -> 1", "AMB2103 deny-rule-matched by shop/a rule 0"), ("shop/webxv1 -> 1", "allow")],
    );
    for literal in ["cluster.local/ns/*/sa/cart", "cluster.local/ns/shop/sa/[a-z]art", "cluster.local/*/cart"]
    {
        check(&format!("ALLOW a: principal=\\{literal}"), &[("shop/cart -> 1", DENIED)]);
    }
    check("ALLOW a: ns=s?op,sho.", &[("shop/cart -> 1", DENIED)]);
    check("ALLOW a: ns=*o*", &[("shop/cart -> 1", DENIED)]);
}

#[test]
fn plaintext_has_an_empty_namespace_and_no_principal() {
    let plain_in = "allow AMB2302 plaintext-accepted by shop/a rule 0";
    check("ALLOW a: !ns=shop", &[("plain -> 1", plain_in), ("jobs/x -> 1", "allow by shop/a rule 0")]);
    check("ALLOW a: !principal=*x", &[("plain -> 1", plain_in)]);
    check("ALLOW a: !sa=shop/cart", &[("plain -> 1", plain_in), ("shop/cart -> 1", DENIED)]);
    check("ALLOW a: ns=*", &[("plain -> 1", DENIED), ("a/b -> 1", "allow by shop/a rule 0")]);
}

/// T-20: every kind of comparison, plain and negated, in ALLOW and in DENY, for a peer that has the value, one that
/// has another, and one without identity.
#[test]
fn truth_table_of_string_matches() {
    let kinds = ["cluster.local/ns/shop/sa/cart", "cluster.local/ns/shop/*", "*/sa/cart", "*"];
    for (index, kind) in kinds.iter().enumerate() {
        let presence = index == 3;
        for (peer, agrees) in [("shop/cart", true), ("jobs/cron", presence), ("plain", false)] {
            for negated in [false, true] {
                let holds = agrees != negated;
                let sign = if negated { "!" } else { "" };
                let row = format!("{peer} -> 80");
                let info = if peer == "plain" { " AMB2302 plaintext-accepted" } else { "" };
                let allow = if holds { format!("allow{info} by shop/a rule 0") } else { DENIED.to_owned() };
                let deny = if holds {
                    "AMB2103 deny-rule-matched by shop/a rule 0".to_owned()
                } else {
                    format!("allow{info}")
                };
                check(&format!("ALLOW a: {sign}principal={kind}"), &[(&row, &allow)]);
                check(&format!("DENY a: {sign}principal={kind}"), &[(&row, &deny)]);
            }
        }
    }
}

#[test]
fn positive_and_negative_lists_both_have_to_agree() {
    check(
        "ALLOW a: ns=shop,jobs !sa=shop/batch",
        &[
            ("shop/cart -> 1", "allow by shop/a rule 0"),
            ("jobs/batch -> 1", "allow by shop/a rule 0"),
            ("shop/batch -> 1", DENIED),
            ("other/cart -> 1", DENIED),
        ],
    );
}
