//! What becomes of small pieces, and how many are taken.

use super::*;

#[expect(clippy::disallowed_methods, reason = "a place to count from; no test waits")]
fn start() -> Instant {
    Instant::now()
}

/// As many pieces as come in a window that begins now.
fn window(pace: &mut Pace, begun: Instant, count: u32) {
    for n in 0..count {
        pace.took(begun + WINDOW * n / (count + 1));
    }
}

#[test]
fn pieces_are_joined_in_their_order_and_one_alone_is_not_copied() {
    let mut pieces = Pieces::default();
    assert!(pieces.is_empty());
    let alone = Bytes::from(vec![1; 100]);
    let at = alone.as_ptr();
    pieces.push(alone);
    let (taken, count) = pieces.take();
    assert_eq!((taken.as_ptr(), taken.len(), count), (at, 100, 1));
    for piece in [&b"a"[..], b"", b"bc", b"d"] {
        pieces.push(Bytes::from_static(piece));
    }
    let (taken, count) = pieces.take();
    assert_eq!((&taken[..], count), (&b"abcd"[..], 4));
    assert!(pieces.is_empty() && pieces.take() == (Bytes::new(), 0));
}

#[test]
fn what_goes_on_together_is_bounded_in_bytes_and_in_pieces() {
    let mut pieces = Pieces::default();
    for n in 0..UNIT_PIECES {
        assert!(!pieces.is_full(), "{n} pieces");
        pieces.push(Bytes::from_static(b"x"));
    }
    assert!(pieces.is_full());
    pieces.take();
    pieces.push(Bytes::from(vec![0; 255]));
    assert!(pieces.has_room(UNIT_BYTES - 255) && !pieces.has_room(UNIT_BYTES - 254));
    pieces.push(Bytes::from(vec![0; UNIT_BYTES - 255]));
    assert!(pieces.is_full());
}

#[test]
fn few_pieces_are_never_held_back() {
    let mut pace = Pace::default();
    let begun = start();
    for n in 0..20 {
        window(&mut pace, begun + WINDOW * n, FREE);
        assert!(!pace.is_excessive() && !pace.is_spent(), "window {n}");
    }
}

#[test]
fn many_pieces_are_held_back_as_long_as_so_many_come() {
    let mut pace = Pace::default();
    let begun = start();
    window(&mut pace, begun, FREE + 1);
    assert!(pace.is_excessive() && !pace.is_spent());
    // The first of the next window already.
    pace.took(begun + WINDOW);
    assert!(pace.is_excessive());
    // And not any more behind a window with few.
    pace.took(begun + WINDOW * 2);
    assert!(!pace.is_excessive());
    window(&mut pace, begun + WINDOW * 10, FREE + 1);
    assert!(pace.is_excessive());
    // Nor after a pause.
    pace.took(begun + WINDOW * 30);
    assert!(!pace.is_excessive());
}

#[tokio::test]
async fn beyond_the_bound_none_is_taken_until_the_window_is_over() {
    let mut pace = Pace::default();
    let begun = clock::monotonic();
    for n in 0..MOST {
        assert!(!pace.is_spent(), "{n} pieces");
        pace.took(begun);
    }
    assert!(pace.is_spent());
    std::future::poll_fn(|cx| pace.poll_turn(cx)).await;
    assert!(clock::monotonic() >= begun + WINDOW);
    assert!(!pace.is_spent());
}
