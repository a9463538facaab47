//! Who gets a place, and who does not.

use super::*;

fn from(address: &str) -> Option<IpAddr> {
    Some(address.parse().unwrap())
}

#[test]
fn there_are_so_many_places_in_all_and_for_each_caller() {
    let places = Places::new(4, 2);
    let mut held = Vec::new();
    let rows = [
        (from("10.0.0.1"), None),
        (from("::ffff:10.0.0.1"), None),
        (from("10.0.0.1"), Some(Crowded::Each(2))),
        (None, None),
        (from("2001:db8::1"), None),
        (None, Some(Crowded::All(4))),
        (from("10.0.0.2"), Some(Crowded::All(4))),
    ];
    for (row, (peer, refused)) in rows.into_iter().enumerate() {
        let taken = places.take(peer);
        assert_eq!(taken.as_ref().err(), refused.as_ref(), "row {row}");
        held.extend(taken);
    }
}

#[test]
fn a_machine_is_one_caller_whichever_address_of_its_network_it_uses() {
    let places = Places::new(9, 1);
    let _one = places.take(from("2001:db8::1")).unwrap();
    assert_eq!(places.take(from("2001:db8::2:1")).err(), Some(Crowded::Each(1)));
    assert!(places.take(from("2001:db8:0:1::1")).is_ok());
}

#[test]
fn a_place_is_given_back_and_nothing_of_its_caller_stays() {
    let places = Places::new(2, 1);
    for octet in 0..=255 {
        let held = places.take(Some(IpAddr::from([10, 0, 0, octet]))).unwrap();
        assert_eq!(places.inner.taken().len(), 1);
        drop(held);
        assert!(places.inner.taken().is_empty());
    }
}
