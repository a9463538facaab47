//! A Kubernetes API server as a source of objects, and as a place to write them.
//!
//! Reading: [`watch`] follows kinds of objects and hands on what changed, as `ambit-folder` does for files. Writing:
//! [`mod@write`] applies, creates and deletes; [`lease`] elects the one replica that writes. What an object means is not
//! known here.

#![warn(clippy::wildcard_enum_match_arm)]

pub mod client;
mod error;
pub mod lease;
pub mod resource;
pub mod served;
pub mod watch;
pub mod write;

#[cfg(test)]
mod testing;

pub use error::{Call, KubeError};
