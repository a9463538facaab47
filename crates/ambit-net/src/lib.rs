//! Everything that touches a socket: listeners, TLS, tunnels, gRPC, relays, network namespaces.
//!
//! This crate carries out plans; it does not know why. It never reads policy, routes or workload state.

pub mod dns;
pub mod grpc;
pub mod linux;
pub mod pool_driver;
pub mod relay;
pub mod seqpacket;
mod slab;
pub mod socket;
pub mod tls;
pub mod tunnel;
