//! Node identities as written and as read from callers.

use super::*;

fn identity() -> NodeIdentity {
    NodeIdentity {
        ip: "10.0.0.1".parse().unwrap(),
        pod_name: "ztunnel-x.y".into(),
        namespace: "istio-system".into(),
        node_name: "n1".into(),
        metadata: [("CLUSTER_ID".to_owned(), text("c1")), ("NAME".to_owned(), text("overridden"))].into(),
    }
}

#[test]
fn what_is_stated_is_read() {
    let caller = Caller::decode(Some(&identity().encode())).unwrap();
    assert_eq!(
        caller,
        Caller {
            kind: "ztunnel".into(),
            ips: vec!["10.0.0.1".parse().unwrap()],
            pod_name: "ztunnel-x.y".into(),
            namespace: "istio-system".into(),
            node_name: "n1".into(),
            service_account: None,
            cluster_id: Some("c1".into()),
            gateway: None,
        }
    );
}

#[test]
fn a_waypoint_says_which_gateway_it_belongs_to() {
    let node = identity().encode_as_waypoint("wp");
    assert_eq!(node.id, "waypoint~10.0.0.1~ztunnel-x.y.istio-system~istio-system.svc.cluster.local");
    let caller = Caller::decode(Some(&node)).unwrap();
    assert_eq!(caller.waypoint(), Some(WaypointKey::new("istio-system", "wp")));
    for name in ["", "other/wp"] {
        let caller = Caller::decode(Some(&identity().encode_as_waypoint(name))).unwrap();
        assert_eq!(caller.waypoint(), None, "{name:?} is no name");
    }
    let mut node = identity();
    node.metadata.insert(GATEWAY_NAME.to_owned(), text("wp"));
    assert_eq!(Caller::decode(Some(&node.encode())).unwrap().waypoint(), None, "a ztunnel is no waypoint");
}

#[test]
fn ids_that_break_a_rule_are_refused() {
    let rows = [
        ("", "node id \"\" has 1 parts"),
        ("ztunnel~10.0.0.1~p.n", "node id \"ztunnel~10.0.0.1~p.n\" has 3 parts"),
        ("ztunnel~10.0.0.1~p.n~d~e", "node id \"ztunnel~10.0.0.1~p.n~d~e\" has 5 parts"),
        ("proxy~10.0.0.1~p.n~d", "node kind \"proxy\" is none of"),
        ("ztunnel~nowhere~p.n~d", "node id \"ztunnel~nowhere~p.n~d\" has no valid address"),
    ];
    for (id, want) in rows {
        let node = Node { id: id.to_owned(), ..Node::default() };
        let error = Caller::decode(Some(&node)).unwrap_err().to_string();
        assert!(error.starts_with(want), "{id:?}: {error}");
    }
    assert_eq!(Caller::decode(None), Err(NodeError::Absent));
    let long = Node { id: "z".repeat(3000), ..Node::default() };
    assert_eq!(Caller::decode(Some(&long)), Err(NodeError::TooLong { bytes: 3000 }));
}

#[test]
fn addresses_of_the_metadata_count_before_that_of_the_id() {
    let with = |ips: &str| {
        let fields = [("INSTANCE_IPS".to_owned(), text(ips))].into();
        let id = "ztunnel~1.1.1.1~p.n~d".to_owned();
        Caller::decode(Some(&Node { id, metadata: Some(Struct { fields }), ..Node::default() })).unwrap().ips
    };
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    assert_eq!(with("10.0.0.1, fd00::1"), [ip("10.0.0.1"), ip("fd00::1")]);
    assert_eq!(with("nonsense"), [ip("1.1.1.1")]);
}

#[test]
fn a_namespace_that_contradicts_the_id_is_refused() {
    let mut node = identity().encode();
    node.metadata.as_mut().unwrap().fields.insert("NAMESPACE".into(), text("other"));
    let error = Caller::decode(Some(&node)).unwrap_err().to_string();
    assert_eq!(error, "the node id says namespace \"istio-system\", its metadata NAMESPACE says \"other\"");
}

#[test]
fn a_field_that_is_longer_than_it_can_be_is_refused_and_not_repeated() {
    let mut node = identity().encode();
    node.metadata.as_mut().unwrap().fields.insert("NODE_NAME".into(), text("n".repeat(3000)));
    let error = Caller::decode(Some(&node)).unwrap_err().to_string();
    assert_eq!(error, "metadata NODE_NAME of 3000 bytes is longer than 2048");
}
