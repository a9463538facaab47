//! The waypoint on loopback: real TLS, tunnels and HTTP on both sides, with proxies and applications of the test.

#![expect(clippy::unwrap_used, reason = "tests")]

mod rig;

#[path = "cases/authorizers.rs"]
mod authorizers;
#[path = "cases/bodies.rs"]
mod bodies;
#[path = "cases/bypass.rs"]
mod bypass;
#[path = "cases/carried.rs"]
mod carried;
#[path = "cases/connections.rs"]
mod connections;
#[path = "cases/consumer.rs"]
mod consumer;
#[path = "cases/front.rs"]
mod front;
#[path = "cases/hostile.rs"]
mod hostile;
#[path = "cases/keys.rs"]
mod keys;
#[path = "cases/limits.rs"]
mod limits;
#[path = "cases/passing.rs"]
mod passing;
#[path = "cases/pieces.rs"]
mod pieces;
#[path = "cases/policy.rs"]
mod policy;
#[path = "cases/resilience.rs"]
mod resilience;
#[path = "cases/routing.rs"]
mod routing;
#[path = "cases/series.rs"]
mod series;
#[path = "cases/sessions.rs"]
mod sessions;
#[path = "cases/shares.rs"]
mod shares;
#[path = "cases/streams.rs"]
mod streams;
#[path = "cases/tracing.rs"]
mod tracing;
#[path = "cases/workloads.rs"]
mod workloads;
