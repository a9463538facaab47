//! What is reached by nobody, or not by this pod: ports of the proxies, all there is for a stranger, what egress policy
//! shuts.

use super::{NO_ENDPOINT, check, check_as};
use crate::OutboundPlan;
use crate::testing::{Caller, world};

const PROXY_PORT: &str = "AMB1106 proxy-port-target";
const EGRESS: &str = "AMB3005 egress-denied";

#[test]
fn o0_a_pod_never_reaches_a_proxy_port() {
    // Attacker 1: no recursion, no trampoline, in itself, its node and other captured pods.
    for port in [15001, 15006, 15008] {
        for host in [
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "10.244.1.5",
            "[fd00:10:244:1::5]",
            "[::ffff:10.244.1.5]",
            "10.244.1.1",
            "10.244.1.8",
            "10.244.2.7",
            "[fd00:10:244:2::7]",
            "[::ffff:10.244.2.7]",
        ] {
            check("", &[(&format!("{host}:{port}"), PROXY_PORT)]);
        }
    }
    check(
        "svc shop/sly 10.96.0.66 ports=80->15006,15008
         pod shop/backs 10.244.2.66 node=n2 backs=shop/sly",
        &[("10.96.0.66:80", PROXY_PORT), ("10.96.0.66:15008", PROXY_PORT)],
    );
    // Captured a moment ago, and discovery does not say so yet.
    check_as(
        &Caller::new("shop/late"),
        "pod shop/late 10.244.1.9,fd00:10:244:1::9 plain",
        &[("[fd00:10:244:1::9]:15006", PROXY_PORT), ("10.244.1.9:15008", PROXY_PORT)],
    );
    // What is not captured has no listener of ours there.
    check(
        "",
        &[
            ("10.244.2.9:15006", "plain shop/plain 10.244.2.9:15006"),
            ("192.0.2.1:15008", "passthrough 192.0.2.1:15008"),
            ("127.0.0.1:15020", "passthrough 127.0.0.1:15020"),
        ],
    );
}

#[test]
fn o1_an_unknown_source_is_refused_and_never_sent_plaintext() {
    let stranger = Caller::new("shop/not-yet");
    check_as(
        &stranger,
        "",
        &[
            ("10.244.2.7:80", "AMB6002 workload-unknown"),
            ("192.0.2.1:80", "AMB6002 workload-unknown"),
            ("127.0.0.1:15001", PROXY_PORT),
            ("10.244.0.250:15008", PROXY_PORT),
        ],
    );
}

#[test]
fn o6_what_the_mesh_does_not_know_is_reached_only_where_egress_policy_lets_it() {
    let mesh = "
        pod shop/shut 10.244.1.20 egress=
        pod shop/some 10.244.1.21 egress=192.0.2.0/24;2001:db8::/32@443;8443|203.0.113.7/32|@53
        svc shop/out 10.96.0.70 ports=443 mode=passthrough
        pod shop/out-0 10.244.2.70 node=n2 backs=shop/out
        svc shop/down 10.96.0.71 ports=80";
    // What is declared is judged elsewhere, or was let by declaring it; the pod itself is no destination outside.
    let of_the_mesh = [
        ("10.244.2.7:80", "hbone shop/far 10.244.2.7:80"),
        ("10.244.2.9:5432", "plain shop/plain 10.244.2.9:5432"),
        ("10.96.0.70:443", "passthrough 10.96.0.70:443"),
        ("10.96.0.71:80", NO_ENDPOINT),
        ("127.0.0.1:15020", "passthrough 127.0.0.1:15020"),
        ("127.0.0.1:15001", PROXY_PORT),
    ];
    check_as(&Caller::new("shop/shut"), mesh, &of_the_mesh);
    check_as(&Caller::new("shop/some"), mesh, &of_the_mesh);
    let shut = ["192.0.2.1:443", "[2001:db8::1]:443", "[::ffff:192.0.2.1]:443", "169.254.169.254:80"];
    for to in shut.into_iter().chain(["10.89.0.12:10250", "203.0.113.7:1"]) {
        check_as(&Caller::new("shop/shut"), mesh, &[(to, EGRESS)]);
    }
    check_as(
        &Caller::new("shop/some"),
        mesh,
        &[
            ("192.0.2.1:443", "passthrough 192.0.2.1:443"),
            ("[::ffff:192.0.2.1]:8443", "passthrough 192.0.2.1:8443"),
            ("[2001:db8::1]:443", "passthrough [2001:db8::1]:443"),
            ("192.0.2.1:80", EGRESS),
            ("192.0.3.1:443", EGRESS),
            ("203.0.113.7:1", "passthrough 203.0.113.7:1"),
            ("198.51.100.1:53", "passthrough 198.51.100.1:53"),
            ("198.51.100.1:54", EGRESS),
        ],
    );
}

#[test]
fn a_refusal_by_egress_policy_names_it() {
    let snapshot = world("pod shop/shut 10.244.1.20 egress=").snapshot();
    let OutboundPlan::Refuse(refusal) = Caller::new("shop/shut").plan(&snapshot, "192.0.2.1:443") else {
        panic!("let out")
    };
    assert_eq!(refusal.policy.map(|policy| policy.to_string()).as_deref(), Some("shop/egress"));
    assert_eq!(refusal.detail, "no rule admits 192.0.2.1:443");
}
