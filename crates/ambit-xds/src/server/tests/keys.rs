//! Clients that ask by key: what comes with a service or a workload, and what is kept up to date.

use super::*;

#[test]
fn a_service_comes_with_its_endpoints_and_its_waypoint() {
    for key in ["net/10.96.0.1", "ns/s.example"] {
        let mut rig = on_demand();
        let response = rig.send(names(&[key], &[]));
        let service = &response.as_ref().unwrap().resources[0];
        assert_eq!(service.aliases, ["net/10.96.0.1"], "the client finds its key among the aliases");
        let came = rig.settle(response);
        assert_eq!(came, ["Address +ns/s.example +ns/wp.example +s-1 +s-2 +wp-1"], "by {key}");
    }
}

#[test]
fn a_key_with_nothing_behind_it_is_answered_and_watched() {
    let mut rig = on_demand();
    let response = rig.send(names(&["net/10.1.0.9"], &[]));
    assert_eq!(rig.settle(response), ["Address -net/10.1.0.9"]);
    let mut pod = Workload::new("late", "ns", "late");
    pod.network = "net".into();
    pod.addresses = vec!["10.1.0.9".parse().unwrap()];
    let response = rig.publish(2, Delta { addresses: vec![pod.into()], ..Delta::default() });
    assert_eq!(rig.settle(response), ["Address +late"]);
}

#[test]
fn a_key_is_answered_even_if_its_resource_is_held() {
    let mut rig = on_demand();
    for key in ["net/10.1.0.5", "own", "own"] {
        let response = rig.send(names(&[key], &[]));
        assert_eq!(rig.settle(response), ["Address +own"], "{key}");
    }
}

#[test]
fn a_workload_comes_with_what_says_whether_it_is_behind_a_waypoint() {
    let mut rig = on_demand();
    let response = rig.send(names(&["net/10.1.0.1"], &[]));
    let came = ["Address +ns/s.example +ns/wp.example +s-1 +wp-1"];
    assert_eq!(rig.settle(response), came, "and not with the other endpoints of its service");
    // Who asks for the service itself needs them all.
    let response = rig.send(names(&["net/10.96.0.1"], &[]));
    assert_eq!(rig.settle(response), ["Address +ns/s.example +s-2"]);
}

#[test]
fn only_what_is_subscribed_is_kept_up_to_date() {
    let mut rig = on_demand();
    let response = rig.send(names(&["s-1"], &[]));
    assert_eq!(rig.settle(response), ["Address +ns/s.example +ns/wp.example +s-1 +wp-1"]);
    let touch = |name: &str| {
        let mut delta = mesh();
        delta.addresses.retain(|address| address.name() == name);
        let Address::Workload(pod) = &mut delta.addresses[0] else { panic!("a workload") };
        Arc::make_mut(pod).capacity = 7;
        delta
    };
    assert_eq!(rig.publish(2, touch("s-2")), None);
    let response = rig.publish(3, touch("s-1"));
    assert_eq!(rig.settle(response), ["Address +s-1"]);
    let response = rig.send(names(&[], &["s-1"]));
    assert_eq!(rig.settle(response), ["Address -ns/s.example -ns/wp.example -wp-1"]);
    assert_eq!(rig.publish(4, Delta { removed_addresses: vec!["s-1".into()], ..Delta::default() }), None);
    let response = rig.publish(5, Delta { removed_addresses: vec!["own".into()], ..Delta::default() });
    assert_eq!(rig.settle(response), ["Address -ns/other.example -own"]);
}

#[test]
fn an_on_demand_client_that_comes_back_keeps_what_it_held() {
    let mut rig = Rig::new(mesh());
    let version = rig.resources.version(Kind::Address, "s-2").unwrap().to_owned();
    let mut request = names(&[WILDCARD], &[WILDCARD]);
    request.initial_resource_versions =
        [("s-1", "old"), ("s-2", &version), ("gone", "1")].map(|(n, v)| (n.to_owned(), v.to_owned())).into();
    rig.send(request);
    let response = rig.send(first(Kind::Authorization, BTreeMap::new()));
    assert_eq!(
        rig.settle(response),
        ["Authorization", "Address +ns/other.example +ns/s.example +ns/wp.example +own +s-1 +wp-1 -gone"]
    );
}

#[test]
fn keys_of_one_stream_are_bounded() {
    let mut rig = on_demand();
    rig.stream.limits.names_max = 2;
    rig.send(names(&["a", "b"], &[]));
    let error = rig.stream.handle_request(names(&["c"], &[]), rig.now);
    assert_eq!(error, Err(StreamError::TooManyNames { max: 2, bytes_max: 8 << 20 }));
}
