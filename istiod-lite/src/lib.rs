//! The control plane of the Ambit mesh: reads configuration, compiles it, serves it, issues certificates.
//!
//! Decisions live in ambit-control; this program gathers facts, asks, and carries out. It never touches a data
//! packet.

pub mod admit;
pub mod app;
pub mod ca;
pub mod config;
pub mod console;
mod follower;
pub mod ingest;
pub mod kube;
pub mod lead;
mod listen;
pub mod observe;
mod passes;
pub mod push;
pub mod report;
pub mod tls;
pub mod watch;
pub mod world;
