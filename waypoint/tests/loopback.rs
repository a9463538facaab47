//! The waypoint on loopback: real TLS, tunnels and HTTP on both sides, with proxies and applications of the test.

#![expect(clippy::unwrap_used, reason = "tests")]

mod rig;

#[path = "cases/bypass.rs"]
mod bypass;
#[path = "cases/hostile.rs"]
mod hostile;
#[path = "cases/passing.rs"]
mod passing;
#[path = "cases/policy.rs"]
mod policy;
#[path = "cases/resilience.rs"]
mod resilience;
#[path = "cases/routing.rs"]
mod routing;
#[path = "cases/streams.rs"]
mod streams;
