//! What the mesh should know, computed from what people wrote: objects in, workloads, services and policies out.
//!
//! [`Index`] is incremental: a batch of changed objects yields exactly the records that differ. It also answers
//! which identities a node may have ([`csr`]). Nothing here reads files, speaks to an API server, knows the wire
//! format or signs anything; objects arrive reduced to the few fields that matter ([`input`]).

#![warn(clippy::wildcard_enum_match_arm)]

pub mod csr;
pub mod diff;
mod egress;
pub mod import;
pub mod index;
pub mod input;
mod policies;
mod pool;
mod routes;
mod services;
pub mod status;
pub mod waypoints;
mod workloads;

pub use diff::Delta;
pub use index::{Index, Settings};
pub use input::{Event, Name, Object};
pub use status::{Standing, Status};
