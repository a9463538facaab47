//! HBONE: HTTP/2 CONNECT over mutual TLS, as messages and decisions without sockets.
//!
//! What a CONNECT says and how it is answered, and which tunnel of a pool carries a new stream. The driver that
//! moves bytes lives in `ambit-net`.

#![warn(clippy::wildcard_enum_match_arm)]

pub mod authority;
pub mod baggage;
pub mod conn_id;
pub mod context;
pub mod forwarded;
pub mod pool;
pub mod request;
pub mod response;

pub use authority::Authority;
pub use baggage::Baggage;
pub use conn_id::ConnId;

/// Port on which workloads take HBONE.
pub const INBOUND_PORT: u16 = 15008;
/// Port to which a pod's outgoing connections are redirected.
pub const OUTBOUND_CAPTURE_PORT: u16 = 15001;
/// Port to which a pod's incoming plaintext connections are redirected.
pub const INBOUND_CAPTURE_PORT: u16 = 15006;
