//! How a workload is reached: by a tunnel and whom to expect there, in plaintext, by its name, or on the same node
//! without a tunnel.

use super::{MESH, NO_ENDPOINT, check, check_as, texts};
use crate::testing::{Caller, world};
use crate::{OutboundPlan, SameNode};

#[test]
fn o9_a_workload_without_address_is_resolved_by_name_or_refused() {
    check(
        "svc shop/api.example.com 10.96.0.80 ports=443
         entry shop/api plain name=api.example.com backs=shop/api.example.com",
        &[("10.96.0.80:443", "resolve api.example.com:443 of shop/api.example.com")],
    );
    check(
        "svc shop/web 10.96.0.1 ports=80 v6only
         pod shop/web-0 10.244.2.20 node=n2 backs=shop/web",
        &[("10.96.0.1:80", NO_ENDPOINT)],
    );
}

#[test]
fn o10_and_o11_the_workload_says_how_it_is_reached() {
    check(
        "",
        &[
            ("10.244.2.7:9000", "hbone shop/far 10.244.2.7:9000"),
            ("[fd00:10:244:2::7]:9000", "hbone shop/far [fd00:10:244:2::7]:9000"),
            ("[::ffff:10.244.2.7]:9000", "hbone shop/far 10.244.2.7:9000"),
            ("10.244.2.9:9000", "plain shop/plain 10.244.2.9:9000"),
            ("10.244.2.10:9000", "AMB4004 tunnel-protocol"),
        ],
    );
    check(
        "pod shop/sick 10.244.2.30 node=n2 unready",
        &[("10.244.2.30:80", "hbone shop/sick 10.244.2.30:80")],
    );
}

#[test]
fn a_hop_knows_its_tunnel_and_whom_to_expect() {
    let more = "svc shop/web 10.96.0.1 ports=80->8080 san=shop/zed,shop/alt,shop/web
         pod shop/web-0 10.244.2.20 node=n2 sa=web backs=shop/web
         pod shop/web-1 10.244.2.21 node=n2 sa=web backs=shop/web";
    let snapshot = world(&format!("{MESH}\n{more}")).snapshot();
    let OutboundPlan::Hbone(hop) = Caller::new("shop/client").plan(&snapshot, "10.96.0.1:80") else {
        panic!()
    };
    assert_eq!(hop.tunnel().to_string(), "10.244.2.20:15008");
    assert_eq!(hop.candidates, 2);
    assert_eq!(
        texts(&hop.expected_identities()),
        [
            "spiffe://cluster.local/ns/shop/sa/alt",
            "spiffe://cluster.local/ns/shop/sa/web",
            "spiffe://cluster.local/ns/shop/sa/zed",
        ]
    );
    let OutboundPlan::Hbone(hop) = Caller::new("shop/client").plan(&snapshot, "10.244.2.20:8080") else {
        panic!()
    };
    assert_eq!(hop.candidates, 1);
    assert_eq!(texts(&hop.expected_identities()), ["spiffe://cluster.local/ns/shop/sa/web"]);
}

#[test]
fn same_node_joins_two_captured_pods_unless_something_must_see_them() {
    // T-97: a NetworkPolicy on either side keeps the tunnel.
    let guarded = "pod shop/guarded 10.244.1.9 np";
    let local = "local shop/near 10.244.1.8:80";
    let tunnel = "hbone shop/near 10.244.1.8:80";
    for (mode, near, guard) in [
        (SameNode::Auto, local, "hbone shop/guarded 10.244.1.9:80"),
        (SameNode::Direct, local, "local shop/guarded 10.244.1.9:80"),
        (SameNode::Hbone, tunnel, "hbone shop/guarded 10.244.1.9:80"),
    ] {
        let caller = Caller { same_node: mode, ..Caller::new("shop/client") };
        check_as(&caller, guarded, &[("10.244.1.8:80", near), ("10.244.1.9:80", guard)]);
    }
    check_as(&Caller::new("shop/guarded"), guarded, &[("10.244.1.8:80", tunnel)]);
    // A control plane that does not tell of NetworkPolicies may have missed one, on either side.
    let untold = "pod shop/untold 10.244.1.9 untold";
    check_as(
        &Caller::new("shop/client"),
        untold,
        &[("10.244.1.9:80", "hbone shop/untold 10.244.1.9:80"), ("10.244.1.8:80", local)],
    );
    check_as(&Caller::new("shop/untold"), untold, &[("10.244.1.8:80", tunnel)]);
    let direct = Caller { same_node: SameNode::Direct, ..Caller::new("shop/client") };
    for (more, destination, want) in [
        ("pod shop/own 10.244.1.30 native", "10.244.1.30:80", "hbone shop/own 10.244.1.30:80"),
        ("pod shop/own 10.244.1.30 apptunnel=9", "10.244.1.30:80", "hbone shop/own 10.244.1.30:80"),
        ("pod shop/own 10.244.1.30 cluster=b", "10.244.1.30:80", "hbone shop/own 10.244.1.30:80"),
        ("pod shop/own 10.244.1.30 plain", "10.244.1.30:80", "plain shop/own 10.244.1.30:80"),
        ("pod shop/own 10.244.1.30 node=", "10.244.1.30:80", "hbone shop/own 10.244.1.30:80"),
        ("", "10.244.2.7:80", "hbone shop/far 10.244.2.7:80"),
        ("", "10.244.1.5:80", "local shop/client 10.244.1.5:80"),
    ] {
        check_as(&direct, more, &[(destination, want)]);
    }
}

#[test]
fn a_pod_may_reach_itself_through_its_service() {
    check(
        "svc shop/self 10.96.0.90 ports=80->8080
         pod shop/client 10.244.1.5 sa=client backs=shop/self",
        &[("10.96.0.90:80", "local shop/client 10.244.1.5:8080 of shop/self")],
    );
}
