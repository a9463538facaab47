//! What only Linux offers: network namespaces and the socket options the standard library does not name.
//!
//! The only home of `unsafe` in the workspace. Nothing here decides; callers say which namespace and option.

pub mod netns;
pub mod readiness;
pub mod sockopt;
pub mod tcp_table;
