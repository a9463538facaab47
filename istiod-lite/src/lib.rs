//! The control plane of the Ambit mesh: reads configuration, compiles it, serves it, issues certificates.
//!
//! Decisions live in ambit-control; this program gathers facts, asks, and carries out. It never touches a data
//! packet.

pub mod ca;
pub mod ingest;
pub mod world;
