//! Settings and declared nodes, known or refused.

use super::*;

#[test]
fn settings_are_known_or_refused_with_the_list() {
    let mut config = LabConfig::default();
    for good in [
        "ip_families=ipv6",
        "leaf_ttl=20s",
        "ztunnel.SAME_NODE=hbone",
        "waypoint.RUST_LOG=debug",
        "tcp_congestion=cubic",
        "cni.x=a=b",
    ] {
        config.set(good).expect(good);
    }
    assert_eq!(config.families, Families::Ipv6);
    assert_eq!(config.istiod["leaf-ttl"], "20s");
    assert_eq!(config.ztunnel["SAME_NODE"], "hbone");
    assert_eq!(config.waypoint["RUST_LOG"], "debug");
    assert_eq!(config.cni["x"], "a=b");
    for bad in ["ip_families", "ip_families=v5", "colour=red", "ztunnel.=1", "waypoint.=1", "other.x=1"] {
        assert_eq!(config.set(bad).expect_err(bad).exit_code(), 64, "row {bad}");
    }
}

#[test]
fn nodes_are_declared_or_counted() {
    let names = |declared: &[&str], count| {
        let mut config = LabConfig::default();
        let declared = declared.iter().map(|n| (*n).to_owned()).collect();
        config.name_nodes(declared, count).map(|()| config.nodes.join(",")).map_err(|e| e.exit_code())
    };
    assert_eq!(names(&[], None).as_deref(), Ok("node1,node2"));
    assert_eq!(names(&[], Some(1)).as_deref(), Ok("node1"));
    assert_eq!(names(&["a", "b"], None).as_deref(), Ok("a,b"));
    assert_eq!(names(&["a", "b"], Some(3)), Err(64));
    assert_eq!(names(&[], Some(0)), Err(64));
    assert_eq!(names(&[], Some(251)), Err(64));
}
