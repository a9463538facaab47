//! Discovery on demand: a node knows of others only what its pods ask for, and never sends plaintext for not knowing.

use std::time::Duration;

use ambit_tests::lab::{Lab, all_completed, wait_until};

use crate::cast::{PORT, namespace, pod, server, service};

#[test]
fn pods_of_other_nodes_are_reached_through_tunnels_though_nobody_told_of_them_before() {
    // G44, G48.
    let cast = [
        namespace("shop", true),
        namespace("plain", false),
        pod("shop/caller", "node1", &[]),
        server("shop/echo", "node2"),
        server("shop/late", "node2"),
        server("plain/echo", "node2"),
        service("shop/echo", "echo", 80, PORT),
    ];
    let Some(lab) = Lab::up("demand", &cast, &["ztunnel.XDS_ON_DEMAND=true"]) else { return };
    let paths = |pod: &str| -> Vec<String> {
        let flows = lab.flows(&["--to-pod", pod]);
        let paths = flows.iter().filter_map(|flow| flow["path"].as_str().map(str::to_owned));
        paths.filter(|path| path != "probe").collect()
    };
    for target in [lab.target("shop/echo", 4, PORT), "echo.shop:80".to_owned()] {
        assert_eq!(all_completed(&lab.call("shop/caller", &target, &["--connections", "5"])), 5, "{target}");
        wait_until("both ends have their records", Duration::from_secs(5), || paths("shop/echo").len() >= 10);
        assert!(paths("shop/echo").iter().all(|path| path == "hbone"), "{:?}", paths("shop/echo"));
    }
    // What is in no mesh is reached as it is, once the control plane has said so.
    let outside = lab.target("plain/echo", 4, PORT);
    assert_eq!(all_completed(&lab.call("shop/caller", &outside, &["--connections", "5"])), 5);
    let _ = lab.lab(&["stop", "istiod"]);
    // What was asked for before goes on; what was not is refused, and not after a minute.
    let target = lab.target("shop/echo", 4, PORT);
    assert_eq!(all_completed(&lab.call("shop/caller", &target, &["--connections", "5"])), 5);
    let late = lab.target("shop/late", 4, PORT);
    let refused = lab.call("shop/caller", &late, &["--connections", "1"]);
    assert_eq!(refused["ok"], false, "{refused:#}");
    wait_until("the refusal is recorded", Duration::from_secs(10), || {
        lab.flows(&["--code", "AMB6001"]).iter().any(|flow| flow["dst"]["addr"] == late)
    });
}
