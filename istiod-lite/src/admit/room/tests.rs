//! Who waits for whom.

use std::net::IpAddr;
use std::sync::Arc;

use futures_util::FutureExt as _;

use super::{BODY_BYTES_MIN, Place, Room};

const MIB: usize = 1 << 20;

fn address(last: u8) -> Option<IpAddr> {
    Some(IpAddr::from([10, 244, 1, last]))
}

fn reserves(place: &mut Place, bytes: usize) -> bool {
    place.reserve(bytes).now_or_never().is_some()
}

fn takes(place: &mut Place, bytes: usize) -> bool {
    place.take(bytes).now_or_never().is_some()
}

fn has_turn(place: &mut Place) -> bool {
    place.turn().now_or_never().is_some()
}

fn left(room: &Room) -> usize {
    room.whole.bytes.available_permits()
}

#[test]
fn who_announces_much_and_sends_nothing_keeps_only_itself_waiting() {
    let room = Room::divided(12 * MIB, 1, 3 * MIB);
    let mut idle: Vec<Place> = (0..20).map(|_| room.enter(address(1))).collect();
    let reserved = idle.iter_mut().map(|place| reserves(place, 3 * MIB));
    assert_eq!(reserved.filter(|is_reserved| *is_reserved).count(), 1, "one whole body an address");
    assert_eq!(left(&room), 12 * MIB, "nothing arrived, so nothing is taken");
    let mut other = room.enter(address(2));
    assert!(reserves(&mut other, 3 * MIB) && takes(&mut other, 3 * MIB) && has_turn(&mut other));
    drop(idle);
    assert!(reserves(&mut room.enter(address(1)), 3 * MIB));
}

#[test]
fn what_arrived_is_held_until_it_is_judged_and_counts_for_something_however_small() {
    let room = Room::divided(12 * MIB, 1, 3 * MIB);
    let mut place = room.enter(address(1));
    assert!(reserves(&mut place, 10_000));
    for (bytes, taken) in [(1, BODY_BYTES_MIN), (BODY_BYTES_MIN - 1, BODY_BYTES_MIN), (5_904, 10_000)] {
        assert!(takes(&mut place, bytes));
        assert_eq!(left(&room), 12 * MIB - taken, "after {bytes} more");
    }
    drop(place);
    assert_eq!(left(&room), 12 * MIB);
}

#[test]
fn a_full_room_makes_everybody_wait_and_no_address_fills_it_alone() {
    let room = Room::divided(6 * MIB, 1, 3 * MIB);
    let mut full: Vec<Place> = (1..=2).map(|last| room.enter(address(last))).collect();
    assert!(full.iter_mut().all(|place| reserves(place, 3 * MIB) && takes(place, 3 * MIB)));
    let mut third = room.enter(address(3));
    assert!(reserves(&mut third, 1) && !takes(&mut third, 1));
    drop(third);
    drop(full.pop());
    let mut third = room.enter(address(3));
    assert!(reserves(&mut third, 1) && takes(&mut third, 1));
}

#[test]
fn an_address_has_one_turn_at_a_time() {
    let room = Room::divided(12 * MIB, 2, 3 * MIB);
    let mut first = room.enter(address(1));
    let mut second = room.enter(address(1));
    let mut other = room.enter(address(2));
    assert!(has_turn(&mut first) && !has_turn(&mut second) && has_turn(&mut other));
    drop(first);
    assert!(has_turn(&mut second));
}

#[test]
fn whom_we_know_share_freely_and_hold_what_they_announce() {
    let room = Room::shared(6 * MIB, 2);
    let mut places: Vec<Place> = (0..3).map(|_| room.enter(address(1))).collect();
    let reserved: Vec<bool> = places.iter_mut().map(|place| reserves(place, 3 * MIB)).collect();
    assert_eq!(reserved, [true, true, false]);
    assert!(takes(&mut places[0], 3 * MIB), "it is held already");
    assert_eq!(left(&room), 0);
    assert!(has_turn(&mut places[0]) && has_turn(&mut places[1]) && !has_turn(&mut places[2]));
}

#[test]
fn addresses_are_forgotten_with_their_last_question_and_are_one_in_both_forms() {
    let room = Room::divided(12 * MIB, 1, 3 * MIB);
    let mapped = Some("::ffff:10.244.1.1".parse().unwrap());
    let (one, two) = (room.enter(address(1)), room.enter(mapped));
    assert_eq!(room.addresses().len(), 1);
    drop(one);
    assert_eq!(room.addresses().len(), 1);
    drop(two);
    assert!(room.addresses().is_empty());
    assert!(room.enter(None).share.is_some(), "who has none shares with whoever has none");
    assert_eq!(Arc::strong_count(&room), 1, "a place that is gone holds nothing");
}
