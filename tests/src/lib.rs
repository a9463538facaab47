//! What the tests of several programs share: tables of cases, a test CA, a node's proxy, peers that misbehave or are
//! not ours.
//!
//! Nothing here decides whether a test passes; that stands in the tests.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test tells people what it could not run and what it kept"
)]

pub mod certs;
pub mod corpus;
pub mod fakes;
pub mod lab;
pub mod node;
pub mod outputs;
pub mod peers;
pub mod schema;
pub mod tables;
