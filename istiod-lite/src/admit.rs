//! The validating admission webhook: what the API server asks before it stores an object of the mesh.
//!
//! The validator is that of the folder source: shape and values as manifests are read (`ambit-manifest`), what cannot be
//! reduced for the index (`ingest`), what cannot be compiled (`ambit-control`). A value that is wrong is refused with its
//! field; what may become right without touching the object, such as a reference to something that is not there yet, is
//! a warning. It changes nothing, so a dry run is answered like any other.
//!
//! Nobody proves who he is to a webhook. A caller learns what is wrong in the object he sent; what the mesh has beside it
//! is told to the addresses of the API servers only.

pub mod bundle;
pub mod config;
mod judge;
mod prune;
mod review;
mod room;
mod server;

pub use config::Webhook;
pub use judge::{Caller, Cause, Verdict, judge};
pub use review::{Operation, Request, Review};
pub use server::{AdmitError, AdmitParts, serve};
