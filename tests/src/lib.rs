//! What the tests of several programs share: tables of cases, a test CA, peers that misbehave.
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
pub mod tables;
