//! A namespace with a waypoint: real requests of real clients through the real programs, counted at both ends.
//!
//! One rig (`shop`), one module for each group of rows. What an upstream counted is asked in its own pod, where nothing
//! of the mesh is in between.

mod authorizers;
mod browser;
mod bypass;
mod called;
mod changes;
mod clients;
mod conditions;
mod hostile;
mod limits;
mod loss;
mod resilience;
mod routing;
pub(crate) mod shop;
mod streams;
mod tables;
mod telemetry;
mod withdrawn;
