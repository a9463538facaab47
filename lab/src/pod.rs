//! Pods: what one is made of, its namespace and files, and its life from start to removal.
//!
//! Readiness and phases are the kubelet's; this module says only which containers run and how they ended.

pub mod life;
pub mod plan;
pub mod sandbox;
pub mod state;
pub mod volume;

pub use plan::PodPlan;
pub use sandbox::Sandbox;
pub use state::{ContainerState, PodState};
