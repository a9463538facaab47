//! How the mesh's programs are started, and how targets are named.

use super::*;
use crate::address::{Families, NodeIndex};

#[test]
fn targets_read_as_they_are_written() {
    for good in [
        "istiod",
        "ztunnel/node1",
        "cni/n-2",
        "pod/shop/web-0",
        "waypoint/shop/wp",
        "istiod/2",
        "apiserver",
        "etcd",
        "controller-manager",
    ] {
        assert_eq!(good.parse::<Target>().expect(good).to_string(), good);
    }
    for bad in
        ["", "ztunnel", "ztunnel/", "istiod/x", "istiod/0", "kube", "pod/web", "node/node1", "pod/a/b/c"]
    {
        assert!(bad.parse::<Target>().is_err(), "row {bad}");
    }
}

#[test]
fn ipv6_labs_reach_the_control_plane_by_ipv6() {
    let config = LabConfig { families: Families::Ipv6, ..LabConfig::default() };
    let run = RunDir::of(&"la-1".parse().expect("a good name"));
    let node = Node { name: "node1".to_owned(), index: NodeIndex::nth(0).expect("in range") };
    let env: BTreeMap<String, String> = ztunnel(&config, &run, &node, 3).env.into_iter().collect();
    assert_eq!(env["XDS_ADDRESS"], "https://[fd00:172:30::254]:15012");
    assert_eq!(env["INSTANCE_IP"], "fd00:172:30::1");
    assert_eq!(env["AMBIT_ADMIN_SOCKET"], "/run/ambit/la-1/nodes/node1/ztunnel-admin-3.sock");
    assert!(istiod(&config, &run).args.contains(&"[fd00:172:30::254]:15012".to_owned()));
}

#[test]
fn settings_win_over_defaults() {
    let mut config = LabConfig::default();
    for set in ["ztunnel.CLUSTER_ID=c2", "istiod.leaf-ttl=20s", "istiod.trust-domain=x"] {
        config.set(set).expect(set);
    }
    let run = RunDir::of(&"la-1".parse().expect("a good name"));
    let node = Node { name: "node1".to_owned(), index: NodeIndex::nth(0).expect("in range") };
    let env = ztunnel(&config, &run, &node, 1).env;
    assert_eq!(
        env.iter().filter(|(k, _)| k == "CLUSTER_ID").map(|(_, v)| v.as_str()).collect::<Vec<_>>(),
        ["c2"]
    );
    let args = istiod(&config, &run).args.join(" ");
    assert!(args.contains("--leaf-ttl 20s") && args.contains("--trust-domain x"), "{args}");
}

#[test]
fn waypoints_find_control_plane_token_and_socket_by_their_pod() {
    let mut config = LabConfig::default();
    for set in ["waypoint.RUST_LOG=debug", "waypoint.TERMINATION_GRACE_PERIOD_SECONDS=7"] {
        config.set(set).expect(set);
    }
    let run = RunDir::of(&"la-1".parse().expect("a good name"));
    let Program { path, env, grace_seconds } = waypoint(&config, &run, Path::new("/opt/ambit"));
    let count = env.len();
    let env: BTreeMap<String, String> = env.into_iter().collect();
    assert_eq!(env.len(), count, "a variable is there twice");
    assert_eq!((&*path, grace_seconds), ("/opt/ambit/waypoint", 7));
    assert_eq!(env["XDS_ADDRESS"], "https://172.30.0.254:15012");
    assert_eq!(env["CA_ROOT_CA"], "/run/ambit/la-1/istiod/root-cert.pem");
    let pod = "/run/ambit/la-1/pods/$(POD_UID)";
    assert_eq!(env["AUTH_TOKEN"], format!("{pod}/volumes/istio-token/istio-token"));
    assert_eq!(env["AMBIT_ADMIN_SOCKET"], format!("{pod}/admin.sock"));
    let own = "172.30.0.0/24,fd00:172:30::/64,10.244.0.0/16,fd00:10:244::/48,10.96.0.0/16,fd00:10:96::/112";
    assert_eq!(env["AMBIT_BLOCKED_CIDRS_IN_JWKS_URIS"], own);
    assert_eq!((&*env["RUST_LOG"], &*env["TERMINATION_GRACE_PERIOD_SECONDS"]), ("debug", "7"));
}
