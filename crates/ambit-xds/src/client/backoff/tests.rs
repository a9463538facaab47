//! Waits double, spread, and begin anew after a healthy stream.

use super::*;

/// A draw in the middle: the wait is the doubling value itself.
const MIDDLE: u32 = u32::MAX / 2;

#[test]
fn waits_double_up_to_the_longest() {
    let mut backoff = Backoff::new(Limits::default());
    let waits: Vec<u128> = (0..8).map(|_| backoff.after(Duration::ZERO, MIDDLE).as_millis()).collect();
    let near = |wait: &u128, want: &u128| wait.abs_diff(*want) <= 1;
    let want = [20, 40, 80, 160, 320, 640, 800, 800];
    assert!(waits.iter().zip(&want).all(|(wait, want)| near(wait, want)), "{waits:?}");
}

#[test]
fn a_draw_spreads_the_wait_and_no_wait_is_zero() {
    let mut low = Backoff::new(Limits::default());
    let mut high = Backoff::new(Limits::default());
    for _ in 0..10 {
        let (low, high) = (low.after(Duration::ZERO, 0), high.after(Duration::ZERO, u32::MAX));
        assert!(low > Duration::ZERO && high >= low * 2, "{low:?} {high:?}");
    }
    let limits = Limits { first: Duration::ZERO, ..Limits::default() };
    assert!(Backoff::new(limits).after(Duration::ZERO, 0) > Duration::ZERO, "G47: every failure waits");
}

#[test]
fn only_a_healthy_stream_begins_anew() {
    let mut backoff = Backoff::new(Limits::default());
    (0..6).for_each(|_| assert!(backoff.after(Duration::ZERO, MIDDLE) > Duration::ZERO));
    let short = backoff.after(Duration::from_secs(9), MIDDLE);
    let healthy = backoff.after(Duration::from_secs(10), MIDDLE);
    assert!(
        short > Duration::from_millis(700) && healthy < Duration::from_millis(30),
        "{short:?} {healthy:?}"
    );
}

#[test]
fn the_longest_wait_finds_a_control_plane_that_is_back_within_two_seconds() {
    let mut backoff = Backoff::new(Limits::default());
    let longest = (0..20).map(|_| backoff.after(Duration::ZERO, u32::MAX)).max().unwrap();
    assert!(longest < Duration::from_millis(1500), "{longest:?}");
}
