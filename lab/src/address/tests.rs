//! Addresses of nodes, pods and services.

use super::*;

#[test]
fn addresses_follow_the_node_number() {
    let rows = [
        (1, "10.244.1.0/24,fd00:10:244:1::/64", "10.244.1.1,fd00:10:244:1::1", "172.30.0.1,fd00:172:30::1"),
        (
            12,
            "10.244.12.0/24,fd00:10:244:12::/64",
            "10.244.12.1,fd00:10:244:12::1",
            "172.30.0.12,fd00:172:30::12",
        ),
        (
            250,
            "10.244.250.0/24,fd00:10:244:250::/64",
            "10.244.250.1,fd00:10:244:250::1",
            "172.30.0.250,fd00:172:30::250",
        ),
    ];
    for (number, cidrs, gateways, fabric) in rows {
        let node = NodeIndex::nth(number - 1).expect("within the range");
        assert_eq!(joined(&node.pod_cidrs(Families::Dual)), cidrs, "row {number}");
        assert_eq!(joined(&node.gateways(Families::Dual)), gateways, "row {number}");
        assert_eq!(joined(&node.fabric(Families::Dual)), fabric, "row {number}");
    }
    assert_eq!(NodeIndex::nth(NODES_MAX), None);
}

#[test]
fn one_family_means_one_family() {
    let node = NodeIndex::nth(0).expect("within the range");
    assert_eq!(joined(&node.all(Families::Ipv6)), "fd00:172:30::1,fd00:10:244:1::1");
    assert_eq!(joined(&node.all(Families::Ipv4)), "172.30.0.1,10.244.1.1");
    assert_eq!(joined(&node.proxy(Families::Dual)), "10.244.1.254,fd00:10:244:1::254");
    assert!(node.proxy(Families::Dual).iter().all(|own| !node.all(Families::Dual).contains(own)));
    assert_eq!(joined(&dns(Families::Ipv6)), "fd00:10:96::a");
    assert_eq!(joined(&service_cidrs(Families::Dual)), "10.96.0.0/16,fd00:10:96::/112");
}

fn joined<T: ToString>(all: &[T]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
