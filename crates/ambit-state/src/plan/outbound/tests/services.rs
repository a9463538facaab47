//! From the address of a service to one of its endpoints: which, at which address and port, and what if there is none.

use super::{MESH, NO_ENDPOINT, check};
use crate::OutboundPlan;
use crate::testing::{Caller, told, world};

#[test]
fn o2_a_service_address_means_the_service() {
    check(
        "svc shop/web 10.96.0.1,fd00:10:96::1 ports=80->8080,443
         pod shop/web-0 10.244.2.20 node=n2 backs=shop/web",
        &[
            ("10.96.0.1:80", "hbone shop/web-0 10.244.2.20:8080 of shop/web"),
            ("10.96.0.1:443", "hbone shop/web-0 10.244.2.20:443 of shop/web"),
            ("[fd00:10:96::1]:80", "hbone shop/web-0 10.244.2.20:8080 of shop/web"),
            ("[::ffff:10.96.0.1]:80", "hbone shop/web-0 10.244.2.20:8080 of shop/web"),
            ("10.244.2.20:8080", "hbone shop/web-0 10.244.2.20:8080"),
        ],
    );
}

#[test]
fn o4_and_o5_a_known_service_without_endpoint_is_refused_never_passed_through() {
    let service = "svc shop/web 10.96.0.1 ports=80->8080 \n";
    check(service, &[("10.96.0.1:80", NO_ENDPOINT), ("10.96.0.1:81", NO_ENDPOINT)]);
    let unready = format!("{service} pod shop/web-0 10.244.2.20 node=n2 backs=shop/web unready");
    check(&unready, &[("10.96.0.1:80", NO_ENDPOINT)]);
    // P14: ranges are looked up as well.
    check("svc shop/lan range=203.0.113.0/24 ports=80", &[("203.0.113.9:80", NO_ENDPOINT)]);
}

#[test]
fn o6_unknown_destinations_and_passthrough_services_keep_the_original_address() {
    check(
        "svc shop/out 10.96.0.70 ports=443 mode=passthrough
         pod shop/out-0 10.244.2.70 node=n2 backs=shop/out",
        &[
            ("192.0.2.1:443", "passthrough 192.0.2.1:443"),
            ("[2001:db8::1]:443", "passthrough [2001:db8::1]:443"),
            ("224.0.0.1:9", "passthrough 224.0.0.1:9"),
            ("10.96.0.70:443", "passthrough 10.96.0.70:443"),
            ("10.89.0.12:10250", "passthrough 10.89.0.12:10250"),
        ],
    );
}

#[test]
fn retries_take_every_other_endpoint_once_and_then_refuse() {
    // G33: upstream does not try another endpoint.
    let more = "svc shop/web 10.96.0.1 ports=80->8080
         pod shop/web-0 10.244.2.20 node=n2 backs=shop/web
         pod shop/web-1 10.244.2.21 node=n2 backs=shop/web
         pod shop/web-2 10.244.2.22 node=n2 backs=shop/web";
    let snapshot = world(&format!("{MESH}\n{more}")).snapshot();
    for draw in [0, 1, u64::MAX / 2, u64::MAX] {
        let mut caller = Caller { draw, ..Caller::new("shop/client") };
        for _ in 0..3 {
            let OutboundPlan::Hbone(hop) = caller.plan(&snapshot, "10.96.0.1:80") else { panic!() };
            assert!(!caller.tried.contains(&hop.workload.uid));
            assert_eq!(hop.candidates, 3);
            caller.tried.push(hop.workload.uid.clone());
        }
        assert_eq!(told(&caller.plan(&snapshot, "10.96.0.1:80")), NO_ENDPOINT);
    }
    let mut caller = Caller::new("shop/client");
    caller.tried.push(crate::testing::uid("shop/far"));
    assert_eq!(told(&caller.plan(&snapshot, "10.244.2.7:80")), NO_ENDPOINT);
}

#[test]
fn ports_come_from_the_endpoint_then_the_service() {
    let pods = |ports: &str, backs: &str| {
        format!(
            "svc shop/web 10.96.0.1 ports={ports}
             pod shop/web-0 10.244.2.20 node=n2 backs=shop/web{backs}"
        )
    };
    let to = |port: u16| format!("hbone shop/web-0 10.244.2.20:{port} of shop/web");
    for (ports, backs, want) in [
        ("80->8080", "", to(8080)),
        ("80->8080", ":80->9090", to(9090)),
        ("80->0", ":80->9090", to(9090)),
        ("80->8080", ":81->9090", to(8080)),
        ("80->0", "", NO_ENDPOINT.to_owned()),
        ("80->0", ":81->9090", NO_ENDPOINT.to_owned()),
        ("81->8080", ":80->9090", NO_ENDPOINT.to_owned()),
    ] {
        check(&pods(ports, backs), &[("10.96.0.1:80", &want)]);
    }
    // An application tunnel with a port stands in for a named port that nobody maps.
    check(
        "svc shop/web 10.96.0.1 ports=80->0
         pod shop/web-0 10.244.2.20 node=n2 apptunnel=15088 backs=shop/web",
        &[("10.96.0.1:80", &to(80))],
    );
}

#[test]
fn only_endpoints_that_map_a_named_port_are_drawn() {
    let more = "svc shop/web 10.96.0.1 ports=80->0
         pod shop/web-0 10.244.2.20 node=n2 backs=shop/web
         pod shop/web-1 10.244.2.21 node=n2 backs=shop/web:80->7000";
    let snapshot = world(&format!("{MESH}\n{more}")).snapshot();
    for draw in [0, u64::MAX / 2, u64::MAX] {
        let caller = Caller { draw, ..Caller::new("shop/client") };
        let plan = caller.plan(&snapshot, "10.96.0.1:80");
        assert_eq!(told(&plan), "hbone shop/web-1 10.244.2.21:7000 of shop/web");
    }
}

#[test]
fn the_address_is_the_one_asked_for_or_of_its_family_or_allowed_by_the_service() {
    let dual = |families: &str| {
        format!(
            "svc shop/web 10.96.0.1,fd00:10:96::1 ports=80 {families}
             pod shop/web-0 10.244.2.20,fd00:10:244:2::20 node=n2 backs=shop/web"
        )
    };
    let v4 = "hbone shop/web-0 10.244.2.20:80 of shop/web";
    let v6 = "hbone shop/web-0 [fd00:10:244:2::20]:80 of shop/web";
    for (families, by_v4, by_v6) in [("", v4, v6), ("v4only", v4, v4), ("v6only", v6, v6)] {
        check(&dual(families), &[("10.96.0.1:80", by_v4), ("[fd00:10:96::1]:80", by_v6)]);
    }
    check(&dual("v4only"), &[("[fd00:10:244:2::20]:80", "hbone shop/web-0 [fd00:10:244:2::20]:80")]);
}
