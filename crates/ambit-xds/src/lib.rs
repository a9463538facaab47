//! The wire formats between control plane, node agent and data plane: messages, their meaning, their state machines.
//!
//! No sockets, no gRPC, no clock: whoever moves the bytes calls in here and carries out what comes back.

pub mod any;
pub mod client;
pub mod codec;
pub mod ext_authz;
mod kind;
pub mod names;
pub mod node;
pub mod observe;
pub mod parts;
pub mod proto;
pub mod server;

pub use kind::Kind;
