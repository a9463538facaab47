//! What a node knows of the mesh, and what follows from it for one connection.
//!
//! Pure: [`World`] is the single writer and turns batches of discovery updates into immutable [`Snapshot`]s; plans
//! and verdicts are functions of a snapshot and facts. [`waypoint`] is the same for what a waypoint goes by, which is a
//! snapshot with routes and policies. Draws are arguments. It opens nothing, waits for nothing
//! and does not know how updates are encoded.

pub mod change;
pub mod passes;
mod pick;
pub mod plan;
mod policies;
pub mod reauthorize;
mod services;
pub mod snapshot;
#[cfg(test)]
mod testing;
pub mod waypoint;
mod workloads;
pub mod world;

pub use change::Change;
pub use passes::{Moment, Passes};
pub use plan::Refusal;
pub use plan::inbound::{
    Authority, HboneFacts, HboneRefusal, HboneTarget, MeshedPlaintext, PlainFacts, PlainPlan,
    plan_inbound_hbone, plan_inbound_plain,
};
pub use plan::outbound::{OutboundFacts, OutboundPlan, SameNode, plan_outbound};
pub use reauthorize::{
    Admission, Open, applicable, authorize, explain, reauthorize, speaks_for_others, speaks_for_others_at,
};
pub use services::ServiceEntry;
pub use snapshot::{PodRef, Snapshot};
pub use world::{Applied, World};
