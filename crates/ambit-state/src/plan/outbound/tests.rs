//! Every step from an original destination to a plan.

use crate::testing::{Caller, told, world};
use crate::{OutboundPlan, SameNode};

/// A client and a few neighbours, on which rows build.
const MESH: &str = "
    pod shop/client 10.244.1.5,fd00:10:244:1::5 sa=client nodeips=10.244.1.1
    pod shop/far 10.244.2.7,fd00:10:244:2::7 node=n2 sa=far
    pod shop/near 10.244.1.8 sa=near
    pod shop/plain 10.244.2.9 node=n2 plain
    pod shop/old 10.244.2.10 node=n2 legacy
    pod shop/hostnet 10.89.0.12 node=n2 host
";

#[track_caller]
fn check(more: &str, rows: &[(&str, &str)]) {
    check_as(&Caller::new("shop/client"), more, rows);
}

#[track_caller]
fn check_as(caller: &Caller<'_>, more: &str, rows: &[(&str, &str)]) {
    let snapshot = world(&format!("{MESH}\n{more}")).snapshot();
    for (destination, want) in rows {
        assert_eq!(told(&caller.plan(&snapshot, destination)), *want, "to {destination} with {more}");
    }
}

const PROXY_PORT: &str = "AMB1106 proxy-port-target";
const NO_ENDPOINT: &str = "AMB3002 no-healthy-endpoint";
const EGRESS: &str = "AMB3005 egress-denied";
const UNBOUND: &str = "AMB3101 waypoint-unbound";

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
fn o3_the_waypoint_of_a_service_is_used_or_the_connection_refused() {
    let waypoint = "
        svc shop/wp 10.96.0.50 ports=15008 san=shop/wp-extra
        pod shop/wp-0 10.244.2.50 node=n2 sa=wp native backs=shop/wp
        svc shop/web 10.96.0.1 ports=80->8080 waypoint=shop/wp
        pod shop/web-0 10.244.2.20 node=n2 backs=shop/web";
    check(waypoint, &[("10.96.0.1:80", "waypoint shop/wp-0 10.244.2.50:15008 for 10.96.0.1:80 of shop/web")]);
    let by_address = waypoint.replace("waypoint=shop/wp", "waypoint=10.96.0.50");
    check(
        &by_address,
        &[("10.96.0.1:80", "waypoint shop/wp-0 10.244.2.50:15008 for 10.96.0.1:80 of shop/web")],
    );
    for broken in [
        waypoint.replace("waypoint=shop/wp", "waypoint=shop/gone"),
        waypoint.replace("waypoint=shop/wp", "waypoint=10.96.0.99"),
        waypoint.replace("native backs=shop/wp", "native backs=shop/wp unready"),
        waypoint.replace("native backs=shop/wp", "native"),
        waypoint.replace("10.96.0.50 ports=15008", "10.96.0.50 ports=80"),
    ] {
        check(&broken, &[("10.96.0.1:80", UNBOUND)]);
    }
}

#[test]
fn o3_weighted_waypoints_share_by_weight_and_empty_ones_do_not_count() {
    let text = |weighted: &str| {
        format!(
            "{MESH}
             svc shop/wp1 10.96.0.51 ports=15008
             pod shop/wp1-0 10.244.2.51 node=n2 native backs=shop/wp1
             svc shop/wp2 10.96.0.52 ports=15008
             pod shop/wp2-0 10.244.2.52 node=n2 native backs=shop/wp2
             svc shop/web 10.96.0.1 ports=80 waypoint=shop/wp1 {weighted}"
        )
    };
    let share = |weighted: &str| {
        let snapshot = world(&text(weighted)).snapshot();
        let hits = (0..1000u64).filter(|i| {
            let mut caller = Caller::new("shop/client");
            caller.draw = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            told(&caller.plan(&snapshot, "10.96.0.1:80")).contains("wp2-0")
        });
        hits.count()
    };
    let tenth = share("weighted=shop/wp1*90,shop/wp2*10");
    assert!((70..130).contains(&tenth), "{tenth} of 1000 where 100 are meant");
    assert_eq!(share("weighted=shop/wp1*0,shop/wp2*0"), 0);
    assert_eq!(share("weighted=shop/wp2*1"), 1000);
}

