//! Which frames count, however their bytes are cut.

use super::{END_STREAM, HEADERS, HEADS_MAX, Heads, REMEMBERED};

const DATA: u8 = 0;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn heads(stream: u32, count: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, b"block").repeat(usize::try_from(count).unwrap())
}

fn is_sound(bytes: &[u8], step: usize) -> bool {
    let mut heads = Heads::default();
    bytes.chunks(step).all(|part| heads.take(part))
}

#[test]
fn more_heads_than_a_response_may_have_are_seen_however_they_are_cut() {
    // What is in a payload is no frame.
    let body = frame(DATA, 0, 1, &heads(1, 20));
    let last = frame(HEADERS, END_HEADERS | END_STREAM, 1, b"trailers");
    let sound = [heads(1, HEADS_MAX), body, last, heads(3, HEADS_MAX)].concat();
    let excessive = [&sound[..], &heads(3, 1)].concat();
    for step in [1, 2, 7, 9, 64, excessive.len()] {
        assert!(is_sound(&sound, step), "by {step}");
        assert!(!is_sound(&excessive, step), "by {step}");
    }
}

#[test]
fn empty_payloads_are_passed() {
    let bytes = [frame(4, 0, 0, b""), frame(HEADERS, END_HEADERS, 1, b"")].concat();
    assert!(is_sound(&bytes, bytes.len()));
    assert!(!is_sound(&frame(HEADERS, 0, 1, b"").repeat(10), 9));
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut heads = Heads::default();
    for stream in (1..20_000).step_by(2) {
        assert!(heads.take(&frame(HEADERS, END_HEADERS, stream, b"block")));
    }
    assert_eq!(heads.counts.len(), REMEMBERED);
}
