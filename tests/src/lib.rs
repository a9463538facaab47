//! What the tests of several programs share: tables of cases, a test CA, peers that misbehave.
//!
//! Nothing here decides whether a test passes; that stands in the tests.

pub mod certs;
pub mod fakes;
pub mod lab;
pub mod tables;
