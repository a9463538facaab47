//! Which waypoints a service is bound to, and which of them serve it.

use super::{Case, key, named};

/// The waypoints of `shop/web`, as `WAYPOINT` or `WAYPOINT SHARE, …`, and which of them have its routes.
fn bound(case: Case) -> (String, String) {
    let index = case.index();
    let service = &index.services()[&key("web")];
    let weighted = service.weighted_waypoints.iter();
    let weighted: Vec<String> = weighted.map(|w| format!("{} {}", named(&w.destination), w.weight)).collect();
    let told = match weighted.is_empty() {
        true => service.waypoint.as_ref().map(named).unwrap_or_default(),
        false => weighted.join(", "),
    };
    let having = index.waypoints().iter().filter(|(_, resources)| !resources.frontends.is_empty());
    let having: Vec<&str> = having.map(|(name, _)| &*name.name).collect();
    (told, having.join(" "))
}

#[test]
fn a_service_is_bound_to_the_waypoint_it_asks_for_whatever_its_state() {
    let none = Case::default();
    let wp = "istio.io/use-waypoint: wp";
    let canary = "istio.io/use-waypoint: wp, istio.io/use-waypoint-canary: next";
    let tenth = "istio.io/use-waypoint-canary-weight: '10'";
    let rows = [
        ("nobody asks", none, ("", "")),
        ("its own label", Case { labels: wp, ..none }, ("shop/wp.shop", "wp")),
        ("its namespace's label", Case { of_namespace: wp, ..none }, ("shop/wp.shop", "wp")),
        (
            "its own label stands before",
            Case { labels: "istio.io/use-waypoint: next", of_namespace: wp, ..none },
            ("shop/next.shop", "next"),
        ),
        ("it opts out", Case { labels: "istio.io/use-waypoint: none", of_namespace: wp, ..none }, ("", "")),
        (
            "a waypoint that is not there stays",
            Case { labels: "istio.io/use-waypoint: gone", ..none },
            ("shop/gone.shop", ""),
        ),
        (
            "one of another namespace that is not there stays",
            Case { of_namespace: "istio.io/use-waypoint: wp, istio.io/use-waypoint-namespace: mesh", ..none },
            ("mesh/wp.mesh", ""),
        ),
        (
            "its own label for a waypoint of workloads stays, and is not served",
            Case { labels: wp, of_gateway: "istio.io/waypoint-for: workload", ..none },
            ("shop/wp.shop", ""),
        ),
        (
            "a namespace's waypoint of workloads is not for services",
            Case { of_namespace: wp, of_gateway: "istio.io/waypoint-for: workload", ..none },
            ("", ""),
        ),
        (
            "one for all is",
            Case { of_namespace: wp, of_gateway: "istio.io/waypoint-for: all", ..none },
            ("shop/wp.shop", "wp"),
        ),
        (
            "a canary takes its share",
            Case { labels: canary, annotations: tenth, ..none },
            ("shop/wp.shop 90, shop/next.shop 10", "next wp"),
        ),
        (
            "a canary of the namespace",
            Case { of_namespace: "istio.io/use-waypoint: wp, istio.io/use-waypoint-canary: next", ..none },
            ("shop/wp.shop", "wp"),
        ),
        (
            "a canary that is not there is left out",
            Case {
                labels: "istio.io/use-waypoint: wp, istio.io/use-waypoint-canary: gone",
                annotations: tenth,
                ..none
            },
            ("shop/wp.shop", "wp"),
        ),
    ];
    for (what, case, (told, having)) in rows {
        assert_eq!(bound(case), (told.to_owned(), having.to_owned()), "{what}");
    }
}
