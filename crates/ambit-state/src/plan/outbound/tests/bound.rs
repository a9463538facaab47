//! A pod behind a waypoint that is addressed by its own address: what its services ask for is not gone past.

use super::{MESH, UNBOUND, check, check_as};
use crate::OutboundPlan;
use crate::testing::{Caller, told, world};

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
