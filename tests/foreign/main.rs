//! Tunnels with peers that are not ours: a real Envoy, and python's `h2` on top of OpenSSL, both ways over 127.0.0.1.
//!
//! Says so and passes where the peers are not installed, fails there when `AMBIT_REQUIRE_PEERS=1`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test tells people what it measured")]

mod apps;
mod envoy_asks;
mod envoy_serves;
mod script_asks;
mod script_serves;
