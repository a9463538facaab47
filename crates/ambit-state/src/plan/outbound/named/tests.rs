//! Which of the addresses of a name are used, and which never.

use std::net::{IpAddr, SocketAddr};

use ambit_types::service::IpFamily;

use super::plan_named;
use crate::testing::{Caller, refused, uid, world};
use crate::{OutboundFacts, OutboundPlan, SameNode};

const MESH: &str = "
    pod shop/client 10.244.1.5,fd00:10:244:1::5 sa=client nodeips=10.244.1.1
    pod shop/far 10.244.2.7 node=n2 sa=far
    entry shop/api plain name=api.example.com backs=shop/api.example.com
";
const FAILED: &str = "AMB5001 dns-upstream-failed";
const PROXY_PORT: &str = "AMB1106 proxy-port-target";

/// Rows: what the name resolves to, and the address that is used or the refusal.
#[track_caller]
fn check(service: &str, destination: &str, draw: u64, rows: &[(&str, &str)]) {
    let snapshot = world(&format!("{MESH}\nsvc shop/api.example.com {service}")).snapshot();
    let mut caller = Caller::new("shop/client");
    caller.draw = draw;
    let plan = caller.plan(&snapshot, destination);
    let OutboundPlan::Resolve(by) = plan else { panic!("not by name: {plan:?}") };
    let facts = OutboundFacts {
        source: snapshot.workload(&uid("shop/client")),
        source_address: "10.244.1.5".parse().unwrap(),
        destination: destination.parse().unwrap(),
        same_node: SameNode::Auto,
        tried: &[],
        draw,
    };
    for (answer, want) in rows {
        let addresses: Vec<IpAddr> = answer.split_whitespace().map(|ip| ip.parse().unwrap()).collect();
        let told = match plan_named(&snapshot, &facts, &by, &addresses) {
            Ok(hop) => hop.address.to_string(),
            Err(refusal) => refused(&refusal),
        };
        assert_eq!(told, *want, "{service} at {destination} with {answer:?}");
    }
}

#[test]
fn the_family_that_was_asked_for_comes_first() {
    let both = "10.96.0.80,fd00:10:96::80 ports=443";
    let answer = "203.0.113.1 2001:db8::1";
    check(both, "10.96.0.80:443", 0, &[(answer, "203.0.113.1:443"), ("2001:db8::1", "[2001:db8::1]:443")]);
    check(
        both,
        "[fd00:10:96::80]:443",
        0,
        &[(answer, "[2001:db8::1]:443"), ("203.0.113.1", "203.0.113.1:443")],
    );
    let only = |word: &str| format!("10.96.0.80,fd00:10:96::80 ports=443 {word}");
    check(&only("v6only"), "10.96.0.80:443", 0, &[(answer, "[2001:db8::1]:443"), ("203.0.113.1", FAILED)]);
    check(&only("v4only"), "10.96.0.80:443", 0, &[("2001:db8::1", FAILED)]);
}

#[test]
fn the_target_port_of_the_service_is_used() {
    check("10.96.0.80 ports=80->8443", "10.96.0.80:80", 0, &[("203.0.113.1", "203.0.113.1:8443")]);
}

#[test]
fn the_draw_chooses_among_several() {
    let answer = "203.0.113.1 203.0.113.2 203.0.113.3 203.0.113.4";
    // The lower half of the draw counts.
    for (draw, want) in [(0_u64, 1), (1 << 30, 2), (2 << 30, 3), (3 << 30, 4), (u64::MAX, 4)] {
        let want = format!("203.0.113.{want}:443");
        check("10.96.0.80 ports=443", "10.96.0.80:443", draw, &[(answer, &want)]);
    }
}

#[test]
fn what_leads_back_into_the_pod_or_to_its_link_is_not_connected_to() {
    for loops in [
        "",
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "0.1.2.3",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "127.0.0.1 ::1",
    ] {
        check("10.96.0.80 ports=443", "10.96.0.80:443", 0, &[(loops, FAILED)]);
    }
    check("10.96.0.80 ports=443", "10.96.0.80:443", 0, &[("127.0.0.1 203.0.113.9", "203.0.113.9:443")]);
}

#[test]
fn a_name_never_leads_to_a_port_of_a_proxy() {
    for port in [15001, 15006, 15008] {
        let service = format!("10.96.0.80 ports=443->{port}");
        // The pod itself, its node, a captured pod; elsewhere those numbers mean nothing.
        check(
            &service,
            "10.96.0.80:443",
            0,
            &[
                ("10.244.1.5", PROXY_PORT),
                ("10.244.1.1", PROXY_PORT),
                ("10.244.2.7", PROXY_PORT),
                ("203.0.113.1", &format!("203.0.113.1:{port}")),
            ],
        );
    }
}

#[test]
fn only_families_that_the_service_uses_are_asked_for() {
    use IpFamily::{V4, V6};

    let rows: [(&str, &str, &[IpFamily]); 4] = [
        ("", "10.96.0.80:443", &[V4, V6]),
        ("", "[fd00:10:96::80]:443", &[V6, V4]),
        ("v4only", "[fd00:10:96::80]:443", &[V4]),
        ("v6only", "10.96.0.80:443", &[V6]),
    ];
    for (word, destination, want) in rows {
        let service = format!("svc shop/api.example.com 10.96.0.80,fd00:10:96::80 ports=443 {word}");
        let snapshot = world(&format!("{MESH}\n{service}")).snapshot();
        let plan = Caller::new("shop/client").plan(&snapshot, destination);
        let OutboundPlan::Resolve(by) = plan else { panic!("not by name: {plan:?}") };
        let asked: Vec<IpFamily> = by.families(destination.parse::<SocketAddr>().unwrap().ip()).collect();
        assert_eq!(asked, want, "{word} at {destination}");
    }
}
