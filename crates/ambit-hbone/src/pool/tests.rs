//! Rows of what the pool does; G34 names the traps of pools that leak slots or leave waiters hanging.

use std::time::{Duration, Instant};

use super::{Acquire, Limits, Tunnels};

fn limits(streams: u32) -> Limits {
    Limits { streams_per_tunnel: streams, opening_max: 2, idle_timeout: Duration::from_secs(10) }
}

#[expect(clippy::disallowed_methods, reason = "a starting point for virtual time")]
fn start() -> Instant {
    Instant::now()
}

#[test]
fn slots_of_ended_streams_are_used_again() {
    let (limits, now) = (limits(2), start());
    let mut pool = Tunnels::default();
    assert_eq!(pool.acquire(&limits), Acquire::Open);
    pool.opened(1, 200, &limits);
    assert_eq!(pool.acquire(&limits), Acquire::Reuse(1));
    assert_eq!(pool.acquire(&limits), Acquire::Open);
    pool.opened(2, 200, &limits);
    pool.released(1, now);
    // G34: the full tunnel takes streams again.
    assert_eq!(pool.acquire(&limits), Acquire::Reuse(2));
    assert_eq!(pool.acquire(&limits), Acquire::Reuse(1));
}

#[test]
fn a_peers_lower_limit_holds() {
    let limits = limits(100);
    let mut pool = Tunnels::default();
    assert_eq!(pool.acquire(&limits), Acquire::Open);
    pool.opened(1, 1, &limits);
    assert_eq!(pool.acquire(&limits), Acquire::Open);
}

#[test]
fn waiters_are_not_promised_more_than_is_opening() {
    let limits = limits(2);
    let mut pool = Tunnels::default();
    assert_eq!(pool.acquire(&limits), Acquire::Open);
    assert_eq!(pool.acquire(&limits), Acquire::Wait);
    assert_eq!(pool.acquire(&limits), Acquire::Open);
    assert_eq!(pool.acquire(&limits), Acquire::Wait);
    assert_eq!(pool.acquire(&limits), Acquire::Wait, "no more than opening_max at once");
    // G34: a failed opening lets the waiters try again.
    pool.failed();
    pool.failed();
    for _ in 0..3 {
        pool.woke();
    }
    assert_eq!(pool.acquire(&limits), Acquire::Open);
}

#[test]
fn leaving_and_idle_tunnels_go() {
    let (limits, now) = (limits(2), start());
    let mut pool = Tunnels::default();
    assert_eq!(pool.acquire(&limits), Acquire::Open);
    pool.opened(1, 9, &limits);
    pool.leaving(1);
    assert_eq!(pool.acquire(&limits), Acquire::Open);
    pool.opened(2, 9, &limits);
    pool.released(1, now);
    assert_eq!(pool.expire(now, &limits), [1], "a leaving tunnel goes with its last stream");
    pool.released(2, now);
    assert_eq!(pool.expire(now + Duration::from_secs(9), &limits), [] as [u64; 0]);
    assert_eq!(pool.expire(now + Duration::from_secs(10), &limits), [2]);
    assert!(pool.is_unused());
}
