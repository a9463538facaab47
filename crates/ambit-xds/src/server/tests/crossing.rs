//! Requests that cross a response on its way, and subscriptions that come late.

use super::*;
use crate::parts::is_last;

#[test]
fn what_is_unsubscribed_while_it_is_on_its_way_is_taken_back_and_comes_whole_again() {
    let mut rig = on_demand();
    let response = rig.send(names(&["s-1"], &[]));
    assert_eq!(rig.send(names(&[], &["s-1"])), None);
    // The client may have let go of it before it came.
    let taken_back = [
        "Address +ns/s.example +ns/wp.example +s-1 +wp-1",
        "Address -ns/s.example -ns/wp.example -s-1 -wp-1",
    ];
    assert_eq!(rig.settle(response), taken_back);
    let response = rig.send(names(&["s-1"], &[]));
    assert_eq!(rig.settle(response), ["Address +ns/s.example +ns/wp.example +s-1 +wp-1"]);
}

#[test]
fn what_is_unsubscribed_on_its_way_and_needed_all_the_same_is_sent_again() {
    let mut rig = on_demand();
    let response = rig.send(names(&["own"], &[]));
    assert_eq!(rig.send(names(&[], &["own"])), None);
    assert_eq!(rig.settle(response), ["Address +own", "Address +own"], "it is on the client's node");
}

#[test]
fn what_is_subscribed_again_at_once_comes_whole_again() {
    let mut rig = on_demand();
    let response = rig.send(names(&["ns/s.example"], &[]));
    let all = ["ns/s.example", "s-1", "s-2"];
    assert_eq!(rig.send(names(&[], &all)), None);
    assert_eq!(rig.send(names(&["ns/s.example"], &[])), None);
    let whole = "Address +ns/s.example +ns/wp.example +s-1 +s-2 +wp-1";
    assert_eq!(rig.settle(response), [whole, "Address +ns/s.example +s-1 +s-2"]);
}

#[test]
fn everything_can_be_let_go_also_while_it_is_on_its_way() {
    for is_on_its_way in [false, true] {
        let mut rig = Rig::new(mesh());
        rig.subscribe(&[]);
        let change = Delta { addresses: vec![workload("new", &[])], ..Delta::default() };
        let change = rig.publish(2, change);
        if !is_on_its_way {
            assert_eq!(rig.settle(change.clone()), ["Address +new"]);
        }
        let mut came = rig.send(names(&[], &[WILDCARD]));
        if is_on_its_way {
            assert_eq!(came, None);
            came = rig.acknowledge(&change.unwrap(), "");
        }
        let own = "Address +ns/other.example +own -new -ns/s.example -ns/wp.example -o-1 -s-1 -s-2 -wp-1";
        assert_eq!(rig.settle(came), [own], "but one's own node, and what is in front of it");
        let response = rig.publish(3, Delta { removed_addresses: vec!["s-2".into()], ..Delta::default() });
        assert_eq!(response, None);
        let response = rig.send(names(&["s-1"], &[]));
        assert_eq!(rig.settle(response), ["Address +ns/s.example +ns/wp.example +s-1 +wp-1"]);
        let response = rig.send(names(&[WILDCARD], &[]));
        assert_eq!(rig.settle(response), ["Address +new +o-1"], "and asked for again");
    }
}

#[test]
fn what_is_not_sent_yet_of_everything_goes_with_it() {
    let addresses = (0..100).map(|number| workload(&format!("w{number:03}"), &[])).collect();
    let mut rig = Rig::new(Delta { addresses, ..Delta::default() });
    rig.stream.limits.response_bytes_max = 2000;
    rig.stream.takes_parts = true;
    rig.send(first(Kind::Address, BTreeMap::new()));
    let policies = rig.send(first(Kind::Authorization, BTreeMap::new())).unwrap();
    let first_part = rig.acknowledge(&policies, "").unwrap();
    assert!(!is_last(&first_part));
    assert_eq!(rig.send(names(&[], &[WILDCARD])), None);
    let rest = rig.acknowledge(&first_part, "");
    let came = rig.settle(rest);
    assert!(came.iter().all(|one| !one.contains('+')), "{came:?}");
}

#[test]
fn who_has_everything_and_lets_go_of_a_name_is_told_of_it_again() {
    let mut rig = Rig::new(some());
    rig.subscribe(&[]);
    for (name, want) in [("w", "Address +w"), ("nobody", "Address -nobody")] {
        let response = rig.send(names(&[], &[name]));
        assert_eq!(rig.settle(response), [want]);
    }
    // And what is still to be sent of it is sent.
    let addresses = (0..100).map(|number| workload(&format!("w{number:03}"), &[])).collect();
    let mut rig = Rig::new(Delta { addresses, ..Delta::default() });
    rig.stream.limits.response_bytes_max = 2000;
    rig.stream.takes_parts = true;
    rig.send(first(Kind::Address, BTreeMap::new()));
    let policies = rig.send(first(Kind::Authorization, BTreeMap::new())).unwrap();
    let first_part = rig.acknowledge(&policies, "").unwrap();
    assert_eq!(rig.send(names(&[], &["w099"])), None);
    let rest = rig.acknowledge(&first_part, "");
    let came = rig.settle(rest);
    assert_eq!(came.last().unwrap(), "Address +w099", "told again");
    assert!(came[..came.len() - 1].iter().any(|one| one.ends_with("+w099")), "{came:?}");
}

#[test]
fn the_first_answer_to_a_late_subscription_says_what_there_is() {
    let mut rig = Rig::new(some());
    rig.send(first(Kind::Address, BTreeMap::new()));
    rig.now = rig.stream.next_deadline().unwrap();
    let addresses = rig.stream.handle_timeout(rig.now).unwrap();
    let held = BTreeMap::from([("ns/gone".to_owned(), "1".to_owned())]);
    assert_eq!(rig.send(first(Kind::Authorization, held)), None, "in the middle of a cycle");
    let came = rig.settle(addresses);
    assert_eq!(came, ["Address +ns/s.example +w", "Authorization +ns/p", "Authorization -ns/gone"]);
    assert_eq!(rig.stream.acked_revision(), Some(1));
}
