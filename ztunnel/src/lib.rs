//! ztunnel: carries the TCP traffic of a node's enrolled pods, with sockets opened inside each pod's namespace.
//!
//! Reads nothing of what it carries and never talks to the Kubernetes API.

pub mod admin;
pub mod admit;
pub mod app;
pub mod attend;
pub mod config;
pub mod connections;
pub mod flow;
pub mod heard;
pub mod identity;
pub mod inbound;
pub mod inpod;
pub mod legacy;
pub mod lookups;
pub mod mesh;
pub mod nearby;
pub mod outbound;
pub mod passthrough;
pub mod proxy;
pub mod random;
pub mod sealed;
pub mod selftest;
pub mod sources;
pub mod stale;
pub mod telemetry;
pub mod writer;
pub mod xds;
