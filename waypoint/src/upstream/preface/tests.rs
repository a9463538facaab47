//! When an endpoint has greeted, however its bytes are cut.

use super::{Greeting, HEAD_BYTES, Room};

const NEW: Greeting = Greeting::Head([0; HEAD_BYTES], 0);

fn after(bytes: &[u8], step: usize) -> Greeting {
    let mut greeting = NEW;
    for part in bytes.chunks(step) {
        greeting.take(part);
    }
    greeting
}

#[test]
fn settings_are_read_however_they_are_cut() {
    let empty = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let one = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 7];
    for step in 1..=15 {
        assert_eq!(after(&empty, step), Greeting::Read, "empty by {step}");
        assert_eq!(after(&one, step), Greeting::Read, "one by {step}");
        assert_ne!(after(&one[..14], step), Greeting::Read, "short by {step}");
    }
    let followed = [&one[..], &[0, 0, 0, 4, 1, 0, 0, 0, 0]].concat();
    assert_eq!(after(&followed, 64), Greeting::Read);
}

#[test]
fn another_first_frame_is_no_greeting() {
    assert_eq!(after(b"HTTP/1.1 400 Bad Request\r\n\r\n", 5), Greeting::Wrong);
    assert_eq!(after(&[0, 0, 0, 6, 0, 0, 0, 0, 0], 9), Greeting::Wrong);
}

#[test]
fn there_is_no_room_before_it_is_known() {
    let room = Room::new();
    assert_eq!(room.streams_max(), 0);
    assert!(room.set(usize::MAX));
    assert_eq!(room.streams_max(), u32::MAX);
    assert!(!room.set(usize::MAX));
    assert!(room.set(3));
    assert_eq!(room.streams_max(), 3);
}
