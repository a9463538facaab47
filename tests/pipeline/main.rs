//! From manifests to decisions without a socket: the whole of what the mesh thinks, in one call.
//!
//! Bytes on sockets are the loopback tests' affair, packets those of the namespace tests.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test tells people what it measured")]

mod alerts;
mod change;
mod istiod;
mod manifests;
mod mesh;
mod policies;
mod reasons;
mod services;
