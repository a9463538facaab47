//! Through a waypoint that a service or workload asks for, and through the gateway of another network.

use super::{MESH, NO_ENDPOINT, UNBOUND, check, check_as, texts};
use crate::OutboundPlan;
use crate::testing::{Caller, told, world};

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
