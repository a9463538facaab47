//! gRPC between node and control plane: moves the messages of ambit-xds, decides nothing about them.

pub mod attend;
pub mod ca_client;
pub mod channel;
pub mod follow;
pub mod services;
pub mod xds_stream;