#[test]
fn o3b_a_waypoint_in_another_network_is_reached_through_its_gateway() {
    check(
        "svc shop/wp 10.96.0.50 ports=15008 san=shop/wp-extra
         pod shop/wp-0 10.9.0.5 network=other sa=wp backs=shop/wp gateway=istio-system/ew
         svc istio-system/ew 10.96.0.60 ports=15008
         pod istio-system/ew-0 10.244.2.60 node=n2 native sa=ew backs=istio-system/ew
         svc shop/web 10.96.0.1 ports=80 waypoint=shop/wp",
        &[("10.96.0.1:80", "gateway istio-system/ew-0 10.244.2.60:15008 for web.shop.svc.cluster.local:80")],
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

#[test]
fn o7_a_workload_of_another_network_needs_a_service_and_a_gateway() {
    let mesh = "
        svc shop/web 10.96.0.1 ports=80->8080 san=shop/web
        entry shop/remote network=other gateway=istio-system/ew backs=shop/web
        svc istio-system/ew 10.96.0.60 ports=15008
        pod istio-system/ew-0 10.244.2.60 node=n2 native sa=ew backs=istio-system/ew";
    let through = "gateway istio-system/ew-0 10.244.2.60:15008 for web.shop.svc.cluster.local:80";
    check(mesh, &[("10.96.0.1:80", through)]);
    let caller = Caller::new("shop/client");
    let plan = caller.plan(&world(&format!("{MESH}\n{mesh}")).snapshot(), "10.96.0.1:80");
    let OutboundPlan::Gateway(gateway) = plan else { panic!("{plan:?}") };
    assert_eq!(texts(&gateway.inner_identities), ["spiffe://cluster.local/ns/shop/sa/web"]);
    assert_eq!(texts(&gateway.expected_identities()), ["spiffe://cluster.local/ns/istio-system/sa/ew"]);
    check(
        &mesh.replace("gateway=istio-system/ew", "gateway=istio-system/gone"),
        &[("10.96.0.1:80", NO_ENDPOINT)],
    );
    // Without a gateway it is no usable endpoint, unless it has an address of its own.
    let bare = mesh.replace(
        "entry shop/remote network=other gateway=istio-system/ew",
        "entry shop/remote network=other",
    );
    check(&bare, &[("10.96.0.1:80", NO_ENDPOINT)]);
    check(&bare.replace("shop/remote", "shop/remote 10.9.9.9"), &[("10.96.0.1:80", NO_ENDPOINT)]);
}

#[test]
fn o8_the_waypoint_of_a_workload_is_used_when_the_workload_is_addressed() {
    let mesh = "
        svc shop/wp 10.96.0.50 ports=15008
        pod shop/wp-0 10.244.2.50 node=n2 sa=wp native backs=shop/wp
        svc shop/web 10.96.0.1 ports=80->8080
        pod shop/web-0 10.244.2.20 node=n2 backs=shop/web waypoint=shop/wp";
    check(
        mesh,
        &[
            ("10.244.2.20:8080", "waypoint shop/wp-0 10.244.2.50:15008 for 10.244.2.20:8080"),
            ("10.96.0.1:80", "hbone shop/web-0 10.244.2.20:8080 of shop/web"),
        ],
    );
    // The waypoint itself goes straight on; another workload with its identity does not.
    let posing = format!("{mesh}\n pod shop/posing 10.244.1.70 sa=wp");
    check_as(
        &Caller::new("shop/posing"),
        &posing,
        &[("10.244.2.20:8080", "waypoint shop/wp-0 10.244.2.50:15008 for 10.244.2.20:8080")],
    );
    check_as(&Caller::new("shop/wp-0"), mesh, &[("10.244.2.20:8080", "hbone shop/web-0 10.244.2.20:8080")]);
    check(&mesh.replace("waypoint=shop/wp", "waypoint=shop/gone"), &[("10.244.2.20:8080", UNBOUND)]);
    // G17: upstream dials a workload's waypoint of another network directly.
    check(
        &mesh.replace("native backs=shop/wp", "native backs=shop/wp network=other gateway=istio-system/ew"),
        &[("10.244.2.20:8080", UNBOUND)],
    );
}

const PAST: &str = "AMB3102 waypoint-bypassed";

/// Two services with one waypoint and one without in front of a pod, and a service without address in front of another.
const BOUND: &str = "
    svc shop/gate 10.96.0.50 ports=15008 waypoint=shop/gate
    pod shop/gate-0 10.244.2.50 node=n2 sa=gate backs=shop/gate
    svc shop/next 10.96.0.51 ports=15008
    pod shop/next-0 10.244.2.51 node=n2 sa=next backs=shop/next
    svc shop/web 10.96.0.1 ports=80->8080 waypoint=shop/gate
    svc shop/also 10.96.0.2 ports=81->8080 waypoint=shop/gate
    svc shop/free 10.96.0.3 ports=82->9090
    pod shop/web-0 10.244.1.20 backs=shop/web backs=shop/also backs=shop/free
    svc shop/set ports=5432 waypoint=shop/gate
    pod shop/set-0 10.244.2.21 node=n2 backs=shop/set";

#[test]
fn o8_the_waypoint_of_the_services_in_front_of_a_pod_is_used_when_the_pod_is_addressed() {
    let via = |to: &str| format!("waypoint shop/gate-0 10.244.2.50:15008 for {to}");
    check(
        BOUND,
        &[
            ("10.244.1.20:8080", &via("10.244.1.20:8080")),
            ("[::ffff:10.244.1.20]:8080", &via("10.244.1.20:8080")),
            ("10.244.2.21:5432", &via("10.244.2.21:5432")),
            // Ports to which no service with a waypoint leads.
            ("10.244.1.20:9090", "local shop/web-0 10.244.1.20:9090"),
            ("10.244.1.20:80", "local shop/web-0 10.244.1.20:80"),
            ("10.96.0.3:82", "local shop/web-0 10.244.1.20:9090 of shop/free"),
            ("10.96.0.1:80", &format!("{} of shop/web", via("10.96.0.1:80"))),
        ],
    );
    // The waypoint goes straight on; somebody else with its identity does not.
    check_as(
        &Caller::new("shop/gate-0"),
        BOUND,
        &[("10.244.2.21:5432", "hbone shop/set-0 10.244.2.21:5432")],
    );
    let posing = format!("{BOUND}\n pod shop/posing 10.244.1.70 sa=gate");
    check_as(&Caller::new("shop/posing"), &posing, &[("10.244.2.21:5432", &via("10.244.2.21:5432"))]);
    // Its own instances are no destination of it.
    check(BOUND, &[("10.244.2.50:9100", "hbone shop/gate-0 10.244.2.50:9100")]);
    // A control plane that knows nothing of it never asked for it.
    check(
        &BOUND.replace("backs=shop/set", "untold backs=shop/set"),
        &[("10.244.2.21:5432", "hbone shop/set-0 10.244.2.21:5432")],
    );
    // Behind an application tunnel every port is that of the service.
    check(
        &BOUND.replace("node=n2 backs=shop/set", "node=n2 apptunnel=9000 backs=shop/set"),
        &[("10.244.2.21:1", &via("10.244.2.21:1"))],
    );
    // What is not known here is for the destination to refuse.
    check(
        &BOUND.replace("svc shop/set ports=5432 waypoint=shop/gate", ""),
        &[("10.244.2.21:5432", "hbone shop/set-0 10.244.2.21:5432")],
    );
}

#[test]
fn o8_a_pod_behind_a_waypoint_that_is_not_there_is_refused_at_once() {
    for (what, mesh) in [
        ("not ready", BOUND.replace("sa=gate", "sa=gate unready")),
        ("without instance", BOUND.replace("sa=gate backs=shop/gate", "sa=gate")),
        ("not known", BOUND.replace("svc shop/gate 10.96.0.50 ports=15008 waypoint=shop/gate", "")),
        ("in another network", BOUND.replace("sa=gate", "sa=gate network=other gateway=shop/next")),
    ] {
        for to in ["10.244.1.20:8080", "10.244.2.21:5432"] {
            let snapshot = world(&format!("{MESH}\n{mesh}")).snapshot();
            assert_eq!(told(&Caller::new("shop/client").plan(&snapshot, to)), UNBOUND, "{to}, {what}");
        }
    }
    let gone = BOUND.replace("sa=gate", "sa=gate unready");
    check(&gone, &[("10.96.0.1:80", UNBOUND), ("10.244.1.20:9090", "local shop/web-0 10.244.1.20:9090")]);
}

#[test]
fn o8_services_with_different_waypoints_leave_no_way_by_the_address_of_the_pod() {
    let also = "ports=81->8080 waypoint=shop/gate";
    let contested = BOUND.replace(also, "ports=81->8080 waypoint=shop/next");
    check(
        &contested,
        &[
            ("10.244.1.20:8080", PAST),
            ("10.96.0.2:81", "waypoint shop/next-0 10.244.2.51:15008 for 10.96.0.2:81 of shop/also"),
        ],
    );
    for waypoint in ["shop/gate-0", "shop/next-0"] {
        let to = "hbone shop/web-0 10.244.1.20:8080";
        check_as(
            &Caller::new(waypoint),
            &contested.replace("10.244.1.20", "10.244.1.20 node=n3"),
            &[("10.244.1.20:8080", to)],
        );
    }
    // A canary that both share gets its share; one that only one has gets none.
    let canary = "waypoint=shop/gate weighted=shop/gate*50,shop/next*50";
    let web = "ports=80->8080 waypoint=shop/gate";
    let one = BOUND.replace(web, &format!("ports=80->8080 {canary}"));
    let both = one.replace(also, &format!("ports=81->8080 {canary}"));
    for (mesh, want) in [(one, &["gate"][..]), (both, &["gate", "next"][..])] {
        let snapshot = world(&format!("{MESH}\n{mesh}")).snapshot();
        let mut taken = std::collections::BTreeSet::new();
        for draw in (0..64u64).map(|draw| draw << 58 | draw) {
            let caller = Caller { draw, ..Caller::new("shop/client") };
            match caller.plan(&snapshot, "10.244.1.20:8080") {
                OutboundPlan::Waypoint(via) => taken.insert(via.workload.service_account.to_string()),
                other => panic!("{other:?}"),
            };
        }
        assert_eq!(taken.iter().map(String::as_str).collect::<Vec<_>>(), want);
    }
}

/// Neither waypoint knows the rules of the other.
#[test]
fn o8_a_workload_with_another_waypoint_than_its_services_has_no_way_by_its_address() {
    let own =
        |waypoint: &str| BOUND.replace("backs=shop/set", &format!("waypoint={waypoint} backs=shop/set"));
    let apart = own("shop/next");
    check(
        &apart,
        &[
            ("10.244.2.21:5432", PAST),
            // No service leads there.
            ("10.244.2.21:9000", "waypoint shop/next-0 10.244.2.51:15008 for 10.244.2.21:9000"),
        ],
    );
    check(
        &own("shop/gate"),
        &[("10.244.2.21:5432", "waypoint shop/gate-0 10.244.2.50:15008 for 10.244.2.21:5432")],
    );
    // One that is not there serves nothing either.
    check(&own("shop/gone"), &[("10.244.2.21:5432", PAST), ("10.244.2.21:9000", UNBOUND)]);
    // Through an application tunnel every port is that of the service.
    check(&apart.replace("node=n2 waypoint", "node=n2 apptunnel=9000 waypoint"), &[("10.244.2.21:1", PAST)]);
    // A service reached by another of its ports, and one without address, lead there all the same.
    let twice = apart.replace("svc shop/set ports=5432", "svc shop/set 10.96.0.4 ports=1->9,2->5432,3->5432");
    check(&twice, &[("10.244.2.21:5432", PAST), ("10.244.2.21:9", PAST)]);
    check(&twice, &[("10.96.0.4:3", "waypoint shop/gate-0 10.244.2.50:15008 for 10.96.0.4:3 of shop/set")]);
    // A canary of the services is none of the workload.
    let canary = "svc shop/set ports=5432 waypoint=shop/gate weighted=shop/gate*1,shop/next*99";
    for waypoint in ["gate", "next"] {
        let mesh =
            own(&format!("shop/{waypoint}")).replace("svc shop/set ports=5432 waypoint=shop/gate", canary);
        let ip = if waypoint == "gate" { "10.244.2.50" } else { "10.244.2.51" };
        for draw in [0, u64::MAX / 2, u64::MAX] {
            let caller = Caller { draw, ..Caller::new("shop/client") };
            let want = format!("waypoint shop/{waypoint}-0 {ip}:15008 for 10.244.2.21:5432");
            check_as(&caller, &mesh, &[("10.244.2.21:5432", &want)]);
        }
    }
}

/// To be an instance of one waypoint frees nobody from another.
#[test]
fn o8_an_instance_of_a_waypoint_is_a_destination_of_others() {
    let to = "10.244.2.50:9100";
    check(
        &BOUND.replace("sa=gate", "sa=gate waypoint=shop/gate"),
        &[(to, "hbone shop/gate-0 10.244.2.50:9100")],
    );
    let other = format!(
        "{}\n svc shop/metrics ports=9100 waypoint=shop/next",
        BOUND.replace("sa=gate", "sa=gate backs=shop/metrics")
    );
    check(&other, &[(to, "waypoint shop/next-0 10.244.2.51:15008 for 10.244.2.50:9100")]);
}

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

#[test]
fn of_two_claimants_of_an_address_the_pod_wins_then_hbone_whatever_the_order() {
    let pod = "pod shop/real 10.244.2.40 node=n2 plain";
    let entry = "entry shop/vm 10.244.2.40 node=n2";
    for text in [format!("{pod}\n{entry}"), format!("{entry}\n{pod}")] {
        check(&text, &[("10.244.2.40:80", "plain shop/real 10.244.2.40:80")]);
    }
    let a = "entry shop/a 10.244.2.41 plain";
    let b = "entry shop/b 10.244.2.41 node=n2";
    for text in [format!("{a}\n{b}"), format!("{b}\n{a}")] {
        check(&text, &[("10.244.2.41:80", "hbone shop/b 10.244.2.41:80")]);
    }
    check(
        &format!("{a}\n{b}\n-address Kubernetes/WorkloadEntry/shop/b"),
        // Removals of a batch go first: the removal finds nothing, and b stays.
        &[("10.244.2.41:80", "hbone shop/b 10.244.2.41:80")],
    );
}

#[test]
fn a_pod_that_ends_does_not_keep_its_address_from_the_one_that_has_it_now() {
    let both = |one: &str, other: &str| [format!("{one}\n{other}"), format!("{other}\n{one}")];
    let ends = "pod shop/a-ends 10.244.2.42 node=n2 unready";
    for text in both(ends, "pod shop/b-has 10.244.2.42 node=n2 plain") {
        check(&text, &[("10.244.2.42:80", "plain shop/b-has 10.244.2.42:80")]);
    }
    // While neither is ready, the one that speaks HBONE.
    for text in both(ends, "pod shop/0-starts 10.244.2.42 node=n2 plain unready") {
        check(&text, &[("10.244.2.42:80", "hbone shop/a-ends 10.244.2.42:80")]);
    }
    // Health makes no pod of what is none, and decides nothing among these.
    for text in both(ends, "entry shop/vm 10.244.2.42 plain") {
        check(&text, &[("10.244.2.42:80", "hbone shop/a-ends 10.244.2.42:80")]);
    }
    for text in both("entry shop/a 10.244.2.43 node=n2 unready", "entry shop/b 10.244.2.43 plain") {
        check(&text, &[("10.244.2.43:80", "hbone shop/a 10.244.2.43:80")]);
    }
}

#[test]
fn no_service_takes_over_the_address_of_a_pod_and_no_range_that_of_any_workload() {
    // T-50: only names that a namespace owns.
    let thief = "svc evil/trap.example 10.244.2.7 ports=80
         svc shop/all.example range=10.0.0.0/8 ports=80
         pod evil/trap 10.244.2.99 node=n2 backs=evil/trap.example backs=shop/all.example";
    check(thief, &[("10.244.2.7:80", "hbone shop/far 10.244.2.7:80")]);
    // A record that is no pod may share its address with a service that fronts it.
    check(
        "svc shop/vm.example 10.5.0.1 ports=80->8080
         entry shop/vm 10.5.0.1 plain backs=shop/vm.example",
        &[("10.5.0.1:80", "plain shop/vm 10.5.0.1:8080 of shop/vm.example")],
    );
    // And if the service has nothing to offer, the record itself is reached, not passed by in plaintext.
    check(
        "svc shop/vm.example 10.5.0.1 ports=81
         entry shop/vm 10.5.0.1 node=n2",
        &[("10.5.0.1:80", "hbone shop/vm 10.5.0.1:80")],
    );
}

#[test]
fn services_that_share_an_address_are_kept_apart() {
    let client_side = |rows: &str| format!("pod jobs/other 10.244.1.6\n{rows}");
    let shared = "svc jobs/a.example 10.7.0.1 ports=80
         svc shop/b.example 10.7.0.1 ports=80
         svc data/c.example 10.7.0.1 ports=80 canonical
         pod jobs/a 10.244.2.1 node=n2 backs=jobs/a.example
         pod shop/b 10.244.2.2 node=n2 backs=shop/b.example
         pod data/c 10.244.2.3 node=n2 backs=data/c.example";
    check(&client_side(shared), &[("10.7.0.1:80", "hbone shop/b 10.244.2.2:80 of shop/b.example")]);
    check_as(
        &Caller::new("jobs/other"),
        &client_side(shared),
        &[("10.7.0.1:80", "hbone jobs/a 10.244.2.1:80 of jobs/a.example")],
    );
    let stranger = client_side(&format!("{shared}\npod misc/x 10.244.1.7"));
    check_as(
        &Caller::new("misc/x"),
        &stranger,
        &[("10.7.0.1:80", "hbone data/c 10.244.2.3:80 of data/c.example")],
    );
    let without_canonical = stranger.replace(" canonical", "");
    check_as(
        &Caller::new("misc/x"),
        &without_canonical,
        &[("10.7.0.1:80", "hbone data/c 10.244.2.3:80 of data/c.example")],
    );
    check_as(
        &Caller::new("misc/x"),
        &without_canonical
            .replace("data/c.example 10.7.0.1 ports=80", "data/c.example 10.7.0.1 ports=80 private"),
        &[("10.7.0.1:80", "hbone jobs/a 10.244.2.1:80 of jobs/a.example")],
    );
}

fn texts(identities: &[ambit_types::Identity]) -> Vec<String> {
    identities.iter().map(ToString::to_string).collect()
}
